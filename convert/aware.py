"""Quantization-aware training with tensorflow-model-optimization: the network trains under simulated int8 rounding.

Jacob et al. 2018, arXiv:1712.05877. A pruned network keeps its zeros (tfmot's prune-preserving scheme).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import Bundle, Form, is_shipped
from edgefer.convert.batch_norm import convolve_norms
from edgefer.convert.prune import copy_of, optimization_toolkit
from edgefer.convert.quantize import aware_to_int8
from edgefer.convert.separable import split_separable
from edgefer.convert.tune import FineTuning, tune, unconverted
from edgefer.errors import RuntimeFault
from edgefer.lineage import origin_form
from edgefer.preprocess import to_float
from edgefer.train.memory import batch_for
from edgefer.train.networks import load_keras
from edgefer.train.zscore import fold_zscore

if TYPE_CHECKING:
    import tf_keras

AWARE = "quantization-aware training"  # in the notes of a card whose int8 form was made by it
WITH_QAT = "convert it again with --qat"
AS_FLOAT = "run its float32 form, or import the network's .keras or .h5 file, which can be trained quantization-aware"
IN_FLOAT = "convert it in float, with --no-int8 --float16"
FROM_KERAS = "convert the bundle that was trained, or import the network's .keras or .h5 file and convert that"


@dataclass(frozen=True, kw_only=True)
class Aware:
    """The result of quantization-aware training: the int8 .tflite, and the float network with the same weights."""

    int8: bytes
    network: "tf_keras.Model"


def quantization_aware(
    model: "tf_keras.Model", calibration: np.ndarray, task: FineTuning, *, keep_zeros: bool
) -> Aware:
    """Fine-tune a copy of the network with simulated int8 rounding of weights and activations. Its z-score is folded, its
    separable convolutions are split, and its free-standing batch norms become convolutions.

    calibration: uint8 [n, h, w, c], images that initialize the activation ranges. keep_zeros: zero weights stay zero.
    """
    model = _plain(model)
    with task.progress.stage("Preparing quantization-aware training"):
        aware = _with_rounding(model, keep_zeros=keep_zeros)
        _set_ranges(aware, model, calibration)
    tune(aware, task)
    _set_input_range(aware)
    with task.progress.stage("Converting the quantization-aware network to int8"):
        return Aware(int8=aware_to_int8(aware), network=_without_rounding(aware, model))


def check_aware(model: "tf_keras.Model", *, keep_zeros: bool = False) -> None:
    """RuntimeFault if quantization-aware training does not support the network's layers, or their order."""
    _with_rounding(_plain(model), keep_zeros=keep_zeros)


def can_train_aware(model: "tf_keras.Model") -> bool:
    """Whether quantization-aware training supports the network's layers and their order."""
    try:
        check_aware(model)
    except RuntimeFault:
        return False
    return True


def int8_fix(bundle: Bundle) -> str:
    """How the int8 form of a bundle becomes more accurate, as far as the bundle tells; "" if its user cannot change it."""
    if not bundle.has(Form.KERAS):
        if origin_form(bundle.card) is Form.FLOAT32:
            return AS_FLOAT
        return "" if is_shipped(bundle) else FROM_KERAS
    if any(AWARE in note for note in bundle.card.provenance.conversion):
        return IN_FLOAT
    possible = not find_spec("tensorflow") or can_train_aware(load_keras(bundle, Form.KERAS))
    return WITH_QAT if possible else IN_FLOAT


def _plain(model: "tf_keras.Model") -> "tf_keras.Model":
    """The same network, of layers that tfmot supports and does not rename."""
    return split_separable(convolve_norms(fold_zscore(model)))


def _with_rounding(model: "tf_keras.Model", *, keep_zeros: bool) -> "tf_keras.Model":
    tfmot = optimization_toolkit()
    try:
        annotated = tfmot.quantization.keras.quantize_annotate_model(copy_of(model))
        scheme = [tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()] if keep_zeros else []
        return unconverted(tfmot.quantization.keras.quantize_apply)(annotated, *scheme)
    except (ValueError, RuntimeError) as error:
        reason = re.sub(r"[: ]<class '[^']*?(\w+)'>", r" (\1)", str(error))  # layers are named as name:<class ...>
        reason = reason.partition(". ")[0].rstrip(".")  # advice for programs follows
        raise RuntimeFault(
            f"tensorflow-model-optimization cannot train this network quantization-aware ({reason}): convert it by calibration."
        ) from None


def _set_ranges(aware: "tf_keras.Model", model: "tf_keras.Model", calibration: np.ndarray) -> None:
    """Initialize each activation range from the float network's activations.

    tfmot initializes them all to -6..6 and moves them by 0.1% per step: after a few hundred steps of fine-tuning they
    would still be wrong by half.
    """
    import tf_keras

    _set_input_range(aware)
    ranges = {
        layer.layer.name: pair for layer in _wrapped(aware) if (pair := _range_of(layer, "output", "post_activation"))
    }
    probe = tf_keras.Model(model.input, {name: model.get_layer(name).output for name in ranges})
    size = min(64, batch_for(model))
    batches = [probe(to_float(calibration[at : at + size]), training=False) for at in range(0, len(calibration), size)]
    for name, (low, high) in ranges.items():
        low.assign(min(0.0, float(np.mean([np.min(batch[name]) for batch in batches]))))
        high.assign(max(0.0, float(np.mean([np.max(batch[name]) for batch in batches]))))


def _set_input_range(aware: "tf_keras.Model") -> None:
    """Exactly 0..1, so that the int8 input is pixel - 128."""
    (layer,) = [layer for layer in aware.layers if type(layer).__name__ == "QuantizeLayer"]
    pair = _range_of(layer, layer.name)
    assert pair  # a QuantizeLayer always has a range
    pair[0].assign(0.0)
    pair[1].assign(1.0)


def _range_of(layer, *prefixes: str):
    """The layer's min and max variables of the range that it tracks; None if it tracks none."""
    named = {weight.name.split("/")[-1].split(":")[0]: weight for weight in layer.weights}
    return next(((named[f"{p}_min"], named[f"{p}_max"]) for p in prefixes if f"{p}_min" in named), None)


def _wrapped(aware: "tf_keras.Model") -> Iterator:
    return (layer for layer in aware.layers if hasattr(layer, "quantize_config"))


def _without_rounding(aware: "tf_keras.Model", model: "tf_keras.Model") -> "tf_keras.Model":
    """The float network with the learned weights."""
    plain = copy_of(model)
    for layer in _wrapped(aware):
        learned = {weight.name.split("/")[-1]: weight for weight in layer.weights}
        for weight in plain.get_layer(layer.layer.name).weights:
            weight.assign(learned[weight.name.split("/")[-1]])
    return plain
