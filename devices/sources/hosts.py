"""Why a stream cannot be opened, which OpenCV does not say: asked of its host."""

import os
import re
import socket
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from edgefer.devices.sources.urls import shown_address
from edgefer.errors import SourceError

CONNECT_S = 5.0
ANSWER_S = 3.0
PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935}  # of the schemes over TCP
STATUS = re.compile(rb"(RTSP|HTTP)/\d\.\d (\d{3})")
LENGTH = re.compile(rb"(?i)\ncontent-length:")
MAX_HEAD = 8192  # bytes


def check_host(url: str) -> None:
    """SourceError if the URL's host accepts no connection, with the reason. OpenCV opens one URL at a time: without this, a
    camera that is off would keep the others from being opened for seconds."""
    parts = urlsplit(url)
    port = parts.port or PORTS.get(parts.scheme)
    if not parts.hostname or not port or (parts.scheme in ("http", "https") and "http_proxy" in os.environ):
        return
    try:
        socket.create_connection((parts.hostname, port), CONNECT_S).close()
    except TimeoutError:
        reason = f"no answer within {CONNECT_S:.0f} s"
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    else:
        return
    coded = ", percent-encode / # ? @ : in a password (%2F and so on)" if "@" in parts.path + parts.query else ""
    raise SourceError(
        f"The stream {shown_address(url)} cannot be opened ({reason}): check the address{coded}, and that its host is on and responds."
    )


def refusal(url: str) -> SourceError:
    """The error of a stream whose host accepts connections, but that could not be opened."""
    return SourceError(f"The stream {shown_address(url)} cannot be opened: {_reason(urlsplit(url))}.")


def _reason(parts: SplitResult) -> str:
    unknown = "check the address, the password if it needs one, and that its host responds"
    if parts.scheme not in ("rtsp", "http") or (parts.scheme == "http" and "http_proxy" in os.environ):
        return unknown
    try:
        answer = _answer(parts)
    except TimeoutError:
        return f"its host accepts the connection, but does not answer within {ANSWER_S:.0f} s. Check the port, or restart the camera"
    except (OSError, UnicodeError):
        return unknown
    protocol = parts.scheme.upper()
    match = STATUS.match(answer)
    if not match or match[1].decode() != protocol:
        return f"its host does not answer in {protocol}. Check the scheme and the port"
    status = int(match[2])
    if status in (401, 407) and not parts.username:
        return (
            f"its host requires a user and a password ({status}): write {parts.scheme}://USER:PASSWORD@ before the host"
        )
    if status in (401, 407):  # asked without them, a host may not tell a wrong password from a wrong path
        return f"its host does not accept the user and password ({status}), or has no such path. Check them"
    reasons = {403: "its host forbids it (403)", 404: "its host has no such path (404). Check the path"}
    if status >= 400:
        return reasons.get(status, f"its host answers with an error ({status})")
    return "its host answers, but with no video that can be read. Check the path"


def has_end(url: str) -> bool:
    """Whether what OpenCV reads as a video of a known length has one: a playlist, or a file of a stated length. A live stream
    may pass on the duration in the header of what it was made of."""
    parts = urlsplit(url)
    if parts.path.lower().endswith(".m3u8"):
        return True
    try:
        return parts.scheme == "http" and LENGTH.search(_answer(parts)) is not None
    except (OSError, UnicodeError):
        return False


def _answer(parts: SplitResult) -> bytes:
    """The beginning of the host's answer to a request without the user and the password."""
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    port = parts.port or PORTS[parts.scheme]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "rtsp":
        request = f"DESCRIBE rtsp://{host}:{port}{target} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    else:
        request = f"GET {target} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
    with socket.create_connection((parts.hostname or "", port), ANSWER_S) as connection:
        connection.settimeout(ANSWER_S)
        connection.sendall(request.encode())
        answer = connection.recv(MAX_HEAD)
        with suppress(TimeoutError):  # what does not end as it should is judged by its beginning
            while b"\r\n\r\n" not in answer and len(answer) < MAX_HEAD and (more := connection.recv(MAX_HEAD)):
                answer += more
        return answer
