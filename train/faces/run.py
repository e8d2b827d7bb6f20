"""A training of a network that finds faces, from a folder of pictures to a bundle."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import TRAINING, Bundle, Form, write_bundle, write_file
from edgefer.card import InputSpec, ModelCard, Provenance
from edgefer.errors import DataError, InputError
from edgefer.faces import FINDER_LABELS, REFINER_LABELS, REFINER_SIDE
from edgefer.files import MAX_CARD, read_regular
from edgefer.options import as_record
from edgefer.progress import SILENT, Progress
from edgefer.train.backend import versions
from edgefer.train.faces import losses, networks, tasks
from edgefer.train.faces.fit import fit
from edgefer.train.faces.gallery import Picture
from edgefer.train.faces.held import parts
from edgefer.train.faces.recipe import EVERY, FaceRecipe
from edgefer.train.faces.scenes import read_scenes
from edgefer.train.faces.targets import cell_grid
from edgefer.train.faces.teacher import overlaps
from edgefer.train.networks import keras_bytes, load_keras
from edgefer.train.run import RunFolder

if TYPE_CHECKING:
    import tf_keras

RIGHT_SHARE = 0.35  # of the candidates that are faces are shown to the refiner too; of those that are none, all
CALIBRATION_IMAGES = 256

MineCandidates = Callable[
    [Sequence[Picture]], list[tuple[Picture, np.ndarray]]
]  # what a finder takes for faces in each


@dataclass(frozen=True, kw_only=True)
class FaceOrder:
    """What such a training is asked for. data: a folder of archives or folders of pictures; teacher: YuNet's .onnx; finder:
    the bundle whose candidates a refiner learns from, "" for the shipped one; begin: the bundle whose weights it begins with."""

    recipe: FaceRecipe
    data: str
    teacher: str
    finder: str = ""
    begin: str = ""

    def save(self, run: Path) -> None:
        fields = asdict(self) | {"recipe": self.recipe.model_dump()}
        write_file(RunFolder(run).face_order, json.dumps(fields, indent=2).encode())

    @classmethod
    def load(cls, run: Path) -> "FaceOrder":
        try:
            fields = json.loads(read_regular(RunFolder(run).face_order, MAX_CARD))
            recipe = FaceRecipe.model_validate(fields["recipe"])
            paths = {"finder": "", "begin": ""} | {name: fields[name] for name in fields if name != "recipe"}
            return as_record(cls, paths | {"recipe": recipe})
        except (InputError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{RunFolder(run).face_order} is not the order of a training of faces: {str(error).rstrip('.')}."
            ) from None


def train_faces(
    order: FaceOrder,
    run: Path,
    cache: Path,
    *,
    mine_candidates: MineCandidates | None = None,
    progress: Progress = SILENT,
) -> Bundle:
    """Train as ordered into `run`, going on with what is there, and make it a bundle with the Keras network.

    mine_candidates: gives what a finder takes for faces in pictures; the refiner learns from it.
    """
    pictures, held = training_parts(order, cache, progress)
    if not any((picture.faces.target > 0).any() for picture in pictures):
        raise DataError(
            f"{order.data} has no face to learn from: YuNet is sure of none in its {len(pictures):,} pictures, and no "
            "boxes.json marks any. Add pictures of people."
        )
    progress.log(f"Training {order.recipe.name} on {order.data} into {run}")
    order.save(run)
    build, loss, batch = learning(order, pictures, mine_candidates, progress)
    folder = run / TRAINING
    model = fit(
        build,
        loss,
        batch,
        order.recipe.fit.schedule(),
        folder,
        lambda step, mean: progress.log(f"step {step:,} of {order.recipe.fit.steps:,}: loss {mean:.4f}"),
    )
    model = exported(order.recipe, model)
    return write_bundle(run, make_card(order, pictures, held), {Form.KERAS: keras_bytes(model)})


def training_parts(order: FaceOrder, cache: Path, progress: Progress) -> tuple[list[Picture], list[Picture]]:
    return parts(read_scenes(Path(order.data), cache, Path(order.teacher), progress.track))


def learning(order: FaceOrder, pictures: Sequence[Picture], mine_candidates: MineCandidates | None, progress: Progress):
    """The network's builder, its loss and its batches."""
    recipe, pool = order.recipe.fit, tasks.pool_of(pictures)
    begun = beginning(order.begin)
    if order.recipe.task == "find-faces":
        size = networks.FINDER_SIDE
        grid = cell_grid(size)
        batch = tasks.finder_batches(pool, size=size, count=recipe.batch_size, seed=recipe.seed)
        return (
            lambda: begun(networks.build_finder(None)),
            lambda maps, targets: losses.finder_loss(maps, targets, grid),
            batch,
        )
    hard = hard_candidates(mine_candidates(pictures), recipe.seed) if mine_candidates else []
    progress.log(f"{len(hard):,} candidates of the finder to learn from" if hard else "No finder to learn from")
    return (
        lambda: begun(networks.build_refiner()),
        losses.refiner_loss,
        tasks.refiner_batches(pool, hard, count=recipe.batch_size, seed=recipe.seed),
    )


def beginning(bundle: str) -> "Callable[[tf_keras.Model], tf_keras.Model]":
    """What gives a network the weights of a bundle's, or none. InputError when they do not fit."""
    if not bundle:
        return lambda model: model
    weights = load_keras(Bundle.open(bundle), Form.KERAS).get_weights()

    def begun(model: "tf_keras.Model") -> "tf_keras.Model":
        if [one.shape for one in weights] != [one.shape for one in model.get_weights()]:
            raise InputError(f"{bundle} has other layers than this recipe's network: leave --init-from out.")
        model.set_weights(weights)
        return model

    return begun


def hard_candidates(found: list[tuple[Picture, np.ndarray]], seed: int) -> list[tuple[Picture, np.ndarray]]:
    """Every candidate that is no face, and some of those that are."""
    rng = np.random.default_rng(seed)
    out = []
    for picture, box in found:
        faces = picture.faces.boxes
        right = len(faces) and overlaps(box, faces).max() > tasks.FACE_IOU
        if not right or rng.random() < RIGHT_SHARE:
            out.append((picture, box))
    return out


def exported(recipe: FaceRecipe, model: "tf_keras.Model") -> "tf_keras.Model":
    """The network with the input size of its card."""
    if recipe.task != "find-faces":
        return model
    fixed = networks.build_finder()
    fixed.set_weights(model.get_weights())
    return fixed


def make_card(order: FaceOrder, pictures: Sequence[Picture], held: Sequence[Picture]) -> ModelCard:
    recipe = order.recipe
    finds = recipe.task == "find-faces"
    side = networks.FINDER_SIDE if finds else REFINER_SIDE
    names = "\n".join(sorted(f"{one.source}/{one.name}" for one in held))
    start = [f"begin with the weights of {Path(order.begin).name}"] if order.begin else []
    return ModelCard(
        name=recipe.name,
        task=recipe.task,
        labels=FINDER_LABELS if finds else REFINER_LABELS,
        input=InputSpec(height=side, width=side, color="gray"),
        provenance=Provenance(
            data=", ".join(sorted({one.source for one in pictures})),
            split_sizes={"train": len(pictures), "held apart": len(held)},
            held_images=hashlib.sha256(names.encode()).hexdigest() if held else "",
            recipe=recipe.model_dump(),
            seed=recipe.fit.seed,
            epoch=max(1, recipe.fit.steps // EVERY),
            versions=versions(),
            steps=(*start, "train"),
        ),
    )


def calibration_images(order: FaceOrder, cache: Path, progress: Progress = SILENT) -> np.ndarray:
    """uint8 [n, h, w, 1]: images as the network of that order will see them, of its training data."""
    pictures, _ = training_parts(order, cache, progress)
    pool = tasks.pool_of(pictures)
    if order.recipe.task == "find-faces":
        batch = tasks.finder_batches(pool, size=networks.FINDER_SIDE, count=CALIBRATION_IMAGES, seed=9)
    else:
        batch = tasks.refiner_batches(pool, [], count=2 * CALIBRATION_IMAGES, seed=9)
    return batch(0)[0]
