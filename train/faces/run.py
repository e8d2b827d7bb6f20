"""A training of a network that finds faces, from a folder of pictures to a bundle."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import Bundle, Form, write_bundle
from edgefer.card import InputSpec, ModelCard, Provenance
from edgefer.errors import DataError, InputError
from edgefer.faces import FINDER_LABELS, REFINER_LABELS, REFINER_SIDE, overlaps
from edgefer.files import write_file
from edgefer.options import as_record
from edgefer.progress import SILENT, Progress
from edgefer.text import printable
from edgefer.train.backend import versions
from edgefer.train.config import parse_first
from edgefer.train.data.rows import utf8
from edgefer.train.faces import losses, networks, tasks
from edgefer.train.faces.fit import FitTask, fit
from edgefer.train.faces.gallery import Picture
from edgefer.train.faces.holdout import FaceData, split_sources
from edgefer.train.faces.recipe import CHECKPOINT_STEPS, FaceRecipe
from edgefer.train.faces.scenes import read_scenes
from edgefer.train.faces.targets import cell_grid
from edgefer.train.networks import keras_bytes, load_keras
from edgefer.train.run import RunFolder

if TYPE_CHECKING:
    import tf_keras

POSITIVE_SHARE = 0.35  # of the candidates that are faces, to train a refiner on; of those that are none, all
CALIBRATION_IMAGES = 256
ANNOTATIONS = "the annotation of their faces (boxes.json, YuNet, the finder)"

Candidates = list[tuple[Picture, np.ndarray]]  # boxes float64 [4] that a finder proposed in an image
MineCandidates = Callable[[Sequence[Picture]], Candidates]


@dataclass(frozen=True, kw_only=True)
class FaceConfig:
    """The configuration of a face training, kept in its folder.

    data: a folder of archives or folders of pictures; teacher: YuNet's .onnx; finder: the bundle whose candidates a
    refiner learns from, "" for the shipped one; init_from: the bundle with the initial weights, "" for random ones.
    """

    recipe: FaceRecipe
    data: str
    teacher: str
    finder: str = ""
    init_from: str = ""

    def save(self, run: Path) -> None:
        """Write it twice: without it no training can be resumed."""
        text = json.dumps(asdict(self) | {"recipe": self.recipe.model_dump()}, indent=2).encode()
        for file in (RunFolder(run).face_config, RunFolder(run).spare_face_config):
            write_file(file, text)

    @classmethod
    def load(cls, run: Path) -> "FaceConfig":
        """The configuration of a run, from the copy where the first is damaged. InputError when neither can be read."""
        folder, problem = RunFolder(run), "it is not there"
        try:
            if config := parse_first((folder.face_config, folder.spare_face_config), cls._parse):
                return config
        except InputError as error:
            problem = str(error)
        raise InputError(f"{folder.face_config} is not the configuration of a face training: {problem}.")

    @classmethod
    def _parse(cls, fields: dict) -> "FaceConfig":
        recipe = FaceRecipe.model_validate(fields.pop("recipe"))
        init_from = fields.pop("begin", fields.get("init_from", ""))  # its name in older runs
        return as_record(cls, {"finder": ""} | fields | {"init_from": init_from, "recipe": recipe})


def train_faces(
    config: FaceConfig,
    run: Path,
    cache: Path,
    *,
    mine_candidates: MineCandidates | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Train into the folder `run`, resuming what is there, and make it a bundle with the Keras network.

    mine_candidates: runs a finder on images; a refiner is trained on its candidates. DataError when there is no face to
    learn from, or the data has changed since the training was interrupted.
    """
    folder, data = RunFolder(run), load_face_data(config, cache, progress)
    progress.log(f"Training {config.recipe.name} on {config.data} into {run}")
    for line in data.summary():
        progress.log(line)
    notes = [config.recipe.fit.warmup_note, folder.check_data(data.content_hash, data.sizes)]
    config.save(run)
    candidates = _candidates(config, data, folder, mine_candidates)
    notes.append(folder.check_data(data.annotation_hash(candidates), data.sizes, derived=ANNOTATIONS))
    for note in filter(None, notes):
        progress.log(note)
    if config.recipe.task == "refine-faces":
        progress.log(
            f"{len(candidates):,} candidates of the finder to learn from"
            if candidates
            else "The finder proposes no face in these pictures: the refiner learns from random crops alone"
        )
    model = fit(
        fit_task(config, data.train, candidates),
        config.recipe.fit.schedule(),
        folder.training,
        lambda step, loss: progress.log(f"step {step:,} of {config.recipe.fit.steps:,}: loss {loss:.4f}"),
    )
    model = with_fixed_input(config.recipe, model)
    return write_bundle(run, make_card(config, data), {Form.KERAS: keras_bytes(model)})


def load_face_data(config: FaceConfig, cache: Path, progress: Progress) -> FaceData:
    """The annotated images. DataError where there is no face to learn from."""
    data = split_sources(read_scenes(Path(config.data), cache, Path(config.teacher), progress.track))
    if not any((picture.faces.target > 0).any() for picture in data.train):
        raise DataError(
            f"{config.data} has no face to learn from in its {len(data.train):,} pictures: no boxes.json marks one, and YuNet is sure "
            "of one in less than a quarter of each folder, which is then taken to have none. Add pictures of people, and "
            "keep those without faces in a folder of their own."
        )
    return data


def fit_task(config: FaceConfig, pictures: Sequence[Picture], candidates: Candidates) -> FitTask:
    """Network, loss and batches of the recipe's task."""
    recipe, pool = config.recipe.fit, tasks.pool_of(pictures)
    if config.recipe.task == "refine-faces":
        return FitTask(
            build=initialized(networks.build_refiner, config.init_from),
            loss=losses.refiner_loss,
            batch=tasks.refiner_batches(pool, candidates, count=recipe.batch_size, seed=recipe.seed),
            seed=recipe.seed,
        )
    size = networks.FINDER_SIDE
    grid = cell_grid(size)
    return FitTask(
        build=initialized(lambda: networks.build_finder(None), config.init_from),
        loss=lambda maps, targets: losses.finder_loss(maps, targets, grid),
        batch=tasks.finder_batches(pool, size=size, count=recipe.batch_size, seed=recipe.seed),
        seed=recipe.seed,
    )


def initialized(build: "Callable[[], tf_keras.Model]", init_from: str) -> "Callable[[], tf_keras.Model]":
    """A builder that gives the network the weights of a bundle, where one is named. InputError when they do not fit."""
    if not init_from:
        return build
    weights = load_keras(Bundle.open(init_from), Form.KERAS).get_weights()

    def build_initialized() -> "tf_keras.Model":
        model = build()
        if [one.shape for one in weights] != [one.shape for one in model.get_weights()]:
            raise InputError(f"{init_from} has other layers than this recipe's network: leave --init-from out.")
        model.set_weights(weights)
        return model

    return build_initialized


def _candidates(
    config: FaceConfig, data: FaceData, folder: RunFolder, mine_candidates: MineCandidates | None
) -> Candidates:
    """What a refiner is trained on beside random crops: mined once, and kept in the run's folder."""
    if mine_candidates is None or config.recipe.task != "refine-faces":
        return []
    if (kept := _load_candidates(folder.candidates, data.train)) is not None:
        return kept
    candidates = hard_candidates(mine_candidates(data.train), config.recipe.fit.seed)
    index = {id(picture): number for number, picture in enumerate(data.train)}
    content = BytesIO()
    np.savez(
        content,
        pictures=np.array([index[id(picture)] for picture, _ in candidates], np.int64),
        boxes=np.array([box for _, box in candidates], np.float64).reshape(-1, 4),
    )
    write_file(folder.candidates, content.getvalue())
    return candidates


def _load_candidates(file: Path, pictures: Sequence[Picture]) -> Candidates | None:
    """None where they were not mined yet, or the file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return [(pictures[number], box) for number, box in zip(arrays["pictures"], arrays["boxes"], strict=True)]
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return None


def hard_candidates(candidates: Candidates, seed: int) -> Candidates:
    """All false positives among a finder's candidates, and a random POSITIVE_SHARE of the true ones."""
    rng = np.random.default_rng(seed)
    chosen = []
    for picture, box in candidates:
        faces = picture.faces.boxes
        is_face = len(faces) and overlaps(box, faces).max() > tasks.FACE_IOU
        if not is_face or rng.random() < POSITIVE_SHARE:
            chosen.append((picture, box))
    return chosen


def with_fixed_input(recipe: FaceRecipe, model: "tf_keras.Model") -> "tf_keras.Model":
    """The network with the input size of its card; a finder is trained with an open one."""
    if recipe.task != "find-faces":
        return model
    fixed = networks.build_finder()
    fixed.set_weights(model.get_weights())
    return fixed


def make_card(config: FaceConfig, data: FaceData) -> ModelCard:
    """The card of the trained network."""
    recipe = config.recipe
    finds = recipe.task == "find-faces"
    side = networks.FINDER_SIDE if finds else REFINER_SIDE
    names = "\n".join(sorted(f"{one.source}/{one.name}" for one in data.holdout)).encode(errors="surrogateescape")
    start = [f"begin with the weights of {Path(config.init_from).name}"] if config.init_from else []
    return ModelCard(
        name=recipe.name,
        task=recipe.task,
        labels=FINDER_LABELS if finds else REFINER_LABELS,
        input=InputSpec(height=side, width=side, color="gray"),
        provenance=Provenance(
            data=", ".join(sorted({printable(utf8(one.source)) for one in data.train})),
            split_sizes={"train": len(data.train), "held apart": len(data.holdout)},
            held_images=hashlib.sha256(names).hexdigest() if data.holdout else "",
            recipe=recipe.model_dump(),
            seed=recipe.fit.seed,
            epoch=max(1, recipe.fit.steps // CHECKPOINT_STEPS),
            versions=versions(),
            steps=(*start, "train"),
        ),
    )


def calibration_images(config: FaceConfig, cache: Path, progress: Progress = SILENT) -> np.ndarray:
    """Augmented training images, to calibrate int8 on: uint8 [n, h, w, 1]."""
    pool = tasks.pool_of(load_face_data(config, cache, progress).train)
    if config.recipe.task == "find-faces":
        batch = tasks.finder_batches(pool, size=networks.FINDER_SIDE, count=CALIBRATION_IMAGES, seed=9)
    else:
        batch = tasks.refiner_batches(pool, [], count=2 * CALIBRATION_IMAGES, seed=9)
    return batch(0)[0]
