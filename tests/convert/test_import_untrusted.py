"""Untrusted files that are damaged, malicious or no classifiers: a one-sentence error each, and no code execution."""

import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from edgefer.convert import child
from edgefer.convert.contract import Stated, parse_scale
from edgefer.convert.foreign import read_foreign
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network
from edgefer.convert.quantize import converter_of, to_float32
from edgefer.errors import EdgeferError, InputError
from edgefer.interpreter import Network
from edgefer.parity import verify
from edgefer.progress import Lines
from edgefer.train.backend import tensorflow
from tests.convert.foreign_files import changed, int8_file, labelled


@pytest.fixture(scope="module")
def keras():
    tensorflow()
    import tf_keras

    return tf_keras


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a\x1b[31m", *"bcdefg"], "control character"),
        (["x" * 80, *"bcdefg"], "at most 64 characters"),
        (["a", *"abcdef"], "not unique"),
    ],
)
def test_invalid_labels_give_a_clear_error_whatever_their_source(tmp_path, names, message):
    content = int8_file()
    file = tmp_path / "theirs.tflite"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_network(Request(path=file, stated=Stated(labels=tuple(names))), tmp_path / "out")
    out = io.BytesIO(content)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("labels.txt", "\n".join(names))
    file.write_bytes(out.getvalue())
    with pytest.raises(InputError, match=message):
        import_network(Request(path=file), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", ["a,a", "a,,b", "a, ,b", f"{'x' * 65},b", "a\x1b[31m,b"])
def test_invalid_stated_labels_are_refused_before_the_file_is_read(edgefer, tmp_path, labels):
    done = edgefer("import", tmp_path / "nowhere.tflite", "--labels", labels, expect=2)
    assert done.stderr.startswith("edgefer: labels") and "nowhere" not in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image, answer: setattr(image.quantization, "scale", np.float32([np.nan])), "has the scale nan"),
        (lambda image, answer: setattr(image.quantization, "scale", np.float32([np.inf])), "has the scale inf"),
        (lambda image, answer: setattr(image.quantization, "scale", np.float32([1e30])), "does not run on litert: "),
        (lambda image, answer: setattr(image, "quantization", None), "takes INT8 without the scale"),
        (lambda image, answer: setattr(image, "shape", np.int32([8, 48, 48, 1])), "takes 8 images at once"),
        (lambda image, answer: setattr(image.quantization, "zeroPoint", np.int64([200])), "the zero point 200"),
        (lambda image, answer: setattr(answer, "shape", np.int32([])), "it is not a classifier"),
        (lambda image, answer: setattr(answer, "shape", np.int32([1, 0])), "it is not a classifier"),
        (lambda image, answer: setattr(answer, "shape", np.int32([1, 1])), "gives a single answer"),
    ],
)
def test_tflite_with_an_invalid_input_or_output_gives_a_clear_error(tmp_path, change, message):
    file = tmp_path / "theirs.tflite"
    file.write_bytes(changed(change))
    with pytest.raises(InputError, match=message):
        import_network(Request(path=file, stated=Stated(labels=tuple("abcdefg"))), tmp_path / "out")


def test_a_tflite_that_crashes_the_runtime_is_refused_without_harm(tmp_path):
    """The type of a quantization without its details: a null pointer."""
    file = tmp_path / "theirs.tflite"
    file.write_bytes(changed(lambda image, _: setattr(image.quantization, "detailsType", 2)))
    stated = Stated(labels=tuple("abcdefg"))
    with pytest.raises(InputError, match=r"does not run on litert: it crashes the runtime \(SIG"):
        import_network(Request(path=file, stated=stated), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_answers_that_are_no_numbers_are_refused_as_such(keras, tmp_path):
    pixels = keras.Input((16, 16, 1))
    x = keras.layers.Dense(3, kernel_initializer=keras.initializers.Constant(1e38))(keras.layers.Flatten()(pixels))
    model = keras.Model(pixels, x)
    model.save(tmp_path / "theirs.keras")
    (tmp_path / "theirs.tflite").write_bytes(to_float32(model))
    stated = Stated(labels=("a", "b", "c"), scale=parse_scale("0..1"))
    for name in ("theirs.keras", "theirs.tflite"):
        with pytest.raises(InputError, match=r"answers 96 of 96 images with infinite numbers or none \(NaN\)"):
            import_network(Request(path=tmp_path / name, stated=stated), tmp_path / "out")


def test_a_network_of_one_answer_is_refused_as_such(keras, tmp_path):
    pixels = keras.Input((16, 16, 1))
    keras.Model(pixels, keras.layers.Dense(1)(keras.layers.Flatten()(pixels))).save(tmp_path / "theirs.keras")
    with pytest.raises(
        InputError, match="gives a single answer, and edgefer shares the score among two labels or more"
    ):
        read_foreign(tmp_path / "theirs.keras")


def test_damaged_metadata_gives_no_author_or_licence(tmp_path):
    file = labelled(tmp_path, author="Ada", license="MIT")
    sound = file.read_bytes()
    assert (read_foreign(file).author, read_foreign(file).license) == ("Ada", "MIT")
    begin = sound.index(b"M001") - 4
    for place in range(begin, begin + 64):  # its root table and where that points
        file.write_bytes(sound[:place] + b"\xff" + sound[place + 1 :])
        foreign = read_foreign(file)
        assert all(len(text) <= 200 and text.isprintable() for text in (foreign.author, foreign.license))
    file.write_bytes(sound[:begin] + b"\xff\xff\xff\xff" + sound[begin + 4 :])
    assert (read_foreign(file).author, read_foreign(file).license) == ("", "")


@pytest.mark.parametrize(
    ("package", "kind", "suffix"),
    [
        ("Keras 2", "functional", ".keras"),
        ("Keras 3", "functional", ".keras"),
        ("Keras 3", "sequential", ".keras"),
        ("Keras 3", "sequential", ".h5"),
    ],
)
def test_code_in_a_keras_file_runs_only_with_permission(keras, forked_conversion, tmp_path, package, kind, suffix):
    """A Lambda that writes a file: it runs only with --trust, and then in another process."""
    import keras as keras_3

    made_by = keras_3 if package == "Keras 3" else keras
    source = f"lambda x: (__import__('pathlib').Path({str(tmp_path / 'ran')!r}).write_text('it ran'), x * 2.0)[1]"
    layers, pixels = made_by.layers, made_by.Input((32, 32, 1))
    model = made_by.Sequential(
        [
            pixels,
            layers.Lambda(eval(source)),
            layers.Conv2D(7, 3, kernel_initializer=made_by.initializers.HeNormal(0)),
            layers.BatchNormalization(beta_initializer="random_normal"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    if kind == "functional":
        model = made_by.Model(model.inputs[0], model.outputs[0])
    file = tmp_path / f"theirs{suffix}"
    model.save(file)
    (tmp_path / "ran").unlink()  # building it ran it
    with pytest.raises(InputError, match=r"'Lambda'.*--trust, which runs the code"):
        read_foreign(file)
    assert not (tmp_path / "ran").exists()

    logged: list[str] = []
    stated = Stated(labels=tuple("abcdefg"), scale=parse_scale("0..1"))
    request = Request(path=file, trust=True, progress=Lines(logged.append), stated=stated)
    bundle = import_network(request, tmp_path / "bundle").bundle
    assert (tmp_path / "ran").exists() and "with your permissions, files" in logged[0]
    assert not bundle.has("keras") and b"Lambda" not in bundle.read("float32")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), dtype=np.uint8)
    answers = Network.of(bundle.read("float32"), bundle.card).logits(images)
    assert np.abs(answers - np.asarray(model(images / np.float32(255), training=False))).max() < 1e-4
    assert all(check.passed for check in verify(bundle))


def test_trust_has_no_effect_on_a_plain_keras_file_and_is_refused_for_tflite(keras, tmp_path):
    parts = keras.layers.Flatten(), keras.layers.Dense(3)
    keras.Sequential([keras.Input((32, 32, 1)), *parts]).save(tmp_path / "plain.keras")
    logged: list[str] = []
    assert read_foreign(tmp_path / "plain.keras", trust=True, progress=Lines(logged.append)).layers and not logged
    (tmp_path / "theirs.tflite").write_bytes(int8_file())
    with pytest.raises(InputError, match="--trust is for Keras files"):
        read_foreign(tmp_path / "theirs.tflite", trust=True)


@pytest.mark.parametrize("shape", [[], [1], [1, 0], [1, -1], [1, 4, 7]])
def test_tflite_file_with_an_invalid_output_shape_is_refused(tmp_path, shape):
    (tmp_path / "odd.tflite").write_bytes(
        changed(lambda _, answer: setattr(answer, "shape", np.array(shape, np.int32)))
    )
    with pytest.raises(InputError, match=r"it is not a classifier|gives a single answer"):
        read_foreign(tmp_path / "odd.tflite")


def test_file_that_is_not_a_classifier_is_refused_with_a_clear_error(keras, tmp_path):
    layers = keras.layers

    def save(name, *parts, shape=(32, 32, 1)):
        model = keras.Sequential([keras.Input(shape), *parts])
        model.save(tmp_path / name)
        return tmp_path / name

    two, pixels = tmp_path / "two.keras", keras.Input((32, 32, 1))
    flat = layers.Flatten()(pixels)
    keras.Model(pixels, [layers.Dense(3)(flat), layers.Dense(2)(flat)]).save(two)
    for file, message in (
        (save("map.keras", layers.Conv2D(3, 3)), "classifiers"),
        (two, r"has 1 input and 2 outputs: edgefer runs classifiers, .* of the one output with the labels"),
        (save("channels.keras", layers.Flatten(), layers.Dense(3), shape=(32, 32, 4)), "1 or 3"),
        (save("large.keras", layers.GlobalAveragePooling2D(), layers.Dense(3), shape=(1024, 1024, 1)), "16 to 512"),
    ):
        with pytest.raises(InputError, match=message):
            read_foreign(file)
    for name, content, message in (
        ("theirs.onnx", b"\x08\x07\x12", "onnx2tf"),
        ("theirs.pt", b"whatever", "litert-torch"),
        ("theirs.bin", b"?", "name a network file"),
        ("empty.tflite", b"", "is empty: copy it again"),
        ("saved_model.pb", b"\x08\x01", f"name its folder, {tmp_path.name}, which"),
        ("theirs.tflite", b"\x1c\x00\x00\x00TFL3", "tflite"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_foreign(tmp_path / name)
    with pytest.raises(InputError, match="No such file"):
        read_foreign(tmp_path / "nowhere.keras")


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("weights.pth", ("data.pkl", "byteorder", "data/0", "version", ".data/serialization_id")),
        ("scripted.bin", ("data.pkl", "code/__torch__.py", "constants.pkl", "data/0", "version")),
        ("exported.pt2", ("archive_format", "byteorder", "models/model.json", "version")),
        ("renamed.keras", ("data.pkl", "data/0", "version")),
    ],
)
def test_pytorch_s_zips_are_recognized_and_the_way_to_a_tflite_is_named(tmp_path, name, members, trust):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for member in members:
            archive.writestr(f"archive/{member}", b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(
        InputError, match=rf"{name} is a PyTorch file, .* litert-torch \(formerly ai-edge-torch\) to a \.tflite"
    ):
        read_foreign(tmp_path / name, trust=trust)


def test_channels_first_input_is_refused_with_the_function_that_makes_it_channels_last(tmp_path):
    (tmp_path / "odd.tflite").write_bytes(
        changed(lambda image, _: setattr(image, "shape", np.array([1, 1, 48, 48], np.int32)))
    )
    with pytest.raises(
        InputError, match=r"takes \[1, 1, 48, 48\]: .* channels last; .* litert_torch.to_channel_last_io"
    ):
        read_foreign(tmp_path / "odd.tflite")


def test_network_that_answers_otherwise_the_second_time_is_refused(keras, tmp_path):
    """Monte Carlo dropout: nothing could prove it, since no device would give the stored answers."""
    layers, pixels = keras.layers, keras.Input((16, 16, 1))
    x = layers.Dropout(0.5)(layers.Flatten()(pixels), training=True)
    model = keras.Model(pixels, layers.Dense(3, activation="softmax")(x))
    function = (
        tensorflow()
        .function(lambda pixels: model(pixels))
        .get_concrete_function(tensorflow().TensorSpec((1, 16, 16, 1)))
    )
    (tmp_path / "theirs.tflite").write_bytes(converter_of(function).convert())
    stated = Stated(labels=("a", "b", "c"), scale=parse_scale("0..1"))
    with pytest.raises(
        EdgeferError, match=r"other answers to the same images again, .* training=True: build it without"
    ):
        import_network(Request(path=tmp_path / "theirs.tflite", stated=stated), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_saved_model_that_writes_files_is_refused_without_running_it(tmp_path):
    tf = tensorflow()

    class Trap(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 48, 48, 1))])
        def __call__(self, pixels):
            tf.io.write_file(str(tmp_path / "written"), "it acted")
            return tf.reduce_mean(pixels, [1, 2]) * tf.ones((1, 7))

    trap = Trap()
    tf.saved_model.save(trap, str(tmp_path / "trap"), signatures=trap.__call__)
    with pytest.raises(InputError, match="WriteFile"):
        read_foreign(tmp_path / "trap")
    assert not (tmp_path / "written").exists()


def test_a_saved_model_with_a_fifo_among_its_files_is_refused_at_once(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    (tmp_path / "variables").mkdir()
    os.mkfifo(tmp_path / "variables" / "variables.index")
    with pytest.raises(InputError, match=r"variables\.index is a FIFO, not a regular file"):
        read_foreign(tmp_path)


def test_the_separate_process_has_a_limit_of_memory(tmp_path):
    shown = "lambda _: str(resource.getrlimit(resource.RLIMIT_AS)[0]).encode()"
    program = f"import resource; from edgefer.convert import child; child.serve({shown})"
    subprocess.run([sys.executable, "-c", program, "source", tmp_path / "out"], check=True)
    assert 0 < int((tmp_path / "out").read_text()) <= child.MAX_MEMORY
