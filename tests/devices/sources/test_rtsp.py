"""Streams of a real RTSP server: codecs, transports, logins, delays, restarts; and hosts that refuse, on loopback."""

import functools
import http.server
import itertools
import json
import os
import socket
import threading
import time

import cv2
import pytest
from rtsp import RtspServer, delay_s

from edgefer import drawn
from edgefer.devices.board import health
from edgefer.devices.sources import captures
from edgefer.devices.sources.cameras import LiveOptions, open_source
from edgefer.devices.sources.delay import Delay
from edgefer.devices.sources.hosts import refusal
from edgefer.devices.sources.live import Live
from edgefer.errors import SourceError

IMAGE = next(drawn.scene(1, 5, (640, 480), 1))[0].image_bgr
B_FRAMES = "speed-preset=veryfast bframes=3 key-int-max=50 rc-lookahead=0 sync-lookahead=0 sliced-threads=true"


@pytest.fixture
def serve(tmp_path):
    """Starts RTSP servers, and stops them."""
    servers = []

    def start(**options):
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        servers.append(RtspServer(folder, IMAGE, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.mark.rtsp
@pytest.mark.parametrize(
    "options",
    [
        {"codec": "h264", "user": "me", "password": "p@ss:/%w", "digest": True},
        {"codec": "h264", "transport": "udp", "user": "me", "password": "own"},
        {"codec": "h264", "audio": True},
        {"codec": "h264", "h264": B_FRAMES},
        {"codec": "mjpeg", "transport": "udp"},
        {"codec": "mjpeg"},
    ],
    ids=["h264 tcp digest", "h264 udp basic", "with sound", "with b-frames", "mjpeg udp", "mjpeg tcp"],
)
def test_a_slow_reader_of_a_stream_gets_its_newest_image(serve, options):
    server = serve(**options)
    login = "me@" if "user" in options else ""
    with open_source(server.url(login), password=options.get("password", "")) as source:
        delays = []
        for frame in itertools.islice(source, 8):
            delays.append(delay_s(frame.image_bgr))
            time.sleep(0.3)
    assert source.name == server.url() and source.skipped > 20
    assert delays[0] < 0.8, "FFmpeg has buffered a second of images while it opened the stream"
    assert max(delays[3:]) < 1, "without the newest, 0.26 s more for each image"


@pytest.mark.rtsp
def test_a_stream_that_is_refused_is_reported_with_the_reason(serve):
    server = serve(user="me", password="own")
    for url, reason in (
        (server.url(), "requires a user and a password (401): write rtsp://USER:PASSWORD@"),
        (server.url("me:wr0ng@"), "does not accept the user and password (401)"),
        (serve().url(path="/other"), "has no such path (404)"),
    ):
        with pytest.raises(SourceError) as caught:
            open_source(url).__enter__()
        assert reason in str(caught.value) and "wr0ng" not in str(caught.value)


@pytest.mark.rtsp
def test_a_server_that_dies_is_read_again_once_it_is_back(serve):
    server, logged, stop = serve(), [], threading.Event()
    with open_source(server.url(), live=LiveOptions(log=logged.append, stop=stop)) as source:
        for frame in source:
            if not frame.index:
                server.stop()
                server.start()
            if len(logged) == 2:
                stop.set()
    assert "stopped giving images" in logged[0] and "is back after" in logged[1] and len(logged) == 2


@pytest.mark.rtsp
def test_no_output_shows_the_password_of_a_stream(serve, edgefer, tmp_path):
    server = serve(user="me", password="s3cretpw")
    order = ("run", "fer-nano", "--source", server.url("me:s3cretpw@"), "--json", "--csv", tmp_path / "out.csv")
    done = edgefer(*order, "--headless", "--frames", 20)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 20 and lines[0]["source"] == server.url() and lines[0]["faces"]
    assert "s3cretpw" not in done.stdout + done.stderr + (tmp_path / "out.csv").read_text()


@pytest.mark.rtsp
def test_ffmpeg_does_not_delay_a_stream_by_a_frame_for_each_core(serve, monkeypatch):
    monkeypatch.setattr(health, "cores", lambda: 3)
    url = serve().url()
    capture = captures.connect_url(url)
    assert capture._capture.get(cv2.CAP_PROP_N_THREADS) == 3
    capture.close()
    monkeypatch.setattr(health, "cores", lambda: 64)
    capture = captures.connect_url(url)
    assert capture._capture.get(cv2.CAP_PROP_N_THREADS) == 4
    capture.close()


@pytest.mark.parametrize(
    ("url", "answer", "reason"),
    [
        ("rtsp://{}/a", b"RTSP/1.0 401 Unauthorized\r\n\r\n", "requires a user and a password (401)"),
        ("rtsp://me:own@{}/a", b"RTSP/1.0 401 Unauthorized\r\n\r\n", "does not accept the user and password (401)"),
        ("rtsp://{}/a", b"RTSP/1.0 404 Not Found\r\n\r\n", "has no such path (404)"),
        ("rtsp://{}/a", b"RTSP/1.0 503 Service Unavailable\r\n\r\n", "answers with an error (503)"),
        ("rtsp://{}/a", b"RTSP/1.0 200 OK\r\n\r\n", "with no video that can be read"),
        ("rtsp://{}/a", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer in RTSP"),
        ("rtsp://{}/a", b"\xff\x00", "does not answer in RTSP"),
        ("rtsp://{}/a", None, "does not answer within"),
        ("http://{}/a", b"HTTP/1.1 403 Forbidden\r\n\r\n", "forbids it (403)"),
        ("http://{}/a", b"RTSP/1.0 200 OK\r\n\r\n", "does not answer in HTTP"),
    ],
)
def test_every_refusal_of_a_host_has_its_reason(url, answer, reason, monkeypatch):
    monkeypatch.setattr("edgefer.devices.sources.hosts.ANSWER_S", 0.2)
    asked = []

    def serve():
        connection, _ = server.accept()
        with connection:
            asked.append(connection.recv(1024))
            if answer is not None:
                connection.sendall(answer)
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        error = str(refusal(url.format(host)))
        thread.join()
    assert reason in error and host in error and "own" not in error
    assert b"me" not in asked[0].split(b"\r\n")[0] and b"own" not in asked[0]


def test_a_host_that_is_gone_gets_no_reason():
    assert "check the address, the password if it needs one" in str(refusal("rtsp://127.0.0.1:9/a"))


def behind(images, seconds_apart, stamps_apart, delay=None):
    """The delay after this many images."""
    delay = delay or Delay()
    now_s, stamp_s = delay._now_s, delay._stamp_s
    for number in range(1, images + 1):
        delay.add(now_s + number * seconds_apart, stamp_s + number * stamps_apart)
    return delay


def test_the_delay_of_a_stream_grows_only_if_its_images_come_later_and_later():
    assert behind(1000, 0.04, 0.04).behind_s == pytest.approx(0)
    assert behind(100, 0.1, 0.04).behind_s == pytest.approx(99 * 0.06, abs=0.02)
    assert behind(25 * 3600, 0.04 * 1.0005, 0.04).behind_s < 0.1, "a clock that loses 43 s a day"
    assert behind(25 * 3600, 0.04 * 1.01, 0.04).behind_s > 30, "a hundredth too slow"
    paused = behind(100, 0.04, 0.04)
    paused.add(paused._now_s + 4, paused._stamp_s + 0.04)  # of the network
    assert paused.behind_s == pytest.approx(3.96, abs=0.01)
    assert behind(99, 0.0, 0.04, paused).behind_s == pytest.approx(0, abs=0.01), "it has caught up"


@pytest.mark.parametrize("jump_s", [-7200, -3, 3, 7200, 1e9])
def test_a_camera_whose_clock_is_set_is_not_behind(jump_s):
    delay = behind(100, 0.04, 0.04)
    delay.add(delay._now_s + 0.04, delay._stamp_s + jump_s)
    assert behind(100, 0.04, 0.04, delay).behind_s == pytest.approx(0)


class Late:
    """A connection whose images are read later and later."""

    fps, behind_s = 25.0, 0.0

    def read(self):
        time.sleep(0.005)
        self.behind_s += 0.5
        return IMAGE

    def close(self):
        pass


def test_a_stream_that_is_decoded_too_slowly_is_reported_once(monkeypatch):
    monkeypatch.setattr("edgefer.devices.sources.live.CATCH_UP_S", 0.05)
    logged = []
    with Live(Late, "The stream", LiveOptions(log=logged.append)) as source:
        for _ in itertools.islice(source, 60):
            pass
    assert len(logged) == 1 and "s behind" in logged[0] and "second stream" in logged[0]


def test_the_reason_of_a_long_interruption_is_the_latest_one(monkeypatch):
    monkeypatch.setattr("edgefer.devices.sources.live.LONG_S", 0.3)
    logged, stop = [], threading.Event()
    answers = iter([None, SourceError("The stream cannot be opened: no such path.")])

    class Once(Late):
        def read(self):
            return next(images, None)

    images = iter([IMAGE])

    def connect():
        if (error := next(answers, SourceError("The stream cannot be opened: no such path."))) is not None:
            raise error
        return Once()

    def log(text):
        logged.append((text, source.states[0].trouble))
        if len(logged) == 2:
            stop.set()

    with Live(connect, "The stream", LiveOptions(log=log, stop=stop), retry_s=(0.05, 0.05)) as source:
        assert len(list(source)) == 1
    told = "The stream gives no images (cannot be opened: no such path): retrying until it is back."
    assert logged == [("The stream stopped giving images: retrying until it is back.",) * 2, (told, told)]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files. sent: the name of the header with a file's length."""

    sent = "Content-Length"

    def send_header(self, keyword, value):
        super().send_header(keyword.replace("Content-Length", self.sent), value)

    def log_message(self, *arguments):
        pass


def test_a_recorded_video_behind_an_address_is_not_repeated_as_a_stream(tmp_path):
    """As a playlist that has ended, or a download without the name of a video."""
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (640, 480))
    for _ in range(50):
        writer.write(IMAGE)
    writer.release()
    (tmp_path / "film.avi").rename(tmp_path / "download")
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(SourceError, match="is a recorded video, not a live stream: save it to a file"):
            open_source(f"http://127.0.0.1:{server.server_port}/download").__enter__()
        Quiet.sent = "X-Length"  # as of a live stream that passes on the header of a file
        with open_source(f"http://127.0.0.1:{server.server_port}/download") as source:
            assert next(iter(source)).image_bgr.shape == IMAGE.shape
        server.shutdown()


def test_a_video_in_a_pipe_is_refused_with_what_to_do(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "-"):
        with pytest.raises(SourceError, match="save the video to a file, and name that"):
            open_source(str(name))
