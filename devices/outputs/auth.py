"""Access control of the page and the metrics: only this machine, or clients with the token."""

import asyncio
import base64
import binascii
import hmac
import secrets
from collections import OrderedDict
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefer.devices.outputs.tokens import GuessLimit, host_of, is_loopback

MAX_SESSIONS = 256
COOKIE_S = 30 * 24 * 3600
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>edgefer</title><link rel="stylesheet" href="/page.css"><main class="login"><h1>edgefer</h1><p>{reason}</p>
<form><label for="token">Token</label><input id="token" name="token" type="password" autocomplete="current-password" required>
<button>Open</button></form></main></html>"""
NEEDS_TOKEN = "Open the address that edgefer printed when it started, or enter its token."
WRONG_TOKEN = "This is not the token."


class TokenAuth:
    """ASGI middleware. With a token: a cookie, ?token=, or an Authorization header (Bearer, or Basic with any user).

    On loopback, the Host header must name this machine, against DNS rebinding: a foreign page whose name resolves to
    127.0.0.1 sends its own name. A client with a valid cookie is let in even while others at the same address are
    refused for guessing.
    """

    def __init__(self, app: ASGIApp, *, token: str, cookie: str, loopback_only: bool, limit: GuessLimit):
        self._app, self._token, self._cookie, self._loopback_only = app, token, cookie, loopback_only
        self._limit = limit
        self._sessions: OrderedDict[str, None] = OrderedDict()  # cookies verified in this run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refusal(Request(scope))
        await (answer or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """The response that refuses the request, or None if it may pass."""
        if self._loopback_only and not is_loopback(_name(request.headers.get("host", ""))):
            return PlainTextResponse("This page is for localhost only.", 421)
        if request.method not in ("GET", "HEAD") and not _same_origin(request):
            return PlainTextResponse("Only this page may change anything.", 403)
        if not self._token or request.url.path == "/page.css":
            return None
        cookie = request.cookies.get(self._cookie, "")
        if cookie in self._sessions:
            return None
        token = request.query_params.get("token") or _authorization(request)
        if token is None and not cookie:
            return _login(NEEDS_TOKEN)
        host = host_of(request.client.host if request.client else "")
        if wait_s := self._limit.refused_for_s(host):
            return PlainTextResponse("Too many wrong tokens.", 429, {"Retry-After": str(int(wait_s) + 1)})
        if token is not None and _equal(token, self._token):
            return self._welcome(request)
        if token is None and self._signed(cookie):
            self._remember(cookie)
            return None
        self._limit.wrong(host, cookie if token is None else token)
        answer = _login(WRONG_TOKEN if token is not None else NEEDS_TOKEN)
        if cookie:
            answer.delete_cookie(self._cookie)
        return answer

    def _welcome(self, request: Request) -> Response | None:
        """The response to a right token. For the page: set a cookie, and remove the token from the address bar."""
        if "token" not in request.query_params or request.url.path != "/":
            return None
        number = secrets.token_hex(16)
        cookie = f"{number}.{self._signature(number)}"
        self._remember(cookie)
        answer = RedirectResponse("/", 303)
        # Not "strict": after a link from another site the redirect would not send it.
        answer.set_cookie(self._cookie, cookie, max_age=COOKIE_S, httponly=True, samesite="lax")
        return answer

    def _remember(self, cookie: str) -> None:
        self._sessions[cookie] = None
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def _signed(self, cookie: str) -> bool:
        """Whether a run with the same token, this one or an earlier one, made this cookie."""
        number, _, signature = cookie.partition(".")
        return _equal(signature, self._signature(number))

    def _signature(self, number: str) -> str:
        return hmac.new(self._token.encode(errors="replace"), number.encode(errors="replace"), "sha256").hexdigest()


async def read_body(request: Request, max_bytes: int = 4096, limit_s: float = 5.0) -> bytes:
    """A small request body. ValueError if it is too long or too slow."""

    async def collect() -> bytes:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > max_bytes:
                raise ValueError(f"more than {max_bytes} bytes")
        return body

    try:
        return await asyncio.wait_for(collect(), limit_s)
    except TimeoutError:
        raise ValueError(f"not complete after {limit_s:g} s") from None


def _authorization(request: Request) -> str | None:
    """The token in an Authorization header of Prometheus (Bearer) or of Home Assistant's camera (Basic)."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode(errors="replace").partition(":")[2]
        except (binascii.Error, ValueError):
            return value
    return None


def _same_origin(request: Request) -> bool:
    """Whether a change comes from the page itself: another site can neither set this type nor hide its origin."""
    origin = request.headers.get("origin")
    by_page = origin is None or _netloc(origin) == request.headers.get("host", "")
    return by_page and request.headers.get("content-type", "").partition(";")[0] == "application/json"


def _login(reason: str) -> Response:
    return HTMLResponse(LOGIN.format(reason=reason), 401, {"WWW-Authenticate": "Bearer"})


def _equal(given: str, right: str) -> bool:
    return secrets.compare_digest(given.encode(errors="replace"), right.encode(errors="replace"))


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
