"""Video whose pixels are not square, also where it is rotated as well, from files and from streams."""

import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.devices.reader import Reader
from edgefer.devices.sources.aspect import square_pixels
from edgefer.devices.sources.cameras import open_source
from edgefer.devices.sources.captures import CvCapture
from edgefer.options import ReaderOptions
from tests.devices.sources.videos import FFMPEG

needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg to make anamorphic videos")


def make(file: Path, source: str, *options: str) -> Path:
    command = [str(FFMPEG), "-v", "error", *source.split(), *options, "-c:v", "mpeg4", "-q:v", "2", str(file)]
    subprocess.run(command, check=True)
    return file


PATTERN = "-f lavfi -i testsrc2=size=720x576:rate=5:duration=1"


@needs_ffmpeg
@pytest.mark.parametrize(
    ("ratio", "size"), [("64/45", (1024, 576)), ("16/15", (768, 576)), ("8/9", (720, 648)), ("1/1", (720, 576))]
)
def test_frames_have_square_pixels(tmp_path, ratio, size):
    file = make(tmp_path / "a.mp4", PATTERN, "-vf", f"setsar={ratio}")
    with open_source(str(file)) as source:
        frames = list(source)
    assert len(frames) == 5 and {frame.image_bgr.shape[1::-1] for frame in frames} == {size}
    stream = CvCapture(cv2.VideoCapture(str(file)))  # as of a URL
    image = stream.read()
    assert image is not None and image.shape[1::-1] == size


@needs_ffmpeg
def test_ratio_is_that_before_a_rotation(tmp_path):
    file = make(tmp_path / "a.mp4", PATTERN, "-vf", "setsar=64/45")
    one, turned = 1 << 16, bytearray(file.read_bytes())
    at = turned.index(b"tkhd") + 44  # its matrix (ISO 14496-12)
    assert struct.unpack_from(">5i", turned, at) == (one, 0, 0, 0, one)
    struct.pack_into(">5i", turned, at, 0, one, 0, -one, 0)
    file.write_bytes(turned)
    with open_source(str(file)) as source:
        assert next(iter(source)).image_bgr.shape[1::-1] == (576, 1024)


@pytest.mark.parametrize("ratio", [(0, 0), (0, 1), (-1, 1), (1, 0), (1000, 1), (1, 1000), (float("nan"), 1)])
def test_unknown_or_damaged_ratio_changes_nothing(ratio):
    known = {cv2.CAP_PROP_SAR_NUM: ratio[0], cv2.CAP_PROP_SAR_DEN: ratio[1]}
    image = np.zeros((48, 64, 3), np.uint8)
    assert square_pixels(image, SimpleNamespace(get=lambda name: known.get(name, 0))) is image


@needs_ffmpeg
def test_faces_of_an_anamorphic_video_are_those_of_the_same_video_with_square_pixels(tmp_path):
    for index, (frame, _) in enumerate(drawn.scene(seconds=1, fps=5)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame.image_bgr)
    images = f"-framerate 5 -i {tmp_path}/%d.png"
    square = make(tmp_path / "square.mp4", images)
    narrow = make(tmp_path / "narrow.mp4", images, "-vf", "scale=iw/2:ih,setsar=2/1")
    reader = Reader.open(Bundle.open(shipped_bundles()["fer-nano"]), ReaderOptions(detector="own"))
    (*_, last), (*_, ours) = reader.watch(str(square)), reader.watch(str(narrow))
    assert len(last.faces) == len(ours.faces) > 0
    for face, own in zip(last.faces, ours.faces, strict=True):
        assert np.abs(np.subtract(face.box_xyxy, own.box_xyxy)).max() <= 6
        assert face.label == own.label
