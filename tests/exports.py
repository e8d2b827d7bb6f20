"""The exports that are tested, and a camera, made once."""

import cv2
import pytest

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.c.subject import read_subject
from edgefer.commands.page_rules import device_of
from edgefer.convert.c.project import export_c
from edgefer.convert.web.site import export_web


@pytest.fixture(scope="session")
def subject():
    return read_subject(Bundle.open(shipped_bundles()["ferplus-small"]))


@pytest.fixture(scope="session")
def fake_camera(tmp_path_factory):
    """Chromium's flags for a camera that sees a drawn face which keeps still."""
    file = tmp_path_factory.mktemp("camera") / "face.y4m"
    frame = next(iter(drawn.scene(seconds=1, fps=1, size=(640, 480), people=1, seed=3)))[0].image_bgr
    with file.open("wb") as out:
        out.write(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n")
        for _ in range(10):
            out.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes())
    return (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={file}",
    )


@pytest.fixture(scope="session")
def site(subject, tmp_path_factory):
    """The exported page of ferplus-small; copy what you change."""
    out = tmp_path_factory.mktemp("site") / "page"
    export_web(subject, device_of(subject.bundle.card), out)
    return out


@pytest.fixture(scope="session")
def nano():
    return read_subject(Bundle.open(shipped_bundles()["fer-nano"]))


@pytest.fixture(scope="session")
def project(nano, tmp_path_factory):
    """The exported project of fer-nano; copy what you change."""
    out = tmp_path_factory.mktemp("export") / "nano"
    export_c(nano, out)
    return out
