"""The .tflite's metadata describes input and output without affecting runtimes; MediaPipe's form opens in MediaPipe."""

import json
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles, write_bundle
from edgefer.card import InputSpec, OutputSpec
from edgefer.convert.mediapipe import MediaPipeNetwork, to_mediapipe
from edgefer.errors import BundleError
from edgefer.interpreter import Classifier, Network, RuntimeOptions
from edgefer.preprocess import prepare
from edgefer.tflite.description import read_description
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.lint import lint
from edgefer.tflite.metadata import with_metadata
from edgefer.train.networks import load_keras
from tests.tflite.random_networks import RandomNetwork

LITERT = RuntimeOptions(runtime="litert")


@pytest.fixture(scope="module")
def mediapipe(tmp_path_factory) -> dict[str, str]:
    """The environment of a process that can import the mediapipe package. Its OpenCV must not meet ours: no dependencies."""
    folder = tmp_path_factory.mktemp("mediapipe")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-compile",
        "--target",
        folder,
        "mediapipe",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mediapipe cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def with_mediapipe(converted, builtin, tmp_path_factory) -> Bundle:
    """The converted bundle with the form for MediaPipe, as `convert --mediapipe` adds it."""
    card = converted.card
    images = builtin.split("train").images[:100]
    content = to_mediapipe(load_keras(converted, "keras"), card.input, card.temperature, images)
    files = {name: converted.read(name) for name in converted.card.variants}
    files["mediapipe"] = with_metadata(content, converted.card)
    return write_bundle(tmp_path_factory.mktemp("mediapipe") / "bundle", converted.card, files)


@pytest.fixture(scope="module")
def drawn_faces() -> np.ndarray:
    return np.stack(
        [cv2.cvtColor(cv2.cvtColor(f, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2RGB) for f in drawn.face_set(6, seed=3)[0]]
    )


IN_MEDIAPIPE = """
import json, sys, numpy as np, mediapipe as mp
from mediapipe.tasks.metadata import metadata_schema_py_generated as meta, schema_py_generated as schema
from mediapipe.tasks.python import BaseOptions, vision
bundle, faces = sys.argv[1:]
metadata_of = {}
for name in ("int8", "float32", "mediapipe"):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(open(f"{bundle}/{name}.tflite", "rb").read()))
    (entry,) = [e for e in model.metadata if e.name == b"TFLITE_METADATA"]
    content = bytes(model.buffers[entry.buffer].data)
    assert meta.ModelMetadata.ModelMetadataBufferHasIdentifier(content, 0)
    metadata = meta.ModelMetadataT.InitFromObj(meta.ModelMetadata.GetRootAs(content))
    (graph,) = metadata.subgraphMetadata
    (image,), (answer,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    (unit,), (labels,) = image.processUnits, answer.associatedFiles
    metadata_of[name] = [metadata.name.decode(), metadata.minParserVersion.decode(), image.content.contentProperties.colorSpace,
        image.content.contentProperties.defaultSize.width, list(map(float, unit.options.mean)),
        list(map(float, unit.options.std)), list(map(float, image.stats.min)), list(map(float, image.stats.max)),
        answer.name.decode(), labels.name.decode(), labels.type]
options = vision.ImageClassifierOptions(
    base_options=BaseOptions(model_asset_path=f"{bundle}/mediapipe.tflite"), max_results=1)
with vision.ImageClassifier.create_from_options(options) as classifier:
    top = [classifier.classify(mp.Image(image_format=mp.ImageFormat.SRGB, data=face)).classifications[0].categories[0]
           for face in np.load(faces)]
classified = {"labels": [one.category_name for one in top], "scores": [one.score for one in top]}
print(json.dumps({"metadata": metadata_of, "classified": classified}))
"""


@pytest.fixture(scope="module")
def in_mediapipe(with_mediapipe, mediapipe, drawn_faces, tmp_path_factory) -> dict:
    """What the mediapipe package reads from the bundle's files, and its answers to drawn_faces."""
    faces = tmp_path_factory.mktemp("faces") / "faces.npy"
    np.save(faces, drawn_faces)
    command = [sys.executable, "-c", IN_MEDIAPIPE, with_mediapipe.path, faces]
    done = subprocess.run(command, env=mediapipe, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_metadata_describes_the_kind_of_input_image():
    bundle = Bundle.open(shipped_bundles()["fer-small"])
    for faces, described in {"human": b"A picture of a face, 48x48", "frame": b"A picture, 48x48"}.items():
        assert described in with_metadata(bundle.read("int8"), bundle.card.model_copy(update={"faces": faces}))


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_converted_files_hold_their_labels_and_give_the_same_answers(converted, variant, tmp_path):
    content, card = converted.read(variant), converted.card
    with zipfile.ZipFile(converted.file(variant)) as archive:
        assert archive.read("labels.txt").decode().split() == list(card.labels)
        assert [file.compress_type for file in archive.infolist()] == [zipfile.ZIP_STORED]
    model = read_model(content, variant)
    assert model.metadata.count("TFLITE_METADATA") == 1 and "min_runtime_version" in model.metadata
    assert with_metadata(content, card) == content

    other = with_metadata(content, card.model_copy(update={"license": "CC0-1.0", "author": "Somebody"}))
    assert b"CC0-1.0" in other and b"CC0-1.0" not in content
    pixels = np.random.default_rng(0).integers(0, 256, (4, *card.input.shape), dtype=np.uint8)
    for runtime in ("litert", "tensorflow"):
        options = RuntimeOptions(runtime=runtime)
        answers = [Network(c, card.input, len(card.labels), options=options).raw(pixels) for c in (content, other)]
        assert np.array_equal(*answers)


def test_constants_are_aligned_as_the_schema_requires(converted):
    content = converted.read("int8")
    whole = np.frombuffer(content, np.uint8)
    constants = [t.data for op in read_model(content, "x").operators for t in op.inputs if t.constant]
    assert len(constants) > 10
    for data in constants:
        assert (np.frombuffer(data, np.uint8).ctypes.data - whole.ctypes.data) % 16 == 0


def test_metadata_is_read_by_the_official_schema(with_mediapipe, in_mediapipe):
    found = in_mediapipe["metadata"]
    name = with_mediapipe.card.name
    head, tail = [name, "1.0.0"], ["labels.txt", 2]
    assert found == {  # color spaces: 1 is RGB, 2 gray; file type 2: labels of a tensor's axis
        "float32": [*head, 2, 48, [0.0], [255.0], [0.0], [1.0], "logits", *tail],
        "int8": [*head, 2, 48, [0.0], [255.0], [-128.0], [127.0], "logits", *tail],
        "mediapipe": [*head, 1, 48, [0.0], [255.0], [0.0], [255.0], "probability", *tail],
    }


def test_the_mediapipe_form_keeps_the_decisions(with_mediapipe, builtin):
    card, split = with_mediapipe.card, builtin.split("valid")
    content = with_mediapipe.read("mediapipe")
    network = MediaPipeNetwork(content, card.input, len(card.labels), options=LITERT)
    int8 = Network(with_mediapipe.read("int8"), card.input, len(card.labels), options=LITERT)
    chosen = network.logits(split.images).argmax(axis=1)
    assert np.mean(chosen == int8.logits(split.images).argmax(axis=1)) > 0.97
    assert lint(read_model(content, "x"), "mediapipe") == ()
    with pytest.raises(BundleError, match=r"is not a mediapipe\.tflite of edgefer"):
        MediaPipeNetwork(with_mediapipe.read("int8"), card.input, len(card.labels), options=LITERT)


def test_mediapipe_form_converts_colours_to_gray_as_opencv_does(with_mediapipe):
    """Strongly coloured images, so that swapped or equal weights would show."""
    card = with_mediapipe.card
    rng = np.random.default_rng(0)
    faces = np.stack([prepare(face, card.input) for face in drawn.face_set(4, seed=8)[0]])
    tint = rng.uniform(0.2, 1.0, (len(faces), 1, 1, 3))
    rgb = np.clip(faces * tint, 0, 255).astype(np.uint8)
    gray = np.stack([cv2.cvtColor(one, cv2.COLOR_RGB2GRAY)[:, :, None] for one in rgb])
    network = MediaPipeNetwork(with_mediapipe.read("mediapipe"), card.input, len(card.labels), options=LITERT)
    from_gray, from_rgb = (np.exp(network.logits(images)) for images in (gray, rgb))
    assert np.abs(from_gray - from_rgb).mean() < 0.01
    wrong = np.exp(network.logits(rgb[..., ::-1]))
    assert np.abs(from_gray - wrong).mean() > 2 * np.abs(from_gray - from_rgb).mean()


def test_mediapipe_itself_opens_its_form_and_gives_the_same_labels(with_mediapipe, in_mediapipe, drawn_faces):
    card, found = with_mediapipe.card, in_mediapipe["classified"]
    ours = Classifier.load(with_mediapipe).predict(np.stack([prepare(face, card.input) for face in drawn_faces]))
    same = [card.labels[row.argmax()] == label for row, label in zip(ours, found["labels"], strict=True)]
    assert len(same) == 42 and np.mean(same) >= 0.9  # MediaPipe shrinks images in its own way
    assert np.median(np.abs(ours.max(axis=1) - found["scores"])) < 0.05


@pytest.mark.parametrize("color", ["gray", "rgb", "bgr"])
def test_mediapipes_form_takes_rgb_whatever_the_network_s_own_order_is(color):
    from edgefer.train.backend import tensorflow

    tensorflow()
    import tf_keras

    spec = InputSpec(height=16, width=16, color=color)
    pixels, dense = tf_keras.Input(spec.shape), tf_keras.layers.Dense(3, use_bias=False)
    model = tf_keras.Model(pixels, dense(tf_keras.layers.GlobalAveragePooling2D()(pixels)))
    dense.set_weights([5 * np.eye(spec.channels, 3)])  # its answer is the brightest of its channels
    plain = 255 * np.eye(3, dtype=np.uint8)  # red, green, blue
    own = {"gray": plain[:, :1], "rgb": plain, "bgr": plain[:, ::-1]}[color]
    images = np.tile(own[:, None, None], (4, 16, 16, 1))
    content = to_mediapipe(model, spec, 1.0, images)
    expected = model.predict(images[:3] / 255, verbose=0).argmax(1)
    network = MediaPipeNetwork(content, spec, 3, options=LITERT)
    assert np.array_equal(network.logits(images[:3]).argmax(1), expected)
    if color != "gray":  # what MediaPipe itself feeds: RGB
        as_rgb = MediaPipeNetwork(content, InputSpec(height=16, width=16, color="rgb"), 3, options=LITERT)
        assert np.array_equal(as_rgb.logits(np.tile(plain[:, None, None], (1, 16, 16, 1))).argmax(1), expected)


def test_the_metadata_of_a_bgr_network_says_no_rgb_and_a_face_detector_has_none():
    bundle = Bundle.open(shipped_bundles()["fer-small"])
    for color, space in {"rgb": 1, "bgr": 0}.items():
        card = bundle.card.model_copy(update={"input": InputSpec(height=16, width=16, color=color)})
        make = RandomNetwork(0).make
        content = make.finish(make.dense(make.mean(make.input((1, 16, 16, 3))), 8))
        described = read_model(with_metadata(content, card), "x").description
        assert (read_description(bytes(described)).color or 0) == space
        assert f"16x16, {color.upper()}; values".encode() in bytes(described)
        assert f"Classifies a picture of a face as {', '.join(card.labels)}. Trained".encode() in bytes(described)
    for name in ("face-finder", "face-refiner"):  # the first has three outputs
        faces = Bundle.open(shipped_bundles()["fer-small"].parent / name)
        assert with_metadata(faces.read("int8"), faces.card) == faces.read("int8")


def test_the_metadata_of_an_imported_network_say_what_its_card_says():
    """Its own scaling and order of channels, and probabilities where it ends with a softmax."""
    spec = InputSpec(height=16, width=16, color="bgr", scale=(0.5, 0.25, 0.125), offset=(-1, -2, -3))
    card = Bundle.open(shipped_bundles()["fer-small"]).card
    card = card.model_copy(update={"input": spec, "output": OutputSpec(values="probabilities")})
    make = RandomNetwork(0).make
    content = make.finish(make.dense(make.mean(make.input((1, 16, 16, 3))), 8))
    described = bytes(read_model(with_metadata(content, card), "x").description)
    assert np.float32([2, 8, 24]).tobytes() in described and np.float32([2, 4, 8]).tobytes() in described
    assert b"Probabilities of the labels." in described and b"Logits" not in described
    assert b"16x16, BGR; values (pixel - mean) / std, quantized" in described
