"""The first layers of a Keras network, as far as they only scale pixels and reorder channels: they say what it expects, and
are folded into one."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefer.convert.contract import SCALES, Stated
from edgefer.convert.outputs import places
from edgefer.options import Color

if TYPE_CHECKING:
    from edgefer.train.keras_build import Built

Scaling = tuple[np.ndarray, np.ndarray]  # scale and offset, float64 [channels]
CAFFE = SCALES["caffe"][1]  # subtracted from B, G, R


@dataclass(frozen=True)
class First:
    """What first layers compute: channel i is input[order[i]] * scale[i] + offset[i]."""

    scale: np.ndarray
    offset: np.ndarray
    order: np.ndarray

    @property
    def in_order(self) -> bool:
        return bool((self.order == np.arange(len(self.order))).all())

    def range(self) -> tuple[float, float]:
        """Of what they make of pixels of 0..255."""
        ends = np.stack([self.offset, 255 * self.scale + self.offset])
        return float(ends.min()), float(ends.max())


def keras_contract(built: "Built", architecture: dict, channels: int) -> tuple[tuple[Any, ...], Stated]:
    """Which first layers only scale pixels, and what these say of the contract: the network expects their input."""
    layers = []
    for layer in _first_layers(built, architecture):
        if not _is_linear(layer):
            if _after(layer, channels) is None:
                break
            layers.append(layer)
    batch = _batch(architecture)
    said = _said(layers, affine_of(layers, channels)) if layers else Stated()
    return tuple(layers) if said.scale else (), replace(said, because=said.because + batch)


def _said(layers: list, first: First) -> Stated:
    """What the scaling layers say of the contract."""
    low, high = first.range()
    names = ", ".join(layer.name for layer in layers)
    scale = ("0..255", SCALES["0..255"])
    means = bool(np.allclose(first.scale, 1) and -160 < low < -64)  # subtracted from bytes
    if means and not first.in_order and np.allclose(first.offset, CAFFE, atol=0.01):
        because = f"its first layers ({names}) turn RGB of 0..255 into BGR, and subtract Caffe's means"
        return Stated(scale=scale, color=Color.RGB, because=(because,))
    if high - low > 64 and not means:  # still that of bytes, so it scales something else
        return Stated()
    if max(-low, high) < 0.5:  # expects 0..1 or less: 0..255 scaled twice would be nearly 0
        return Stated()
    return Stated(scale=scale, because=(f"its first layers ({names}) scale pixels of 0..255 to {low:.3g}..{high:.3g}",))


def _batch(architecture: dict) -> tuple[str, ...]:
    """A note of a fixed batch size, which the rebuilt network has not."""
    sizes = [one["batch"] for one in architecture["config"]["layers"] if one.get("batch", 1) != 1]
    return tuple(f"its fixed batch of {size} images is left out: it gets one image at a time" for size in sizes[:1])


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
        if type(layer).__name__ not in ("Rescaling", "Normalization", "TakeChannels") and not _is_linear(layer):
            return first
        first.append(layer)


def _is_linear(layer: Any) -> bool:
    """Whether it is the identity, such as what remains of a training-only augmentation layer."""
    return type(layer).__name__ == "Activation" and getattr(layer.activation, "__name__", "") == "linear"


def affine_of(layers: list, channels: int) -> First:
    """What layers that scale pixels compute together."""
    first = First(np.ones(channels), np.zeros(channels), np.arange(channels))
    for one in filter(None, (_after(layer, channels) for layer in layers)):
        first = First(
            scale=first.scale[one.order] * one.scale,
            offset=first.offset[one.order] * one.scale + one.offset,
            order=first.order[one.order],
        )
    return first


def _after(layer: Any, channels: int) -> First | None:
    """What one layer computes; None where it is something else."""
    order = np.arange(channels)
    if type(layer).__name__ == "TakeChannels":
        order = np.array(order[::-1] if layer.order is None else layer.order)
        same = sorted(order) == list(range(channels))
        return First(np.ones(channels), np.zeros(channels), order) if same else None
    if (scaling := scaling_of(layer, channels)) is None:
        return None
    scale, offset = (np.broadcast_to(part, (channels,)) for part in scaling)
    return First(scale, offset, order)


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
