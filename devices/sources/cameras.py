"""Opens a source by name: a camera, a stream, a video, images, or the built-in drawn faces."""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from urllib.parse import unquote

from edgefer.bundle import refuse_network
from edgefer.devices.sources import captures
from edgefer.devices.sources.captures import DEFAULT_CAPTURE, CaptureOptions
from edgefer.devices.sources.files import Drawn, Images, Source, Video
from edgefer.devices.sources.live import Live
from edgefer.devices.sources.urls import shown_address, split_url, with_password
from edgefer.errors import InputError, SourceError
from edgefer.files import mode_of
from edgefer.images import is_image_file
from edgefer.text import printable

VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
BUILT_IN = "builtin"
GSTREAMER = "gst:"
NO_PIPE = "save the video to a file, and name that."
STREAM_ADVICE = "check its address, and that a player such as ffplay shows it."
# FFmpeg's other protocols (concat:, subfile:, crypto:, data:) read local files, past the check for lists of files.
NETWORK = {
    "ftp", "http", "https", "mmsh", "mmst", "rist", "rtmp", "rtmpe", "rtmps", "rtmpt", "rtmpte", "rtmpts", "rtp", "rtsp",
    "rtsps", "satip", "sftp", "srt", "srtp", "tcp", "tls", "udp", "udplite",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """Options of live sources, see edgefer.devices.sources.live.Live. queue: the number of other URLs, since OpenCV opens one
    at a time."""

    stop: Event = field(default_factory=Event)
    log: Callable[[str], None] = lambda text: None
    trying: Callable[[], None] = lambda: None
    wait: bool = False
    queue: int = 0


def is_csi(where: int | str) -> bool:
    """Whether it names a Raspberry Pi's CSI camera: csi or csi:1."""
    return re.fullmatch(r"csi(?::\d+)?", str(where)) is not None


def is_camera(where: str | int) -> bool:
    """Whether it names a camera: a number, a /dev path (but /dev/shm, which holds files, and pipes), csi or csi:1."""
    return is_csi(where) or re.fullmatch(r"\d+|/dev/(?!shm/|fd/|stdin$).+", str(where)) is not None


def open_camera(
    camera: str | int, options: CaptureOptions = DEFAULT_CAPTURE, live: LiveOptions | None = None
) -> Source:
    """The source for a camera: a number or /dev path (Video4Linux), "csi" or "csi:1" (Picamera2). Opened by `with`."""
    text, live = str(camera), live or LiveOptions()
    if csi := re.fullmatch(r"csi(?::(\d+))?", text):
        connect = partial(captures.connect_csi, int(csi[1] or 0), options)
        return Live(connect, f"CSI camera {csi[1] or 0}", live, label=text)
    if not is_camera(text):
        raise InputError(f"There is no camera {printable(text)!r}: name a number, a path such as /dev/video0, or csi.")
    device = Path(text) if text.startswith("/") else Path(f"/dev/video{text}")
    return Live(
        partial(captures.connect_v4l2, device, options), f"Camera {printable(text)}", live, label=printable(text)
    )


def open_source(where: str, *, password: str = "", skip_bad: bool = False, live: LiveOptions | None = None) -> Source:
    """The source for a file, a folder of images, a URL, "gst:PIPELINE", or "builtin". Opened by `with`.

    password: for a URL that names a user and no password. skip_bad: see Images. live: for live sources. An HTTP URL
    that ends like a video file is one.
    """
    if where == BUILT_IN:
        return Drawn()
    if not where:  # an empty path would be the current folder
        raise SourceError("A source has an empty name: name a video, an image, a folder of images, or builtin.")
    live = live or LiveOptions()
    if where.startswith(GSTREAMER):
        captures.check_gstreamer()
        pipeline = where.removeprefix(GSTREAMER).strip()
        return Live(
            partial(captures.connect_gstreamer, pipeline), "The GStreamer pipeline", live, label=shown_address(where)
        )
    if "://" in where:
        parts, shown = split_url(where), shown_address(where)
        if parts.scheme == "file" and parts.netloc in ("", "localhost"):
            return _open_path(Path(unquote(parts.path)), skip_bad)
        # The text decides, not `parts`: urlsplit drops leading spaces, behind which FFmpeg reads a local file.
        if where.partition("://")[0].lower() not in NETWORK:
            raise InputError(
                f"{shown} is not the address of a stream: write rtsp://host/path or http://host/path, and a file as its path."
            )
        url = with_password(where, password)
        if parts.scheme in ("http", "https") and Path(parts.path).suffix.lower() in VIDEOS:
            return Video(url, shown)
        connect = partial(captures.connect_url, url)
        return Live(connect, f"The stream {shown}", live, label=shown, advice=STREAM_ADVICE)
    return _open_path(Path(where), skip_bad)


def _open_path(path: Path, skip_bad: bool) -> Source:
    refuse_network(str(path))
    shown = shown_address(str(path))
    if str(path) == "-" and not path.exists():
        raise SourceError(f"- for standard input is not supported: {NO_PIPE}")
    if not (mode := mode_of(path, error=SourceError)):
        hint = " An address begins with a scheme, such as rtsp:// or http://." if "@" in str(path) else ""
        raise SourceError(
            f"There is no file or folder {shown}: name a video, an image, a folder of images, or builtin.{hint}"
        )
    if not os.access(path, os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK):
        raise SourceError(f"You may not read {shown}: change its rights (chmod), or name another.")
    if stat.S_ISFIFO(mode):
        raise SourceError(f"{shown} is a pipe: {NO_PIPE}")
    if stat.S_ISDIR(mode):
        return Images.of_folder(path, skip_bad=skip_bad)
    if not stat.S_ISREG(mode):
        raise SourceError(f"{shown} is neither a file nor a folder: name a video, an image or a folder of images.")
    if is_image_file(path):
        return Images([path], shown)
    return Video(path, shown)
