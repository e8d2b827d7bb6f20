"""How much memory a network takes, from its shapes, before any is taken: a process that asks for too much is killed in silence."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefer.errors import InputError

if TYPE_CHECKING:
    import tf_keras

BYTES = 4  # of a float32
CGROUP = Path("/sys/fs/cgroup/memory.max")
MAX_BATCH, MAX_BATCH_NUMBERS = 256, 1 << 29


def installed_bytes() -> int:
    """The memory that there is for this process at most: the machine's, or its container's where that is less."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # ValueError: "max"
        installed = min(installed, int(CGROUP.read_text()))
    return installed


def activations(layers: "Iterator[Any]") -> tuple[int, int]:
    """How many numbers the layers give for one image: the most that one of them does, and all together."""
    sizes = [sum(_size(shape) for shape in _shapes(node.output_shapes)) for layer in layers for node in _nodes(layer)]
    return max(sizes, default=1), sum(sizes) or 1


def check_training(network: "tf_keras.Model", batch: int) -> None:
    """InputError when what a step keeps for its gradients could not fit in the machine's memory."""
    _, numbers = activations(iter(network.layers))
    needed, installed = numbers * batch * BYTES, installed_bytes()
    if needed > installed:
        raise InputError(
            f"A batch of {batch} images takes this network about {needed / 1e9:,.0f} GB, and there are {installed / 1e9:,.0f}: "
            f"set --batch-size {max(1, batch * installed // (2 * needed))}, or a smaller input or network."
        )


def batch_for(network: "tf_keras.Model") -> int:
    """How many images to ask a network of at a time: MAX_BATCH, or fewer where they would take more than two GB."""
    _, numbers = activations(iter(network.layers))
    return max(1, min(MAX_BATCH, MAX_BATCH_NUMBERS // numbers))


def _nodes(layer: Any) -> list:
    return layer._inbound_nodes  # a shared layer has one for each call; Keras has no public list of them


def _shapes(shapes: Any) -> list[tuple]:
    """What Keras gives as one shape or, for several tensors, as a list of them."""
    return shapes if isinstance(shapes, list) else [shapes]


def _size(shape: tuple) -> int:
    return math.prod(side or 1 for side in shape)
