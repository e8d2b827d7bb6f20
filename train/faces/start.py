"""A training of a network that finds faces, as people ask for it: `edgefer train --recipe face-finder`."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from edgefer.bundle import CARD, Bundle, Form, new_directory, path_or_shipped, shipped_networks
from edgefer.errors import EdgeferError, InputError
from edgefer.files import without_empty_folders
from edgefer.progress import SILENT, Progress
from edgefer.train.data.cache import cache_folder
from edgefer.train.faces.recipe import load_face_recipe
from edgefer.train.faces.run import FaceOrder, MineCandidates, train_faces
from edgefer.train.run import RunFolder
from edgefer.train.start import TrainRequest

# Of a request, what has a meaning here.
MEANT = {"data", "recipe", "epochs", "batch_size", "seed", "set", "init_from", "teacher"}


def new_order(request: TrainRequest, teacher: Path, out: Path | None) -> tuple[Path, FaceOrder]:
    """A new training's folder and order. teacher: YuNet's .onnx. InputError for what is not there, or is there already, and
    for what has no meaning for such a network."""
    usual = TrainRequest(data=request.data)
    for name in (field.name for field in fields(request) if field.name not in MEANT):
        if getattr(request, name) != getattr(usual, name):
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} has no meaning for {request.recipe}, which learns from boxes: leave it out.")
    if not Path(request.data).is_dir():
        raise InputError(f"--data {request.data!r}: name a folder that holds archives or folders of images.")
    if not teacher.is_file():
        raise InputError(f"There is no {teacher}: the teacher is YuNet, whose .onnx is named with --yunet FILE.")
    loaded = load_face_recipe(request.recipe, request.changes)
    if request.teacher and loaded.task != "refine-faces":
        raise InputError("--teacher is the finder whose candidates a refiner learns from: leave it out for a finder.")
    begin = _network(request.init_from, loaded.task, "--init-from")
    finder = _network(request.teacher, "find-faces", "--teacher")
    folder = out or new_directory(Path("runs"), loaded.name)
    if folder.exists() and not RunFolder(folder).blank:
        raise InputError(f"{folder} already holds something: choose another --out, or --resume --out {folder}.")
    data = str(Path(request.data).absolute())
    return folder, FaceOrder(recipe=loaded, data=data, teacher=str(teacher.absolute()), finder=finder, begin=begin)


def _network(name: str, task: str, option: str) -> str:
    """The path of a bundle that does that task, "" for none."""
    if not name:
        return ""
    bundle = Bundle.open(path_or_shipped(Path(name), shipped_networks()))
    if bundle.card.task != task:
        raise InputError(f"{option} {name!r} is a network of task {bundle.card.task!r}: name one of {task!r}.")
    if option == "--init-from":
        bundle.file(Form.KERAS)  # a sentence where there is none
    return str(bundle.path.absolute())


def is_face_run(folder: Path) -> bool:
    """Whether the training in a folder is one of these."""
    return RunFolder(folder).face_order.is_file()


def resumed(folder: Path) -> FaceOrder:
    """The order of the training to go on with. InputError when it is finished."""
    if (folder / CARD).exists():
        raise InputError(f"{folder} is a finished bundle: there is nothing to resume.")
    return FaceOrder.load(folder)


def start(
    order: FaceOrder, folder: Path, miner: Callable[[Bundle], MineCandidates], *, progress: Progress = SILENT
) -> Bundle:
    """Train as ordered. miner: makes a function that mines candidates from a finder's bundle. EdgeferError, with the command that
    goes on, when it is interrupted."""
    mine_candidates = None
    if order.recipe.task == "refine-faces":
        path = Path(order.finder) if order.finder else shipped_networks().get("face-finder")
        mine_candidates = miner(Bundle.open(path)) if path else None
    try:
        with without_empty_folders(folder.absolute()), RunFolder(folder).held():
            return train_faces(
                order, folder, cache_folder() / "faces", mine_candidates=mine_candidates, progress=progress
            )
    except KeyboardInterrupt:
        if not is_face_run(folder):
            raise EdgeferError("Stopped before training began: start it again with the same command.") from None
        raise EdgeferError(f"Stopped. Continue with: edgefer train --resume --out {folder}") from None
