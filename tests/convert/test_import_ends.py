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
from tests.tflite.chance import Chance, flat

LABELS = ("angry", "happy", "sad")


@pytest.fixture(scope="module")
def keras():
    tensorflow()
    import tf_keras

    return tf_keras


def ends(keras) -> dict:
    """By the name of what an end should be taken for, how networks end; an end takes [n, 3] answers of a dense layer."""
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


def test_how_a_keras_network_ends_is_seen_behind_layers_that_pass_on_and_in_networks_within(keras, tmp_path):
    for expected, some in ends(keras).items():
        for number, end in enumerate(some):
            made(keras, end).save(tmp_path / "theirs.keras")
            found = read_foreign(tmp_path / "theirs.keras").end
            assert (found.output.values if found.output else found.name) == expected, (expected, number)


def test_how_a_converted_network_ends_is_seen_too(keras, tmp_path):
    """Of a SavedModel this is what is read."""
    names = {
        "relu": "RELU",
        "ReLU": "RELU",
        "tanh": "TANH",
        "sigmoid": "LOGISTIC",
        "Multiply": "MUL",
        "Softmax": "SOFTMAX",
    }
    for kind, some in ends(keras).items():
        for number, end in enumerate(some):
            found = tflite_end(read_model(to_float32(made(keras, end)), "made"))
            assert (found.output.values if found.output else found.name) == names.get(kind, kind), (kind, number)
    half = to_float16(made(keras, lambda x: keras.layers.Rescaling(0.3)(keras.layers.Softmax()(x))))
    assert tflite_end(read_model(half, "made")).name == "SOFTMAX"


@pytest.mark.parametrize(
    ("name", "act", "expected"),
    [("", "NONE", "logits"), ("", "RELU", "RELU"), ("SOFTMAX", "NONE", "probabilities"), ("TANH", "NONE", "TANH"), ("HARD_SWISH", "NONE", "HARD_SWISH")],
)  # fmt: skip
def test_how_an_int8_network_ends_is_seen_where_its_output_is_made_and_not_in_its_last_operator(name, act, expected):
    make = Chance(0).make
    answers = make.dense(flat(make, make.input((1, 16, 16, 1))), 3, act)
    answers = make.unary("QUANTIZE", make.unary(name, answers) if name else answers)
    make.unary("LOGISTIC", make.first)  # which nothing reads
    found = tflite_end(read_model(make.finish(answers), "made"))
    assert (found.output.values if found.output else found.name) == expected


def taken_in(path, out, **stated):
    return import_network(Request(path=path, stated=Stated(labels=LABELS, scale=parse_scale("0..1"), **stated)), out)


@pytest.mark.parametrize("form", ["theirs.keras", "theirs", "theirs.tflite"])
def test_what_is_neither_is_refused_and_with_a_statement_noted_in_the_card(keras, forked_conversion, tmp_path, form):
    file, network = tmp_path / form, made(keras, lambda x: keras.layers.Activation("tanh")(x))
    if form == "theirs":
        network.export(str(file))
    elif form == "theirs.tflite":
        file.write_bytes(to_float32(network))
    else:
        network.save(file)
    name = "tanh" if form == "theirs.keras" else "TANH"
    with pytest.raises(InputError, match=rf"{form} ends with {name}: .* neither logits nor .* state --outputs logits"):
        taken_in(file, tmp_path / "out")
    with pytest.raises(InputError, match="neither logits" if form == "theirs.keras" else "gives no probabilities"):
        taken_in(file, tmp_path / "out", output=PROBABILITIES)
    assert not (tmp_path / "out").exists()
    imported = taken_in(file, tmp_path / "out", output=LOGITS)
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
                taken_in(tmp_path / file, tmp_path / "out", **stated)


def test_a_hard_sigmoid_is_seen_as_keras_3_computes_it_and_a_clip_to_other_numbers_is_none(keras):
    layers = keras.layers
    for factor, expected in ((1 / 6, "hard_sigmoid"), (1 / 2, "RELU6")):
        network = made(keras, lambda x, by=factor: layers.Rescaling(by)(layers.ReLU(6.0)(layers.Rescaling(1, 3)(x))))
        assert tflite_end(read_model(to_float32(network), "made")).name == expected
    make = Chance(0).make
    answers = make.unary("RELU_0_TO_1", make.dense(flat(make, make.input((1, 16, 16, 1))), 3))
    assert tflite_end(read_model(make.finish(answers), "made")).name == "hard_sigmoid"


def test_a_hard_sigmoid_in_int8_is_seen_where_its_clip_to_1_is_beyond_the_range_of_its_tensor(keras):
    pixels = keras.Input((16, 16, 1))
    small = keras.initializers.RandomNormal(stddev=0.02, seed=0)
    end = keras.layers.Dense(3, activation="hard_sigmoid", kernel_initializer=small)
    network = keras.Model(pixels, end(keras.layers.Flatten()(pixels)))
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1), np.uint8)
    model = read_model(to_int8(network, images), "made")
    assert [one.name for one in model.operators][-2:] == ["MINIMUM", "RELU"]
    assert tflite_end(model).name == "hard_sigmoid"


def test_a_tensor_that_is_made_of_itself_ends_the_search():
    make = Chance(0).make
    answers = make.unary("RELU", make.dense(flat(make, make.input((1, 16, 16, 1))), 3, "NONE"))
    model = read_model(make.finish(answers), "made")
    last = model.main.operators[-1]
    looped = replace(last, inputs=last.outputs)
    main = replace(model.main, operators=(*model.main.operators[:-1], looped))
    assert tflite_end(replace(model, subgraphs=(main,))).output is None


def test_an_average_of_softmaxes_is_taken_in_where_they_are_stated_to_be_probabilities(keras, tmp_path):
    layers = keras.layers
    network = made(keras, lambda x: layers.Average()([layers.Softmax()(x), layers.Softmax()(layers.Dense(3)(x))]))
    network.save(tmp_path / "theirs.keras")
    (tmp_path / "theirs.tflite").write_bytes(to_float32(network))
    for stated in ({}, {"output": PROBABILITIES}):
        with pytest.raises(InputError, match=r"average of softmaxes, export it as a SavedModel or \.tflite"):
            taken_in(tmp_path / "theirs.keras", tmp_path / "out", **stated)
    with pytest.raises(InputError, match=r"ends with sums or multiples of what SOFTMAX gives.* state --outputs prob"):
        taken_in(tmp_path / "theirs.tflite", tmp_path / "out")
    assert taken_in(tmp_path / "theirs.tflite", tmp_path / "out", output=PROBABILITIES).contract.output == PROBABILITIES


def test_a_log_softmax_is_taken_off_a_keras_network_s_end(keras, tmp_path):
    made(keras, lambda x: keras.layers.Dense(3, activation="log_softmax")(x)).save(tmp_path / "theirs.h5")
    imported = taken_in(tmp_path / "theirs.h5", tmp_path / "out")
    assert imported.contract.output == LOGITS and all(check.passed for check in imported.checks)
    assert b"log_softmax" not in (tmp_path / "out" / "model.keras").read_bytes()
    assert b"LOG_SOFTMAX" not in (tmp_path / "out" / "float32.tflite").read_bytes()


def test_keras_3_s_hard_sigmoid_is_another_function_and_refused(tmp_path):
    import keras

    pixels = keras.Input((16, 16, 1))
    hidden = keras.layers.Dense(3, activation="hard_sigmoid")(keras.layers.Flatten()(pixels))
    network = keras.Model(pixels, keras.layers.Dense(3)(hidden))
    for name in ("theirs.keras", "theirs.h5"):
        network.save(tmp_path / name)
        with pytest.raises(InputError, match=r"'hard_sigmoid' is another function in Keras 3 .* export it as"):
            taken_in(tmp_path / name, tmp_path / "out")


def test_a_softmax_in_a_network_within_is_done_once(keras, tmp_path):
    layers = keras.layers
    within = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Softmax(name="last")])
    network = made(keras, within)
    network.save(tmp_path / "theirs.keras")
    imported = taken_in(tmp_path / "theirs.keras", tmp_path / "out")
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
