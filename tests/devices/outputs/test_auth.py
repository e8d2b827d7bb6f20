"""Access to the page and the metrics: tokens, wrong guesses per host, and many connections."""

import base64
import http.client
import json
import re
import socket
import threading
import time

import pytest

from edgefer.devices.outputs import tokens
from edgefer.devices.outputs.settings import LiveSettings, RunSettings
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.outputs.tokens import GuessLimit, host_of
from edgefer.errors import InputError

web = pytest.importorskip("edgefer.devices.outputs.web", reason="starlette and uvicorn are not installed")
server = pytest.importorskip("edgefer.devices.outputs.server")
prometheus = pytest.importorskip("edgefer.devices.outputs.prometheus", reason="prometheus-client is not installed")
TOKEN = "correct horse"


@pytest.fixture
def servers():
    """Makes pages and metrics on free ports, and closes them."""
    made = []

    def make(kind="page", host="0.0.0.0", token=TOKEN, log=lambda text: None, settings=None):
        if kind == "metrics":
            made.append(prometheus.Metrics(RunStats(), host, 0, labels=("happy",), about={}, token=token, log=log))
        else:
            made.append(web.WebPage(RunStats(), host, 0, web.PageOptions(settings=settings), token=token, log=log))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask(served, path="/", method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers=named)
    answer = connection.getresponse()
    answer.content = answer.read()
    connection.close()
    return answer


def cookie_of(served):
    return ask(served, "/?token=correct%20horse").headers["set-cookie"].split(";")[0]


def test_remote_access_needs_the_token(servers):
    page = servers()
    for path in (
        "/",
        "/live",
        "/health",
        "/page.js",
        "/stream.mjpg",
        "/snapshot.jpg",
        "/history.csv",
        "/?token=wrong",
        "/?token=",
    ):
        assert ask(page, path, Host="pi.local").status == 401, path
    answer = ask(page, "/?token=correct%20horse", Host="pi.local")
    assert answer.status == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "horse" not in cookie
    assert ask(page, "/health", Cookie=cookie.split(";")[0]).status == 200
    assert ask(page, "/health", Authorization=f"Bearer {TOKEN}").status == 200
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    assert ask(page, "/health", Authorization=f"Basic {basic}").status == 200
    for wrong in ("Bearer no", "Basic no", f"Basic {base64.b64encode(b'a:b').decode()}", f"Digest {TOKEN}"):
        assert ask(page, "/health", Authorization=wrong).status == 401


@pytest.mark.parametrize("kind", ["page", "metrics"])
def test_public_address_needs_a_token_of_at_least_8_characters(servers, kind):
    with pytest.raises(InputError, match="needs a token"):
        servers(kind, token="")
    with pytest.raises(InputError, match="8 characters"):
        servers(kind, token="short")
    assert ask(servers(kind, "127.0.0.1", token=""), "/metrics" if kind == "metrics" else "/").status == 200
    assert ask(servers(kind), "/metrics").status == 401


def test_metrics_take_the_token_as_prometheus_sends_it(servers):
    metrics = servers("metrics")
    assert b"edgefer_frames_total" in ask(metrics, "/metrics", Authorization=f"Bearer {TOKEN}").content
    assert b"edgefer_frames_total" in ask(metrics, "/metrics?token=correct%20horse").content
    ask(metrics, "/metrics?token=wrong%20horse")
    reported = ask(metrics, "/metrics", Authorization=f"Bearer {TOKEN}").content.decode()
    assert float(re.search(r"^edgefer_wrong_tokens_total (.*)$", reported, re.MULTILINE)[1]) == 1


@pytest.mark.parametrize("kind", ["page", "metrics"])
def test_guesses_are_limited_and_logged_without_locking_out_signed_in_clients(servers, kind):
    log = []
    served = servers(kind, log=log.append)
    path = "/health" if kind == "page" else "/metrics"
    cookie = cookie_of(served) if kind == "page" else ""
    began = time.monotonic()
    statuses = [ask(served, f"{path}?token=guess{number}").status for number in range(tokens.MAX_GUESSES + 5)]
    assert statuses == [401] * tokens.MAX_GUESSES + [429] * 5
    assert time.monotonic() - began < 5, "no guess holds a connection"
    right = ask(served, f"{path}?token=correct%20horse")
    assert right.status == 429 and int(right.headers["retry-after"]) <= 61, (
        "otherwise the limit would not stop guessing"
    )
    if cookie:
        assert ask(served, path, Cookie=cookie).status == 200, "a client with a cookie keeps its access"
    assert len(log) == 2 and "A wrong token came from 127.0.0.1" in log[0] and "refused for up to 60 s" in log[1]
    assert "guess" not in "".join(log), "a wrong token may be a right one elsewhere"


def test_repeating_an_old_token_counts_as_one_guess(servers):
    """As sent by a browser tab or a scraper that does not have the new one."""
    page = servers()
    old = f"edgefer-{page.port}=abc.def"
    assert {ask(page, "/live", Cookie=old).status for _ in range(30)} == {401}
    assert "Max-Age=0" in ask(page, "/", Cookie=old).headers["set-cookie"]
    assert ask(page, "/?token=correct%20horse").status == 303


def test_cookie_survives_a_restart_but_not_a_new_token(servers):
    cookie = cookie_of(servers()).partition("=")[2]
    later, other = servers(), servers(token="another horse")
    assert ask(later, "/health", Cookie=f"edgefer-{later.port}={cookie}").status == 200
    assert ask(other, "/health", Cookie=f"edgefer-{other.port}={cookie}").status == 401


def test_guesses_are_counted_per_host_and_expire(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now[0])
    limit = GuessLimit()
    for number in range(tokens.MAX_GUESSES):
        limit.wrong("192.168.1.7", f"guess {number}")
    assert limit.refused_for_s("192.168.1.7") == 60 and limit.refused_for_s("192.168.1.8") == 0
    now[0] = 61.0
    assert limit.refused_for_s("192.168.1.7") == 0
    for number in range(5000):
        limit.wrong(f"10.0.{number // 250}.{number % 250}", "guess")
    assert len(limit._wrong) <= tokens.MAX_HOSTS


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "somewhere"),
    ],
)
def test_host_is_an_ipv4_address_or_an_ipv6_network(address, host):
    assert host_of(address) == host


def test_forwarding_headers_do_not_change_the_host(servers):
    """Otherwise each guess could claim a host of its own."""
    page = servers()
    statuses = [
        ask(page, f"/?token=guess{n}", X_Forwarded_For=f"10.0.0.{n}", Forwarded=f"for=10.0.0.{n}").status
        for n in range(tokens.MAX_GUESSES + 1)
    ]
    assert statuses[-1] == 429


@pytest.mark.parametrize("kind", ["page", "metrics"])
@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: pi\r\nX-Slow: "])
def test_half_open_requests_do_not_use_up_threads_or_connections(servers, kind, start):
    served = servers(kind)
    before, crowd = threading.active_count(), []
    for _ in range(300):
        crowd.append(socket.create_connection(("127.0.0.1", served.port), timeout=20))
        crowd[-1].sendall(start)
    answer = ask(served, "/metrics" if kind == "metrics" else "/health", Authorization=f"Bearer {TOKEN}")
    assert answer.status == 200, "a real request takes the place of an idle connection"
    assert threading.active_count() <= before + 5
    assert len(served._server._server.server_state.connections) <= server.MAX_HOST_CONNECTIONS
    for one in crowd:
        one.close()


@pytest.mark.parametrize("second", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1"])
def test_idle_connection_is_closed(servers, monkeypatch, second):
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    page = servers(host="127.0.0.1", token="")
    with socket.create_connection(("127.0.0.1", page.port), timeout=20) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + second)
        read = b""
        while more := slow.recv(65536):
            read += more
    assert read.count(b"HTTP/1.1 200") == 1


def test_connection_that_reads_nothing_is_closed(servers, monkeypatch, make_frame):
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    page = servers(host="127.0.0.1", token="")
    page.write(make_frame(0, size=(960, 540)))
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", page.port))
        deaf.sendall(b"GET /live?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 900)
        deadline = time.monotonic() + 20
        while page._server._server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def settings():
    return LiveSettings(
        RunSettings(smooth="calm", reject=0.45, detector="haar"), smooths=("off", "calm"), detectors=("haar",)
    )


def change(page, value, **headers):
    body = value if isinstance(value, bytes) else json.dumps(value)
    return ask(page, "/settings", "POST", body, **{"Content-Type": "application/json"} | headers)


def test_settings_can_be_changed_only_with_the_token_and_from_the_page(servers):
    live = settings()
    page = servers(settings=live)
    assert change(page, {"reject": 0.6}).status == 401 and live.read().reject == 0.45
    inside = {"Authorization": f"Bearer {TOKEN}"}
    result = json.loads(change(page, {"reject": 0.6, "paused": True}, **inside).content)
    assert result["reject"] == 0.6 and result["paused"] and result["choices"]["smooth"] == ["off", "calm"]
    for odd in (
        {"Origin": "http://evil.example"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ):
        assert change(page, {"reject": 0.1}, **inside | odd).status == 403
    assert live.read().reject == 0.6


@pytest.mark.parametrize(
    "wrong",
    [
        {}, [], 3, None, {"reject": 2}, {"reject": True}, {"reject": "0.5"}, {"smooth": "loud"}, {"paused": 1}, {"token": "x"}, {"smooth": ["off"]},
        {"detector": None}, b"{", b"\xff", b"[" * 3000, b"0" * 5000, {"reject": 0.5, "paused": None},
    ],
)  # fmt: skip
def test_invalid_settings_give_one_sentence_and_change_nothing(servers, wrong):
    live = settings()
    before = live.read()
    answer = change(servers(host="127.0.0.1", token="", settings=live), wrong)
    assert answer.status == 400 and json.loads(answer.content)["error"].endswith(".")
    assert live.read() == before
