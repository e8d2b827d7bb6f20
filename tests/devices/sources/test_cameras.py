"""Which cameras a machine has, how each kind is opened and configured, and videos read frame by frame."""

import json
import os
import struct
import sys
import threading
import time
import types

import cv2
import numpy as np
import pytest
from machines import PI, machine
from test_live import FakeCapture, live, slowly
from typer.testing import CliRunner

from edgefer.cli import app
from edgefer.devices.sources import cameras, captures, discovery
from edgefer.devices.sources.captures import CaptureOptions
from edgefer.errors import InputError, MissingDependency, SourceError
from edgefer.options import parse_size


def test_only_http_urls_with_a_video_suffix_are_videos():
    assert not cameras.open_source("http://host/film.mp4?x=1").live
    assert cameras.open_source("rtsp://camera/live.mp4").live
    with pytest.raises(SourceError, match="check the address"), cameras.open_source("http://127.0.0.1:9/film.mp4"):
        pass


@pytest.mark.parametrize(
    ("name", "camera"), [("/dev/video0", True), ("/dev/v4l/by-id/usb-1", True), ("/dev/shm/a.png", False)]
)
def test_path_under_dev_is_a_camera_unless_it_is_in_shared_memory(name, camera):
    assert cameras.is_camera(name) == camera


def test_unplugged_camera_s_message_lists_the_others_also_for_a_path_by_id(monkeypatch):
    devices = {"/dev": [captures.Path("/dev/video2")]}
    monkeypatch.setattr(captures.Path, "glob", lambda folder, pattern: devices.get(str(folder), []))
    with pytest.raises(SourceError, match=r"There is no camera /dev/v4l/by-id/usb-1 .*the cameras here are 2"):
        captures.check_device(captures.Path("/dev/v4l/by-id/usb-1"))


def test_unreadable_file_is_reported_as_a_permission_error(tmp_path, monkeypatch):
    (tmp_path / "film.mp4").write_bytes(b"film")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(SourceError, match="You may not read"):
        cameras.open_source(str(tmp_path / "film.mp4"))


def test_folder_that_may_be_listed_but_not_entered_is_reported_as_a_permission_error(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").touch()
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.X_OK)
    with pytest.raises(SourceError, match="You may not read"):
        cameras.open_source(str(tmp_path))


def test_a_file_gives_every_frame_even_to_a_slow_loop(tmp_path):
    file = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 20, (64, 48))
    for number in range(15):
        writer.write(np.full((48, 64, 3), number * 10, np.uint8))
    writer.release()
    with cameras.open_source(str(file)) as source:
        numbers = []
        for frame in source:
            time.sleep(0.005)
            numbers.append(round(float(frame.image_bgr.mean()) / 10))
    assert numbers == list(range(15)) and not source.live


@pytest.mark.parametrize("camera", ["usb", "csi:", "csi:x", "", "/tmp/video", "-1"])
def test_invalid_camera_name_is_refused(camera):
    with pytest.raises(InputError, match="There is no camera"):
        cameras.open_camera(camera)


@pytest.mark.parametrize(
    ("text", "size"), [("640x480", (640, 480)), ("1280X720", (1280, 720)), ("640", None), ("0x0", None), ("axb", None)]
)
def test_image_sizes_are_parsed(text, size):
    if size:
        assert parse_size(text) == size
    else:
        with pytest.raises(InputError, match="such as 640x480"):
            parse_size(text)


class FakeVideoCapture:
    """A minimal cv2.VideoCapture that records its settings in order."""

    def __init__(self, *arguments):
        self.arguments, self.asked = arguments, []
        FakeVideoCapture.last = self

    def isOpened(self):
        return True

    def read(self):
        return True, np.zeros((4, 4, 3), np.uint8)

    def set(self, prop, value):
        self.asked.append((prop, value))

    def get(self, prop):
        return 30.0

    def release(self):
        pass


@pytest.mark.parametrize(
    ("options", "compressed"),
    [
        ({}, False),
        ({"size": (640, 480)}, False),
        ({"size": (1280, 720)}, True),
        ({"size": (1280, 720), "mjpg": False}, False),
        ({"mjpg": True, "fps": 60}, True),
    ],
)
def test_usb_camera_is_set_to_format_then_size_then_rate(monkeypatch, tmp_path, options, compressed):
    monkeypatch.setattr(captures.cv2, "VideoCapture", FakeVideoCapture)
    (tmp_path / "video3").touch()
    captures.connect_v4l2(tmp_path / "video3", CaptureOptions(**options))
    asked = FakeVideoCapture.last
    assert asked.arguments == (str(tmp_path / "video3"), cv2.CAP_V4L2)
    order = [cv2.CAP_PROP_FOURCC, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS]
    kinds = [prop for prop, _ in asked.asked if prop in order]
    assert kinds == sorted(kinds, key=order.index)
    assert ((cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG")) in asked.asked) == compressed
    if "size" in options:
        assert (cv2.CAP_PROP_FRAME_WIDTH, options["size"][0]) in asked.asked


def test_missing_camera_error_names_the_available_ones(tmp_path):
    (tmp_path / "video2").touch()
    with pytest.raises(SourceError, match=r"There is no camera 0 .*the cameras here are 2"):
        captures.connect_v4l2(tmp_path / "video0", CaptureOptions())


def test_gstreamer_needs_an_opencv_built_with_it(monkeypatch):
    monkeypatch.setattr(captures.cv2.videoio_registry, "hasBackend", lambda backend: False)
    with (
        pytest.raises(MissingDependency, match=r"without GStreamer.*python3-opencv"),
        cameras.open_source("gst:videotestsrc"),
    ):
        pass
    monkeypatch.setattr(captures.cv2.videoio_registry, "hasBackend", lambda backend: True)
    monkeypatch.setattr(captures.cv2, "VideoCapture", FakeVideoCapture)
    captures.connect_gstreamer("videotestsrc !")
    assert FakeVideoCapture.last.arguments[0].startswith("videotestsrc ! videoconvert !")
    captures.connect_gstreamer("videotestsrc ! appsink")
    assert FakeVideoCapture.last.arguments == ("videotestsrc ! appsink", cv2.CAP_GSTREAMER)


class FakePicamera2:
    """A minimal Picamera2 (raspberrypi/picamera2, picamera2.py)."""

    cameras = (
        {"Model": "imx708_wide", "Id": "/base/axi/pcie@120000/rp1/i2c@88000/imx708@1a", "Num": 1},
        {"Model": "uvcvideo", "Id": "/base/axi/pcie@120000/rp1/usb@200000-1:1.0-046d:0825", "Num": 0},
    )

    def __init__(self, number):
        self.number, self.closed = number, False
        FakePicamera2.last = self

    @staticmethod
    def global_camera_info():
        return list(FakePicamera2.cameras)

    def create_video_configuration(self, main, controls):
        return {"main": main, "controls": controls}

    def configure(self, configuration):
        self.configuration = configuration

    def start(self):
        if self.configuration["main"]["size"] == (13, 13):
            raise RuntimeError("bad size")

    def capture_array(self, name, wait):
        assert name == "main" and wait is False
        return "job"

    def wait(self, job, timeout):
        assert job == "job" and timeout > 0
        return np.zeros((480, 640, 3), np.uint8)

    def stop(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def csi(monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=FakePicamera2))


def test_csi_camera_is_read_through_picamera2(csi):
    with cameras.open_camera("csi", CaptureOptions(size=(640, 480), fps=20)) as source:
        frame = next(iter(source))
    assert frame.image_bgr.shape == (480, 640, 3) and source.fps == 20
    assert FakePicamera2.last.configuration["main"] == {"size": (640, 480), "format": "RGB888"}
    assert FakePicamera2.last.closed and FakePicamera2.last.number == 1, "0 is the USB camera"
    with pytest.raises(SourceError, match="no CSI camera 1: Picamera2 finds 1"), cameras.open_camera("csi:1"):
        pass


def test_csi_camera_is_found_with_an_older_picamera2(csi, monkeypatch):
    usb, sensor = {"Model": "uvcvideo", "Id": "/base/usb@1"}, {"Model": "imx219", "Id": "/base/i2c@1"}
    monkeypatch.setattr(FakePicamera2, "cameras", (usb, sensor))
    with cameras.open_camera("csi") as source:
        next(iter(source))
    assert FakePicamera2.last.number == 1


def test_csi_camera_that_fails_to_stop_is_released(csi, monkeypatch):
    def stop(self):
        raise TimeoutError

    monkeypatch.setattr(FakePicamera2, "stop", stop)
    with cameras.open_camera("csi") as source:
        next(iter(source))
    assert FakePicamera2.last.closed


def test_csi_camera_that_fails_to_start_is_released(csi):
    with (
        pytest.raises(SourceError, match="bad size"),
        cameras.open_camera("csi", CaptureOptions(size=(13, 13))),
    ):
        pass
    assert FakePicamera2.last.closed


def test_csi_without_picamera2_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with (
        pytest.raises(MissingDependency, match=r"apt install -y python3-picamera2.*--system-site-packages"),
        cameras.open_camera("csi"),
    ):
        pass


def test_cameras_of_a_pi_are_distinguished_from_its_other_video_nodes(tmp_path):
    root = machine(tmp_path, PI)
    assert [(camera.camera, camera.name) for camera in discovery.usb_cameras(root)] == [("2", "HD Pro Webcam C920")]
    assert discovery.csi_sensors(root) == ["imx219 10-0010"]


def test_camera_nodes_are_identified_by_their_kernel_capabilities(tmp_path, monkeypatch):
    """A depth camera has its colour images on a node that is not its first; a metadata node gives no images."""
    root = machine(tmp_path, {f"video{n}": ("Depth Camera", str(n)) for n in range(3)})
    capabilities = iter([0x04A00000, 0x04200001, 0x04A00000])  # metadata capture; video capture; metadata capture

    def ioctl(handle, request, buffer):
        assert request == 0x80685600 and len(buffer) == 104
        return struct.pack(
            "16s32s32s6I", b"uvcvideo", b"Depth Camera", b"usb", 0, 0x84A00001, next(capabilities), 0, 0, 0
        )

    monkeypatch.setattr(discovery.fcntl, "ioctl", ioctl)
    assert [camera.camera for camera in discovery.usb_cameras(root)] == ["1"]


def test_no_cameras_are_found(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    assert discovery.find_cameras(tmp_path) == []


def test_csi_cameras_are_found_too(tmp_path, csi):
    found = discovery.find_cameras(machine(tmp_path, PI))
    assert [(camera.camera, camera.reached_by) for camera in found] == [("2", "v4l2"), ("csi", "picamera2")]


def test_a_libcamera_that_fails_is_a_row_with_its_problem(tmp_path, csi, monkeypatch):
    def fails():
        raise RuntimeError("Failed to start\nthe camera manager")

    monkeypatch.setattr(FakePicamera2, "global_camera_info", staticmethod(fails))
    (camera,) = discovery.find_cameras(tmp_path)
    trial = discovery.try_camera(cameras.open_camera(camera.camera))
    assert "cannot list the CSI cameras (Failed to start the camera manager): try rpicam-hello" in trial.problem


def test_camera_trial_measures_size_and_rate():
    trial = discovery.try_camera(live(FakeCapture(slowly(*range(60), pause=0.02))), seconds=0.3)
    assert (trial.width, trial.height, trial.problem) == (6, 4, "")
    assert 5 < trial.fps < 55
    assert "no camera 9" in discovery.try_camera(live(SourceError("There is no camera 9."))).problem


def test_trial_of_a_camera_that_hangs_ends(monkeypatch):
    monkeypatch.setattr(discovery, "HANG_S", 0.2)
    hang = threading.Event()
    trial = discovery.try_camera(live(FakeCapture([1, lambda: hang.wait(20)])))
    hang.set()
    assert trial.problem == "It has not responded for 0.2 s: it hangs."


def test_the_command_lists_what_works_and_what_does_not(monkeypatch):
    found = [
        discovery.Camera(camera="0", name="Webcam", reached_by="v4l2"),
        discovery.Camera(camera="csi", name="imx219", reached_by="picamera2"),
    ]
    monkeypatch.setattr(discovery, "find_cameras", lambda: found)
    connections = {"0": lambda: FakeCapture(slowly(*range(250))), "csi": lambda: SourceError("The camera is busy.")}
    monkeypatch.setattr(cameras, "open_camera", lambda camera: live(connections[camera]()))
    monkeypatch.setattr(discovery.try_camera, "__defaults__", (0.2, time.monotonic))
    result = CliRunner().invoke(app, ["cameras"])
    shown = result.output
    assert result.exit_code == 1, "something that was checked failed"
    assert "6x4" in shown and "The camera is busy." in shown
    result = json.loads(CliRunner().invoke(app, ["cameras", "--json"]).output)["cameras"]
    assert [(camera["camera"], camera["width"], camera["problem"]) for camera in result] == [
        ("0", 6, ""),
        ("csi", 0, "The camera is busy."),
    ]
    monkeypatch.setattr(discovery, "find_cameras", lambda: [])
    none = CliRunner().invoke(app, ["cameras"])
    assert none.exit_code == 0 and "No usable camera was found" in none.output and "--source builtin" in none.output
