"""`edgefer train` from recipe and data to a bundle: load, fit, evaluate, measure the framing, write."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from edgefer.bundle import Bundle, write_bundle, write_file
from edgefer.card import ModelCard, Provenance, Scores, first_problem
from edgefer.errors import InputError
from edgefer.metrics import confusion_matrix
from edgefer.train import backend, distribute, plots
from edgefer.train.data import dataset as datasets
from edgefer.train.data.ferplus import votes_file
from edgefer.train.distill import distilled, load_soft_labels, save_soft_labels, teacher_probabilities
from edgefer.train.distribute import ALONE, Place
from edgefer.train.evaluate import class_table, evaluate, keras_logits
from edgefer.train.fit import Watcher, fit
from edgefer.train.folds import CROSS_VALIDATION, CrossValidation, cross_validate, divide_folds
from edgefer.train.framing import measure_crop
from edgefer.train.networks import keras_bytes
from edgefer.train.recipes import Recipe
from edgefer.train.run import Epoch, read_history
from edgefer.train.votes import translated

if TYPE_CHECKING:
    import tf_keras

Detect = Callable[[np.ndarray], list[tuple[int, int, int, int]]]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a run was asked for; kept in its folder as training/order.json so that it can be resumed."""

    recipe: Recipe
    data: str
    labels: str = ""
    teachers: tuple[str, ...] = ()
    soft_labels: str = ""
    votes: str = ""
    witnesses: tuple[str, ...] = ()
    init_from: str = ""
    skip_bad: bool = False
    valid_fraction: float = 0.2
    group_by: str = ""
    folds: int = 0

    def save(self, run: Path, name: str = "order.json") -> None:
        fields = vars(self) | {"recipe": self.recipe.model_dump(mode="json")}
        write_file(run / "training" / name, json.dumps(fields, indent=2).encode())

    @classmethod
    def load(cls, run: Path, name: str = "order.json") -> "Order":
        file = run / "training" / name
        try:
            fields = json.loads(file.read_bytes())
            recipe = Recipe.model_validate(fields.pop("recipe"))
            teachers, witnesses = (tuple(fields.pop(name, ())) for name in ("teachers", "witnesses"))
            return cls(recipe=recipe, teachers=teachers, witnesses=witnesses, **fields)
        except FileNotFoundError:
            raise InputError(f"There is no training to resume in {run}.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} cannot be read ({error}): start the training anew.") from None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a training gave: the bundle, per held split its scores and per-class table, and the cross-validation."""

    bundle: Bundle
    scores: dict[str, Scores]
    classes: dict[str, list[tuple[str, int, float, float, float]]]
    crossed: CrossValidation | None
    skipped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """The data as it was trained on, Dataset.held_pictures of it as it was loaded, the network, the epoch that gave its
    weights, and the cross-validation."""

    dataset: datasets.Dataset
    held_pictures: str
    model: "tf_keras.Model"
    best: Epoch
    crossed: CrossValidation | None


def train(
    order: Order,
    run: Path,
    *,
    watcher: Watcher,
    track: datasets.Track = datasets.silent,
    detectors: Mapping[str, Detect] = {},
    cache: Path | None = None,
    place: Place = ALONE,
    say: Callable[[str], None] = lambda text: None,
) -> Result | None:
    """Train as ordered into the directory `run`, continuing what is already there, and make it a bundle.

    With folds the recipe is cross-validated first, which gives its figures; the network itself is then trained by the
    same recipe on all pictures, less those by which the recipe chooses an epoch. Of several workers only the chief writes
    there; the others help to fit, and get None. InputError when another process is training there.
    """
    with _held(run) if place.chief else contextlib.nullcontext():
        with distribute.together(place, run) as strategy:
            fitted = _fit(order, run, watcher, track, cache, place, strategy, say)
        return _finish(order, run, fitted, track, detectors) if fitted else None


@contextlib.contextmanager
def _held(run: Path) -> Iterator[None]:
    """Make the run's folder and hold it for this process; where nothing was begun in it, it is gone again."""
    folder = run / "training"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{run} is being trained by another process: wait for it, or choose another --out.") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        for empty in (folder, run):
            with contextlib.suppress(OSError):
                empty.rmdir()
        os.close(handle)


def _fit(
    order: Order, run: Path, watcher: Watcher, track: datasets.Track, cache: Path | None, place: Place, strategy, say
) -> "_Fitted | None":
    """None for a worker that only helps."""
    recipe = order.recipe
    votes = votes_file(order.votes, order.data) if order.votes else None
    dataset = datasets.load_dataset(
        order.data,
        recipe.input,
        labels=order.labels,
        skip_bad=order.skip_bad,
        valid_fraction=order.valid_fraction,
        seed=recipe.fit.seed,
        group_by=order.group_by,
        pooled=order.folds > 0,
        track=track,
        cache=cache,
    )
    _card(order, dataset)
    folder, held_pictures = run / "training", dataset.held_pictures
    if place.chief:
        order.save(run)
    if order.group_by and not recipe.augment.copies:
        dataset = datasets.without_copies(dataset, order.group_by)
    with tempfile.TemporaryDirectory() as scratch:
        written = None if place.chief else Path(scratch)
        if order.teachers or order.soft_labels or votes:
            train_split = dataset.split("train")
            known = _soft_labels(order, votes, written or folder, dataset, track)
            learnt = dataset.splits | {"train": distilled(train_split, known, recipe.distill.weight)}
            dataset = replace(dataset, splits=learnt)
        start = Bundle.open(Path(order.init_from)) if order.init_from else None
        crossed = _cross_validate(order, dataset, folder, watcher, start, strategy, say) if order.folds else None
        if order.folds:
            if recipe.needs_validation:
                dataset = datasets.hold_out(dataset, order.valid_fraction, recipe.fit.seed, order.group_by)
            aside = f"; {len(dataset.split('valid'))} choose its epoch" if recipe.needs_validation else ""
            say(f"Now the network itself, on {len(dataset.split('train'))} pictures{aside}")
        fitted = fit(recipe, dataset, folder, watcher, start=start, written=written, strategy=strategy)
    return fitted and _Fitted(
        dataset=dataset, held_pictures=held_pictures, model=fitted[0], best=fitted[1], crossed=crossed
    )


def _finish(
    order: Order,
    run: Path,
    fitted: _Fitted,
    track: datasets.Track,
    detectors: Mapping[str, Detect],
) -> Result:
    """Evaluate, plot, measure the framing, and write the bundle."""
    dataset, model, best, crossed = fitted.dataset, fitted.model, fitted.best, fitted.crossed
    recipe, train_split = order.recipe, dataset.split("train")
    held = {name: split for name, split in dataset.splits.items() if name != "train"}
    logits = {name: keras_logits(model, split.images) for name, split in held.items()}
    if crossed:
        name = f"{order.folds}-fold"
        held, logits = {name: crossed.held, **held}, {name: crossed.logits, **logits}
    scores = {name: evaluate(split, logits[name]) for name, split in held.items()}
    report = {"history.png": plots.history_plot(read_history(run / "training" / "history.csv"), best)}
    for name, split in held.items():
        matrix = confusion_matrix(split.labels, logits[name].argmax(axis=1), len(dataset.labels))
        title = (
            f"{recipe.name}, {name} split: accuracy {scores[name].accuracy:.1%}, recall {scores[name].macro_recall:.3f}"
        )
        report[f"confusion-{name}.png"] = plots.confusion_plot(matrix, dataset.labels, title)
    if crossed:
        report[CROSS_VALIDATION] = crossed.to_json(dataset.labels)

    sample = train_split.take(datasets.stratified_rows(train_split.labels, min(400, len(train_split)), recipe.fit.seed))
    card = _card(order, dataset)
    card = card.model_copy(
        update={
            "crops": {name: measure_crop(sample.images, detect, track) for name, detect in detectors.items()},
            "metrics": {name: {"keras": value} for name, value in scores.items()},
            "provenance": card.provenance.model_copy(
                update={"epoch": best.epoch, "held_pictures": fitted.held_pictures}
            ),
        }
    )
    bundle = write_bundle(run, card, {"keras": keras_bytes(model)}, report)
    classes = {name: class_table(split, logits[name], dataset.labels) for name, split in held.items()}
    return Result(bundle=bundle, scores=scores, classes=classes, crossed=crossed, skipped=dataset.skipped)


def _card(order: Order, dataset: datasets.Dataset) -> ModelCard:
    """The card but for what training finds out. InputError for what no card can hold, before hours of training and not
    after them."""
    recipe = order.recipe
    try:
        return ModelCard(
            name=recipe.name,
            labels=dataset.labels,
            input=recipe.input,
            faces=recipe.faces,
            provenance=Provenance(
                data=dataset.name,
                labels=order.labels,
                valid_fraction=order.valid_fraction,
                group_by=order.group_by,
                folds=order.folds,
                split_sizes={name: len(split) for name, split in dataset.splits.items()},
                recipe=recipe.model_dump(mode="json"),
                seed=recipe.fit.seed,
                epoch=0,
                versions=backend.versions(),
                steps=_steps(order),
            ),
        )
    except ValidationError as error:
        raise InputError(f"A network of this could not be written: {first_problem(error)}.") from None


def _cross_validate(
    order: Order,
    dataset: datasets.Dataset,
    folder: Path,
    watcher: Watcher,
    start: Bundle | None,
    strategy,
    say: Callable[[str], None],
) -> CrossValidation:
    recipe = order.recipe
    folds = divide_folds(
        dataset, recipe, folds=order.folds, group_by=order.group_by, valid_fraction=order.valid_fraction
    )
    return cross_validate(folds, recipe, folder / "folds", watcher, start=start, strategy=strategy, say=say)


def _soft_labels(
    order: Order, votes: Path | None, folder: Path, dataset: datasets.Dataset, track: datasets.Track
) -> np.ndarray:
    """What the order's file, teachers and votes say of the training pictures, as a mean; the last two are asked once."""
    split, recipe = dataset.split("train"), order.recipe

    def once(name: str, ask: Callable[[], np.ndarray]) -> np.ndarray:
        if not (folder / name).is_file():
            save_soft_labels(folder / name, split, dataset.labels, ask())
        return load_soft_labels(folder / name, split, dataset.labels)

    def ask_teachers() -> np.ndarray:
        temperature = recipe.distill.temperature
        opened = [Bundle.open(Path(teacher)) for teacher in order.teachers]
        said = [teacher_probabilities(each, split, dataset.labels, temperature, track) for each in opened]
        return np.mean(said, axis=0)

    def ask_votes(file: Path) -> np.ndarray:
        opened = [Bundle.open(Path(witness)) for witness in order.witnesses]
        return translated(dataset, file, opened, recipe.fit.seed, track)

    parts = []
    if order.soft_labels:
        parts.append(load_soft_labels(Path(order.soft_labels), split, dataset.labels))
    if order.teachers:
        parts.append(once("soft-labels.npz", ask_teachers))
    if votes:
        parts.append(once("votes.npz", lambda: ask_votes(votes)))
    return np.mean(parts, axis=0)


def _steps(order: Order) -> tuple[str, ...]:
    """What the card says of how the training began and what it learnt from."""
    names = [Path(path).name for path in (*order.teachers, *order.witnesses, order.soft_labels) if path]
    names += ["FER+ votes"] if order.votes else []
    start = [f"begin with the weights of {Path(order.init_from).name}"] if order.init_from else []
    return (*start, f"train, learning from {', '.join(names)} too" if names else "train")
