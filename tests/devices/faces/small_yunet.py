"""A network of YuNet's shape with random weights, as the .onnx that PyTorch would write: no third party's weights."""

import numpy as np

INT, BYTES, INTS = 2, 3, 7  # AttributeProto.AttributeType


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def attribute(name: str, value) -> bytes:
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, INT)
    if isinstance(value, str):
        return field(1, name) + field(4, value) + field(20, BYTES)
    return field(1, name) + b"".join(field(8, one) for one in value) + field(20, INTS)


def node(kind: str, inputs, output: str, **attributes) -> bytes:
    named = (field(5, attribute(name, value)) for name, value in attributes.items())
    return field(1, b"".join([*(field(1, one) for one in inputs), field(2, output), field(4, kind), *named]))


def constant(name: str, array: np.ndarray) -> bytes:
    kind = 1 if array.dtype == np.float32 else 7
    return field(
        5, b"".join([*(field(1, n) for n in array.shape), field(2, kind), field(8, name), field(9, array.tobytes())])
    )


def end(number: int, name: str, shape) -> bytes:
    dims = b"".join(field(1, field(1, size)) for size in shape)
    return field(number, field(1, name) + field(2, field(1, field(1, 1) + field(2, dims))))


class _Writer:
    def __init__(self, seed: int):
        self.rng, self.parts = np.random.default_rng(seed), []

    def conv(self, source: str, name: str, shape, *, stride: int = 1, group: int = 1, bias: float = 0.1) -> str:
        fan = np.prod(shape[1:])
        spread = (1.4 / fan) ** 0.5 / (100 if source == "input" else 1)  # pixels become numbers of about 1
        self.parts.append(constant(f"{name}.w", self.rng.normal(0, spread, shape).astype(np.float32)))
        self.parts.append(constant(f"{name}.b", self.rng.normal(0, bias, shape[0]).astype(np.float32)))
        pad = shape[2] // 2
        self.parts.append(
            node(
                "Conv", [source, f"{name}.w", f"{name}.b"], name, dilations=[1, 1], group=group,
                kernel_shape=list(shape[2:]), pads=[pad] * 4, strides=[stride] * 2,
            )
        )  # fmt: skip
        return name

    def unit(self, source: str, name: str, before: int, after: int) -> str:
        wide = self.conv(source, f"{name}.p", (after, before, 1, 1))
        deep = self.conv(wide, f"{name}.d", (after, 1, 3, 3), group=after)
        self.parts.append(node("Relu", [deep], name))
        return name

    def pool(self, source: str, name: str) -> str:
        self.parts.append(node("MaxPool", [source], name, kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4))
        return name

    def joined(self, coarse: str, fine: str, name: str) -> str:
        self.parts.append(
            node("Resize", [coarse, "roi", "scales"], f"{name}.up", mode="nearest", nearest_mode="floor",
                 coordinate_transformation_mode="asymmetric")
        )  # fmt: skip
        self.parts.append(node("Add", [fine, f"{name}.up"], name))
        return name


def small_yunet(height: int = 64, width: int = 64, seed: int = 0) -> bytes:
    """The .onnx for an input [1, 3, height, width] of BGR pixels 0..255."""
    writer = _Writer(seed)
    writer.parts += [constant("roi", np.empty(0, np.float32)), constant("scales", np.array([1, 1, 2, 2], np.float32))]
    writer.parts.append(constant("shape", np.array([0], np.int64)))
    x = writer.conv("input", "stem", (8, 3, 3, 3), stride=2)
    writer.parts.append(node("Relu", [x], "stem.relu"))
    x = writer.pool(writer.unit("stem.relu", "m0", 8, 8), "m0.pool")
    features = []
    for level in range(3):
        before = 8 if level == 0 else 16
        x = writer.pool(writer.unit(x, f"m{level + 1}", before, 16), f"m{level + 1}.pool")
        features.append(x)
    n32 = writer.unit(features[2], "n32", 16, 16)
    n16 = writer.unit(writer.joined(n32, features[1], "j16"), "n16", 16, 16)
    n8 = writer.unit(writer.joined(n16, features[0], "j8"), "n8", 16, 16)
    for stride, source in ((8, n8), (16, n16), (32, n32)):
        cells = (height // stride) * (width // stride)
        for head, count in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            wide = writer.conv(source, f"{head}.{stride}.p", (count, 16, 1, 1))
            deep = writer.conv(wide, f"{head}.{stride}.d", (count, 1, 3, 3), group=count)
            name = f"{head}_{stride}"
            writer.parts.append(node("Transpose", [deep], f"{name}.t", perm=[0, 2, 3, 1]))
            writer.parts.append(constant(f"{name}.shape", np.array([1, cells, count], np.int64)))
            plain = head in ("bbox", "kps")
            writer.parts.append(node("Reshape", [f"{name}.t", f"{name}.shape"], name if plain else f"{name}.r"))
            if not plain:
                writer.parts.append(node("Sigmoid", [f"{name}.r"], name))
            writer.parts.append(end(12, name, (1, cells, count)))
    graph = field(2, "graph") + b"".join(writer.parts) + end(11, "input", (1, 3, height, width))
    return field(1, 6) + field(8, field(1, "") + field(2, 11)) + field(7, graph)
