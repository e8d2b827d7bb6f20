"""Tests of the proof itself: every sabotage is caught by the question that should catch it, and healthy bundles pass.

The networks are small and hardly trained: the checks are tested here, not the networks.
"""

import io
import json

import numpy as np
import pytest

from edgefer import drawn, preprocess
from edgefer.bundle import CARD, Bundle, write_bundle
from edgefer.card import CropSpec, InputSpec, ModelCard, Provenance
from edgefer.checks import Status
from edgefer.convert.comparison import Budget, judge
from edgefer.convert.prove import prove
from edgefer.convert.quantize import to_float32, to_int8
from edgefer.errors import EdgeferError
from edgefer.interpreter import Network
from edgefer.parity import check_bundle, verify
from edgefer.preprocess import prepare, to_float
from edgefer.tflite.metadata import with_metadata
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.networks import keras_bytes
from edgefer.vectors import make_vectors

LABELS = drawn.EXPRESSIONS
NOTHING = Provenance(data="drawn", split_sizes={}, recipe={}, seed=0, epoch=1, versions={})


IMAGES, IMAGE_LABELS = drawn.face_set(30, seed=5, size=64)
IMAGES = list(IMAGES)


def faces(spec: InputSpec) -> Split:
    images = np.stack([prepare(image, spec) for image in IMAGES])
    return Split(images=images, labels=IMAGE_LABELS, ids=np.arange(len(images)))


GRAY = faces(InputSpec(height=24, width=24))
RGB = faces(InputSpec(height=24, width=24, color="rgb"))


def make_bundle(path, split: Split, seed: int, epochs: int = 15) -> Bundle:
    tensorflow()
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input(split.images.shape[1:]),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(len(LABELS)),
        ]
    )
    if epochs:
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(tf_keras.optimizers.legacy.Adam(0.003), loss)
        model.fit(to_float(split.images), split.labels, batch_size=32, epochs=epochs, verbose=0)
    height, width, channels = split.images.shape[1:]
    spec = InputSpec(height=height, width=width, color="rgb" if channels == 3 else "gray")
    described = ModelCard(name="net", labels=LABELS, input=spec, provenance=NOTHING)
    networks = {"float32": to_float32(model), "int8": to_int8(model, split.images[::7])}
    networks = {name: with_metadata(content, described) for name, content in networks.items()}
    files = {"keras": keras_bytes(model), **networks, "parity": make_vectors(described, networks)}
    return write_bundle(path, described, files)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("sabotage") / "healthy", GRAY, 0)


@pytest.fixture(scope="module")
def healthy_rgb(tmp_path_factory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("sabotage") / "rgb", RGB, 1)


WRONG = (Status.FAIL, Status.DOUBTFUL)


def complaints(path, split: Split = GRAY) -> list[tuple[object, str]]:
    """(question, message) for all that `edgefer verify --data` finds wrong; ("error", message) if it stops."""
    try:
        bundle = Bundle.open(path)
        checks = check_bundle(bundle, ["litert"])
        data = Dataset(name="drawn", labels=LABELS, splits={"valid": split})
        checks += [judge(found, Budget()) for found in prove(bundle, data, "valid", runtimes=["litert"]).cost]
    except EdgeferError as error:
        return [("error", str(error))]
    return [(check.question, f"{check.subject}: {check.detail}") for check in checks if check.status in WRONG]


class Saboteur:
    """A copy of a bundle to sabotage. Each method rewrites the hashes, so that they do not catch it."""

    def __init__(self, bundle: Bundle, path):
        self.bundle, self.path = bundle, path
        self.files = {name: bundle.read(name) for name in bundle.card.variants}
        self.write()

    def write(self, **card):
        write_bundle(self.path, self.bundle.card.model_copy(update=card), self.files)

    def network(self, change, variant="int8"):
        """Change a .tflite through the schema's own objects: `change` gets the first subgraph and the buffers."""
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(self.files[variant]))
        change(model.subgraphs[0], model.buffers)
        builder = flatbuffers.Builder(0)
        builder.Finish(model.Pack(builder), b"TFL3")
        self.files[variant] = bytes(builder.Output())
        self.write()

    def vectors(self, change):
        with np.load(io.BytesIO(self.files["parity"])) as arrays:
            changed = {name: arrays[name] for name in arrays.files}
        change(changed)
        out = io.BytesIO()
        np.savez_compressed(out, **changed)
        self.files["parity"] = out.getvalue()
        self.write()

    def swap(self, variant, content):
        self.files[variant] = content
        self.write()

    def card(self, **fields):
        """Set fields of card.json directly, without the checks of ModelCard."""
        file = self.path / CARD
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def shift_zero_point(which):
    def change(graph, _):
        tensor = graph.tensors[getattr(graph, which)[0]]
        tensor.quantization.zeroPoint = [int(tensor.quantization.zeroPoint[0]) + 1]

    return change


def scale_input(graph, _):
    graph.tensors[graph.inputs[0]].quantization.scale = [1 / 127.5]


def convolution_weights(graph):
    """The weights of the second convolution: the last tensor with a scale for each of its channels."""
    found = [t for t in graph.tensors if t.quantization and t.quantization.scale is not None]
    return [t for t in found if len(t.quantization.scale) == 16 and len(t.shape) == 4][-1]


def zero_a_layer(graph, buffers):
    weights = convolution_weights(graph)
    buffers[weights.buffer].data = np.zeros_like(buffers[weights.buffer].data)


def shuffle_scales(graph, _):
    quantization = convolution_weights(graph).quantization
    quantization.scale = np.roll(quantization.scale, 1)


def zero_the_answers(graph, buffers):
    for tensor in graph.tensors:
        if tensor.shape is not None and tensor.shape[0] == len(LABELS):  # the dense layer's weights and bias
            buffers[tensor.buffer].data = np.zeros_like(buffers[tensor.buffer].data)
    graph.tensors[graph.outputs[0]].quantization.zeroPoint = [0]


def flip_bit(saboteur):
    """In the middle of the file, without rewriting the hash."""
    content = bytearray(saboteur.files["int8"])
    content[len(content) // 2] ^= 1
    (saboteur.path / "int8.tflite").write_bytes(content)


def flip_bias(graph, buffers):
    """The highest bit of one answer's bias."""
    bias = next(t for t in graph.tensors if t.shape is not None and list(t.shape) == [len(LABELS)])
    data = np.array(buffers[bias.buffer].data)
    data[3] ^= 0x80
    buffers[bias.buffer].data = data


def flip_weight(graph, buffers):
    """The lowest bit of one weight: it is within question 3's tolerance."""
    data = np.array(buffers[convolution_weights(graph).buffer].data)
    data[100] ^= 1
    buffers[convolution_weights(graph).buffer].data = data


def flip_weight_float(graph, buffers):
    """A bit of the exponent of one float weight."""
    weights = next(t for t in graph.tensors if t.shape is not None and list(t.shape) == [16, 3, 3, 16])
    data = np.array(buffers[weights.buffer].data)
    data[403] ^= 1
    buffers[weights.buffer].data = data


def weights_of(graph, layer):
    """The int8 weights of the first, second or third layer."""
    operator = graph.operators[[op for op, one in enumerate(graph.operators) if len(one.inputs) == 3][layer]]
    return graph.tensors[operator.inputs[1]]


def nudge(*layers):
    """Every twentieth weight of these layers one up or down."""

    def change(graph, buffers):
        rng = np.random.default_rng(0)
        for layer in layers:
            weights = buffers[weights_of(graph, layer).buffer]
            data = np.array(weights.data, np.uint8).view(np.int8).astype(int)
            chosen = rng.permutation(data.size)[: -(-data.size // 20)]
            data[chosen] += rng.choice([-1, 1], chosen.size)
            weights.data = np.clip(data, -127, 127).astype(np.int8).view(np.uint8)

    return change


def shift_bias(graph, buffers):
    operator = [one for one in graph.operators if len(one.inputs) == 3][1]
    buffer = buffers[graph.tensors[operator.inputs[2]].buffer]
    bias = np.array(buffer.data, np.uint8).view(np.int32).copy()
    bias[5] += 3
    buffer.data = bias.view(np.uint8)


def shift_inner(layer):
    def change(graph, _):
        tensor = graph.tensors[graph.operators[layer].outputs[0]]
        tensor.quantization.zeroPoint = [int(tensor.quantization.zeroPoint[0]) + 1]

    return change


def scale_inner(graph, _):
    tensor = graph.tensors[graph.operators[0].outputs[0]]
    tensor.quantization.scale = [float(tensor.quantization.scale[0]) * 1.01]


def scale_bias(graph, _):
    operator = [one for one in graph.operators if len(one.inputs) == 3][1]
    quantization = graph.tensors[operator.inputs[2]].quantization
    quantization.scale = np.array(quantization.scale) * 1.01


def two_crops(saboteur, factor):
    """Vectors of two detectors' crops; then the second one changes in the card."""
    card = saboteur.bundle.card.model_copy(update={"crops": {"haar": CropSpec(), "yunet": CropSpec(scale=1.2)}})
    networks = {name: saboteur.files[name] for name in ("float32", "int8")}
    saboteur.files["parity"] = make_vectors(card, networks)
    saboteur.write(crops={"haar": CropSpec(), "yunet": CropSpec(scale=1.2 * factor)})


def stale(vectors):
    vectors["answers_int8"] = np.roll(vectors["answers_int8"], 1, axis=0)


def calibrated_on(saboteur, images):
    """As if conversion itself had gone wrong: the vectors are made with the faulty network, so they cannot detect it."""
    from edgefer.train.evaluate import load_keras

    int8 = to_int8(load_keras(saboteur.bundle, "keras"), images)
    networks = {"float32": saboteur.files["float32"], "int8": int8}
    saboteur.files |= {"int8": int8, "parity": make_vectors(saboteur.bundle.card, networks)}
    saboteur.write()


NOISE = np.random.default_rng(0).normal(128, 4, GRAY.images.shape).astype(np.uint8)
SWAPPED = (LABELS[1], LABELS[0], *LABELS[2:])
# The sabotage, the question that must catch it ("error": refused before any question), and part of the message.
SABOTAGES = {
    "labels permuted": (lambda s: s.write(labels=SWAPPED), "error", "labels are"),
    "temperature absurd": (lambda s: s.write(temperature=50.0), "error", "temperature is 50"),
    "temperature impossible": (lambda s: s.card(temperature=-1), "error", "temperature"),
    "crop changed": (lambda s: s.write(crops={"haar": preprocess.CropSpec(scale=1.1)}), 1, "pixels of"),
    "card of another input size": (lambda s: s.write(input=InputSpec(height=32, width=32)), "error", "32"),
    "card of another colour": (lambda s: s.write(input=InputSpec(height=24, width=24, color="rgb")), "error", "3"),
    "card of more labels": (lambda s: s.write(labels=(*LABELS, "calm")), "error", "labels are"),
    "another schema version": (lambda s: s.card(schema_version=2), "error", "schema_version"),
    "output zero point off by one": (lambda s: s.network(shift_zero_point("outputs")), 3, "int8 on litert: off by"),
    "input zero point off by one": (lambda s: s.network(shift_zero_point("inputs")), "error", "zero point -127"),
    "input scale doubled": (lambda s: s.network(scale_input), "error", "scale 0.00784"),
    "a layer's weights zeroed": (lambda s: s.network(zero_a_layer), 3, "int8 on litert: off by"),
    "a layer's scales shuffled": (lambda s: s.network(shuffle_scales), 3, "int8 on litert: off by"),
    "answers all zero": (lambda s: s.network(zero_the_answers), 3, "every answer is zero"),
    "calibrated on noise": (lambda s: calibrated_on(s, NOISE), 2, "int8 on litert against keras: drop"),
    "calibrated in the dark": (lambda s: calibrated_on(s, GRAY.images // 40), 2, "int8 on litert against keras: drop"),
    "float32 under int8's name": (
        lambda s: s.swap("int8", s.files["float32"]),
        "error",
        "int8 file, but takes float32",
    ),
    "stale vectors": (lambda s: s.vectors(stale), 3, "int8 on litert: off by"),
    "vectors without answers": (lambda s: s.vectors(lambda v: v.pop("answers_int8")), "error", "answers_int8"),
    "vectors garbage": (lambda s: s.swap("parity", b"garbage"), "error", "parity vectors cannot be read"),
    "network truncated": (lambda s: s.swap("int8", s.files["int8"][:5000]), "error", "not a valid Flatbuffer"),
    "a bit flipped": (flip_bit, "error", "sha256 differs"),
    "a bias's bit flipped, hash rewritten": (lambda s: s.network(flip_bias), 3, "int8 on litert: off by"),
    "a weight's bit flipped, hash rewritten": (lambda s: s.network(flip_weight), 2, "1 weights of CONV_2D"),
    "plus or minus 1 in 5% of two layers": (lambda s: s.network(nudge(0, 2)), 2, "weights of FULLY_CONNECTED 3"),
    "plus or minus 1 in 5% of every layer": (lambda s: s.network(nudge(0, 1, 2)), 2, "weights of CONV_2D 1"),
    "a bias of 3 quanta more": (lambda s: s.network(shift_bias), 2, "1 biases of CONV_2D 2"),
    "an inner zero point off by one": (
        lambda s: s.network(shift_inner(0)),
        2,
        "never negative, but its zero point is -127",
    ),
    "an inner scale of 1% more": (lambda s: s.network(scale_inner), 2, "the scale of its bias is not"),
    "the scales of a bias": (lambda s: s.network(scale_bias), 2, "the scale of its bias is not"),
    "the crop of the second detector": (lambda s: two_crops(s, 1.1), 1, "pixels of yunet's crop"),
    "faces of another kind": (lambda s: s.write(faces="cat"), "error", "faces are cat"),
    "a weight's bit flipped in float32": (
        lambda s: s.network(flip_weight_float, "float32"),
        2,
        "1 weights of CONV_2D 2",
    ),
}


def test_unchanged_copy_passes(healthy, tmp_path):
    assert complaints(Saboteur(healthy, tmp_path / "bundle").path) == []


@pytest.mark.parametrize("name", SABOTAGES)
def test_sabotage_is_caught_by_the_right_question(healthy, tmp_path, name):
    spoil, question, word = SABOTAGES[name]
    saboteur = Saboteur(healthy, tmp_path / "bundle")
    spoil(saboteur)
    found = complaints(saboteur.path)
    assert any(by == question and word in message for by, message in found), found


def test_vectors_of_another_network_of_the_same_shape_are_caught(healthy, tmp_path):
    other = make_bundle(tmp_path / "other", GRAY, seed=9, epochs=0)
    saboteur = Saboteur(healthy, tmp_path / "bundle")
    saboteur.swap("parity", other.read("parity"))
    assert {by for by, _ in complaints(saboteur.path)} == {2, 3}  # its answers, and its scales


def test_swapped_colour_channels_are_caught_by_question_1(healthy_rgb, monkeypatch):
    assert complaints(healthy_rgb.path, RGB) == []
    monkeypatch.setattr(preprocess.cv2, "cvtColor", lambda image, code: image)
    assert [by for by, _ in complaints(healthy_rgb.path, RGB)] == [1, 1]


def test_another_resize_kernel_is_caught_by_question_1(healthy, monkeypatch):
    resize = preprocess.cv2.resize

    def nearest(image, size, **_):
        return resize(image, size, interpolation=preprocess.cv2.INTER_NEAREST)

    with monkeypatch.context() as patch:
        patch.setattr(preprocess, "_area_means", lambda image, height, width: nearest(image, (width, height)))
        assert [by for by, _ in complaints(healthy.path)] == [1, 1]


def test_heads_levelled_the_wrong_way_are_caught_by_question_1(healthy, monkeypatch):
    turn = preprocess.cv2.warpAffine

    def other_way(image, matrix, size, **how):
        matrix[[0, 1], [1, 0]] *= -1
        return turn(image, matrix, size, **how)

    with monkeypatch.context() as patch:
        patch.setattr(preprocess.cv2, "warpAffine", other_way)
        assert [message.split(":")[0] for _, message in complaints(healthy.path)] == ["pixels of levelled heads"]


def test_a_runtime_that_answers_zeros_is_caught_by_question_3(healthy, monkeypatch):
    monkeypatch.setattr(Network, "raw", lambda self, pixels, **limits: np.zeros((len(pixels), len(LABELS)), self.dtype))
    failed = [check for check in verify(healthy, runtime="litert") if not check.passed]
    assert [check.question for check in failed] == [3, 3]
    assert all("every answer is zero" in check.detail for check in failed)


@pytest.mark.parametrize("seed", range(10))
def test_no_false_alarm_over_ten_networks(tmp_path, seed):
    """All checks that need only the bundle. An untrained network may decide otherwise in int8, so no data is used."""
    bundle = make_bundle(tmp_path / "healthy", GRAY, seed, epochs=0)
    checks = check_bundle(bundle, ["litert", "tensorflow"])
    assert [(check.question, check.status) for check in checks] == [
        (1, "pass"), (1, "pass"), (1, "pass"), (3, "pass"), (3, "pass"), (3, "pass"), (3, "pass"), (3, "pass"), (2, "pass"), (2, "pass"),
    ], checks  # fmt: skip
