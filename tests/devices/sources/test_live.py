"""Live sources: cameras that stall, hang, disconnect and return, and a stream over loopback that breaks off."""

import base64
import http.server
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from edgefer.devices.reader import SourceOptions, closed_source
from edgefer.devices.sources import cameras, captures, urls
from edgefer.devices.sources.cameras import LiveOptions
from edgefer.devices.sources.live import Live
from edgefer.devices.sources.playback import MergedSources
from edgefer.errors import IncompleteError, SourceError


class FakeCapture:
    """A camera whose images hold their number in every pixel; reads follow `script`.

    A number is an image, None the end, an exception is raised; a function is called first, a float is slept for first.
    """

    behind_s = 0.0

    def __init__(self, script, fps=25.0):
        self.script, self.fps, self.closed = iter(script), fps, False

    def read(self):
        step = next(self.script, None)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):
            time.sleep(step)
            return self.read()
        if callable(step):
            step()
            return self.read()
        return None if step is None else np.full((4, 6, 3), step, np.uint8)

    def close(self):
        self.closed = True


@pytest.fixture
def hang():
    """An event that a hung read waits for; set at the end of the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


def live(*connections, **settings):
    """A Live over `connections`, each a FakeCapture or an error, one per attempt; the last one repeats."""
    left = list(connections)

    def connect():
        connection = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(connection, Exception):
            raise connection
        return connection

    timing = {"retry_s": (0.01, 0.04), "stall_s": 20, "open_s": 20}
    timing |= {name: settings.pop(name) for name in list(settings) if name in timing}
    return Live(connect, "Camera 0", LiveOptions(**settings), **timing)


def slowly(*numbers, pause=0.01):
    """A script that gives these numbers with a pause before each but the first."""
    return [step for number in numbers for step in (pause, number)][1:]


def number_of(frame):
    return int(frame.image_bgr[0, 0, 0])


def test_a_slow_reader_gets_the_newest_frame_not_the_oldest(hang):
    go, all_read = threading.Event(), threading.Event()
    with live(FakeCapture([1, go.wait, *range(2, 60), all_read.set, hang.wait])) as source:
        frames = iter(source)
        first = next(frames)
        go.set()  # the loop is busy while the camera goes on
        assert all_read.wait(5)
        second = next(frames)
        hang.set()
    assert (number_of(first), number_of(second)) == (1, 59)
    assert (first.index, second.index) == (0, 1) and second.time_s >= first.time_s
    assert source.fps == 25


def test_no_frame_is_given_twice():
    with live(FakeCapture(slowly(*range(1, 20))), FakeCapture([100])) as source:
        numbers = []
        for frame in source:
            numbers.append(number_of(frame))
            if numbers[-1] == 100:
                break
    assert numbers == sorted(set(numbers)) and numbers[-2] == 19


@pytest.mark.parametrize(
    "end", [None, OSError("No such device"), cv2.error("select() timeout")], ids=["ends", "unplugged", "cv2 error"]
)
def test_unplugged_camera_is_reconnected_and_logged_once(end):
    logged, gone, stop, back = [], SourceError("There is no camera 0."), threading.Event(), threading.Event()
    first, second = FakeCapture([1, end]), FakeCapture([50, back.wait, 51, stop.wait])
    states = []

    def log(text):
        logged.append(text)
        states.extend(source.states)

    with live(first, gone, gone, gone, second, log=log, stop=stop) as source:
        numbers = []
        for frame in source:
            numbers.append((frame.index, number_of(frame)))
            if len(numbers) == 2:
                back.set()
            if number_of(frame) == 51:
                stop.set()
    assert numbers == [(0, 1), (1, 50), (2, 51)]
    assert len(logged) == 2, logged
    assert "stopped giving images" in logged[0] and "is back" in logged[1]
    assert [(state.state, state.trouble) for state in states] == [("lost", logged[0]), ("ok", "")]
    assert first.closed, "the old connection keeps the camera busy unless it is closed"


def test_camera_that_hangs_in_its_driver_is_reconnected(hang):
    logged = []
    with live(FakeCapture([1, hang.wait]), FakeCapture([2, hang.wait]), log=logged.append, stall_s=0.1) as source:
        frames = iter(source)
        assert [number_of(next(frames)) for _ in range(2)] == [1, 2]
        hang.set()
    assert len(logged) == 2


def test_driver_that_always_hangs_ends_the_run_before_threads_pile_up(hang):
    stop, threads = threading.Event(), threading.active_count()
    dead = FakeCapture([hang.wait] * 100)
    threading.Timer(20, stop.set).start()
    with (
        live(FakeCapture([1]), dead, stop=stop, open_s=0.02, retry_s=(0.001, 0.001)) as source,
        pytest.raises(IncompleteError, match="Camera 0 hangs: 10 connections did not end"),
    ):
        for _ in source:
            pass
    assert threading.active_count() <= threads + 11
    hang.set()


def test_a_driver_that_always_hangs_does_not_end_the_other_sources(hang):
    dead, alive, logged = FakeCapture([hang.wait] * 100), FakeCapture(slowly(*range(1, 200), pause=0.02)), []
    hanging = live(FakeCapture([1]), dead, open_s=0.02, retry_s=(0.001, 0.001))
    other = live(alive)
    other.name = "other"
    with MergedSources([hanging, other], log=logged.append) as source:
        for _ in source:
            if logged:
                break
        assert [state.state for state in source.states] == ["failed", "ok"]
    hang.set()
    assert logged[0].startswith("Camera 0 hangs") and logged[0].endswith("The other sources are read.")


def test_fifty_reconnects_lose_no_frame_and_leave_no_thread():
    stop, before = threading.Event(), set(threading.enumerate())  # an earlier test's hung thread may end meanwhile
    with live(*[FakeCapture([n]) for n in range(1, 52)], retry_s=(0.001, 0.001), stop=stop) as source:
        numbers = []
        for frame in source:
            numbers.append(number_of(frame))
            if len(numbers) == 51:
                stop.set()
    assert numbers == list(range(1, 52)) and before.issuperset(threading.enumerate())


class RecordedWaits(threading.Event):
    """A stop event that records the timeout of each wait, returns at once, and is set after `attempts` waits."""

    def __init__(self, attempts):
        super().__init__()
        self.attempts, self.waits = attempts, []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        if len(self.waits) == self.attempts:
            self.set()
        return self.is_set()


def test_reconnect_attempts_back_off():
    stop = RecordedWaits(attempts=7)
    with live(FakeCapture([1]), SourceError("gone"), stop=stop, retry_s=(0.5, 10)) as source:
        assert len(list(source)) == 1
    assert stop.waits == [0.5, 1, 2, 4, 8, 10, 10]


def test_a_stop_ends_a_waiting_source_quickly(hang):
    stop = threading.Event()
    with live(FakeCapture([1, hang.wait]), stop=stop) as source:
        frames = iter(source)
        next(frames)
        threading.Timer(0.05, stop.set).start()
        began = time.monotonic()
        assert next(frames, None) is None
        assert time.monotonic() - began < 1, "not the 20 s after which it counts as stalled"
        hang.set()


def test_a_camera_that_never_worked_is_refused_at_once(hang):
    with pytest.raises(SourceError, match="There is no camera 0"), live(SourceError("There is no camera 0.")):
        pass
    with pytest.raises(SourceError, match=r"gives no images .libcamera broke"), live(RuntimeError("libcamera broke")):
        pass
    with pytest.raises(SourceError, match="no images within"), live(FakeCapture([hang.wait]), open_s=0.1):
        pass


def test_camera_is_released_when_the_source_is_closed():
    capture = FakeCapture(slowly(*range(200)))
    with live(capture) as source:
        next(iter(source))
    assert capture.closed


def test_a_stream_slower_than_the_limit_is_given_more_time():
    logged, stop, numbers = [], threading.Event(), []
    slow = [FakeCapture(slowly(*range(start, start + 40), pause=0.25)) for start in (1, 50, 100, 150)]
    with live(*slow, log=logged.append, stop=stop, stall_s=0.1) as source:
        for frame in source:
            numbers.append(number_of(frame))
            if len(numbers) == 8:
                stop.set()
    assert len(logged) == 4 and all("stopped giving images" in line for line in logged[::2])
    assert numbers == [1, 50, 100, 101, 102, 103, 104, 105], "0.1 and 0.2 s are too short, 0.4 is not"


def test_long_waits_are_reported_to_the_watchdog(hang, monkeypatch):
    monkeypatch.setattr("edgefer.devices.sources.live.PING_S", 0.05)
    tried, stop = [], threading.Event()
    slow = [FakeCapture([1, hang.wait]), FakeCapture([hang.wait])]
    threading.Timer(1.5, stop.set).start()
    with live(*slow, stop=stop, stall_s=0.5, open_s=5, trying=lambda: tried.append(1)) as source:
        assert len(list(source)) == 1
        hang.set()
    assert len(tried) > 8, "not only one or two for each attempt"


def test_a_source_that_comes_and_goes_does_not_fill_the_log(monkeypatch):
    logged, stop = [], threading.Event()
    connections = [FakeCapture([number]) for number in range(1, 32)]
    with live(*connections, retry_s=(0.001, 0.001), log=logged.append, stop=stop) as source:
        for frame in source:
            if number_of(frame) == 30:
                monkeypatch.setattr("edgefer.devices.sources.live.LOGGED_S", 0.0)
            if number_of(frame) == 31:
                stop.set()
    assert [line.split(":")[0] for line in logged[10:]] == [
        "Camera 0 is interrupted again and again",
        "Camera 0 was interrupted 24 more times until now.",
        "Camera 0 stopped giving images",
        "Camera 0 is back after 0 s.",
    ]


def test_a_long_interruption_is_logged_in_any_case(monkeypatch):
    monkeypatch.setattr("edgefer.devices.sources.live.MAX_LOGGED", 0)
    monkeypatch.setattr("edgefer.devices.sources.live.LONG_S", 0.0)
    logged, stop = [], threading.Event()
    with live(FakeCapture([1]), FakeCapture([2]), log=logged.append, stop=stop) as source:
        for frame in source:
            if number_of(frame) == 2:
                stop.set()
    assert [line.split(" ")[2] for line in logged] == ["is", "stopped", "is"] and "is back" in logged[-1]


@pytest.mark.parametrize(("damaged", "images"), [(29, 2), (40, 1)])
def test_damaged_images_do_not_end_a_stream(damaged, images):
    class Stream:
        answers = iter([True, *[False] * damaged, True])

        def get(self, number):
            return 0.0

        def read(self):
            return next(self.answers, False), np.zeros((4, 6, 3), np.uint8)

    capture = captures.CvCapture(Stream())
    assert sum(capture.read() is not None for _ in range(2)) == images


class Mjpeg(http.server.BaseHTTPRequestHandler):
    """A camera's HTTP stream: JPEG after JPEG, brighter and brighter; behind a password if it has one."""

    def do_GET(self):
        login = base64.b64encode(b"me:" + self.server.password.encode()).decode()
        if self.server.password and self.headers.get("Authorization") != f"Basic {login}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(self.server.frames):
            jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), number * 2 % 256, np.uint8))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return
            time.sleep(0.01)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """An MJPEG stream on loopback that breaks off after some frames."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg)
    server.frames, server.password, server.daemon_threads = 60, "", True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_http_stream_is_reconnected_when_it_breaks_off(server):
    stream = f"http://127.0.0.1:{server.server_port}/stream.mjpg"
    logged, stop = [], threading.Event()
    with cameras.open_source(stream, live=LiveOptions(log=logged.append, stop=stop)) as source:
        shapes = set()
        for frame in source:
            shapes.add(frame.image_bgr.shape)
            if any("is back" in line for line in logged):
                break
    assert source.live and shapes == {(48, 64, 3)}
    assert len(logged) == 2 and stream in logged[0]


def test_a_stream_is_opened_with_its_password_and_shown_without(server):
    server.password = "p@ss:/%w"
    host = f"127.0.0.1:{server.server_port}/stream.mjpg"
    with pytest.raises(SourceError) as refused:
        cameras.open_source(f"http://me:wrong@{host}").__enter__()
    assert (
        "user and password (401)" in str(refused.value)
        and host in str(refused.value)
        and "wrong" not in str(refused.value)
    )
    with cameras.open_source(f"http://me@{host}", password=server.password) as source:
        assert next(iter(source)).image_bgr.shape == (48, 64, 3)
    assert source.name == f"http://{host}"


def test_a_url_is_opened_while_the_hosts_of_others_do_not_answer(server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls_of = [f"http://127.0.0.1:{port}/a.mjpg?n={n}" for n, port in enumerate([silent.getsockname()[1]] * 4)]
        urls_of.append(f"http://127.0.0.1:{server.server_port}/a.mjpg")
        server.frames = 100_000  # more than are read while the others are waited for
        logged, stop = [], threading.Event()
        with closed_source(urls_of, SourceOptions(), LiveOptions(log=logged.append, stop=stop)) as source:
            assert next(iter(source)).stream == 4
            stop.set()
        assert [state.state for state in source.states] == [*["failed"] * 4, "ok"]
        assert len(logged) == 4 and all("cannot be opened" in line for line in logged)


def test_a_host_that_cannot_be_reached_is_named_with_the_reason(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SourceError, match=rf"rtsp://127.0.0.1:{port}/a cannot be opened \(Connection refused\)"):
        captures.connect_url(f"rtsp://me:own@127.0.0.1:{port}/a")

    def never(address, timeout):
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", never)
    with pytest.raises(SourceError, match=r"\(no answer within 5 s\)"):
        captures.connect_url("rtsp://192.0.2.1/a")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    captures.check_host("http://192.0.2.1/a")  # the proxy may reach it


@pytest.mark.parametrize(
    ("url", "opened", "shown"),
    [
        ("rtsp://host:554/a", "rtsp://host:554/a", "rtsp://host:554/a"),
        ("http://host/a@b", "http://host/a@b", "http://host/a@b"),
        ("rtsp://me@host:554/a", "rtsp://me:s%40%2F@host:554/a", "rtsp://host:554/a"),
        ("rtsp://me@home.org@host/a", "rtsp://me@home.org:s%40%2F@host/a", "rtsp://host/a"),
        ("rtsp://me@home.org:o@wn@host/a", "rtsp://me@home.org:o@wn@host/a", "rtsp://host/a"),
        ("rtsp://me:o/#?wn@host/a", "rtsp://me:o/#?wn@host/a", "rtsp://host/a"),
        (
            "http://host/a?user=me&password=own&n=1",
            "http://host/a?user=me&password=own&n=1",
            "http://host/a?user=...&password=...&n=1",
        ),
        (
            "rtspsrc location=rtsp://me:own@host/a user-pw=own ! x",
            "rtspsrc location=rtsp://me:own@host/a user-pw=own ! x",
            "rtspsrc location=rtsp://host/a user-pw=... ! x",
        ),
    ],
)
def test_password_is_added_to_a_user_without_one_and_never_shown(url, opened, shown):
    assert (urls.with_password(url, "s@/"), urls.shown_address(url)) == (opened, shown)


def test_a_failed_attempt_writes_nothing_to_the_terminal():
    """An attempt is made every few seconds for as long as a camera is away."""
    # In a process of its own: FFmpeg reads its log level when it is first used, and the tests here have used it.
    code = """
from edgefer.devices.sources.cameras import open_source
from edgefer.errors import SourceError
for url in ("http://127.0.0.1:9/none.mjpg", "rtsp://127.0.0.1:9/none"):
    try:
        open_source(url).__enter__()
    except SourceError as error:
        assert "cannot be opened" in str(error)
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("refused\nrefused\n", "")
