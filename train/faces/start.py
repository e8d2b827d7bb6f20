"""A training of a network that finds faces, as people ask for it: `edgefer train --recipe face-finder`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from edgefer.bundle import CARD, Bundle, new_directory, shipped_networks
from edgefer.errors import EdgeferError, InputError
from edgefer.progress import SILENT, Progress
from edgefer.train.data.cache import cache_folder
from edgefer.train.faces.recipe import load_face_recipe
from edgefer.train.faces.run import FaceOrder, Mine, train_faces


def new_order(
    recipe: str, overrides: Sequence[str], data: str, teacher: Path, out: Path | None
) -> tuple[Path, FaceOrder]:
    """A new training's folder and order. teacher: YuNet's .onnx. InputError for what is not there, or is there already."""
    if not data or not Path(data).is_dir():
        raise InputError(f"--data {data!r}: name a folder that holds archives or folders of images.")
    if not teacher.is_file():
        raise InputError(f"There is no {teacher}: the teacher is YuNet, whose .onnx is named with --yunet FILE.")
    loaded = load_face_recipe(recipe, tuple(overrides))
    folder = out or new_directory(Path("runs"), loaded.name)
    if folder.exists():
        raise InputError(f"{folder} already holds something: choose another --out, or --resume --out {folder}.")
    return folder, FaceOrder(recipe=loaded, data=str(Path(data).absolute()), teacher=str(teacher.absolute()))


def resumed(out: Path | None) -> tuple[Path, FaceOrder]:
    """The training to go on with. InputError when none is named, or it is finished."""
    if out is None:
        raise InputError("Name the training to go on with: --resume --out DIR.")
    if (out / CARD).exists():
        raise InputError(f"{out} is a finished bundle: there is nothing to resume.")
    return out, FaceOrder.load(out)


def start(
    order: FaceOrder,
    folder: Path,
    finder: Path | None,
    miner: Callable[[Bundle], Mine],
    *,
    progress: Progress = SILENT,
) -> Bundle:
    """Train as ordered. finder: the bundle whose candidates a refiner learns from, the shipped one when left out; miner
    makes of it what finds them. EdgeferError, with the command that goes on, when it is interrupted."""
    mine = None
    if order.recipe.task == "refine-faces":
        path = finder or shipped_networks().get("face-finder")
        mine = miner(Bundle.open(path)) if path else None
    try:
        return train_faces(order, folder, cache_folder() / "faces", mine=mine, progress=progress)
    except KeyboardInterrupt:
        raise EdgeferError(f"Stopped. Continue with: edgefer train --resume --out {folder}") from None
