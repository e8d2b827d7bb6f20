"""A page that shows what is seen, for boards without a display. Needs starlette and uvicorn (the extra `web`).

A browser asks for one picture after the other and gets the newest each time, so a slow one gets fewer, and pictures
are encoded only while somebody looks.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgefer.devices.outputs.auth import Gate, is_loopback, new_token
from edgefer.devices.outputs.overlay import COLORS
from edgefer.devices.outputs.sinks import Result, Sink, face_to_json
from edgefer.devices.outputs.stats import Vitals, in_url
from edgefer.errors import InputError, SourceError

PAGE = Path(__file__).parent / "page"
MOST_FPS = 15.0  # pictures encoded a second, however many look on
MOST_WIDTH = 960
JPEG_QUALITY = 80
WAIT_S = 2.0  # how long a browser waits for a newer picture before it is told that there is none
VIEWERS = 64  # connections; more are turned away
REQUEST_S = 10.0  # a connection that has asked for nothing by then is closed: it takes a viewer's place
LEAST_TOKEN = 8


class _Connection(H11Protocol):
    """uvicorn's, which waits for a first request for ever."""

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self.loop.call_later(REQUEST_S, self._leave_if_silent)

    def _leave_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()


class WebPage(Sink):
    """Serves the page until it is closed. `url` is where, with the token if it was made up here.

    host: off this machine's loopback a token is required; it is made up when none is given. port: 0 takes a free one.
    labels: in the network's order, which gives them their colours. about: short facts to show, by name.
    Raises SourceError when the address is taken.
    """

    def __init__(
        self,
        vitals: Vitals,
        host: str,
        port: int,
        *,
        labels: tuple[str, ...],
        about: dict[str, str],
        token: str = "",
        say: Callable[[str], None] = lambda text: None,
    ):
        if token and len(token) < LEAST_TOKEN:
            raise InputError(f"A token needs {LEAST_TOKEN} characters or more, so that it cannot be guessed.")
        loopback = is_loopback(host)
        made_up = "" if token or loopback else new_token()
        token = token or made_up
        self._vitals, self._say = vitals, say
        colors = dict(zip(labels, (COLORS[row % len(COLORS)] for row in range(len(labels))), strict=True))
        self._about = about | {"colors": {label: f"#{r:02x}{g:02x}{b:02x}" for label, (b, g, r) in colors.items()}}
        self._newest: tuple[int, Result | None] = (0, None)
        self._picture: tuple[int, str, bytes] = (0, "", b"")  # number, its faces, JPEG
        self._waiting, self._encoded_s, self._closing = 0, 0.0, False
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            both = host == "::" and socket.has_dualstack_ipv6()  # the address that is printed is an IPv4 one
            self._socket = socket.create_server((host, port), family=family, dualstack_ipv6=both)
        except OSError as error:
            raise SourceError(f"The page cannot be served at {host}:{port}: {error.strerror or error}.") from None
        port = self._socket.getsockname()[1]
        shown = in_url(host if not _is_any(host) else _own_address())
        self.name = f"page {in_url(host)}:{port}"
        self.url = f"http://{shown}:{port}/" + (f"?token={made_up}" if made_up else "")
        gate = Middleware(Gate, token=token, cookie=f"edgefer-{port}", loopback_only=loopback)
        routes = [
            Route("/live", self._live),
            Route("/health", self._health),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes, middleware=[gate]), log_config=None, log_level="critical", access_log=False,
            lifespan="off", server_header=False, http=_Connection, limit_concurrency=VIEWERS, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._loop = asyncio.new_event_loop()
        self._news, self._encoding = asyncio.Event(), asyncio.Lock()
        self._thread = threading.Thread(target=self._serve, name="edgefer-page", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._server.serve(sockets=[self._socket]))
        except Exception as error:  # the page is gone; the loop and the other sinks must outlive it
            self.trouble = str(error) or type(error).__name__
        if not self._closing:
            self.errors += 1
            self.trouble = self.trouble or "stopped"
            self._say(f"The {self.name} has ended ({self.trouble}). The run goes on without it.")

    def write(self, result: Result) -> None:
        self._newest = (self._newest[0] + 1, result)
        if self._waiting:
            self._wake_all()

    def close(self) -> None:
        self._closing = self._server.should_exit = True
        self._wake_all()
        self._thread.join(2)

    def _wake_all(self) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _live(self, request: Request) -> Response:
        """The newest picture as JPEG, its faces in a header; 204 when there is none but `after` within WAIT_S."""
        try:
            after = int(request.query_params.get("after", 0))
        except ValueError:
            return Response("after must be a number", 400)
        if not await self._newer(after):
            return Response(status_code=204)
        async with self._encoding:  # one at a time, shared by all who wait for it
            if self._picture[0] <= after:
                await asyncio.sleep(self._encoded_s + 1 / MOST_FPS - time.monotonic())
                self._encoded_s = time.monotonic()
                number, result = self._newest
                assert result is not None
                self._picture = number, _describe(number, result), await asyncio.to_thread(_encode, result)
            _, faces, jpeg = self._picture
        return Response(jpeg, media_type="image/jpeg", headers={"X-Edgefer": faces})

    async def _newer(self, after: int) -> bool:
        """Wait for another result than `after`, whose number may be higher: that of a run that has since begun anew."""
        deadline = time.monotonic() + WAIT_S
        self._waiting += 1
        try:
            while not self._closing and (left := deadline - time.monotonic()) > 0:
                news = self._news
                if self._newest[0] not in (0, after):
                    return True
                try:
                    await asyncio.wait_for(news.wait(), left)
                except TimeoutError:
                    break
            return False
        finally:
            self._waiting -= 1

    async def _health(self, request: Request) -> Response:
        reading = self._vitals.read().to_json()
        return JSONResponse(reading | {"about": self._about, "history": self._vitals.history()})


def _encode(result: Result) -> bytes:
    image = result.frame.image_bgr
    if image.shape[1] > MOST_WIDTH:
        size = MOST_WIDTH, round(image.shape[0] * MOST_WIDTH / image.shape[1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _describe(number: int, result: Result) -> str:
    height, width = result.frame.image_bgr.shape[:2]
    faces = [face_to_json(face) for face in result.faces]
    return json.dumps({"number": number, "width": width, "height": height, "faces": faces}, separators=(",", ":"))


def _is_any(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")


def _own_address() -> str:
    """This machine's address in its network; nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
