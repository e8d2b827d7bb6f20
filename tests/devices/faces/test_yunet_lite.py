"""YuNet's .onnx converted by edgefer to .tflite: the same outputs, and safe handling of untrusted files."""

import os
import platform
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefer.devices.faces import yunet_lite
from edgefer.devices.faces.canvas import Layout, MapNetwork, non_max_suppression, shrunk, thinned, thinned_gray
from edgefer.devices.faces.onnx import MAX_BYTES, read_onnx
from edgefer.devices.faces.own import OwnDetector
from edgefer.devices.faces.yunet_graph import HEADS, INPUT, STRIDES, equalize, measure, read_layers, steps_of
from edgefer.errors import SourceError
from edgefer.interpreter import open_interpreter
from edgefer.tflite.write import shapes_of, write_tflite

sys.path.insert(0, str(Path(__file__).parent))
from small_yunet import small_yunet

RNG = np.random.default_rng(0)
OUTPUTS = [f"faces_{stride}" for stride in STRIDES]


@pytest.fixture(scope="module")
def content() -> bytes:
    return small_yunet()


@pytest.fixture(scope="module")
def layers(content):
    return read_layers(read_onnx(content, "small.onnx"), "small.onnx")


def canvas_of(image):
    canvas = np.zeros((image.shape[0] + 1, image.shape[1] + 1, 3), np.uint8)
    canvas[1:, 1:] = image
    return canvas


def images(count, side=64):
    return [cv2.resize(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8), (side, side)) for _ in range(count)]


def opencv_maps(content, image):
    """OpenCV's outputs for an image, as the maps of the .tflite: float32 [h, w, 16] by stride."""
    net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
    net.setInput(cv2.dnn.blobFromImage(image))
    names = [f"{head}_{stride}" for stride in STRIDES for head, _ in HEADS]
    by_name = dict(zip(names, net.forward(names), strict=True))
    height, width = image.shape[:2]
    shapes = {stride: (height // stride, width // stride, -1) for stride in STRIDES}
    return [np.concatenate([by_name[f"{head}_{s}"].reshape(shapes[s]) for head, _ in HEADS], 2) for s in STRIDES]


def with_probabilities(maps):
    return [np.concatenate([1 / (1 + np.exp(-one[..., :2])), one[..., 2:]], axis=2) for one in maps]


def test_float_outputs_match_opencv(content, layers):
    network = MapNetwork(write_tflite(layers, INPUT, (65, 65, 3), OUTPUTS))
    for image in images(3):
        maps = with_probabilities(network.run(canvas_of(image).astype(np.float32)))
        for ours, theirs in zip(maps, opencv_maps(content, image), strict=True):
            assert np.abs(ours - theirs).max() < 2e-4 * max(1, np.abs(theirs).max())


def test_int8_outputs_are_close_after_equalizing(content, layers):
    """Per channel: outputs are off by a few percent of their range, though all share one int8 scale."""
    every = images(12)
    _, interpreter = open_interpreter(write_tflite(layers, INPUT, (65, 65, 3), OUTPUTS), keep_all=True)
    (where,) = interpreter.get_input_details()
    names = {layer.output for layer in layers}

    def tensors():
        for image in every:
            interpreter.set_tensor(where["index"], canvas_of(image)[None].astype(np.float32))
            interpreter.invoke()
            details = [one for one in interpreter.get_tensor_details() if one["name"] in names]
            yield {one["name"]: interpreter.get_tensor(one["index"])[0] for one in details}

    ranges = measure(tensors())
    equal, scaled, gains = equalize(layers, ranges)
    network = MapNetwork(write_tflite(equal, INPUT, (65, 65, 3), OUTPUTS, steps_of(equal, scaled)))
    reference = MapNetwork(write_tflite(layers, INPUT, (65, 65, 3), OUTPUTS))
    off = []
    for image in every:
        raw = network.run((canvas_of(image) ^ 0x80).view(np.int8))
        wanted = reference.run(canvas_of(image).astype(np.float32))
        for index, (ours, theirs) in enumerate(zip(raw, wanted, strict=True)):
            scale, zero = network.step(index)
            values = (ours.astype(np.float32) - zero) * scale / gains[OUTPUTS[index]]
            low, high = ranges[OUTPUTS[index]]
            off.append((np.abs(values - theirs) / np.maximum(high - low, 1e-6)).mean(axis=(0, 1)))
    assert np.mean(off) < 0.03 and np.max(np.mean(off, axis=0)) < 0.08


def test_float_outputs_match_opencv_on_a_canvas_of_another_shape(layers):
    image = cv2.resize(images(1)[0], (128, 64))
    network = MapNetwork(write_tflite(layers, INPUT, (65, 129, 3), OUTPUTS))
    maps = with_probabilities(network.run(canvas_of(image).astype(np.float32)))
    for ours, theirs in zip(maps, opencv_maps(small_yunet(64, 128), image), strict=True):
        assert np.abs(ours - theirs).max() < 2e-4 * max(1, np.abs(theirs).max())
    assert shapes_of(layers, INPUT, (65, 129, 3))["faces_32"] == (2, 4, 16)


def test_damaged_file_gives_a_one_sentence_error(content):
    rng = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        damaged = damaged[: rng.integers(1, len(content))] if rng.random() < 0.3 else damaged
        try:
            read_layers(read_onnx(bytes(damaged), "bad.onnx"), "bad.onnx")
        except SourceError as error:
            assert str(error).startswith("bad.onnx") and "\n" not in str(error)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 1000, b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", bytes(MAX_BYTES + 1)]
)
def test_file_without_a_network_gives_a_one_sentence_error(content):
    with pytest.raises(SourceError, match=r"bad\.onnx"):
        read_layers(read_onnx(content, "bad.onnx"), "bad.onnx")


def test_cyclic_graph_is_rejected(content):
    from small_yunet import end, field, node

    loop = b"".join([node("Add", ["a", "b"], "c"), node("Add", ["c", "b"], "a"), end(12, "cls_8", (1,))])
    with pytest.raises(SourceError):
        read_layers(read_onnx(field(7, loop), "loop.onnx"), "loop.onnx")


def test_network_that_fails_the_proof_is_refused_and_not_cached(tmp_path):
    """Random weights find no face with a high score: without faces to compare, the network is refused."""
    (tmp_path / "small.onnx").write_bytes(small_yunet(320, 320))
    with pytest.raises(Exception, match="use --detector own"):
        yunet_lite.YuNetLite(tmp_path / "small.onnx", tmp_path / "cache")
    assert not (tmp_path / "cache").exists(), "an unproven network is not cached"


def test_faces_that_differ_from_opencvs_fail_the_proof():
    theirs = np.zeros((1, 15), np.float32)
    theirs[0, :4], theirs[0, 14] = (10, 10, 40, 50), 0.9
    same = theirs.copy()
    same[0, 2:4] += same[0, :2]
    assert yunet_lite.compared([(theirs, same)]).passes("float32")
    moved = same.copy()
    moved[0, :4] += 2
    assert not yunet_lite.compared([(theirs, moved)]).passes("float32")
    assert yunet_lite.compared([(theirs, moved)]).passes("int8")
    assert not yunet_lite.compared([(theirs, np.empty((0, 15), np.float32))]).passes("int8"), "a face was lost"
    extra = np.concatenate([same, same + 100])
    extra[1, 14] = 0.9
    assert not yunet_lite.compared([(theirs, extra)]).passes("int8"), "a face was invented"
    assert not yunet_lite.compared([(None, np.empty((0, 15), np.float32))]).passes("int8"), "nothing was compared"


# The cache


@pytest.fixture
def proven(content, monkeypatch, tmp_path):
    """A small YuNet's file, with the proof patched to pass."""
    monkeypatch.setattr(yunet_lite._Build, "_prove", lambda build, file, dtype: yunet_lite.Proof(1, 1.0, 0.0, 0))
    (tmp_path / "small.onnx").write_bytes(content)
    return tmp_path / "small.onnx"


def test_near_no_known_face_none_is_found(proven, tmp_path):
    image = images(1, side=320)[0]
    assert yunet_lite.YuNetLite(proven, tmp_path / "cache").find(image, near=[]) == []
    assert OwnDetector.shipped().find(image, near=[]) == []


def test_unwritable_cache_does_not_prevent_detection(proven, tmp_path):
    (tmp_path / "a file").write_bytes(b"")
    detector = yunet_lite.YuNetLite(proven, tmp_path / "a file")
    assert isinstance(detector.find(images(1, side=320)[0]), list)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a file", "small.onnx"]


def test_a_damaged_cache_entry_is_rebuilt(proven, tmp_path):
    first = yunet_lite.YuNetLite(proven, tmp_path / "cache")
    (cached,) = (tmp_path / "cache").rglob("ranges.npz")
    for damaged in (b"", b"PK\x03\x04 damaged"):
        cached.write_bytes(damaged)
        again = yunet_lite.YuNetLite(proven, tmp_path / "cache")
        assert again._build.tflite("int8", (64, 64)) == first._build.tflite("int8", (64, 64))
        assert cached.read_bytes() != damaged


@pytest.mark.parametrize("change", [np.negative, np.ravel, lambda pair: pair[:, :1], lambda pair: pair * np.nan])
def test_cached_ranges_that_are_none_are_rebuilt(proven, tmp_path, change):
    first = yunet_lite.YuNetLite(proven, tmp_path / "cache")
    (cached,) = (tmp_path / "cache").rglob("ranges.npz")
    content = cached.read_bytes()
    with np.load(cached) as arrays:
        np.savez(cached, **{name: change(pair) for name, pair in arrays.items()})
    again = yunet_lite.YuNetLite(proven, tmp_path / "cache")
    assert again._build.tflite("int8", (64, 64)) == first._build.tflite("int8", (64, 64))
    assert cached.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "[" * 100_000,
        lambda text: text.replace('"faces": 1', '"faces": 0'),
        lambda text: text.replace(platform.machine(), "another processor"),
    ],
)
def test_cached_proof_that_does_not_pass_or_is_of_another_machine_is_made_again(proven, tmp_path, change):
    yunet_lite.YuNetLite(proven, tmp_path / "cache")
    (cached,) = (tmp_path / "cache").rglob("proof.json")
    text = cached.read_text()
    cached.write_text(change(text))
    yunet_lite.YuNetLite(proven, tmp_path / "cache")
    assert cached.read_text() == text and change(text) != text


def test_non_utf8_file_name_is_accepted(content, tmp_path):
    """OpenCV cannot run the small network as YuNet: the error says so, without a crash."""
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/small-\xff.onnx"))
    file.write_bytes(content)
    with pytest.raises(SourceError, match="not a YuNet that OpenCV"):
        yunet_lite.YuNetLite(file, tmp_path / "cache")


# Canvases


@pytest.mark.parametrize(
    ("shape", "canvas"), [((720, 1280), (192, 320)), ((480, 640), (256, 320)), ((640, 360), (320, 192))]
)
def test_canvas_has_the_shape_of_the_frame(shape, canvas):
    layout = Layout.of(shape, 320)
    assert layout.canvas == canvas and max(layout.size) == 320


def test_small_frames_are_not_enlarged():
    layout = Layout.of((60, 80, 3), 320)
    assert layout.scale == 1 and layout.size == (80, 60) and layout.canvas == (64, 96)


@pytest.mark.parametrize("size", [(1, 10000), (5, 5000), (1, 1)])
def test_very_narrow_frames_fit_a_canvas(size):
    layout = Layout.of(size, 320)
    assert shrunk(thinned(np.zeros(size, np.uint8), layout.size), layout.size).shape == layout.size[::-1]


def test_coarse_shrinking_of_a_large_frame_is_close_to_area_interpolation():
    image = cv2.resize(RNG.integers(0, 256, (9, 16, 3), dtype=np.uint8), (1920, 1080), interpolation=cv2.INTER_CUBIC)
    coarse, fine = (
        shrunk(thinned(image, (320, 180)), (320, 180)),
        cv2.resize(image, (320, 180), interpolation=cv2.INTER_AREA),
    )
    assert np.abs(coarse.astype(int) - fine).mean() < 1.5


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_thinned_frame_has_every_fifth_row_and_column(channels):
    image = RNG.integers(0, 256, (1080, 1920, *channels), dtype=np.uint8)
    thin = thinned(image, (192, 108))
    assert np.array_equal(thin, image[2::5, 2::5]) and thin.flags.c_contiguous


def test_thinning_in_gray_gives_the_same_pixels_at_every_size():
    for width in range(384, 1300, 97):  # every position of the last pixel that is read, the frame's last one included
        for height in (width * 9 // 16, width * 3 // 4, width):
            image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
            size = Layout.of(image.shape, 192).size
            wanted = cv2.cvtColor(thinned(image, size), cv2.COLOR_BGR2GRAY)
            image.flags.writeable = False
            assert np.array_equal(thinned_gray(image, size), wanted), image.shape
            assert np.array_equal(
                thinned_gray(image[:, ::-1], size), cv2.cvtColor(thinned(image[:, ::-1], size), cv2.COLOR_BGR2GRAY)
            )
            assert np.array_equal(thinned_gray(image[..., 0], size), thinned(image[..., 0], size))


def test_overlapping_boxes_are_reduced_to_one():
    boxes = np.array([[0, 0, 100, 100], [5, 5, 100, 105], [20, 20, 60, 60], [150, 0, 200, 50]], np.float32)
    scores = np.array([0.9, 0.8, 0.95, 0.5])
    assert non_max_suppression(boxes, scores, 0.4) == [2, 3], "the highest score stays, even if it is the inner box"
    assert non_max_suppression(boxes, np.array([0.9, 0.8, 0.7, 0.5]), 0.4) == [0, 3], (
        "an overlapping and a nested box are gone"
    )
    assert non_max_suppression(boxes[:0], scores[:0], 0.4) == []


def test_dropped_boxes_overlap_a_kept_box_with_a_higher_score_and_kept_ones_do_not_overlap():
    corners = RNG.uniform(0, 200, (150, 2))
    boxes = np.concatenate([corners, corners + RNG.uniform(10, 60, (150, 2))], axis=1)
    scores = RNG.uniform(size=150)
    low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    both, areas = np.prod(np.maximum(high - low, 0), axis=2), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    alike = (both > 0.4 * (areas[:, None] + areas - both)) | (both > 0.7 * np.minimum.outer(areas, areas))
    kept = non_max_suppression(boxes, scores, 0.4)
    assert (np.diff(scores[kept]) < 0).all() and alike[np.ix_(kept, kept)].sum() == len(kept)
    for row in set(range(150)) - set(kept):
        assert any(alike[row, other] and scores[other] > scores[row] for other in kept)
