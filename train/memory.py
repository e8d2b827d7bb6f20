"""The memory that a network needs, from its shapes: a process that allocates too much is killed without a message."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefer.errors import InputError

if TYPE_CHECKING:
    import tf_keras

FLOAT_BYTES = 4
COPIES = 3  # weights, gradients, and one optimizer slot
CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # version 2, 1
MAX_BATCH, MAX_BATCH_ACTIVATIONS = 256, 1 << 29


def installed_bytes() -> int:
    """The memory of the machine, or of its container where that is less."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in CGROUPS:
        with suppress(OSError, ValueError):  # ValueError: "max"
            installed = min(installed, int(limit.read_text()))
    return installed


@contextmanager
def outline() -> Iterator[None]:
    """Networks that are built here have sizes, and take no memory: in a graph of its own, as for inference."""
    import tensorflow as tf
    import tf_keras

    with tf.Graph().as_default(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras 2 calls the scope deprecated: Sequential takes no `training`
        # Otherwise each layer that differs in training is built for both, with a branch: half of the time.
        with tf_keras.backend.learning_phase_scope(0):
            yield


def activations(layers: "Iterator[Any]") -> tuple[int, int]:
    """Activations for one image: (the most of one layer, the sum of all)."""
    sizes = [sum(_size(shape) for shape in _shapes(node.output_shapes)) for layer in layers for node in _nodes(layer)]
    return max(sizes, default=1), sum(sizes) or 1


def check_training(network: "tf_keras.Model", batch: int) -> None:
    """InputError where the activations that a step keeps for its gradients, or the weights with gradients and optimizer
    state, do not fit in memory. batch: images per step."""
    _, count = activations(iter(network.layers))
    installed, weights = installed_bytes(), network.count_params()
    if COPIES * weights * FLOAT_BYTES > installed:
        raise InputError(
            f"This network has {weights:,} weights, which take {COPIES * weights * FLOAT_BYTES / 1e9:,.0f} GB to train, and there are "
            f"{installed / 1e9:,.0f}: make it smaller."
        )
    needed = count * batch * FLOAT_BYTES
    if needed > installed:
        raise InputError(
            f"A batch of {batch} images takes this network about {needed / 1e9:,.0f} GB, and there are {installed / 1e9:,.0f}: "
            f"set --batch-size {max(1, batch * installed // (2 * needed))}, or a smaller input or network."
        )


def batch_for(network: "tf_keras.Model") -> int:
    """The batch size for inference: MAX_BATCH, or less where the activations would take more than 2 GB."""
    _, count = activations(iter(network.layers))
    return max(1, min(MAX_BATCH, MAX_BATCH_ACTIVATIONS // count))


def _nodes(layer: Any) -> list:
    return layer._inbound_nodes  # one per call of a shared layer; there is no public list


def _shapes(shapes: Any) -> list[tuple]:
    """A list of shapes, of which Keras gives a single one as it is."""
    return shapes if isinstance(shapes, list) else [shapes]


def _size(shape: tuple) -> int:
    return math.prod(side or 1 for side in shape)
