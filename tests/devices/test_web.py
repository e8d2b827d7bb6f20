"""The page: what it serves, to whom, what many or slow viewers cost, and how it looks to a real browser."""

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

from edgefer.devices.outputs.stats import Vitals
from edgefer.errors import InputError, SourceError

web = pytest.importorskip("edgefer.devices.outputs.web", reason="starlette and uvicorn are not installed")
ABOUT = {"network": "fer-small", "runtime": "litert", "version": "1"}


@pytest.fixture
def serve():
    """Makes pages on free ports of loopback, and closes them."""
    pages = []

    def make(host="127.0.0.1", **settings):
        page = web.WebPage(
            settings.pop("vitals", Vitals()), host, 0, labels=("happy", "sad", "neutral"), about=ABOUT, **settings
        )
        page.port = int(re.search(r":(\d+)/", page.url)[1])
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


def test_the_page_and_what_it_needs(serve):
    page = serve()
    for path, kind in (("/", "text/html"), ("/page.js", "javascript"), ("/page.css", "text/css"), ("/icon.svg", "svg")):
        answer = get(page, path)
        assert answer.status == 200 and kind in answer.headers["content-type"]
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert page.url == f"http://127.0.0.1:{page.port}/"
    assert get(page, "/none").status == 404 and get(page, "/../web.py").status == 404
    with pytest.raises(SourceError, match="in use"):
        web.WebPage(Vitals(), "127.0.0.1", page.port, labels=(), about={})


def test_a_picture_comes_with_its_faces(serve, make_frame):
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


def test_a_newer_picture_is_waited_for_and_there_may_be_none(serve, make_frame, monkeypatch):
    monkeypatch.setattr(web, "WAIT_S", 0.3)
    page = serve()
    assert get(page, "/live").status == 204
    page.write(make_frame(0))
    assert get(page, "/live?after=1").status == 204
    monkeypatch.setattr(web, "WAIT_S", 20)
    threading.Timer(0.1, lambda: page.write(make_frame(1))).start()
    assert json.loads(get(page, "/live?after=1").headers["x-edgefer"])["number"] == 2
    # A browser that slept while the program was started again: its number is the old run's.
    assert json.loads(get(page, "/live?after=100000").headers["x-edgefer"])["number"] == 2


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_any_address_is_ipv4_too_and_all_of_loopback_is_this_machine(serve):
    page = serve("::", token="long enough")
    assert get(page, "/health?token=long%20enough").status == 303
    assert get(serve("127.0.0.1"), "/health", Host="127.0.1.1:80").status == 200


def test_health_and_history(serve, make_frame):
    vitals = Vitals()
    vitals.write(make_frame(0, "happy"))
    told = json.loads(get(serve(vitals=vitals), "/health").content)
    assert (
        told["state"] == "running"
        and told["frames"] == 1
        and told["history"] == [{"ago_s": 0, "faces": {"happy": 1.0}}]
    )
    assert told["about"]["colors"] == {"happy": "#d55e00", "sad": "#cc79a7", "neutral": "#0072b2"}


def test_pictures_are_encoded_only_while_somebody_looks_and_once_for_all(serve, make_frame, monkeypatch):
    encoded, encode = [], web._encode
    monkeypatch.setattr(web, "_encode", lambda seen: encoded.append(1) or encode(seen))
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


def test_viewers_that_read_nothing_hold_nobody_up(serve, make_frame):
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
def test_a_name_that_was_made_to_lead_here_is_refused(serve, host):
    page = serve()
    assert get(page, "/live", Host=host).status == 421
    for good in ("localhost:1234", f"127.0.0.1:{page.port}", "[::1]"):
        assert get(page, "/health", Host=good).status == 200


def test_from_elsewhere_only_with_the_token(serve):
    page = serve("0.0.0.0")
    token = page.url.partition("?token=")[2]
    assert len(token) >= 20 and token != serve("0.0.0.0").url.partition("?token=")[2]
    for path in ("/", "/live", "/health", "/page.js", "/?token=wrong", "/?token="):
        assert get(page, path, Host="pi.local").status == 401
    answer = get(page, f"/?token={token}", Host="pi.local")
    assert answer.status == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and token not in cookie
    assert get(page, "/health", Host="pi.local", Cookie=cookie.split(";")[0]).status == 200
    began = time.monotonic()
    assert get(page, "/health", Host="pi.local", Cookie=cookie.split("=")[0] + "=" + token).status == 401
    assert time.monotonic() - began >= 0.5, "cookies can be guessed too"


def test_who_connects_and_asks_nothing_is_sent_away(serve, monkeypatch):
    """As there is room for VIEWERS connections only."""
    monkeypatch.setattr(web, "REQUEST_S", 0.2)
    page = serve()
    asking = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as silent:
        asking.request("GET", "/health")
        assert asking.getresponse().read()
        assert silent.recv(1) == b""
    asking.request("GET", "/health")
    assert asking.getresponse().status == 200
    asking.close()


def test_a_token_of_ones_own(serve):
    page = serve(token="correct horse")
    assert "token" not in page.url, "who gave it knows it; logs need not"
    assert get(page).status == 401 and b"<form>" in get(page).content
    assert get(page, "/?token=correct%20horse").status == 303
    with pytest.raises(InputError, match="8 characters"):
        serve(token="short")


@pytest.mark.parametrize(
    ("host", "is_it"),
    [("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pi", False)],
)
def test_what_is_loopback(host, is_it):
    assert web.is_loopback(host) == is_it


class Browser:
    """Chromium without a window, led over the pipe of its DevTools protocol."""

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

    def see(self, *texts):
        """Wait until the page holds these texts; returns its HTML."""
        deadline = time.monotonic() + 30
        while True:
            found = self.call("Runtime.evaluate", expression="document.documentElement.outerHTML", returnByValue=True)
            page = re.sub(r"\s+", " ", str(found["result"].get("value")))
            if all(text in page for text in texts):
                return page
            assert time.monotonic() < deadline, f"{[text for text in texts if text not in page]} not in {page}"
            time.sleep(0.1)

    def close(self):
        self.call("Browser.close")
        self.process.wait(10)


@pytest.mark.chromium
def test_a_real_browser_shows_faces_and_then_a_lost_camera(serve, make_frame, tmp_path):
    vitals = Vitals()
    page, alone, stop = serve("0.0.0.0", vitals=vitals), threading.Event(), threading.Event()

    def camera():
        number = 0
        while not stop.wait(0.05):
            number += 1
            for sink in (vitals, page):
                sink.write(make_frame(number, *([] if alone.is_set() else ["happy", ("unsure", "dark")])))

    thread = threading.Thread(target=camera, daemon=True)
    thread.start()
    browser = Browser(tmp_path)
    browser.open(page.url.replace(re.search(r"//(.*):", page.url)[1], "127.0.0.1"))
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
