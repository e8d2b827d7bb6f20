"""Magnitude pruning with tensorflow-model-optimization and a short fine-tuning (Zhu & Gupta 2017, arXiv:1710.01878).

It makes the file compress better. It does not make int8 inference faster: no int8 kernel skips zeros.
"""

from types import ModuleType
from typing import TYPE_CHECKING

from edgefer.convert.separable import split_separable
from edgefer.convert.tune import FineTuning, tune, unconverted
from edgefer.errors import InputError, MissingDependency
from edgefer.train.backend import tensorflow

if TYPE_CHECKING:
    import tf_keras


def optimization_toolkit() -> ModuleType:
    """tensorflow-model-optimization; MissingDependency with the command that installs it."""
    tensorflow()
    try:
        import tensorflow_model_optimization
    except ImportError as error:
        raise MissingDependency(
            f"Pruning and quantization-aware training need tensorflow-model-optimization ({error}): "
            "pip install 'edgefer[train]'."
        ) from None
    return tensorflow_model_optimization


def prune(model: "tf_keras.Model", sparsity: float, task: FineTuning) -> "tf_keras.Model":
    """A copy with `sparsity` (0..1) of the weights of each convolution and hidden dense layer set to zero, the 1x1 part of
    separable convolutions included.

    Sparsity rises over the first half of the epochs and is held for the second half. InputError if the network has no such
    layer.
    """
    model = split_separable(model)
    pruned = {layer.name for layer in _prunable(model)}
    if not pruned:
        raise InputError(
            "--prune: the network has no convolution or hidden dense layer, whose weights could be removed: leave --prune out."
        )
    tfmot = optimization_toolkit()
    import tf_keras

    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=min(0.2, sparsity),
        final_sparsity=sparsity,
        begin_step=0,
        end_step=max(1, task.steps * task.epochs // 2),
        frequency=max(1, task.steps // 20),
    )

    def wrap(layer):  # returns the layer itself, bare or wrapped, to keep the copy's weights
        return (
            tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)
            if layer.name in pruned
            else layer
        )

    wrapped = unconverted(tf_keras.models.clone_model)(copy_of(model), clone_function=wrap)
    tune(wrapped, task, (tfmot.sparsity.keras.UpdatePruningStep(),))
    return copy_of(tfmot.sparsity.keras.strip_pruning(wrapped))


def copy_of(model: "tf_keras.Model") -> "tf_keras.Model":
    """A copy of the network with separate weights."""
    import tf_keras

    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def measured_sparsity(model: "tf_keras.Model") -> float:
    """The share of zeros in the kernels of convolutions and hidden dense layers."""
    kernels = [layer.get_weights()[0] for layer in _prunable(model)]
    return float(sum((kernel == 0).sum() for kernel in kernels) / sum(kernel.size for kernel in kernels))


def _prunable(model: "tf_keras.Model") -> list:
    """The convolutions and dense layers, except the last one, which gives the logits: in an imported network it may have
    any name."""
    import tf_keras

    return [one for one in model.layers if isinstance(one, tf_keras.layers.Conv2D | tf_keras.layers.Dense)][:-1]
