"""A network as the 32-bit words that edgefer_net.c runs: a header, one record per layer, then weights, biases, multipliers."""

import zlib
from dataclasses import dataclass

import numpy as np

from edgefer.tflite.arena import ALIGNMENT, Plan, plan, row_bytes
from edgefer.tflite.int8_network import Int8Network, Layer, UnsupportedNetwork

MAGIC = int.from_bytes(b"EFN1", "little")
HEADER_WORDS, LAYER_WORDS = 16, 32
MAX_ARENA = 2**30  # bytes: offsets in it are 32-bit
KINDS = {
    "CONV_2D": 1, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 3, "ADD": 4, "MEAN": 5, "MAX_POOL_2D": 6,
    "AVERAGE_POOL_2D": 7, "RESHAPE": 8, "PAD": 9, "RELU": 10, "RELU6": 11,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Program:
    """`words`: uint32, for the C code; `plan`: of its arena; `crc`: of all but the first three words; `table`: int8 [256,
    channels], the network's input for each pixel value, None for pixel - 128."""

    network: Int8Network
    plan: Plan
    words: np.ndarray
    table: np.ndarray | None = None

    @property
    def crc(self) -> int:
        return int(self.words[2])


class _Constants:
    """Appends constants after the layers' records, each aligned, and returns their offsets in 32-bit words."""

    def __init__(self, start: int):
        self.parts: list[bytes] = []
        self.place = 4 * start

    def add(self, values: np.ndarray) -> int:
        content = values.tobytes()
        content += bytes(-len(content) % ALIGNMENT)
        begin, self.place = self.place, self.place + len(content)
        self.parts.append(content)
        return begin // 4


def make_program(network: Int8Network, table: np.ndarray | None = None) -> Program:
    """The words of a network and the plan of its arena.

    table: int8 [256, channels], the network's input for each pixel value; None for edgefer's own, pixel - 128.
    """
    arena = plan(network)
    if arena.size > MAX_ARENA:
        raise UnsupportedNetwork(
            f"The network needs {arena.size:,} bytes of RAM at once; at most {MAX_ARENA:,} can be used."
        )
    constants = _Constants(HEADER_WORDS + LAYER_WORDS * len(network.layers))
    ends = _ends(network)
    records = [
        [*_record(layer, number, arena, constants), ends.get(layer.output.index, 0)]
        for number, layer in enumerate(network.layers)
    ]
    source, result = network.input, network.output
    table_at = 0 if table is None else constants.add(np.ascontiguousarray(table.T))
    body = b"".join([np.array(records, "<i4").tobytes(), *constants.parts])
    shape = (*source.shape, 1, 1)[:3]
    header = np.zeros(HEADER_WORDS, "<u4")
    header[0] = MAGIC
    header[1] = HEADER_WORDS + len(body) // 4
    header[3:7] = arena.size, len(records), arena.places[source.index], source.size
    header[8] = network.answers
    header[9] = result.scale.view(np.uint32)
    header[10] = np.int64(result.zero) & 0xFFFFFFFF
    header[11:14] = shape
    header[14] = table_at
    header[2] = zlib.crc32(header[3:].tobytes() + body)
    words = np.frombuffer(header.tobytes() + body, "<u4")
    return Program(network=network, plan=arena, words=words, table=table)


def _ends(network: Int8Network) -> dict[int, int]:
    """Each output's offset among the answers, counted from 1."""
    begins, place = {}, 1
    for value in network.outputs:
        begins[value.index] = place
        place += value.size
    return begins


def _record(layer: Layer, number: int, arena: Plan, constants: _Constants) -> list[int]:
    """One layer's LAYER_WORDS words except the last, in the order of the struct Layer in edgefer_net.c."""
    first, last = layer.inputs[0], layer.inputs[-1]
    fixed = [*layer.fixed, 0, 0, 0][:3]
    window = [0] * 8
    if layer.window:
        moves = layer.window
        window = [*moves.kernel, *moves.strides, *moves.dilation, *moves.before]
    if layer.kind == "PAD":
        window[6:], fixed[0] = [layer.pads[0][0], layer.pads[1][0]], layer.pads[2][0]
    weights = layer.weights
    if layer.kind == "CONV_2D":
        rows = weights.reshape(len(weights), -1)
        weights = np.zeros((len(rows), row_bytes(layer)), np.int8)
        weights[:, : rows.shape[1]] = rows
    return [
        KINDS[layer.kind],
        arena.places[first.index], arena.places[last.index], arena.places[layer.output.index], arena.scratch[number],
        *_shape(layer, first.shape), *_shape(layer, layer.output.shape),
        *window,
        first.zero, last.zero, layer.output.zero, layer.low, layer.high,
        constants.add(weights), constants.add(layer.bias.astype("<i4")), constants.add(layer.multipliers.astype("<f4")),
        row_bytes(layer),
        *fixed,
    ]  # fmt: skip


def _shape(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height, width and channels; without height and width, 1, 1 and the number of values."""
    return shape if len(shape) == 3 and layer.kind != "FULLY_CONNECTED" else (1, 1, int(np.prod(shape)))
