"""Keras networks as tutorials of transfer learning build them give the same answers as in Keras once imported."""

import numpy as np
import pytest

from edgefer.bundle import Bundle
from edgefer.convert.contract import parse_scale
from edgefer.convert.foreign import read_foreign
from edgefer.convert.quantize import to_int8
from edgefer.errors import InputError
from edgefer.interpreter import Network, softmax
from edgefer.options import Color
from edgefer.tflite.flatbuffer import read_model
from edgefer.train.backend import tensorflow
from edgefer.train.keras_file import read_keras
from edgefer.train.networks import load_keras
from tests.convert.foreign_files import import_file
from tests.train.keras_files import saved

pytestmark = pytest.mark.timeout(300)
LABELS = ("angry", "happy", "sad")


@pytest.fixture(scope="module", params=["Keras 2", "Keras 3"])
def package(request):
    tensorflow()
    import keras
    import tf_keras

    return keras if request.param == "Keras 3" else tf_keras


def classifier(package, first, activation="relu"):
    """A small network for RGB that begins with `first`, with a random bias per channel."""
    layers, pixels = package.layers, package.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, activation=activation, bias_initializer="random_normal")(first(pixels))
    x = layers.GlobalAveragePooling2D()(x)
    return package.Model(pixels, layers.Dense(3, activation="softmax")(x))


def assert_same(model, bundle: Bundle, tolerance=1e-4) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    ours = softmax(Network.of(bundle.read("float32"), bundle.card).logits(images))
    assert np.abs(ours - np.asarray(model(images.astype(np.float32), training=False))).max() < tolerance


def test_caffe_s_preprocessing_is_read_and_folded_into_one_convolution(package, tmp_path):
    """Of ResNet50 and VGG16: it reverses RGB to BGR. Keras 2 cannot save it as .keras."""
    model = classifier(package, package.applications.resnet.preprocess_input)
    for name in ("theirs.h5", "theirs.keras")[: 1 + package.__version__.startswith("3.")]:
        model.save(tmp_path / name)
        imported = import_file(tmp_path / name, tmp_path / f"bundle-{name}", labels=LABELS)
        assert imported.contract.scale == "0..255" and imported.contract.color == "rgb"
        assert imported.because[0].endswith("turn RGB of 0..255 into BGR, and subtract Caffe's means")
        first, *others = load_keras(imported.bundle, "keras").layers[1:]
        assert (first.name, type(first).__name__) == ("edgefer_scaling", "Conv2D")
        assert not {"TakeChannels", "Rescaling"} & {type(layer).__name__ for layer in others}
        assert_same(model, imported.bundle)


def test_a_reversal_of_channels_before_another_scaling_leaves_the_color_open(package, tmp_path):
    reverse = package.layers.Rescaling(1 / 127.5, offset=-1)
    model = classifier(package, lambda pixels: reverse(pixels[:, :, :, ::-1]))
    model.save(tmp_path / "theirs.keras")
    with pytest.raises(InputError, match="state --color"):
        import_file(tmp_path / "theirs.keras", tmp_path / "bundle", labels=LABELS)
    imported = import_file(tmp_path / "theirs.keras", tmp_path / "bundle", labels=LABELS, color=Color.RGB)
    assert imported.contract.scale == "0..255"
    assert_same(model, imported.bundle)


def test_means_that_are_subtracted_from_bytes_are_read_as_their_scaling(package, tmp_path):
    classifier(package, package.layers.Rescaling(1.0, offset=-127.5)).save(tmp_path / "theirs.keras")
    stated = read_foreign(tmp_path / "theirs.keras").stated
    assert stated.scale[0] == "0..255" and stated.because[0].endswith("scale pixels of 0..255 to -128..128")


def test_keras_3_s_hard_activations_are_imported_and_become_one_operator(tmp_path):
    tensorflow()
    import keras

    model = classifier(keras, keras.layers.Rescaling(1 / 127.5, offset=-1), activation="hard_silu")
    outputs = keras.layers.Dense(3, activation="hard_sigmoid")(model.output)
    model = keras.Model(model.input, keras.layers.Softmax()(keras.layers.Rescaling(8.0)(outputs)))
    for name in ("theirs.keras", "theirs.h5"):
        model.save(tmp_path / name)
        bundle = import_file(tmp_path / name, tmp_path / f"bundle-{name}", labels=LABELS, color=Color.RGB).bundle
        assert_same(model, bundle)
        images = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
        for content in (bundle.read("float32"), to_int8(load_keras(bundle, "keras"), images)):
            names = [operator.name for operator in read_model(content, "it").operators]
            assert names.count("HARD_SWISH") == 1 and "DEQUANTIZE" not in names


def test_a_layer_as_activation_is_imported(package, tmp_path):
    activation = package.layers.LeakyReLU(0.3)
    model = classifier(package, package.layers.Rescaling(1 / 255), activation)
    for name in ("theirs.keras", "theirs.h5"):
        model.save(tmp_path / name)
        assert_same(
            model, import_file(tmp_path / name, tmp_path / f"bundle-{name}", labels=LABELS, color=Color.RGB).bundle
        )
    layers, pixels = package.layers, package.Input((16, 16, 3))
    package.Model(pixels, layers.Dense(3, activation=activation)(layers.Flatten()(pixels))).save(tmp_path / "end.keras")
    with pytest.raises(InputError, match="ends with LeakyReLU"):
        import_file(tmp_path / "end.keras", tmp_path / "end", labels=LABELS, color=Color.RGB, scale=parse_scale("0..1"))


def test_a_fixed_batch_is_left_out_with_a_note(package, tmp_path):
    layers, pixels = package.layers, package.Input(batch_shape=(4, 16, 16, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, strides=4)(layers.Rescaling(1 / 255)(pixels)))
    model = package.Model(pixels, layers.Dense(3, activation="softmax")(x))
    model.save(tmp_path / "theirs.keras")
    imported = import_file(tmp_path / "theirs.keras", tmp_path / "bundle", labels=LABELS, color=Color.RGB)
    assert imported.because[1] == "its fixed batch of 4 images is left out: it gets one image at a time"
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    ours = softmax(Network.of(imported.bundle.read("float32"), imported.bundle.card).logits(images))
    assert np.abs(ours - np.asarray(model(images.astype(np.float32)))).max() < 1e-4


@pytest.mark.parametrize("name", ["theirs.keras", "theirs.h5"])
def test_convnext_s_own_layers_are_imported(package, tmp_path, name):
    from importlib import import_module

    convnext = import_module(f"{package.__name__}.src.applications.convnext")
    layers, pixels = package.layers, package.Input((16, 16, 3))
    x = layers.Conv2D(8, 4, strides=4)(pixels)
    x = layers.Add()([x, convnext.StochasticDepth(0.1)(convnext.LayerScale(0.5, 8)(x))])
    model = package.Model(pixels, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    model.layers[2].set_weights([np.random.default_rng(0).random(8, np.float32)])
    network = read_keras(saved(model, tmp_path, name), "a file")
    images = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    assert np.allclose(network(images, training=False), np.asarray(model(images, training=False)), atol=1e-6)


def test_a_layer_of_someone_else_with_the_name_of_keras_s_is_refused(package, tmp_path):
    """It computes something else: a file of its weights alone would fit."""

    class LayerNormalization(package.layers.Layer):
        def call(self, x):
            return x * 2

    pixels = package.Input((16, 16, 3))
    content = saved(package.Model(pixels, LayerNormalization()(pixels)), tmp_path)
    with pytest.raises(InputError, match=r"'LayerNormalization', which edgefer does not load"):
        read_keras(content, "a file")


def test_augmentation_of_keras_3_is_nothing_at_inference(tmp_path):
    tensorflow()
    import keras

    from edgefer.train.keras_layers import AUGMENTING

    settings = {
        "RandomFlip": {}, "RandomRotation": {"factor": 0.2}, "RandomZoom": {"height_factor": 0.2},
        "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2}, "RandomContrast": {"factor": 0.2},
        "RandomBrightness": {"factor": 0.2}, "RandomColorDegeneration": {"factor": 0.5}, "RandomColorJitter": {"hue_factor": 0.5},
        "RandomErasing": {}, "RandomGaussianBlur": {}, "RandomGrayscale": {}, "RandomHue": {"factor": 0.5}, "RandomInvert": {},
        "RandomPerspective": {}, "RandomPosterization": {"factor": 4}, "RandomSaturation": {"factor": 0.5},
        "RandomSharpness": {"factor": 0.5}, "RandomShear": {"x_factor": 0.2}, "RandAugment": {}, "AugMix": {}, "MixUp": {}, "CutMix": {},
    }  # fmt: skip
    assert set(settings) == AUGMENTING - {"RandomHeight", "RandomWidth"}  # of Keras 2 alone
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((16, 16, 3))])
    for kind, options in settings.items():
        layer = getattr(keras.layers, kind)(**options)
        assert (np.asarray(layer(images, training=False)) == images).all(), kind
        model.add(layer)
    network = read_keras(saved(model, tmp_path), "a file")
    assert (network(images, training=False).numpy() == images).all()
