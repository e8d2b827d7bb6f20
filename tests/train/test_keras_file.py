"""Untrusted Keras files: no code in them runs, and plain networks load unchanged."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from forks import Fork

from edgefer.errors import InputError
from edgefer.train.backend import tensorflow
from edgefer.train.keras_build import MAX_ACTIVATIONS
from edgefer.train.keras_file import open_weights, read_keras, read_layers
from edgefer.train.keras_trial import check_readable
from tests.train.keras_files import changed, saved

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def keras():
    tensorflow()
    import tf_keras

    return tf_keras


def small(keras, shape=(16, 16, 1)):
    layers = keras.layers
    pixels = keras.Input(shape, name="pixels")
    x = layers.Conv2D(4, 3, name="first")(pixels)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(pixels, layers.Dense(3, name="logits")(x))


def layer(config, name):
    return next(one for one in config["config"]["layers"] if one["name"] == name)


def layer_of(config, name):
    return next(one for one in config["config"]["layers"] if one["config"]["name"] == name)


def assert_same(keras, model, content, tolerance=0.0):
    images = np.random.default_rng(0).random((3, *model.input_shape[1:]), np.float32)
    again = read_keras(content, "a file")
    assert np.abs(again(images, training=False).numpy() - model(images, training=False).numpy()).max() <= tolerance


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_plain_network_is_loaded_unchanged(keras, tmp_path, name):
    layers = keras.layers
    pixels = keras.Input((24, 24, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, kernel_regularizer="l2")(x)
    x = layers.LeakyReLU(0.2)(layers.BatchNormalization()(x))
    x = layers.Add()([x, layers.SeparableConv2D(8, 3, padding="same", activation="swish")(x)])
    trunk = keras.Sequential([keras.Input((12, 12, 8)), layers.DepthwiseConv2D(3), layers.PReLU(shared_axes=[1, 2])])
    x = layers.Dropout(0.5)(layers.Flatten()(layers.MaxPooling2D()(trunk(x))))
    model = keras.Model(pixels, layers.Dense(4, activation="softmax")(x))
    assert_same(keras, model, saved(model, tmp_path, name))


def test_each_layer_gets_its_own_weights_whatever_its_name(keras, tmp_path):
    """Keras 2 stores the arrays of the first Dense under `dense`, which is the second one's name here."""
    layers = keras.layers
    pixels = keras.Input((24, 24, 1))
    x = layers.Flatten()(layers.Conv2D(3, 3, name="conv2d")(pixels))
    x = layers.Dense(4, name="dense")(layers.Dense(4, name="dense_1")(layers.Dense(4, name="dense_2")(x)))
    model = keras.Model(pixels, x)
    assert_same(keras, model, saved(model, tmp_path, "model.keras"))


def with_base(keras, **options):
    """A network on a frozen base, as in transfer learning."""
    layers, pixels = keras.layers, keras.Input((24, 24, 1))
    inner = [keras.Input((24, 24, 1)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Dropout(0.5)]
    x = keras.Sequential(inner, name="base")(pixels, **options)
    x = layers.Add()([x, layers.BatchNormalization()(x, **options)])
    return keras.Model(pixels, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Dropout(0.2)(x, **options))))


@pytest.mark.parametrize("keras_3", [False, True])
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_base_called_with_training_false_is_loaded_and_one_with_training_true_refused(keras, tmp_path, name, keras_3):
    import keras as third

    package = third if keras_3 else keras
    assert package.__version__.startswith("3.") is keras_3
    model = with_base(package, training=False)
    assert_same(keras, model, saved(model, tmp_path, name), tolerance=1e-6)
    content = saved(with_base(package, training=True), tmp_path, name)
    with pytest.raises(
        InputError, match=r"^a file: 'base' is called with training=True, .* so build it without training=True"
    ):
        read_keras(content, "a file")


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_keras_3_networks_of_dictionaries_are_loaded(keras, tmp_path, name):
    import keras as third

    layers, pixels = third.layers, third.Input((16, 16, 1), name="image")
    logits = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(pixels)))
    content = saved(third.Model({"image": pixels}, {"emotion": logits}), tmp_path, name)
    assert_same(keras, third.Model(pixels, logits), content, tolerance=1e-6)


KINDS = ("functional", "sequential", "nested", "names", "resized", "augmented", "h5")
KERAS_3 = """
import sys, keras, numpy as np
from keras import layers
for kind in sys.argv[2:]:
    trunk = [keras.Input((20, 20, 1)), layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.LeakyReLU(0.1)]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(5, activation="softmax")]
    if kind == "names":  # the first one has the name under which Keras stores the second one's arrays
        head = [head[0], layers.Dense(5, name="dense_2"), layers.Dense(5, name="dense_1"), layers.Dense(5, name="dense")]
    if kind == "resized":  # Keras 3 writes what it pads with, whether it pads or not
        head = [layers.Resizing(9, 9), layers.CenterCrop(7, 7), *head]
    if kind == "sequential":
        model = keras.Sequential([trunk[0], layers.RandomFlip(), *trunk[1:], *head])
    elif kind == "augmented":  # functional: Keras 3 writes training=True for what augments
        x = pixels = keras.Input((20, 20, 1))
        for one in (layers.RandomFlip(), layers.RandomZoom(0.2), *trunk[1:], *head):
            x = one(x)
        model = keras.Model(pixels, x)
    else:
        x = pixels = keras.Input((20, 20, 1))
        for one in ([keras.Sequential(trunk)] if kind == "nested" else trunk[1:]) + head:
            x = one(x)
        model = keras.Model(pixels, x)
    images = np.random.default_rng(0).random((3, 20, 20, 1)).astype("float32")
    for weight in model.weights:
        if "moving" in weight.path:
            weight.assign(np.random.default_rng(1).random(weight.shape) + 0.5)
    model.save(f"{sys.argv[1]}/{kind}.{'h5' if kind == 'h5' else 'keras'}")
    np.savez(f"{sys.argv[1]}/{kind}.npz", images=images, answers=np.array(model(images, training=False)))
    keras.backend.clear_session()  # names are counted from the start again
"""


@pytest.fixture(scope="module")
def of_keras_3(tmp_path_factory) -> Path:
    """Networks and their answers, saved by Keras 3 in a process of its own."""
    folder = tmp_path_factory.mktemp("keras-3")
    (folder / "save.py").write_text(KERAS_3)
    done = Fork((folder, *KINDS), dict(os.environ), folder, folder / "save.py").done()
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_keras_3_file_gives_the_same_answers_as_in_keras_3(keras, of_keras_3, kind):
    file = of_keras_3 / f"{kind}.{'h5' if kind == 'h5' else 'keras'}"
    network = read_keras(file.read_bytes(), "a file")
    stored = np.load(of_keras_3 / f"{kind}.npz")
    assert np.abs(network(stored["images"], training=False).numpy() - stored["answers"]).max() < 1e-6


def test_bytecode_in_a_lambda_never_runs(keras, tmp_path):
    trap = str(tmp_path / "ran")

    def act(x):
        open(trap, "w").close()
        return x

    pixels = keras.Input((16, 16, 1))
    model = keras.Model(pixels, keras.layers.Lambda(act, output_shape=(16, 16, 1))(pixels))
    for name in ("model.keras", "model.h5"):
        content = saved(model, tmp_path, name)
        Path(trap).unlink(missing_ok=True)
        with pytest.raises(InputError, match="Lambda"):
            read_keras(content, "a file")
        assert not Path(trap).exists()


def test_a_tensorflow_operator_in_a_network_never_runs(keras, tmp_path):
    import tensorflow as tf

    trap = tmp_path / "written"
    pixels = keras.Input((16, 16, 1))
    content = saved(keras.Model(pixels, tf.nn.relu(pixels)), tmp_path)

    def write(config):
        one = next(one for one in config["config"]["layers"] if one["class_name"] == "TFOpLambda")
        one["config"]["function"] = "io.write_file"
        one["inbound_nodes"] = [[str(trap), 0, 0, {"contents": "it acted"}]]

    with pytest.raises(InputError, match=r"an operator, 'io\.write_file', which edgefer does not load"):
        read_keras(changed(content, write), "a file")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: layer(c, "logits")["config"].update(units=2_000_000_000), "out of range"),
        (lambda c: layer(c, "logits")["config"].update(units=900_000), "declares"),
        (lambda c: layer(c, "first")["config"].update(filters=60_000), "declares"),
        (lambda c: layer(c, "first").update(module="os", class_name="system", registered_name="system"), "'system'"),
        (lambda c: layer(c, "first").update(registered_name="Evil>Conv2D"), "Conv2D"),
        (lambda c: layer(c, "first")["config"].update(activation="os.system"), "not an activation"),
        (lambda c: layer(c, "first")["config"].update(activation={"class_name": "function", "config": "eval"}), "not an activation"),
        (lambda c: layer(c, "first")["config"].update(padding="../../etc"), "not a setting"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[[["logits", 0, 0, {}]]]), "connected"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[[["nowhere", 0, 0, {}]]]), "connected"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[[["first", 7, 0, {}]]]), "connected"),
        (lambda c: layer(c, "first").update(name="\x1b[31mred"), "not a valid layer name"),
        (lambda c: c.update(class_name="PickledModel"), "PickledModel"),
        (lambda c: layer(c, "first")["config"].update(dilation_rate=[4096, 4096]), "out of range"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[{"args": [{"config": [1]}], "kwargs": {}}]), "connected"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[{"args": [{"config": 5}], "kwargs": [1]}]), "more than"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[{"args": [], "kwargs": "x"}]), "more than"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[{"args": [], "kwargs": {"mask": {"config": 5}}}]), "more than"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[[["first", 0, 0, {"mask": ["first", 0, 0]}]]]), "more than"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[[["first", 0, 0, {"training": [0]}]]]), "training=True"),
        (lambda c: layer(c, "logits").update(inbound_nodes=[[["first", 0, 0, 5]]]), "more than"),
        (lambda c: c["config"].update(output_layers=[]), "no outputs"),
        (lambda c: c["config"].update(layers=c["config"]["layers"] * 2000), "list of 1 to"),
        (lambda c: c["config"].update(output_layers=[["logits", 0, 5]]), "fit together"),
        (lambda c: c.clear(), "not of Keras's form"),
    ],
)  # fmt: skip
def test_anything_but_plain_layers_is_refused_in_one_sentence(keras, tmp_path, change, message):
    content = changed(saved(small(keras), tmp_path), change)
    with pytest.raises(InputError, match=message) as refused:
        read_keras(content, "a file")
    assert "\n" not in str(refused.value) and "\x1b" not in str(refused.value)


def test_layers_that_would_need_gigabytes_for_one_image_are_refused(keras, tmp_path):
    pixels = keras.Input((16, 16, 4))
    model = keras.Model(pixels, keras.layers.Flatten()(keras.layers.UpSampling2D(2, name="large")(pixels)))
    content = changed(saved(model, tmp_path), lambda c: layer(c, "large")["config"].update(size=[1 << 12, 1 << 12]))
    assert MAX_ACTIVATIONS < 16 * 16 * 4 << 24
    with pytest.raises(InputError, match="activations for one image"):
        read_keras(content, "a file")


def test_layers_that_would_need_gigabytes_together_are_refused(keras, tmp_path):
    """Each may be small enough alone, but training keeps the outputs of all of them."""
    layers = keras.layers
    chain = [layers.ReLU(name=f"relu{number}") for number in range(40)]
    model = keras.Sequential(
        [keras.Input((16, 16, 1)), layers.UpSampling2D(2, name="large"), *chain, layers.GlobalAveragePooling2D()]
    )
    content = changed(saved(model, tmp_path), lambda c: layer_of(c, "large")["config"].update(size=[256, 256]))
    assert 16 * 16 * 256 * 256 <= MAX_ACTIVATIONS < 41 * 16 * 16 * 256 * 256
    with pytest.raises(InputError, match="activations in all"):
        read_keras(content, "a file")


def test_size_limit_applies_to_nested_networks_too(keras, tmp_path):
    """A network with a small input and output may be large in between."""
    layers = keras.layers
    inner = [keras.Input((16, 16, 1)), layers.UpSampling2D(2, name="large"), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((16, 16, 1)), keras.Sequential(inner, name="inner"), layers.Dense(3)])
    content = changed(
        saved(model, tmp_path),
        lambda c: layer_of(layer_of(c, "inner"), "large")["config"].update(size=[1 << 12, 1 << 12]),
    )
    with pytest.raises(InputError, match="activations for one image"):
        read_keras(content, "a file")


def test_a_layer_may_be_shared_at_several_sizes(keras, tmp_path):
    layers, shared, pixels = keras.layers, keras.layers.ReLU(), keras.Input((16, 16, 1))
    small_one = shared(layers.MaxPooling2D()(shared(layers.Conv2D(2, 3)(pixels))))
    model = keras.Model(pixels, layers.Dense(3)(layers.Flatten()(small_one)))
    assert_same(keras, model, saved(model, tmp_path))


def test_linked_external_or_oversized_weights_are_refused(tmp_path):
    import h5py

    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 64)
    for number, make in enumerate(
        (
            lambda f: f.create_dataset("w", (8,), "f8", external=[(str(secret), 0, 64)]),
            lambda f: f.__setitem__("w", h5py.ExternalLink(str(secret), "/w")),
            lambda f: f.__setitem__("w", h5py.SoftLink("/v")),
            lambda f: f.create_dataset("w", (4,), h5py.string_dtype()),
            lambda f: f.create_dataset("w", (1 << 34,), "f4", chunks=(1 << 10,), compression="gzip"),
        )
    ):
        file = tmp_path / f"{number}.h5"
        with h5py.File(file, "w") as out:
            make(out)
        with pytest.raises(InputError, match="refused"), open_weights(file.read_bytes(), "a file"):
            pass


def test_damaged_attributes_of_weights_are_one_sentence_even_if_they_crash_the_library(keras, tmp_path):
    """h5py gives a RuntimeError for some, and the HDF5 library crashes on others."""
    model = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.save(tmp_path / "theirs.h5")
    content, crashes, refused = (tmp_path / "theirs.h5").read_bytes(), [], []
    at = content.index(b"weight_names") + len(b"weight_names")
    for place in range(at, at + 16):
        damaged = content[:place] + b"\xff" + content[place + 1 :]
        try:
            check_readable(damaged, "a file")
            read_layers(damaged, "a file")
        except InputError as error:
            (crashes if "crashes the HDF5 library (SIG" in str(error) else refused).append(str(error))
    assert crashes and refused


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        with archive.open("config.json", "w", force_zip64=True) as part:
            for _ in range(64):
                part.write(b" " * (1 << 20))
    with pytest.raises(InputError, match="more than"):
        read_keras(out.getvalue(), "a file")


def test_zip_with_other_compression_or_too_many_files_is_refused(keras, tmp_path):
    with zipfile.ZipFile(io.BytesIO(saved(small(keras), tmp_path))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:  # whose header may ask for gigabytes
        for name, part in parts.items():
            archive.writestr(name, part)
    with pytest.raises(InputError, match="compressed by another method than deflate"):
        read_keras(out.getvalue(), "a file")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(2000):
            archive.writestr(f"assets/{number}", b"")
    with pytest.raises(InputError, match="too many"):
        read_keras(out.getvalue(), "a file")


def test_nan_weights_are_refused(keras, tmp_path):
    model = small(keras)
    model.get_layer("logits").set_weights([np.full((4, 3), np.nan), np.zeros(3)])
    with pytest.raises(InputError, match="not numbers"):
        read_keras(saved(model, tmp_path), "a file")


@pytest.mark.parametrize("config", [5, np.ones(2), np.array(["{}"], "S2"), b"\xff\xfe", "[]", "5"])
def test_architecture_that_is_not_text_gives_a_clear_error(tmp_path, config):
    import h5py

    with h5py.File(tmp_path / "odd.h5", "w") as out:
        out.attrs.create("model_config", config)
    with pytest.raises(InputError, match=r"^a file: (its architecture cannot be read|the description of the network)"):
        read_keras((tmp_path / "odd.h5").read_bytes(), "a file")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no more", b"\x89HDF\r\n\x1a\n and then nothing", b"{}"])
def test_broken_file_gives_a_clear_error(content):
    with pytest.raises(InputError) as refused:
        read_keras(content, "a file")
    assert str(refused.value).startswith("a file")
