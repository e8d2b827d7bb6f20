"""`edgefer train` from recipe and data to a bundle: load, fit, evaluate, measure the framing, write."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefer.bundle import Bundle, write_bundle, write_file
from edgefer.card import ModelCard, Provenance, Scores
from edgefer.errors import InputError
from edgefer.metrics import confusion_matrix
from edgefer.train import backend, datasets, plots
from edgefer.train.evaluate import class_table, evaluate, keras_logits
from edgefer.train.fit import Watcher, fit, read_history
from edgefer.train.framing import measure_crop
from edgefer.train.models import keras_bytes
from edgefer.train.recipes import Recipe

Detect = Callable[[np.ndarray], list[tuple[int, int, int, int]]]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a run was asked for; kept in its folder as training/order.json so that it can be resumed."""

    recipe: Recipe
    data: str
    labels: str = ""
    skip_bad: bool = False
    valid_fraction: float = 0.2

    def save(self, run: Path) -> None:
        fields = {
            "recipe": self.recipe.model_dump(mode="json"),
            "data": self.data,
            "labels": self.labels,
            "skip_bad": self.skip_bad,
            "valid_fraction": self.valid_fraction,
        }
        write_file(run / "training" / "order.json", json.dumps(fields, indent=2).encode())

    @classmethod
    def load(cls, run: Path) -> "Order":
        file = run / "training" / "order.json"
        try:
            fields = json.loads(file.read_bytes())
            return cls(recipe=Recipe.model_validate(fields.pop("recipe")), **fields)
        except FileNotFoundError:
            raise InputError(f"There is no training to resume in {run}.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} cannot be read ({error}): start the training anew.") from None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a training gave: the bundle, and per held split its scores and per-class table."""

    bundle: Bundle
    scores: dict[str, Scores]
    classes: dict[str, list[tuple[str, int, float, float, float]]]
    skipped: tuple[str, ...]


def train(
    order: Order,
    run: Path,
    *,
    watcher: Watcher,
    track: datasets.Track = datasets.silent,
    detectors: Mapping[str, Detect] = {},
    cache: Path | None = None,
) -> Result:
    """Train as ordered into the directory `run`, continuing what is already there, and make it a bundle."""
    recipe = order.recipe
    dataset = datasets.load_dataset(
        order.data,
        recipe.input,
        labels=order.labels,
        skip_bad=order.skip_bad,
        valid_fraction=order.valid_fraction,
        seed=recipe.fit.seed,
        track=track,
        cache=cache,
    )
    folder = run / "training"
    folder.mkdir(parents=True, exist_ok=True)
    order.save(run)
    model, best = fit(recipe, dataset, folder, watcher)

    held = {name: split for name, split in dataset.splits.items() if name != "train"}
    logits = {name: keras_logits(model, split.images) for name, split in held.items()}
    scores = {name: evaluate(split, logits[name]) for name, split in held.items()}
    report = {"history.png": plots.history_plot(read_history(folder / "history.csv"), best)}
    for name, split in held.items():
        matrix = confusion_matrix(split.labels, logits[name].argmax(axis=1), len(dataset.labels))
        title = (
            f"{recipe.name}, {name} split: accuracy {scores[name].accuracy:.1%}, recall {scores[name].macro_recall:.3f}"
        )
        report[f"confusion-{name}.png"] = plots.confusion_plot(matrix, dataset.labels, title)

    sample = dataset.split("train")
    sample = sample.take(datasets.stratified_rows(sample.labels, min(400, len(sample)), recipe.fit.seed))
    card = ModelCard(
        name=recipe.name,
        labels=dataset.labels,
        input=recipe.input,
        crops={name: measure_crop(sample.images, detect, track) for name, detect in detectors.items()},
        metrics={name: {"keras": value} for name, value in scores.items()},
        provenance=Provenance(
            data=dataset.name,
            labels=order.labels,
            valid_fraction=order.valid_fraction,
            split_sizes={name: len(split) for name, split in dataset.splits.items()},
            recipe=recipe.model_dump(mode="json"),
            seed=recipe.fit.seed,
            epoch=best.epoch,
            versions=backend.versions(),
            steps=("train",),
        ),
    )
    bundle = write_bundle(run, card, {"keras": keras_bytes(model)}, report)
    classes = {name: class_table(split, logits[name], dataset.labels) for name, split in held.items()}
    return Result(bundle=bundle, scores=scores, classes=classes, skipped=dataset.skipped)
