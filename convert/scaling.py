"""The first layers of a Keras network, as far as they only scale pixels: they say what it expects, and are folded into one."""

from typing import TYPE_CHECKING, Any

import numpy as np

from edgefer.convert.contract import SCALES, Stated
from edgefer.convert.outputs import places

if TYPE_CHECKING:
    from edgefer.train.keras_build import Built

Scaling = tuple[np.ndarray, np.ndarray]  # scale and offset, float64 [channels]


def keras_contract(built: "Built", architecture: dict, channels: int) -> tuple[tuple[Any, ...], Stated]:
    """Which first layers only scale pixels, and what these say of the contract: the network expects their input."""
    layers = []
    for layer in _first_layers(built, architecture):
        if not _is_linear(layer):
            if scaling_of(layer, channels) is None:
                break
            layers.append(layer)
    if not layers:
        return (), Stated()
    scale, offset = affine_of(layers, channels)
    low, high = float(np.min(offset)), float(np.max(255 * scale + offset))
    if high - low > 64:  # after its own scaling the range is still that of bytes, so it scales something else
        return (), Stated()
    names = ", ".join(layer.name for layer in layers)
    largest = float(np.max(np.abs(255 * scale + offset)))
    if largest < 0.5:  # expects 0..1 or less: 0..255 scaled twice would be nearly 0
        return (), Stated()
    return tuple(layers), Stated(
        scale=("0..255", SCALES["0..255"]),
        because=(f"its first layers ({names}) scale pixels of 0..255 to {low:.3g}..{high:.3g}",),
    )


def _first_layers(built: "Built", architecture: dict) -> list:
    """The scaling and linear layers through which alone pixels reach all others: without a branch before or beside them."""
    found = places(built, architecture)

    def sources(place: tuple) -> list[tuple]:
        """The layers whose outputs come to a place, through networks within; () is the pixels themselves."""
        layer, before = found[place]
        if layer is not None and type(layer).__name__ != "InputLayer":
            return [place]
        return [one for taken in before for one in sources(taken)] or [()]

    inputs = {
        place: [one for before in taken for one in sources(before)] or [()]
        for place, (layer, taken) in found.items()
        if layer is not None and type(layer).__name__ != "InputLayer"
    }
    last: tuple = ()
    first: list = []
    while True:
        after = [place for place, taken in inputs.items() if last in taken]
        if len(after) != 1 or inputs[after[0]] != [last]:
            return first
        last, layer = after[0], found[after[0]][0]
        if type(layer).__name__ not in ("Rescaling", "Normalization") and not _is_linear(layer):
            return first
        first.append(layer)


def _is_linear(layer: Any) -> bool:
    """Whether it is the identity, such as what remains of a training-only augmentation layer."""
    return type(layer).__name__ == "Activation" and getattr(layer.activation, "__name__", "") == "linear"


def affine_of(layers: list, channels: int) -> Scaling:
    """The combined scale and offset of layers that scale pixels."""
    scale, offset = np.ones(channels), np.zeros(channels)
    for factor, shift in filter(None, (scaling_of(layer, channels) for layer in layers)):
        scale, offset = scale * factor, offset * factor + shift
    return scale, offset


def scaling_of(layer: Any, channels: int) -> Scaling | None:
    """What a Rescaling or Normalization layer does to each channel; None where it does something else, such as to scale every
    pixel of the image differently."""
    if type(layer).__name__ == "Rescaling":
        factor, shift = (np.asarray(part, float).ravel() for part in (layer.scale, layer.offset))
    elif not layer.invert:
        mean, variance = (np.asarray(part, float).ravel() for part in (layer.mean, layer.variance))
        factor = 1 / np.maximum(np.sqrt(variance), 1e-7)
        shift = -mean * factor
    else:
        return None
    return (factor, shift) if {factor.size, shift.size} <= {1, channels} else None
