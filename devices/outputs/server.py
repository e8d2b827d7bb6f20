"""The small HTTP server of the page and the metrics: one thread, bounded connections, time-limited requests."""

import asyncio
import errno
import select
import socket
import threading
from collections.abc import Callable, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgefer.devices.outputs.auth import TokenAuth
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.outputs.tokens import GuessLimit, check_token, host_of, is_loopback
from edgefer.errors import InputError, SourceError
from edgefer.shortage import shortage_of

MAX_CONNECTIONS = 128
MAX_HOST_CONNECTIONS = 32  # from one host; a browser opens up to 6
REQUEST_S = 10.0  # a connection that sends or reads nothing for so long is closed
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Connection(H11Protocol):
    """uvicorn's connection with time limits: it would wait forever for the rest of a request, or a stalled client.

    If there are too many, the one that has been idle longest is closed for the new one.
    """

    def connection_made(self, transport) -> None:
        self._opened_s = self.loop.time()
        self._seen_cycle: object = None
        self._seen_unsent = 0
        super().connection_made(transport)
        everybody = [one for one in self.connections if isinstance(one, _Connection)]
        same_host = [one for one in everybody if one.host == self.host]
        for crowd, most in ((same_host, MAX_HOST_CONNECTIONS), (everybody, MAX_CONNECTIONS)):
            if len(crowd) > most and not _close_idlest([one for one in crowd if one is not self]):
                transport.write(BUSY)
                transport.close()
                self.connections.discard(self)
                return
        self._timer = self.loop.call_later(REQUEST_S, self._close_if_stuck)

    @property
    def host(self) -> str:
        return host_of(self.client[0] if self.client else "")

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _close_if_stuck(self) -> None:
        if self.transport.is_closing():
            return
        unsent = self.transport.get_write_buffer_size()
        if (self.idle and self.cycle is self._seen_cycle) or (unsent and unsent == self._seen_unsent):
            self.transport.abort()  # close() would wait for the client to read
            return
        self._seen_cycle, self._seen_unsent = self.cycle, unsent
        self._timer = self.loop.call_later(REQUEST_S, self._close_if_stuck)


def _close_idlest(connections: list[_Connection]) -> bool:
    """Close the oldest idle connection; False when all are being answered."""
    idle = min((one for one in connections if one.idle), key=lambda one: one._opened_s, default=None)
    if idle is None:
        return False
    idle.connections.discard(idle)
    idle.transport.abort()
    return True


class HttpServer:
    """Serves routes in a separate thread until it is closed.

    host: unless on loopback, a token is required. port: 0 selects a free one. log: receives a message about wrong tokens,
    and if the server fails. Raises SourceError when the address is in use, InputError for a weak token.
    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        host: str,
        port: int,
        *,
        name: str,
        token: str = "",
        log: Callable[[str], None] = lambda text: None,
    ):
        check_token(token)
        if not token and not is_loopback(host):
            raise InputError(f"The {name} at {host} needs a token: others can reach it there.")
        self._socket = _listen(host, port, name)
        self.port: int = self._socket.getsockname()[1]
        self.name = f"{name} {in_url(host)}:{self.port}"
        shown = in_url(host if host not in ("", "0.0.0.0", "::") else _own_address())
        self.address = f"http://{shown}:{self.port}"
        self.trouble, self.errors, self.closing = "", 0, False
        self.limit = GuessLimit(lambda text: log(f"The {self.name}: {text}"))
        self._log = log
        auth = Middleware(
            TokenAuth, token=token, cookie=f"edgefer-{self.port}", loopback_only=is_loopback(host), limit=self.limit
        )
        config = uvicorn.Config(
            Starlette(routes=list(routes), middleware=[auth]), log_config=None, log_level="critical", access_log=False,
            lifespan="off", server_header=False, http=_Connection, ws="none", timeout_graceful_shutdown=1,
            # Not trusted: an attacker could name another host each time.
            proxy_headers=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._serve, name=f"edgefer-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _serve(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._server.serve(sockets=[self._socket]))
        except Exception as error:  # the loop and the other sinks must continue without the page
            self.trouble = str(error) or type(error).__name__
        if not self.closing:
            self.errors += 1
            self.trouble = self.trouble or "stopped"
            self._log(f"The {self.name} has ended ({self.trouble}). The run continues without it.")

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function in the server's thread, from another one."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function)

    def close(self) -> None:
        self.closing = self._server.should_exit = True
        self.call_soon(lambda: None)
        self._thread.join(2)
        self._socket.close()


class ServedSink(Sink):
    """A sink with a server, whose trouble is the server's."""

    _server: HttpServer

    @property
    def trouble(self) -> str:  # type: ignore[override]
        return self._server.trouble

    @property
    def errors(self) -> int:  # type: ignore[override]
        return self._server.errors


def in_url(host: str) -> str:
    """A host for a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _new_loop() -> asyncio.AbstractEventLoop:
    """An event loop; OSError without a traceback on stderr, which asyncio prints if it gets no descriptors."""
    with select.epoll():
        for one in socket.socketpair():
            one.close()
    return asyncio.new_event_loop()


def _listen(host: str, port: int, name: str) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()  # the printed address is IPv4
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        if shortage_of(error):
            raise  # which is reported as such: another address would not help
        raise SourceError(f"The {name} cannot be served at {host}:{port}: {_problem(error)}.") from None


def _problem(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "that port is in use, so choose another one"
    if error.errno == errno.EACCES:
        return "ports below 1024 need root, so choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address, so leave the host out, or name 0.0.0.0"
    return (error.strerror or str(error)).partition(" (while attempting")[0]


def _own_address() -> str:
    """This machine's address in its network; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
