"""The page: what it serves, to whom, the cost of many or slow viewers, and how it looks in a real browser."""

import asyncio
import errno
import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest
from conftest import CHROMIUM

from edgefer.devices.outputs.overlay import View
from edgefer.devices.outputs.server import _listen
from edgefer.devices.outputs.settings import LiveSettings, RunSettings
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.outputs.tokens import is_loopback
from edgefer.devices.sources.state import SourceState, SourceStatus
from edgefer.errors import SourceError

web = pytest.importorskip("edgefer.devices.outputs.web", reason="starlette and uvicorn are not installed")
TOKEN = "correct horse"
ABOUT = {"network": "fer-small", "runtime": "litert", "version": "1"}


@pytest.fixture
def serve():
    """Makes pages on free ports of loopback, and closes them."""
    pages = []

    def make(host="127.0.0.1", **settings):
        options = web.PageOptions(
            labels=("happy", "sad", "neutral"),
            about=ABOUT,
            settings=settings.pop("settings", None),
            view=settings.pop("view", View()),
        )
        page = web.WebPage(settings.pop("stats", None) or RunStats(), host, 0, options, **settings)
        pages.append(page)
        return page

    yield make
    for page in pages:
        page.close()


def get(page, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.content = answer.read()
    connection.close()
    return answer


def test_page_and_its_files_are_served(serve):
    page = serve()
    for path, kind in (("/", "text/html"), ("/page.js", "javascript"), ("/page.css", "text/css"), ("/icon.svg", "svg")):
        answer = get(page, path)
        assert answer.status == 200 and kind in answer.headers["content-type"]
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert page.url == f"http://127.0.0.1:{page.port}/"
    assert get(page, "/none").status == 404 and get(page, "/../web.py").status == 404
    with pytest.raises(SourceError, match="in use"):
        web.WebPage(RunStats(), "127.0.0.1", page.port, web.PageOptions())


def test_live_image_comes_with_its_faces(serve, make_frame):
    page = serve()
    page.write(make_frame(200, "happy", ("unsure", "dark"), size=(1920, 1080)))
    answer = get(page, "/live")
    seen = json.loads(answer.headers["x-edgefer"])
    assert (seen["number"], seen["width"], seen["height"]) == (1, 1920, 1080)
    assert [face["label"] for face in seen["faces"]] == ["happy", "unsure"] and seen["faces"][1]["unsure"] == "dark"
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (540, 960, 3) and abs(int(image.mean()) - 200) < 3
    assert answer.headers["cache-control"] == "no-store"
    assert get(page, "/live?after=x").status == 400


def test_live_waits_for_a_newer_image(serve, make_frame, monkeypatch):
    monkeypatch.setattr(web, "WAIT_S", 0.3)
    page = serve()
    assert get(page, "/live").status == 204
    page.write(make_frame(0))
    assert get(page, "/live?after=1").status == 204
    monkeypatch.setattr(web, "WAIT_S", 20)
    threading.Timer(0.1, lambda: page.write(make_frame(1))).start()
    assert json.loads(get(page, "/live?after=1").headers["x-edgefer"])["number"] == 2
    # A browser that slept while the program was restarted: its number is from the old run.
    assert json.loads(get(page, "/live?after=100000").headers["x-edgefer"])["number"] == 2


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6_any_address_serves_ipv4_too_and_every_loopback_host_is_accepted(serve):
    page = serve("::", token="long enough")
    assert get(page, "/health?token=long%20enough").status == 200
    assert get(serve("127.0.0.1"), "/health", Host="127.0.1.1:80").status == 200


def test_health_and_history(serve, make_frame):
    stats = RunStats()
    stats.add(make_frame(0, "happy"), {})
    result = json.loads(get(serve(stats=stats), "/health").content)
    assert (
        result["state"] == "running"
        and result["frames"] == 1
        and result["history"] == [{"ago_s": 0, "faces": {"happy": 1.0}}]
    )
    assert result["about"]["colors"] == {"happy": "#d55e00", "sad": "#cc79a7", "neutral": "#0072b2"}


def test_images_are_encoded_once_and_only_while_somebody_watches(serve, make_frame, monkeypatch):
    encoded, encode = [], web._encode
    monkeypatch.setattr(web, "_encode", lambda *seen: encoded.append(1) or encode(*seen))
    page = serve()
    for number in range(100):
        page.write(make_frame(number))
    assert not encoded
    viewers = [threading.Thread(target=get, args=(page, "/live?after=0")) for _ in range(8)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    assert len(encoded) == 1


def test_viewers_that_read_nothing_do_not_block(serve, make_frame):
    page = serve()
    sleepers = []
    for _ in range(20):
        sleeper = socket.create_connection(("127.0.0.1", page.port))
        sleeper.sendall(b"GET /live?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        sleepers.append(sleeper)
    noise = make_frame(0, size=(960, 540))
    noise.image_bgr[:] = np.random.default_rng(0).integers(0, 255, noise.image_bgr.shape, np.uint8)
    began = time.monotonic()
    for _ in range(200):
        page.write(noise)
    assert time.monotonic() - began < 1
    assert get(page, "/live").status == 200
    began = time.monotonic()
    page.close()
    assert time.monotonic() - began < 2.5
    for sleeper in sleepers:
        sleeper.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[bad", ""])
def test_dns_rebinding_is_refused(serve, host):
    page = serve()
    assert get(page, "/live", Host=host).status == 421
    for good in ("localhost:1234", f"127.0.0.1:{page.port}", "[::1]"):
        assert get(page, "/health", Host=good).status == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pi", False)],
)
def test_is_loopback(host, expected):
    assert is_loopback(host) == expected


class Browser:
    """Headless Chromium, controlled over the pipe of its DevTools protocol."""

    def __init__(self, folder):
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
        (there, self._out), (self._in, back) = os.pipe(), os.pipe()

        def pipes():  # Chromium reads from 3 and writes to 4
            for file, wanted in ((os.dup(there), 3), (os.dup(back), 4)):
                os.dup2(file, wanted)

        command = [CHROMIUM, *flags.split(), "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        nowhere = subprocess.DEVNULL
        self.process = subprocess.Popen(command, preexec_fn=pipes, close_fds=False, stdout=nowhere, stderr=nowhere)
        os.close(there)
        os.close(back)
        self._number, self._rest, self._session = 0, b"", {}

    def call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._in, 65536)
                assert read, "the browser has ended"
                self._rest += read
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                return answer["result"]

    def open(self, url):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self.call("Page.navigate", url=url)

    def see(self, *texts, meanwhile=lambda: None):
        """Wait until the page holds these texts, calling `meanwhile` again and again; returns its HTML."""
        deadline = time.monotonic() + 30
        while True:
            found = self.call("Runtime.evaluate", expression="document.documentElement.outerHTML", returnByValue=True)
            page = re.sub(r"\s+", " ", str(found["result"].get("value")))
            if all(text in page for text in texts):
                return page
            assert time.monotonic() < deadline, f"{[text for text in texts if text not in page]} not in {page}"
            meanwhile()
            time.sleep(0.1)

    def close(self):
        self.call("Browser.close")
        self.process.wait(10)


def test_snapshot_and_stream_are_served(serve, make_frame, monkeypatch):
    monkeypatch.setattr(web, "WAIT_S", 0.2)
    page = serve()
    assert get(page, "/snapshot.jpg").status == 503
    page.write(make_frame(200, "happy", size=(320, 240)))
    annotated, plain = get(page, "/snapshot.jpg"), get(page, "/snapshot.jpg?plain=1")
    assert annotated.headers["content-type"] == plain.headers["content-type"] == "image/jpeg"
    images = [cv2.imdecode(np.frombuffer(one.content, np.uint8), cv2.IMREAD_COLOR) for one in (annotated, plain)]
    assert images[0].shape == images[1].shape == (240, 320, 3) and np.ptp(images[1]) < 10 < np.ptp(images[0])
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as watching:
        watching.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        seen, number = b"", 0
        while seen.count(b"--edgefer\r\nContent-Type: image/jpeg") < 3:
            number += 1
            page.write(make_frame(number, "sad", size=(320, 240)))
            seen += watching.recv(65536)
    assert b"multipart/x-mixed-replace; boundary=edgefer" in seen
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as asking:
        asking.sendall(b"HEAD /stream.mjpg HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head = asking.makefile("rb").read()  # ends
    assert b"200 OK" in head and b"multipart/x-mixed-replace" in head


def test_number_of_stream_viewers_is_limited(serve, make_frame, monkeypatch):
    monkeypatch.setattr(web, "MAX_STREAMS", 1)
    page = serve()
    page.write(make_frame(0))
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as watching:
        watching.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in watching.recv(65536)
        assert get(page, "/stream.mjpg").status == 503
    deadline = time.monotonic() + 20
    while page._streams:
        assert time.monotonic() < deadline, "a viewer that left makes room"
        page.write(make_frame(1))
        time.sleep(0.05)


def test_blurred_faces_are_blurred_on_the_page(serve, make_frame):
    page = serve(view=View(blur_faces=True))
    frame = make_frame(0, "happy", size=(320, 240))
    frame.image_bgr[5:25:2, 0:16] = 255
    page.write(frame)
    image = cv2.imdecode(np.frombuffer(get(page, "/live").content, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(np.diff(image[8:20, 8].astype(int), axis=0)).max() < 100


def test_history_is_served_as_csv_and_over_a_longer_time(serve, make_frame, monkeypatch):
    from edgefer.devices.outputs import stats as module

    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stats = RunStats()
    for second in range(7200):
        now[0] = float(second)
        stats.add(make_frame(second, "happy" if second < 3600 else "=sad"), {})
    answer = get(serve(stats=stats), "/history.csv?minutes=60")
    lines = answer.content.decode().splitlines()
    assert "attachment" in answer.headers["content-disposition"] and lines[0] == "time,happy,sad,neutral,'=sad"
    assert len(lines) == 61 and lines[-1].endswith("Z,0.000,0.000,0.000,1.000")
    health = json.loads(get(serve(stats=stats), "/health?minutes=1440").content)
    assert len(health["history"]) == 120 and health["minutes"] == 1440
    for odd in ("x", "-1", "9" * 30, "1e3", "%00"):
        assert json.loads(get(serve(stats=stats), f"/health?minutes={odd}").content)["minutes"] == 5


@pytest.mark.chromium
def test_bars_have_their_colours_even_if_the_first_health_answer_is_late(serve, make_frame, tmp_path, monkeypatch):
    health = web.WebPage._health

    async def late(self, request):
        await asyncio.sleep(1)
        return await health(self, request)

    monkeypatch.setattr(web.WebPage, "_health", late)
    page = serve()
    page.write(make_frame(0, "happy"))
    browser = Browser(tmp_path)
    browser.open(page.url)
    browser.see('data-state="running"', "happy · face 1")
    script = "[...document.querySelectorAll('.rows .bar i')].map(i => getComputedStyle(i).backgroundColor).join(' ')"
    colors = browser.call("Runtime.evaluate", expression=script)["result"]["value"]
    assert colors == "rgb(213, 94, 0) rgb(204, 121, 167) rgb(0, 114, 178)"
    browser.close()


@pytest.mark.chromium
def test_settings_are_changed_from_the_page(serve, make_frame, tmp_path):
    live = LiveSettings(
        RunSettings(smooth="off", reject=0.45, detector="haar"),
        smooths=("off", "calm"),
        detectors=("haar",),
        reasons={"haar": "Chosen <b>here</b>."},
    )
    page = serve("0.0.0.0", token=TOKEN, settings=live)
    browser = Browser(tmp_path)
    browser.open(f"http://127.0.0.1:{page.port}/?token={TOKEN.replace(' ', '%20')}")
    browser.see("Unsure below", 'value="calm">calm', "Chosen &lt;b&gt;here&lt;/b&gt;.")
    change = "const $ = id => document.getElementById(id); $('smooth').value = 'calm'; $('reject').value = 0.6;"
    change += "for (const id of ['smooth', 'reject']) $(id).dispatchEvent(new Event('change')); $('pause').click()"
    browser.call("Runtime.evaluate", expression=change)
    browser.see("Go on", "60%")
    assert live.read() == RunSettings(smooth="calm", reject=0.6, detector="haar", paused=True)
    browser.close()


@pytest.mark.chromium
def test_a_real_browser_shows_faces_and_then_a_lost_camera(serve, make_frame, tmp_path):
    stats = RunStats()
    page, alone, stop = serve("0.0.0.0", token=TOKEN, stats=stats), threading.Event(), threading.Event()

    def camera():
        number = 0
        while not stop.wait(0.05):
            number += 1
            frame = make_frame(number, *([] if alone.is_set() else ["happy", ("unsure", "dark")]))
            page.write(frame)
            stats.add(frame, {})

    thread = threading.Thread(target=camera, daemon=True)
    thread.start()
    browser = Browser(tmp_path)
    browser.open(f"http://127.0.0.1:{page.port}/?token={TOKEN.replace(' ', '%20')}")
    seen = browser.see('data-state="running"', "happy · face 1", "unsure · face 2", "too dark to read", "Frames read")
    assert seen.count('class="box') == 2 and "unsure: dark" in seen and "fer-small on litert" in seen
    address = browser.call("Runtime.evaluate", expression="location.href")["result"]["value"]
    assert address == f"http://127.0.0.1:{page.port}/", "the token has left the address bar"
    pixel = "[...document.getElementById('picture').getContext('2d').getImageData(1, 1, 1, 1).data].join()"
    assert int(browser.call("Runtime.evaluate", expression=pixel)["result"]["value"].split(",")[0]) > 0
    alone.set()
    seen = browser.see('<p id="nobody" class="quiet">No face in view.', "unsure 50%")
    assert 'data-state="running"' in seen and 'class="box' not in seen
    stop.set()
    thread.join()
    seen = browser.see('data-state="lost"', "No picture for", "Nothing to see now")
    assert 'class="box' not in seen
    page.close()
    browser.see('data-state="gone"', "edgefer does not answer")
    browser.close()


@pytest.mark.chromium
def test_a_real_browser_shows_which_source_failed_and_why(serve, make_frame, tmp_path):
    stats = RunStats()
    failed = SourceState(name="door.mp4", state=SourceStatus.FAILED, trouble="There is no file <b>door.mp4</b>.")
    lost = SourceState(name="1", state=SourceStatus.LOST, trouble="Camera 1 stopped giving images.")
    stats.sources = lambda: (SourceState(name="0"), failed, lost, SourceState(name="b", state=SourceStatus.ENDED))
    stats.add(make_frame(0, "happy"), {})
    page = serve(stats=stats)
    reported = json.loads(get(page, "/health").content)["sources"]
    assert reported[:2] == [
        {"name": "0", "state": "ok", "trouble": ""},
        {"name": "door.mp4", "state": "failed", "trouble": "There is no file <b>door.mp4</b>."},
    ]
    browser = Browser(tmp_path)
    browser.open(page.url)
    browser.see(
        'door.mp4</span><span class="bad">There is no file &lt;b&gt;door.mp4&lt;/b&gt;.',
        '>1</span><span class="warn">Camera 1 stopped',
        "read to its end",
        'data-sources="bad"',
    )

    def run_on():
        page.write(make_frame(0, "happy"))
        stats.add(make_frame(1, "happy"), {})

    browser.see("problem with 2 of 4 sources", meanwhile=run_on)
    browser.close()


def test_a_port_or_host_that_cannot_be_used_is_named_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SourceError, match=f"at 127.0.0.1:{port}: that port is in use, so choose another"):
            _listen("127.0.0.1", port, "page")
    with pytest.raises(SourceError, match=r"at 203\.0\.113\.9:0: this machine does not have that address"):
        _listen("203.0.113.9", 0, "page")


def test_too_many_open_files_are_not_blamed_on_the_address(monkeypatch):
    def fails(*address, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "create_server", fails)
    with pytest.raises(OSError, match="Too many open files"):  # reported by edgefer.shortage, with exit code 1
        _listen("127.0.0.1", 0, "page")
