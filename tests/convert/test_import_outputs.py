"""The kind of an imported network's outputs is read from its last layers; neither logits nor probabilities: refused, or stated."""

from dataclasses import replace

import numpy as np
import pytest

from edgefer.bundle import Bundle
from edgefer.convert.contract import Stated, parse_scale
from edgefer.convert.foreign import read_foreign
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network
from edgefer.convert.outputs import PROBABILITIES, check_answers, tflite_end
from edgefer.convert.quantize import to_float16, to_float32, to_int8
from edgefer.errors import InputError
from edgefer.interpreter import LOGITS
from edgefer.tflite.flatbuffer import read_model
from edgefer.train.backend import tensorflow
from tests.tflite.random_networks import RandomNetwork, flat

LABELS = ("angry", "happy", "sad")


@pytest.fixture(scope="module")
def keras():
    tensorflow()
    import tf_keras

    return tf_keras


def ends(keras) -> dict:
    """Ends of networks, by the kind they should be recognized as; an end takes the [n, 3] outputs of a dense layer."""
    layers = keras.layers

    def inner(*parts):
        return keras.Sequential([keras.Input((3,)), *parts])

    return {
        "logits": [
            lambda x: x,
            lambda x: layers.Reshape((3,))(layers.Dropout(0.5)(x)),
            lambda x: layers.BatchNormalization()(x),
            lambda x: layers.Average()([x, layers.Dense(3)(x)]),
            lambda x: layers.Dense(3)(layers.ReLU()(x)),
            lambda x: layers.Reshape((3,))(layers.Conv2D(3, 1)(layers.Reshape((1, 1, 3))(x))),
            lambda x: layers.Dense(3, activation="log_softmax")(x),
            lambda x: layers.Rescaling(0.5)(layers.Activation("log_softmax")(x)),
        ],
        "probabilities": [
            lambda x: layers.Softmax()(x),
            lambda x: layers.Activation("softmax")(x),
            lambda x: layers.Reshape((3,))(layers.Softmax()(layers.Reshape((1, 3))(x))),
            lambda x: layers.Dropout(0.5)(layers.Dense(3, activation="softmax")(x)),
            lambda x: inner(layers.Dense(3), layers.Softmax())(x),
        ],
        "relu": [lambda x: layers.Dense(3, activation="relu")(x), lambda x: inner(layers.Activation("relu"))(x)],
        "ReLU": [lambda x: layers.ReLU()(x), lambda x: layers.Flatten()(layers.ReLU()(x))],
        "tanh": [lambda x: layers.Activation("tanh")(x), lambda x: layers.Rescaling(2.0)(layers.Dense(3, "tanh")(x))],
        "hard_sigmoid": [lambda x: layers.Dense(3, activation="hard_sigmoid")(x)],
        "sigmoid": [lambda x: layers.Dense(3, activation="sigmoid")(x)],
        "Multiply": [lambda x: layers.Multiply()([x, layers.Dense(3)(x)])],
        "Softmax": [lambda x: layers.Average()([layers.Softmax()(x), layers.Softmax()(layers.Dense(3)(x))])],
    }


def made(keras, end):
    pixels = keras.Input((16, 16, 1))
    return keras.Model(pixels, end(keras.layers.Dense(3)(keras.layers.Flatten()(pixels))))


def test_output_kind_is_found_behind_other_layers_in_nested_networks_and_once_converted(keras, tmp_path):
    """Converted, as a SavedModel is read."""
    operators = {
        "relu": "RELU",
        "ReLU": "RELU",
        "tanh": "TANH",
        "sigmoid": "LOGISTIC",
        "Multiply": "MUL",
        "Softmax": "SOFTMAX",
    }
    for expected, variants in ends(keras).items():
        for number, end in enumerate(variants):
            network = made(keras, end)
            network.save(tmp_path / "theirs.keras")
            found = read_foreign(tmp_path / "theirs.keras").end
            assert (found.output.values if found.output else found.name) == expected, (expected, number)
            found, expected_of_it = (
                tflite_end(read_model(to_float32(network), "made")),
                operators.get(expected, expected),
            )
            assert (found.output.values if found.output else found.name) == expected_of_it, (expected, number)
    half = to_float16(made(keras, lambda x: keras.layers.Rescaling(0.3)(keras.layers.Softmax()(x))))
    assert tflite_end(read_model(half, "made")).name == "SOFTMAX"


@pytest.mark.parametrize(
    ("name", "act", "expected"),
    [("", "NONE", "logits"), ("", "RELU", "RELU"), ("SOFTMAX", "NONE", "probabilities"), ("TANH", "NONE", "TANH"), ("HARD_SWISH", "NONE", "HARD_SWISH")],
)  # fmt: skip
def test_output_kind_of_an_int8_network_is_that_of_the_operator_which_makes_its_output(name, act, expected):
    make = RandomNetwork(0).make
    answers = make.dense(flat(make, make.input((1, 16, 16, 1))), 3, act)
    answers = make.unary("QUANTIZE", make.unary(name, answers) if name else answers)
    make.unary("LOGISTIC", make.first)  # whose output nothing reads
    found = tflite_end(read_model(make.finish(answers), "made"))
    assert (found.output.values if found.output else found.name) == expected


def import_file(path, out, **stated):
    return import_network(Request(path=path, stated=Stated(labels=LABELS, scale=parse_scale("0..1"), **stated)), out)


@pytest.mark.parametrize("form", ["theirs.keras", "theirs", "theirs.tflite"])
def test_output_of_unknown_kind_is_refused_unless_stated_and_then_noted_in_the_card(
    keras, forked_conversion, tmp_path, form
):
    file, network = tmp_path / form, made(keras, lambda x: keras.layers.Activation("tanh")(x))
    if form == "theirs":
        network.export(str(file))
    elif form == "theirs.tflite":
        file.write_bytes(to_float32(network))
    else:
        network.save(file)
    name = "tanh" if form == "theirs.keras" else "TANH"
    with pytest.raises(InputError, match=rf"{form} ends with {name}: .* neither logits nor .* state --outputs logits"):
        import_file(file, tmp_path / "out")
    with pytest.raises(InputError, match="neither logits" if form == "theirs.keras" else "gives no probabilities"):
        import_file(file, tmp_path / "out", output=PROBABILITIES)
    assert not (tmp_path / "out").exists()
    imported = import_file(file, tmp_path / "out", output=LOGITS)
    assert imported.because[-1] == f"it ends with {name}, and its answers are taken for logits because that was stated"
    step = Bundle.open(tmp_path / "out").card.provenance.steps[0]
    assert step.endswith(f"gives logits, as was stated: it ends with {name}")


def test_a_sigmoid_over_several_labels_is_refused_whatever_is_stated(keras, tmp_path):
    network = made(keras, lambda x: keras.layers.Dense(3, activation="sigmoid")(x))
    network.save(tmp_path / "theirs.h5")
    (tmp_path / "theirs.tflite").write_bytes(to_float32(network))
    for file in ("theirs.h5", "theirs.tflite"):
        for stated in ({}, {"output": LOGITS}, {"output": PROBABILITIES}):
            with pytest.raises(InputError, match=rf"{file} ends with a sigmoid: .*one label out of several"):
                import_file(tmp_path / file, tmp_path / "out", **stated)


def test_hard_sigmoid_of_keras_3_is_recognized_and_other_clips_are_not(keras):
    layers = keras.layers
    for factor, expected in ((1 / 6, "hard_sigmoid"), (1 / 2, "RELU6")):
        network = made(keras, lambda x, by=factor: layers.Rescaling(by)(layers.ReLU(6.0)(layers.Rescaling(1, 3)(x))))
        assert tflite_end(read_model(to_float32(network), "made")).name == expected
    make = RandomNetwork(0).make
    answers = make.unary("RELU_0_TO_1", make.dense(flat(make, make.input((1, 16, 16, 1))), 3))
    assert tflite_end(read_model(make.finish(answers), "made")).name == "hard_sigmoid"


def test_int8_hard_sigmoid_is_recognized_even_if_its_clip_to_1_is_out_of_range(keras):
    pixels = keras.Input((16, 16, 1))
    small = keras.initializers.RandomNormal(stddev=0.02, seed=0)
    end = keras.layers.Dense(3, activation="hard_sigmoid", kernel_initializer=small)
    network = keras.Model(pixels, end(keras.layers.Flatten()(pixels)))
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1), np.uint8)
    model = read_model(to_int8(network, images), "made")
    assert [one.name for one in model.operators][-2:] == ["MINIMUM", "RELU"]
    assert tflite_end(model).name == "hard_sigmoid"


def test_cyclic_graph_ends_the_search():
    make = RandomNetwork(0).make
    answers = make.unary("RELU", make.dense(flat(make, make.input((1, 16, 16, 1))), 3, "NONE"))
    model = read_model(make.finish(answers), "made")
    last = model.main.operators[-1]
    looped = replace(last, inputs=last.outputs)
    main = replace(model.main, operators=(*model.main.operators[:-1], looped))
    assert tflite_end(replace(model, subgraphs=(main,))).output is None


def test_average_of_softmaxes_is_imported_if_stated_as_probabilities(keras, tmp_path):
    layers = keras.layers
    network = made(keras, lambda x: layers.Average()([layers.Softmax()(x), layers.Softmax()(layers.Dense(3)(x))]))
    network.save(tmp_path / "theirs.keras")
    (tmp_path / "theirs.tflite").write_bytes(to_float32(network))
    for stated in ({}, {"output": PROBABILITIES}):
        with pytest.raises(InputError, match=r"average of softmaxes, export it as a SavedModel or \.tflite"):
            import_file(tmp_path / "theirs.keras", tmp_path / "out", **stated)
    with pytest.raises(InputError, match=r"ends with sums or multiples of what SOFTMAX gives.* state --outputs prob"):
        import_file(tmp_path / "theirs.tflite", tmp_path / "out")
    assert (
        import_file(tmp_path / "theirs.tflite", tmp_path / "out", output=PROBABILITIES).contract.output == PROBABILITIES
    )


def test_log_softmax_is_removed_from_the_end_of_a_keras_network(keras, tmp_path):
    made(keras, lambda x: keras.layers.Dense(3, activation="log_softmax")(x)).save(tmp_path / "theirs.h5")
    imported = import_file(tmp_path / "theirs.h5", tmp_path / "out")
    assert imported.contract.output == LOGITS and all(check.passed for check in imported.checks)
    assert b"log_softmax" not in (tmp_path / "out" / "model.keras").read_bytes()
    assert b"LOG_SOFTMAX" not in (tmp_path / "out" / "float32.tflite").read_bytes()


def test_keras_3_s_hard_sigmoid_is_a_sigmoid_too(tmp_path):
    import keras

    pixels = keras.Input((16, 16, 1))
    keras.Model(pixels, keras.layers.Dense(3, activation="hard_sigmoid")(keras.layers.Flatten()(pixels))).save(
        tmp_path / "theirs.keras"
    )
    with pytest.raises(InputError, match="ends with a sigmoid"):
        import_file(tmp_path / "theirs.keras", tmp_path / "bundle")


def test_softmax_in_a_nested_network_is_applied_once(keras, tmp_path):
    layers = keras.layers
    nested = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Softmax(name="last")])
    network = made(keras, nested)
    network.save(tmp_path / "theirs.keras")
    imported = import_file(tmp_path / "theirs.keras", tmp_path / "out")
    assert imported.contract.output == PROBABILITIES and all(check.passed for check in imported.checks)


def test_outputs_that_contradict_the_stated_kind_are_refused():
    shares = np.random.default_rng(0).dirichlet(np.ones(7), 24).astype(np.float32)
    check_answers(np.log(shares), PROBABILITIES, "it")
    check_answers(np.log(np.round(shares * 256) / 256 + 1e-7), PROBABILITIES, "it")
    check_answers(np.log(shares * 0.975), PROBABILITIES, "it")  # an int8 average of softmaxes
    check_answers(np.log(shares), LOGITS, "it")
    with pytest.raises(InputError, match=r"it gives probabilities, .* state --outputs probabilities"):
        check_answers(shares, LOGITS, "it")
    with pytest.raises(InputError, match=r"it gives no probabilities: .* add up to "):
        check_answers(np.log(shares * 1.2), PROBABILITIES, "it")
