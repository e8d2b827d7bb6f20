"""Plans a network's arena: the static offset of each activation, with memory reused between lifetimes."""

from dataclasses import dataclass, replace

from edgefer.tflite.int8_network import Int8Network, Layer

ALIGNMENT = 16  # bytes: of the arena and of each offset in it
COLUMNS = 4  # positions of a convolution's output that are computed together
ROW = 8  # weights: a convolution's rows are padded to a multiple of it
IN_PLACE = ("ADD", "RELU", "RELU6", "RESHAPE")  # may overwrite an input that nothing else reads


@dataclass(frozen=True, kw_only=True)
class Span:
    """`size` bytes in use from layer `first` to layer `last`; -1 is before the first layer."""

    size: int
    first: int
    last: int

    def meets(self, other: "Span") -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`places`: each tensor's offset in bytes; `scratch`: each layer's scratch memory, 0 for none."""

    size: int
    places: dict[int, int]
    scratch: tuple[int, ...]


def row_bytes(layer: Layer) -> int:
    """Bytes from one output channel's weights to the next, padded for a convolution; 0 for a kind without such rows."""
    if layer.kind not in ("CONV_2D", "FULLY_CONNECTED"):
        return 0
    taps = layer.weights.size // len(layer.weights)
    return -(-taps // ROW) * ROW if layer.kind == "CONV_2D" else taps


def plan(network: Int8Network) -> Plan:
    """The arena of a network."""
    end = len(network.layers)
    lives = {network.input.index: Span(size=network.input.size, first=-1, last=-1)}
    for number, layer in enumerate(network.layers):
        for value in layer.inputs:
            lives[value.index] = replace(lives[value.index], last=number)
        lives[layer.output.index] = Span(size=layer.output.size, first=number, last=number)
    for value in network.outputs:
        lives[value.index] = replace(lives[value.index], last=end)
    owners = _shared(network, lives)
    spans: dict[tuple[str, int], Span] = {}
    for tensor, life in lives.items():
        key = "tensor", owners[tensor]
        old = spans.get(key, life)
        spans[key] = Span(
            size=max(old.size, life.size), first=min(old.first, life.first), last=max(old.last, life.last)
        )
    for number, layer in enumerate(network.layers):
        if layer.kind == "CONV_2D":
            spans["scratch", number] = Span(size=2 * COLUMNS * row_bytes(layer), first=number, last=number)
    places, size = _place(spans)
    return Plan(
        size=size,
        places={tensor: places["tensor", owner] for tensor, owner in owners.items()},
        scratch=tuple(places.get(("scratch", number), 0) for number in range(end)),
    )


def _shared(network: Int8Network, lives: dict[int, Span]) -> dict[int, int]:
    """The tensor whose memory each tensor uses: itself, or an input of its layer whose lifetime ends there."""
    owners = {tensor: tensor for tensor in lives}
    for number, layer in enumerate(network.layers):
        if layer.kind in IN_PLACE:
            for value in layer.inputs:
                if lives[value.index].last == number and value.size == layer.output.size:
                    owners[layer.output.index] = owners[value.index]
                    break
    return owners


def _place(spans: dict[tuple[str, int], Span]) -> tuple[dict[tuple[str, int], int], int]:
    """Greedy by size: each span at the lowest offset that is free during its lifetime; and the total size."""
    places: dict[tuple[str, int], int] = {}
    size = 0
    for key, span in sorted(spans.items(), key=lambda item: (-item[1].size, item[1].first)):
        place = 0
        taken = sorted(
            (at, at + _aligned(spans[other].size)) for other, at in places.items() if spans[other].meets(span)
        )
        for begin, end in taken:
            if place + _aligned(span.size) <= begin:
                break
            place = max(place, end)
        places[key] = place
        size = max(size, place + _aligned(span.size))
    return places, size


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
