"""Serves an exported page on this machine only: a phone's camera needs https, which a real server has."""

import sys
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edgefer.errors import InputError

HOST = "127.0.0.1"


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012, the name is the standard library's
        **SimpleHTTPRequestHandler.extensions_map,
        ".webmanifest": "application/manifest+json",
        ".js": "text/javascript",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        # A page that is reloaded before it has all files closes its connections.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(folder: Path, port: int, ready: Callable[[str], None]) -> None:
    """Serve the folder on this machine's loopback until Ctrl-C. ready: called with the address; port 0 takes a free one."""
    try:
        server = _Server((HOST, port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise InputError(f"Port {port} cannot be used ({error.strerror}): name another with --port.") from None
    with server:
        ready(f"http://{HOST}:{server.server_address[1]}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
