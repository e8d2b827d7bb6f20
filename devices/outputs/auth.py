"""Who may see the page: only this machine, or who has the token."""

import asyncio
import hashlib
import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE_S = 30 * 24 * 3600
GUESS_S = 0.5  # a wrong token or cookie is answered after so long
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
ASK = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>edgefer</title><link rel="stylesheet" href="/page.css"><main class="ask"><h1>edgefer</h1><p>{why}</p>
<form><label for="token">Token</label><input id="token" name="token" type="password" autocomplete="current-password" required>
<button>Open</button></form></main></html>"""


def new_token() -> str:
    return secrets.token_urlsafe(16)


class Gate:
    """ASGI middleware. With a token: a cookie or ?token=, which becomes the cookie. On loopback: a Host of this machine.

    The Host check is against DNS rebinding: a page elsewhere whose name is made to lead to 127.0.0.1 sends its own name.
    """

    def __init__(self, app: ASGIApp, *, token: str, cookie: str, loopback_only: bool):
        self._app, self._token, self._cookie, self._loopback_only = app, token, cookie, loopback_only
        # Not the token itself: a cookie is kept in more places, and from this one the token cannot be had.
        self._key = hashlib.sha256(f"edgefer {token}".encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = Request(scope)
        answer = self._refuse(request)
        if answer is not None and answer.status_code == 401 and ("token" in request.query_params or request.cookies):
            await asyncio.sleep(GUESS_S)
        await (answer or self._app)(scope, receive, with_headers)

    def _refuse(self, request: Request) -> Response | None:
        """What to answer instead of the page, or None when the page may be seen."""
        if self._loopback_only and not is_loopback(_name(request.headers.get("host", ""))):
            return PlainTextResponse("This page is for localhost only.", 421)
        if not self._token or request.url.path == "/page.css":
            return None
        if "token" in request.query_params:
            if self._same(request.query_params["token"], self._token):
                # So that the token stays neither in the address bar nor in the history.
                answer = RedirectResponse(request.url.path, 303)
                # Not "strict": after a link from elsewhere the redirect would come without it.
                answer.set_cookie(self._cookie, self._key, max_age=COOKIE_S, httponly=True, samesite="lax")
                return answer
            return HTMLResponse(ASK.format(why="This is not the token."), 401)
        if self._same(request.cookies.get(self._cookie, ""), self._key):
            return None
        return HTMLResponse(
            ASK.format(why="Open the address that edgefer printed when it started, or give its token."), 401
        )

    @staticmethod
    def _same(given: str, wanted: str) -> bool:
        return secrets.compare_digest(given.encode(errors="replace"), wanted.encode(errors="replace"))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what is served there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
