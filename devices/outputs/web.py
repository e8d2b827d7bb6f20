"""A web page with the live image and results, for boards without a display. Needs starlette and uvicorn (the extra `web`).

A browser requests one image at a time and gets the newest, so a slow one gets fewer, and images are encoded only while
someone is watching.
"""

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edgefer.devices.outputs.auth import read_body
from edgefer.devices.outputs.overlay import View, web_color
from edgefer.devices.outputs.server import HttpServer, ServedSink
from edgefer.devices.outputs.settings import LiveSettings
from edgefer.devices.outputs.sink import cell
from edgefer.devices.outputs.stats import RunStats
from edgefer.errors import InputError
from edgefer.records import Frame
from edgefer.text import printable

PAGE = Path(__file__).parent / "page"
MAX_FPS = 15.0  # images encoded per second, however many clients there are
MAX_WIDTH = 960
JPEG_QUALITY = 80
WAIT_S = 2.0  # how long a request waits for a newer image before a 204
STREAM_WAIT_S = 15.0  # the same for /stream.mjpg, which then ends
MAX_STREAMS = 8
MAX_MINUTES = 24 * 60
BOUNDARY = "edgefer"


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """The page's content. labels: in the network's order, which determines their colours. about: short facts by name.
    view: how frames are drawn. settings: what may be changed, None for nothing."""

    labels: tuple[str, ...] = ()
    about: dict[str, str] = field(default_factory=dict)
    view: View = field(default_factory=View)
    settings: LiveSettings | None = None


class WebPage(ServedSink):
    """Serves the page at `url` until it is closed.

    token: required unless on loopback. Raises SourceError when the address is in use.
    """

    def __init__(
        self,
        stats: RunStats,
        host: str,
        port: int,
        options: PageOptions,
        *,
        token: str = "",
        log: Callable[[str], None] = lambda text: None,
    ):
        self._stats, self._options = stats, options
        colors = {label: web_color(label, options.labels) for label in options.labels}
        self._about = {name: printable(fact) for name, fact in options.about.items()} | {"colors": colors}
        self._newest: tuple[int, Frame | None] = (0, None)
        self._encoded: dict[bool, tuple[int, Frame | None, bytes]] = {}  # by annotated: number, frame, JPEG
        self._waiting, self._streams, self._encoded_s = 0, 0, 0.0
        routes = [
            Route("/live", self._live),
            Route("/health", self._health),
            Route("/settings", self._change, methods=["POST"]),
            Route("/history.csv", self._history_csv),
            Route("/snapshot.jpg", self._snapshot),
            Route("/stream.mjpg", self._stream),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ]
        self._server = HttpServer(routes, host, port, name="page", token=token, log=log)
        self.name, self.port, self.url = self._server.name, self._server.port, f"{self._server.address}/"
        self._news, self._encoding = asyncio.Event(), asyncio.Lock()
        self._server.start()

    def write(self, frame: Frame) -> None:
        self._newest = (self._newest[0] + 1, frame)
        if self._waiting:
            self._server.call_soon(self._wake)

    def close(self) -> None:
        self._server.closing = True
        self._server.call_soon(self._wake)
        self._server.close()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _live(self, request: Request) -> Response:
        """The newest image as JPEG, its faces in a header; 204 if there is none newer than `after` within WAIT_S."""
        try:
            after = int(request.query_params.get("after", 0))
        except ValueError:
            return PlainTextResponse("after must be a number", 400)
        if not await self._newer(after, WAIT_S):
            return Response(status_code=204)
        number, frame, jpeg = await self._jpeg(annotated=False, after=after)
        return Response(jpeg, media_type="image/jpeg", headers={"X-Edgefer": _describe(number, frame)})

    async def _snapshot(self, request: Request) -> Response:
        """The newest image, annotated unless ?plain=1; 503 before the first."""
        if not await self._newer(0, WAIT_S):
            return PlainTextResponse("There is no image yet.", 503, {"Retry-After": "2"})
        _, _, jpeg = await self._jpeg(annotated=request.query_params.get("plain") != "1", after=0, newest=True)
        return Response(jpeg, media_type="image/jpeg")

    async def _stream(self, request: Request) -> Response:
        """Motion JPEG, annotated, for Home Assistant's camera."""
        if self._streams >= MAX_STREAMS:
            return PlainTextResponse("Too many clients are watching the stream.", 503, {"Retry-After": "10"})
        media_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        if request.method == "HEAD":  # Starlette would make images for it and throw them away
            return Response(media_type=media_type)
        return StreamingResponse(self._parts(), media_type=media_type)

    async def _parts(self) -> AsyncIterator[bytes]:
        self._streams += 1
        number = 0
        try:
            while await self._newer(number, STREAM_WAIT_S):
                number, _, jpeg = await self._jpeg(annotated=True, after=number)
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                yield head.encode() + jpeg + b"\r\n"
        finally:
            self._streams -= 1

    async def _jpeg(self, *, annotated: bool, after: int, newest: bool = False) -> tuple[int, Frame, bytes]:
        """The newest image other than `after`: its number, frame and JPEG. Encoded one at a time, once for all clients."""
        async with self._encoding:
            number, frame, jpeg = self._encoded.get(annotated, (0, None, b""))
            if frame is None or number <= after or (newest and number != self._newest[0]):
                await asyncio.sleep(self._encoded_s + 1 / MAX_FPS - time.monotonic())
                self._encoded_s = time.monotonic()
                number, frame = self._newest
                assert frame is not None
                view = self._options.view
                jpeg = await asyncio.to_thread(_encode, view.annotated if annotated else view.plain, frame)
                self._encoded[annotated] = number, frame, jpeg
            return number, frame, jpeg

    async def _newer(self, after: int, wait_s: float) -> bool:
        """Wait for a frame other than `after`, whose number may be higher, from an earlier run."""
        deadline = time.monotonic() + wait_s
        self._waiting += 1
        try:
            while not self._server.closing and (left := deadline - time.monotonic()) > 0:
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
        reading = self._stats.read().to_json()
        settings = self._options.settings
        facts = {"about": self._about, "history": self._stats.history(_minutes(request)), "minutes": _minutes(request)}
        return JSONResponse(reading | facts | {"settings": settings.to_json() if settings else None})

    async def _change(self, request: Request) -> Response:
        """Change settings: a JSON object of names and values. 400 with a sentence when one is wrong."""
        settings = self._options.settings
        if settings is None:
            return JSONResponse({"error": "This run has no settings that can be changed."}, 404)
        try:
            settings.change(json.loads(await read_body(request)))
        except InputError as error:
            return JSONResponse({"error": str(error)}, 400)
        except (ValueError, RecursionError):
            return JSONResponse({"error": "Settings must be a short JSON object."}, 400)
        return JSONResponse(settings.to_json())

    async def _history_csv(self, request: Request) -> Response:
        """The history as CSV: UTC time, and the mean number of faces with each label; ?minutes= as on the page."""
        out, now = io.StringIO(), datetime.now(UTC)
        bins = self._stats.history(_minutes(request))
        labels = list(dict.fromkeys((*self._options.labels, *(label for one in bins for label in one["faces"]))))
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["time", *(cell(label) for label in labels)])
        for one in bins:
            moment = (now - timedelta(seconds=one["ago_s"])).isoformat(timespec="seconds").replace("+00:00", "Z")
            writer.writerow([moment, *(f"{one['faces'].get(label, 0):.3f}" for label in labels)])
        headers = {"Content-Disposition": 'attachment; filename="edgefer-history.csv"'}
        return Response(out.getvalue(), media_type="text/csv", headers=headers)


def _minutes(request: Request) -> float:
    """The requested length of the history: ?minutes=, by default 5."""
    text = request.query_params.get("minutes", "")
    return min(MAX_MINUTES, max(1, int(text))) if text.isascii() and text.isdigit() and len(text) < 6 else 5


def _encode(image_of: Callable[[Frame], np.ndarray], frame: Frame) -> bytes:
    image = image_of(frame)
    if image.shape[1] > MAX_WIDTH:
        size = MAX_WIDTH, max(1, round(image.shape[0] * MAX_WIDTH / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _describe(number: int, frame: Frame) -> str:
    """The faces as an HTTP header, in ASCII."""
    height, width = frame.image_bgr.shape[:2]
    faces = [face.to_dict() for face in frame.faces]
    return json.dumps({"number": number, "width": width, "height": height, "faces": faces}, separators=(",", ":"))
