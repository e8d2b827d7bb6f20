"""The messages of a real `edgefer run` to a service manager's socket (sd_notify)."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from edgefer import drawn
from edgefer.devices.board.notify import Notifier


@pytest.fixture
def manager(tmp_path):
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(60)
        yield receiver


def test_notifier_sends_sd_notify_messages(manager):
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000000"})
    notifier.send(READY="1", STATUS="two\nlines")
    assert manager.recv(1000) == b"READY=1\nSTATUS=two lines"
    assert notifier.watchdog_s == 2
    notifier.frame()
    assert manager.recv(1000) == b"WATCHDOG=1\nSTATUS=the first frame is processed"
    notifier.frame()  # too soon for another
    time.sleep(0.6)
    notifier.trying()
    assert manager.recv(1000) == b"WATCHDOG=1\nSTATUS=no frames from the camera: trying to connect"


def test_abstract_socket_works_and_the_watchdog_of_another_process_is_ignored():
    name = f"edgefer-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"})
        notifier.frame()
        assert receiver.recv(1000) == b"STATUS=the first frame is processed"


def test_notifier_does_nothing_without_a_running_manager(tmp_path):
    Notifier({}).send(READY="1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "nonsense"}).frame()


# ---- a real process ----


class Camera(http.server.BaseHTTPRequestHandler):
    """Drawn faces over HTTP while the server is `on`; otherwise connections break off and new ones are refused."""

    def do_GET(self):
        if not self.server.on.is_set():
            return self.send_error(503)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while self.server.on.is_set():
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(self.server.jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + self.server.jpeg + b"\r\n")
            except OSError:
                return
            time.sleep(0.05)

    def log_message(self, *args):
        pass


@pytest.fixture
def camera():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    (frame, _), *_ = drawn.scene(seconds=0.07, size=(320, 240))
    server.jpeg = cv2.imencode(".jpg", frame.image_bgr)[1].tobytes()
    server.on, server.daemon_threads = threading.Event(), True
    server.url = f"http://127.0.0.1:{server.server_port}/stream.mjpg"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def start(manager, camera, *arguments, patch=""):
    """`edgefer run` on the camera under a service manager whose watchdog expects a message every 0.4 s."""
    code = f"{patch}\nfrom edgefer.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "run",
        "fer-small",
        "--source",
        camera.url,
        "--headless",
        *map(str, arguments),
    ]
    variables = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "400000"}
    return subprocess.Popen(
        command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def messages_until(manager, wanted):
    """The messages at the socket up to the first that holds `wanted`."""
    seen = []
    while not seen or wanted not in seen[-1]:
        seen.append(manager.recv(1000).decode())
    return seen


def test_run_reports_frames_reconnects_and_its_end(manager, camera, tmp_path):
    saved = tmp_path / "out.mp4"
    process = start(manager, camera, "--wait", "--save", saved)
    assert "READY=1" in messages_until(manager, "READY=1")[-1], "it is ready although there is no camera yet"
    messages_until(manager, "trying to connect")
    camera.on.set()
    messages_until(manager, "frames/s")
    camera.on.clear()
    messages_until(manager, "trying to connect")
    camera.on.set()
    messages_until(manager, "frames/s")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    stderr = process.communicate(timeout=20)[1]
    assert time.monotonic() - began < 3 and process.returncode == 0, stderr
    assert "STOPPING=1" in messages_until(manager, "STOPPING=1")[-1]
    assert stderr.count("waiting for it") == 1 and stderr.count("stopped giving images") == 1
    video = cv2.VideoCapture(str(saved))
    assert video.read()[0] and np.ptp(video.read()[1]) > 0


HANGS = """
import threading
from edgefer.devices import threads as workers
from edgefer.devices.faces import own as faces
workers.Rules.__init__.__kwdefaults__["limit_s"] = 1.0
find, calls = faces.OwnDetector.find, []
def hung(self, image, near=None):
    calls.append(1)
    if len(calls) > 2:
        threading.Event().wait()
    return find(self, image, near)
faces.OwnDetector.find = hung
"""


def test_permanently_hung_detector_ends_the_run_so_that_systemd_restarts_it(manager, camera):
    camera.on.set()
    process = start(manager, camera, patch=HANGS)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "Traceback" not in stderr
    assert "The face detector has not responded for 1 s: it is replaced." in stderr
    assert stderr.splitlines()[-1] == (
        "edgefer: The face detector has not responded for 1 s, and neither has its replacement."
    )
    manager.settimeout(0.1)
    reported = []
    with pytest.raises(TimeoutError):
        while True:
            reported.append(manager.recv(1000))
    # One per early frame and, on a machine slower than 1 s per frame, a few more; none while the detector hangs.
    assert len(reported) <= 8, reported
