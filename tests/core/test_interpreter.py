"""Running a .tflite: the contract is checked before the first image."""

import numpy as np
import pytest

from edgefer import interpreter, runtimes
from edgefer.card import InputSpec
from edgefer.errors import BundleError, InputError, MissingDependency, RuntimeFault
from edgefer.interpreter import Classifier, Network, RuntimeOptions, installed_runtimes, softmax
from edgefer.options import RuntimeName


def test_every_runtime_is_a_choice_of_the_option():
    assert set(RuntimeName) == {RuntimeName.AUTO, *runtimes.RUNTIMES}


def test_unknown_runtime_is_an_input_error():
    with pytest.raises(InputError, match="There is no runtime 'foo': choose litert"):
        Network(b"", InputSpec(height=16, width=16), 2, options=RuntimeOptions(runtime="foo"))


def test_int8_and_float_networks_agree_on_drawn_faces(converted):
    from edgefer import drawn
    from edgefer.preprocess import prepare

    faces, labels = drawn.face_set(4, seed=99)
    pixels = np.stack([prepare(face, converted.card.input) for face in faces])
    answers = {}
    for variant in ("int8", "float32"):
        classifier = Classifier.load(converted, variant=variant)
        assert classifier.network.quantized == (variant == "int8")
        answers[variant] = classifier.predict(pixels)
        assert answers[variant].shape == (len(labels), len(drawn.EXPRESSIONS))
        assert answers[variant].sum(axis=1) == pytest.approx(1)
        assert np.mean(answers[variant].argmax(axis=1) == labels) > 0.85
    assert np.mean(answers["int8"].argmax(axis=1) == answers["float32"].argmax(axis=1)) > 0.95


def test_empty_batch_gives_no_answers(converted):
    assert Classifier.load(converted).predict(np.empty((0, 48, 48, 1), np.uint8)).shape == (0, 7)


def test_temperature_softens_but_does_not_change_the_choice():
    logits = np.array([[3.0, 1.0, 0.0]])
    hot, cold = softmax(logits, 4.0), softmax(logits, 0.5)
    assert hot.argmax() == cold.argmax() == 0
    assert hot.max() < softmax(logits).max() < cold.max()
    assert softmax(np.array([[1e4, -1e4]])).tolist() == [[1, 0]]


def test_a_network_that_does_not_fit_its_card_is_refused(converted):
    content, spec = converted.read("int8"), converted.card.input
    with pytest.raises(BundleError, match=r"takes .*48.* pixels but its card says"):
        Network(content, InputSpec(height=64, width=64), 7)
    with pytest.raises(BundleError, match="card has 8 labels"):
        Network(content, spec, 8)
    for broken in (content[: len(content) // 2], b"", b"TFL3" * 100):
        with pytest.raises(RuntimeFault, match="The network cannot be loaded by litert"):
            Network(broken, spec, 7)


def test_an_int8_network_with_another_pixel_scale_is_refused(converted):
    details = {"shape": np.array([1, 48, 48, 1]), "dtype": np.int8, "quantization": (1 / 255, -127)}
    answers = {"shape": np.array([1, 7]), "dtype": np.int8, "quantization": (0.1, 0)}
    with pytest.raises(BundleError, match="zero point -127, not 1/255 and -128"):
        interpreter._check_contract(details, answers, converted.card.input, 7)
    interpreter._check_contract(details | {"quantization": (1 / 255, -128)}, answers, converted.card.input, 7)
    with pytest.raises(BundleError, match="uint8 in and"):
        interpreter._check_contract(details | {"dtype": np.uint8}, answers, converted.card.input, 7)


def test_error_for_an_unusable_runtime_gives_the_reason(converted, monkeypatch):
    assert installed_runtimes()[0] == "litert"
    with pytest.raises(InputError, match="no runtime 'onnx'"):
        Network(converted.read("int8"), converted.card.input, 7, options=RuntimeOptions(runtime="onnx"))
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(
        MissingDependency, match=r"numpy 2\.1\.0: pip install 'edgefer\[tflite-runtime\]' on Python 3\.11"
    ):
        Network(converted.read("int8"), converted.card.input, 7, options=RuntimeOptions(runtime="tflite-runtime"))
    monkeypatch.setattr(np, "__version__", "1.26.4")
    with pytest.raises(
        MissingDependency, match=r"cannot be loaded .*: pip install 'edgefer\[tflite-runtime\]' on Python"
    ):
        Network(converted.read("int8"), converted.card.input, 7, options=RuntimeOptions(runtime="tflite-runtime"))
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install ai-edge-litert"):
        Network(converted.read("int8"), converted.card.input, 7)
