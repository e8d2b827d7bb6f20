"""int8 by the cheapest way that holds: post-training quantization, other calibrations, quantization-aware training.

TFLite's converter takes each activation's range from the extremes it sees, so what there is to choose in calibration
is how many pictures it sees: more widen the ranges, fewer leave rare extremes out and round the rest more finely.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.card import ModelCard
from edgefer.convert.aware import quantization_aware
from edgefer.convert.comparison import Answers, Comparison, compare
from edgefer.convert.quantize import CALIBRATION_PICTURES, calibration_pictures, int8_converter, to_int8
from edgefer.interpreter import Network
from edgefer.preprocess import to_float
from edgefer.quiet import quiet
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Dataset
from edgefer.train.evaluate import keras_logits
from edgefer.train.fit import Watcher
from edgefer.train.recipes import recipe_of

if TYPE_CHECKING:
    import tf_keras

OTHER_CALIBRATIONS = (2048, 128)  # pictures
DEBUG_PICTURES = 64


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One way to int8: the .tflite, its paired comparison with the float network on the validation split, and the
    float network with the same weights where the way was to train on."""

    how: str
    int8: bytes
    comparison: Comparison
    network: "tf_keras.Model | None" = None

    def __str__(self) -> str:
        drop, (low, high) = self.comparison.drop, self.comparison.drop_interval
        return f"{self.how}: drop {drop:+.2f} points [{low:+.2f}, {high:+.2f}]"


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """How far a tensor of the int8 network lies from the float one, as TFLite's QuantizationDebugger finds it.

    error: root of the mean squared error, in steps of the tensor's scale; 0.29 is what rounding alone would give.
    """

    layer: str
    operator: str
    error: float


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What came of it: the attempts in their order, the best, whether it holds, and else the worst layers."""

    attempts: tuple[Attempt, ...]
    best: Attempt
    holds: bool
    layers: tuple[LayerError, ...] = ()


def quantize(
    model: "tf_keras.Model",
    card: ModelCard,
    dataset: Dataset,
    *,
    aware: bool,
    max_drop: float | None,
    epochs: int,
    sparse: bool,
    teacher: "tf_keras.Model",
    seed: int,
    folder: Path,
    watcher: Watcher,
) -> Quantized:
    """Quantize `model` to int8, measured against it on the validation split.

    aware: by quantization-aware training of so many `epochs`, nothing else. max_drop: try what is cheap first, until
    the accuracy drops by no more points than that; None takes the first way as it is. sparse: zeros stay zeros.
    """
    train, valid = dataset.split("train"), dataset.split("valid")
    reference = keras_logits(model, valid.images)

    def calibrated(count: int) -> tuple[bytes, None]:
        return to_int8(model, calibration_pictures(train, seed, count)), None

    def trained() -> tuple[bytes, "tf_keras.Model"]:
        result = quantization_aware(
            model, recipe_of(card), dataset, calibration_pictures(train, seed), sparse=sparse, epochs=epochs,
            folder=folder, watcher=watcher, teacher=teacher,
        )  # fmt: skip
        return result.int8, result.network

    def ways() -> Iterator[tuple[str, Callable]]:
        if not aware:
            counts = (CALIBRATION_PICTURES, *OTHER_CALIBRATIONS) if max_drop is not None else (CALIBRATION_PICTURES,)
            for count in dict.fromkeys(min(count, len(train)) for count in counts):
                yield f"int8 calibrated on {count} training pictures", partial(calibrated, count)
        if aware or max_drop is not None:
            kept = "prune-preserving " if sparse else ""
            yield f"int8 by {kept}quantization-aware training, {epochs} epochs", trained

    attempts: list[Attempt] = []
    for how, make in ways():
        content, network = make()
        logits = Network(content, card.input, len(card.labels)).logits(valid.images)
        comparison = compare(
            Answers(name="float32", logits=reference), Answers(name="int8", logits=logits), valid, card.labels
        )
        attempts.append(Attempt(how=how, int8=content, comparison=comparison, network=network))
        if max_drop is not None and comparison.drop <= max_drop:
            break
    best = min(attempts, key=lambda attempt: attempt.comparison.drop)
    holds = max_drop is None or best.comparison.drop <= max_drop
    layers = () if holds else worst_layers(model, calibration_pictures(train, seed))
    return Quantized(attempts=tuple(attempts), best=best, holds=holds, layers=layers)


def worst_layers(model: "tf_keras.Model", calibration: np.ndarray) -> tuple[LayerError, ...]:
    """The layers of the network by how much quantization moves their outputs, the worst first."""
    tf = tensorflow()
    with quiet():
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=int8_converter(model, calibration),
            debug_dataset=lambda: ([to_float(one)[None]] for one in calibration[:DEBUG_PICTURES]),
        )
        debugger.run()
    table = io.StringIO()
    debugger.layer_statistics_dump(table)
    table.seek(0)
    errors = [
        LayerError(
            layer=row["tensor_name"].split(";")[0],
            operator=row["op_name"],
            error=float(row["mean_squared_error"]) ** 0.5 / float(row["scale"]),
        )
        for row in csv.DictReader(table)
    ]
    return tuple(sorted(errors, key=lambda error: -error.error))
