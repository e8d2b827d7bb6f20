"""The user's own finder and refiner: where they are used and named, and which bundles are refused."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from skimage import data

from edgefer.api import face_detectors, start_training
from edgefer.bundle import FACE_NETWORKS, Bundle, Form, newest_bundle, shipped_bundles, shipped_networks, write_bundle
from edgefer.card import InputSpec, ModelCard, Provenance
from edgefer.commands import service
from edgefer.commands.page_rules import device_of
from edgefer.convert.faces import convert_faces
from edgefer.devices.faces import choice
from edgefer.devices.faces.choice import automatic, own, yunet
from edgefer.devices.faces.detectors import Detector
from edgefer.devices.faces.own import CandidateMiner, Finder, OwnDetector
from edgefer.devices.faces.pair import PairOptions
from edgefer.devices.reader import Reader, detector_maker
from edgefer.errors import BundleError, EdgeferError, InputError, RuntimeFault
from edgefer.faces import FINDER_LABELS, REFINER_LABELS, map_shapes
from edgefer.options import DetectorFiles, ReaderOptions
from edgefer.records import Detection
from edgefer.train.backend import tensorflow
from edgefer.train.faces.run import keras_bytes
from edgefer.train.start import TrainRequest

LABELS = {"find-faces": FINDER_LABELS, "refine-faces": REFINER_LABELS}


def blind_network():
    tensorflow()
    import tf_keras

    pixels = tf_keras.Input((48, 48, 1))
    never = tf_keras.initializers.Constant([-9.0] + 16 * [0.5])
    mean = tf_keras.layers.AveragePooling2D(48)(pixels)
    return tf_keras.Model(pixels, tf_keras.layers.Dense(17, bias_initializer=never)(tf_keras.layers.Flatten()(mean)))


def trained(folder, task, model, name="mine"):
    """A bundle as training writes it."""
    size = dict(zip(("height", "width"), model.input_shape[1:3], strict=True))
    provenance = Provenance(data="none", split_sizes={}, recipe={}, seed=0, epoch=1, versions={})
    card = ModelCard(
        name=name, task=task, labels=LABELS[task], input=InputSpec(**size, color="gray"), provenance=provenance
    )
    return write_bundle(folder, card, {Form.KERAS: keras_bytes(model)})


def converted(folder, task, model, name="mine"):
    images = np.random.default_rng(0).integers(0, 256, (8, *model.input_shape[1:]), dtype=np.uint8)
    return convert_faces(trained(folder / "trained", task, model, name), images, folder / "int8").path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The shipped pair as a user's bundles, under other names."""
    folder, paths = tmp_path_factory.mktemp("pair"), []
    for name in FACE_NETWORKS:
        bundle = Bundle.open(shipped_networks()[name])
        files = {form: bundle.read(form) for form in bundle.card.variants}
        paths.append(write_bundle(folder / name, bundle.card.model_copy(update={"name": f"my {name}"}), files).path)
    return DetectorFiles(finder=paths[0], refiner=paths[1])


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """A converted refiner that accepts no face."""
    return converted(tmp_path_factory.mktemp("blind"), "refine-faces", blind_network(), "blind")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    file = tmp_path_factory.mktemp("photo") / "astronaut.png"
    cv2.imwrite(str(file), cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR))
    return file


def pair_flags(pair):
    return ["--finder", pair.finder, "--refiner", pair.refiner]


def description_of(pair):
    return f"own (my face-finder {Bundle.open(pair.finder).hash[:12]}, my face-refiner {Bundle.open(pair.refiner).hash[:12]})"


def test_run_uses_the_pair_and_names_it_in_every_line(edgefer, pair, blind, photo):
    done = edgefer("run", "fer-nano", photo, "--headless", "--json", *pair_flags(pair))
    line = json.loads(done.stdout)
    assert line["detector"] == description_of(pair) and len(line["faces"]) == 1
    assert description_of(pair).removeprefix("own ") in done.stderr, "and once on stderr"
    done = edgefer("run", "fer-nano", photo, "--headless", "--json", "--refiner", blind, "--detector", "own")
    line = json.loads(done.stdout)
    assert line["faces"] == [] and re.search(r"face-finder [0-9a-f]{12}, blind [0-9a-f]{12}\)$", line["detector"])


def test_auto_uses_a_given_finder_and_yunet_a_given_refiner(pair, blind, monkeypatch, tmp_path):
    class Lite(Detector):
        """A stand-in for YuNet that knows where the astronaut's face is."""

        name, networks = "yunet", ("yunet.onnx 0123456789ab",)

        def __init__(self, *given, **options):
            pass

        def find(self, image_bgr, near=None):
            return [Detection(box_xyxy=(179, 60, 270, 178), score=0.95)]

    monkeypatch.setattr(choice, "YuNetLite", Lite)
    monkeypatch.setattr(choice, "cached_yunet", lambda: tmp_path / "yunet.onnx")
    (tmp_path / "yunet.onnx").touch()
    image = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    assert (
        automatic(pair).detector.name == "own" and description_of(pair).removeprefix("own ") in automatic(pair).reason
    )
    assert automatic().detector.name == "yunet" and len(automatic().detector.find(image)) == 1
    doubting = yunet(DetectorFiles(yunet=tmp_path / "yunet.onnx", refiner=blind))
    assert doubting.detector.find(image) == []
    assert re.search(r"yunet \(yunet\.onnx 0123456789ab, blind [0-9a-f]{12}\)", doubting.reason)


def test_copies_of_the_shipped_pair_find_the_same_faces(pair):
    image = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    mine, shipped = OwnDetector.of(pair, min_face=30), OwnDetector.shipped(min_face=30)
    assert mine.find(image) == shipped.find(image) != []
    assert mine.described == description_of(pair) != shipped.described


def test_bench_web_page_and_python_api_name_the_pair(edgefer, pair):
    result = json.loads(edgefer("bench", "fer-nano", "--minutes", "0.01", "--json", *pair_flags(pair)).stdout)
    assert result["detector"] == description_of(pair)
    reader = Reader.open(
        Bundle.open(shipped_bundles()["fer-nano"]), ReaderOptions(finder=str(pair.finder), refiner=str(pair.refiner))
    )
    frame = reader(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR))
    assert (
        frame.detector == description_of(pair) and description_of(pair).removeprefix("own ") in reader.reasons["auto"]
    )
    reader.detectors()["own"]()
    assert description_of(pair).removeprefix("own ") in reader.reasons["own"], (
        "what the page shows when it is chosen there"
    )


def test_service_uses_absolute_paths_for_the_pair(monkeypatch, pair):
    monkeypatch.chdir(pair.finder.parent)
    words = service._run_arguments(["--camera", "0", "--finder", pair.finder.name, "--refiner", "face-nothing"])
    assert words[words.index("--finder") + 1] == str(pair.finder) and "face-nothing" in words
    with pytest.raises(InputError, match="--finder is given an empty text"):
        service._run_arguments(["--camera", "0", "--finder", ""])


def test_crops_are_measured_with_the_pair(pair, blind):
    image = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    assert len(face_detectors("human", pair)["own"](image)) == 1
    assert face_detectors("human", DetectorFiles(refiner=blind))["own"](image) == []
    with pytest.raises(InputError, match="are for human faces"):
        face_detectors("cat", pair)
    with pytest.raises(InputError, match="training with --teacher"):
        start_training(TrainRequest(data="scenes", recipe="face-refiner"), None, files=pair)


def test_exported_page_detects_with_the_pair(pair, blind):
    card = Bundle.open(shipped_bundles()["fer-nano"]).card
    image = cv2.resize(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR), (192, 192))
    assert len(device_of(card, files=pair).find(image)) == 1
    device = device_of(card, files=DetectorFiles(refiner=blind))
    assert device.find(image) == [] and device.networks.refiner.bundle.path == blind
    with pytest.raises(InputError, match="are for human faces"):
        device_of(card.model_copy(update={"faces": "cat"}), files=pair)


# What is refused


def test_incompatible_options_are_refused(pair, photo, tmp_path):
    card = Bundle.open(shipped_bundles()["fer-nano"]).card
    for options, message in (
        ({"finder": pair.finder, "detector": "yunet"}, "--finder is for --detector own"),
        ({"finder": pair.finder, "detector": "haar"}, "--finder is for --detector own"),
        ({"refiner": pair.refiner, "detector": "haar"}, "haar's faces are not refined"),
        ({"finder": pair.finder, "yunet": "x.onnx"}, "give one of the two"),
        ({"finder": pair.finder, "faces": "cat"}, "are for human faces"),
        ({"finder": pair.refiner}, "a network of task 'refine-faces': name one of 'find-faces'"),
        ({"refiner": "fer-small"}, "a network of task 'read': name one of 'refine-faces'"),
        ({"finder": tmp_path / "none"}, "does not exist: name a bundle that"),
        ({"refiner": "x" * 300}, "does not exist: name a bundle that"),
        ({"finder": photo}, "There is no bundle at"),
    ):
        with pytest.raises(EdgeferError, match=message) as refused:
            detector_maker(ReaderOptions(**options), card)(ReaderOptions(**options).detector)
        assert "\n" not in str(refused.value)


def test_run_refuses_a_wrong_bundle_with_one_sentence(edgefer, pair, photo):
    done = edgefer("run", "fer-nano", photo, "--headless", "--finder", pair.refiner, expect=2)
    assert len(done.stderr.splitlines()) == 1 and "name one of 'find-faces'" in done.stderr
    with pytest.raises(BundleError, match=r"detects faces and does not classify them: .* --refiner"):
        Reader.open(Bundle.open(pair.refiner), ReaderOptions())


def test_damaged_and_unconverted_bundles_are_refused(pair, tmp_path):
    shutil.copytree(pair.finder, tmp_path / "damaged")
    file = tmp_path / "damaged" / "int8.tflite"
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match="is not the file its card describes"):
        own(DetectorFiles(finder=tmp_path / "damaged"))
    unconverted = trained(tmp_path / "trained", "refine-faces", blind_network())
    with pytest.raises(BundleError, match=r"holds no int8 network .*edgefer convert"):
        own(DetectorFiles(refiner=unconverted.path))


def relabelled(folder, bundle, files=(), **card):
    """An untrusted bundle whose card and hashes match its files, whatever those hold."""
    contents = {form: bundle.read(form) for form in bundle.card.variants} | dict(files)
    return write_bundle(folder, bundle.card.model_copy(update=card), contents).path


def test_inconsistent_third_party_bundle_is_refused(pair, blind, tmp_path):
    finder, refiner = Bundle.open(pair.finder), Bundle.open(pair.refiner)
    reader = Bundle.open(shipped_bundles()["fer-nano"])
    swapped = {Form.INT8: Bundle.open(blind).read(Form.INT8)}
    odd = tuple(f"number {index}" for index in range(17))
    stored = {Form.INT8: b"TFL3" * 100}, {Form.INT8: finder.read(Form.INT8)[:-5000]}, {"parity": b"PK"}
    for which, path, message in (
        ("refiner", relabelled(tmp_path / "a", reader, task="refine-faces"), "has other outputs"),
        ("refiner", relabelled(tmp_path / "b", reader, task="refine-faces", labels=REFINER_LABELS), "do not belong"),
        ("refiner", relabelled(tmp_path / "c", refiner, labels=odd), "has other outputs"),
        ("refiner", relabelled(tmp_path / "d", refiner, swapped), "does not give its bundle's stored answers"),
        ("refiner", relabelled(tmp_path / "e", refiner, input=InputSpec(height=64, width=64)), "of 48x48"),
        ("refiner", relabelled(tmp_path / "f", refiner, input=InputSpec(height=48, width=48, color="rgb")), "gray"),
        ("finder", relabelled(tmp_path / "g", finder, input=InputSpec(height=50, width=192)), "of 192x192"),
        ("finder", relabelled(tmp_path / "h", finder, {Form.INT8: reader.read(Form.INT8)}), "do not belong"),
        ("finder", relabelled(tmp_path / "i", finder, stored[0]), "cannot be loaded by litert"),
        ("finder", relabelled(tmp_path / "j", finder, stored[1]), "cannot be loaded by litert"),
        ("finder", relabelled(tmp_path / "k", finder, stored[2]), "parity"),
    ):
        with pytest.raises(EdgeferError, match=message) as refused:
            own(DetectorFiles(**{which: path}))
        assert str(refused.value).count("\n") == 0 and str(path) in str(refused.value)
    own(DetectorFiles(refiner=tmp_path / "d"), PairOptions(check=False))  # as --no-check has it
    with pytest.raises(EdgeferError, match=str(tmp_path / "i")):
        CandidateMiner.of(Bundle.open(tmp_path / "i"))


def odd_finder(change):
    """A malformed finder: change(map, number) is applied to each of its outputs."""
    tensorflow()
    import tf_keras

    pixels = tf_keras.Input((192, 192, 1))
    maps = [tf_keras.layers.Conv2D(5, 1, strides=stride)(pixels) for stride in (8, 16, 32)]
    return tf_keras.Model(pixels, [change(one, number) for number, one in enumerate(maps)])


def test_finder_with_unexpected_output_maps_is_refused(tmp_path):
    from tf_keras import layers

    turned = odd_finder(lambda one, number: layers.Reshape((12, 48, 5))(one) if number == 0 else one)
    with pytest.raises(BundleError, match="outputs maps of"):
        own(DetectorFiles(finder=converted(tmp_path / "turned", "find-faces", turned)))
    loud = odd_finder(lambda one, number: layers.Rescaling(1e6)(one))
    with pytest.raises(BundleError, match="has output scales of"):
        own(DetectorFiles(finder=converted(tmp_path / "loud", "find-faces", loud)))


class SameMaps:
    """A network whose output maps are those of 192x192 pixels, whatever its input."""

    name, quantized = "theirs/int8.tflite", True

    def sized(self, height, width):
        return self

    def run(self, image):
        return [np.zeros(shape, np.int8) for shape in map_shapes(192, 192)]

    def step(self, output):
        return 0.1, 0


def test_finder_that_ignores_the_frame_size_gives_a_one_sentence_error():
    finder = Finder(SameMaps())
    finder.find(np.zeros((192, 192, 3), np.uint8), 192)
    with pytest.raises(RuntimeFault, match=r"^theirs/int8\.tflite does not give a map per stride"):
        finder.find(np.zeros((96, 192, 3), np.uint8), 192)


def test_newest_bundle_for_reading_skips_face_detectors(pair, tmp_path):
    for name, source in (("a", shipped_bundles()["fer-nano"]), ("b", pair.finder)):
        shutil.copytree(source, tmp_path / name, copy_function=shutil.copy)
    assert newest_bundle(tmp_path).name == "b" and newest_bundle(tmp_path, reads=True).name == "a"
    (tmp_path / "b" / "card.json").write_text("{")
    assert newest_bundle(tmp_path, reads=True).name == "b", "a damaged one is reported by whoever opens it"
