"""Face trainings from names and paths, as `edgefer train --recipe face-finder` and edgefer.train start them."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from edgefer.bundle import Bundle, Form, new_directory, shipped_networks
from edgefer.errors import InputError, Interrupted
from edgefer.files import without_empty_folders
from edgefer.progress import SILENT, Progress
from edgefer.train.config import bundle_for
from edgefer.train.data.cache import cache_folder
from edgefer.train.faces.recipe import load_face_recipe
from edgefer.train.faces.run import FaceConfig, MineCandidates, train_faces
from edgefer.train.run import RunFolder
from edgefer.train.start import TrainRequest

# The fields of a request that apply to a face training.
USED = {"data", "recipe", "epochs", "batch_size", "seed", "set", "init_from", "teacher"}


def new_config(request: TrainRequest, teacher: Path, out: Path | None) -> tuple[Path, FaceConfig]:
    """The folder and configuration of a new training. teacher: YuNet's .onnx.

    InputError for a file or bundle that does not exist, a folder that is taken, and an option that face trainings do
    not have.
    """
    defaults = TrainRequest(data=request.data)
    for name in (field.name for field in fields(request) if field.name not in USED):
        if getattr(request, name) != getattr(defaults, name):
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} has no meaning for {request.recipe}, which learns from boxes: leave it out.")
    if not Path(request.data).is_dir():
        raise InputError(f"--data {request.data!r}: name a folder that holds archives or folders of images.")
    if not teacher.is_file():
        raise InputError(f"There is no {teacher}: the teacher is YuNet, whose .onnx is named with --yunet FILE.")
    recipe = load_face_recipe(request.recipe, request.changes)
    if request.teacher and recipe.task != "refine-faces":
        raise InputError("--teacher is the finder whose candidates a refiner learns from: leave it out for a finder.")
    init_from = _bundle_path(request.init_from, recipe.task, "--init-from")
    finder = _bundle_path(request.teacher, "find-faces", "--teacher")
    folder = out or new_directory(Path("runs"), recipe.name)
    if folder.exists() and not RunFolder(folder).blank:
        raise InputError(f"{folder} already holds something: choose another --out, or --resume --out {folder}.")
    data = str(Path(request.data).absolute())
    config = FaceConfig(recipe=recipe, data=data, teacher=str(teacher.absolute()), finder=finder, init_from=init_from)
    return folder, config


def _bundle_path(name: str, task: str, option: str) -> str:
    """The path of a bundle of that task, "" for none."""
    if not name:
        return ""
    bundle = bundle_for(task, name, option)
    if option == "--init-from":
        bundle.file(Form.KERAS)  # raises where there is none
    return str(bundle.path.absolute())


def is_face_run(folder: Path) -> bool:
    """Whether a folder holds a face training."""
    return RunFolder(folder).finds_faces


def resumed(folder: Path) -> FaceConfig:
    """The configuration of a training to resume. InputError when it is finished."""
    if RunFolder(folder).finished:
        raise InputError(f"{folder} is a finished bundle: there is nothing to resume.")
    return FaceConfig.load(folder)


def start(
    config: FaceConfig, folder: Path, miner: Callable[[Bundle], MineCandidates], *, progress: Progress = SILENT
) -> Bundle:
    """Train into `folder`. miner: makes a function that mines candidates from a finder's bundle.

    Interrupted, with the command to resume by, on Ctrl-C.
    """
    mine_candidates = None
    if config.recipe.task == "refine-faces":
        path = Path(config.finder) if config.finder else shipped_networks().get("face-finder")
        mine_candidates = miner(Bundle.open(path)) if path else None
    try:
        with without_empty_folders(folder.absolute()), RunFolder(folder).session():
            return train_faces(
                config, folder, cache_folder() / "faces", mine_candidates=mine_candidates, progress=progress
            )
    except KeyboardInterrupt:
        if RunFolder(folder).finished:
            raise Interrupted(f"Stopped; {folder} is a finished bundle.") from None
        if not is_face_run(folder):
            raise Interrupted("Stopped before training began: start it again with the same command.") from None
        raise Interrupted(f"Stopped. Continue with: edgefer train --resume --out {folder}") from None
