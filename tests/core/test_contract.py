"""A third-party network: its card states how it scales pixels and what it outputs, and the interpreter follows it."""

import json

import numpy as np
import pytest

from edgefer.card import InputSpec, ModelCard, OutputSpec, Provenance
from edgefer.errors import BundleError
from edgefer.interpreter import Classifier, Network, softmax
from edgefer.preprocess import float_table, look_up, prepare, quantized_table, to_float, to_int8
from edgefer.vectors import make_vectors

CLASSES = 3
SPECS = {
    "minus one to one": InputSpec(height=16, width=16, scale=2 / 255, offset=-1),
    "raw pixels, BGR": InputSpec(height=16, width=16, color="bgr", scale=1),
    "z-scores": InputSpec(
        height=16, width=16, color="rgb", scale=(1 / 58.4, 1 / 57.1, 1 / 57.4), offset=(-2.118, -2.036, -1.804)
    ),
    "a 255th": InputSpec(height=16, width=16, scale=1 / 255),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
NOTHING = Provenance(data="", split_sizes={}, recipe={}, seed=0, epoch=1, versions={})


def in_float(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Pixels scaled by the contract, in float64 and without a table."""
    return (pixels * np.array(spec.scale, np.float64) + np.array(spec.offset, np.float64)).astype(np.float32)


@pytest.fixture(scope="module", params=SPECS)
def made(request):
    """(spec, Keras probabilities [40, 3], .tflite by input and output types: "float32", "int8", "uint8", "uint8 in")."""
    from edgefer.convert.quantize import converter_of
    from edgefer.quiet import quiet
    from edgefer.train.backend import tensorflow

    tf = tensorflow()
    import tf_keras

    spec = SPECS[request.param]
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(1)
    inputs = layers.Input(spec.shape, batch_size=1)
    hidden = layers.Conv2D(4, 3, strides=4, activation="relu")(inputs)
    model = tf_keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(hidden)))
    model.layers[-1].set_weights(
        [w * (0.02 if request.param.startswith("raw") else 1) for w in model.layers[-1].get_weights()]
    )
    values = in_float(PIXELS[..., : spec.channels], spec)
    function = tf.function(model, autograph=False).get_concrete_function(tf.TensorSpec((1, *spec.shape)))
    files = {}
    for types in ("float32", "int8", "uint8", "uint8 in"):
        converter = converter_of(function)
        if types != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([one[None]] for one in values)
            kind = tf.uint8 if types.startswith("uint8") else tf.int8
            converter.inference_input_type = kind
            converter.inference_output_type = tf.float32 if types == "uint8 in" else kind
        with quiet():
            files[types] = converter.convert()
    answers = np.concatenate([model(one[None], training=False).numpy() for one in values])
    return spec, answers, files


def test_every_input_and_output_type_gives_the_answers_of_the_network(made):
    spec, expected, files = made
    for types, content in files.items():
        network = Network(content, spec, CLASSES, output=OutputSpec(values="probabilities"))
        answers = softmax(network.logits(PIXELS[..., : spec.channels]))
        assert network.quantized == (types in ("int8", "uint8"))
        assert np.abs(answers - expected).max() < (1e-5 if types == "float32" else 0.03), types


def test_wrong_contract_gives_wrong_answers(made):
    """The scaling stated in the card is applied: with another one, the answers differ."""
    spec, expected, files = made
    other = spec.model_copy(update={"scale": 1 / 1000, "offset": 0.5})
    network = Network(files["float32"], other, CLASSES, output=OutputSpec(values="probabilities"))
    assert np.abs(softmax(network.logits(PIXELS[..., : spec.channels])) - expected).max() > 0.02


def test_bundle_passes_its_checks_and_predicts_probabilities(made, tmp_path):
    from edgefer.bundle import write_bundle
    from edgefer.parity import check_at_load, verify

    spec, expected, files = made
    card = ModelCard(
        name="elsewhere",
        labels=("a", "b", "c"),
        input=spec,
        output=OutputSpec(values="probabilities"),
        provenance=NOTHING,
    )
    networks = {"float32": files["float32"], "int8": files["uint8"]}
    bundle = write_bundle(tmp_path / "bundle", card, networks | {"parity": make_vectors(card, networks)})
    assert all(check.passed for check in verify(bundle))
    for variant in networks:
        classifier = Classifier.load(bundle, variant=variant)
        check_at_load(bundle, classifier.network, variant)
        (answer,) = classifier.predict(PIXELS[:1, ..., : spec.channels])
        assert answer.tolist() == pytest.approx(expected[0].tolist(), abs=0.03)


def test_a_quantized_input_that_cannot_hold_the_pixels_is_refused(made):
    spec, _, files = made
    wrong = spec.model_copy(update={"scale": 1000.0, "offset": 0.0})
    with pytest.raises(BundleError, match=r"distinguishes only . of the 256 pixel values"):
        Network(files["int8"], wrong, CLASSES)


def test_default_contract_divides_pixels_by_255():
    own = InputSpec(height=16, width=16)
    every = np.arange(256, dtype=np.uint8)[:, None]
    assert np.array_equal(look_up(every, float_table(own)), to_float(every))
    assert np.array_equal(look_up(every, quantized_table(own, np.int8, np.float32(1 / 255), -128)), to_int8(every))
    assert np.array_equal(to_float(every, own), every.astype(np.float32) * np.float32(1 / 255))
    stated = InputSpec(height=16, width=16, scale=1 / 127.5, offset=-1)
    assert to_float(every, stated)[[0, 255]].tolist() == [[-1], [1]]


def test_default_contract_is_not_written_and_a_stated_one_survives_the_card():
    own = ModelCard(name="n", labels=("a", "b"), input=InputSpec(height=16, width=16), provenance=NOTHING)
    plain = json.loads(own.model_dump_json())
    assert plain["input"] == {"height": 16, "width": 16, "color": "gray"} and "output" not in plain
    for spec in SPECS.values():
        card = own.model_copy(update={"input": spec, "output": OutputSpec(values="probabilities")})
        assert ModelCard.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"scale": (1, 2)}, "scale has 2 numbers for 1 channels"),
        ({"color": "rgb", "scale": 1, "offset": (0, 1)}, "offset has 2 numbers for 3 channels"),
        ({"offset": 1}, "without a scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": 1, "offset": float("inf")}, "offset"),
        ({"color": "hsv"}, "color"),
    ],
)
def test_invalid_contract_is_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        InputSpec(height=16, width=16, **fields)


def test_channels_are_in_the_order_of_the_card():
    bgr = PIXELS[0]
    spec = {color: InputSpec(height=16, width=16, color=color) for color in ("bgr", "rgb")}
    assert np.array_equal(prepare(bgr, spec["bgr"]), bgr)
    assert np.array_equal(prepare(bgr, spec["rgb"]), bgr[..., ::-1])
    assert np.array_equal(prepare(bgr[..., 0], spec["bgr"]), np.repeat(bgr[..., :1], 3, axis=2))
