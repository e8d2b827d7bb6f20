"""A real RTSP server (GStreamer's), and the delay of the images that it sends."""

import json
import subprocess
import time
from glob import glob
from pathlib import Path

PYTHON = "/usr/bin/python3"  # which has apt's GObject introspection
SERVER = Path(__file__).with_name("rtsp_server.py")
PARTS = ("girepository-1.0/GstRtspServer-1.0.typelib", "gstreamer-1.0/libgstx264.so", "gstreamer-1.0/libgstjpeg.so")
READY = Path(PYTHON).exists() and all(glob(f"/usr/lib/*/{part}") for part in PARTS)
SQUARE, BITS = 20, 24
DEFAULTS = {
    "port": 0, "codec": "h264", "transport": "tcp", "fps": 25, "audio": False, "user": "", "password": "", "digest": False,
    "h264": "tune=zerolatency speed-preset=ultrafast key-int-max=25 bitrate=2000",
}  # fmt: skip


class RtspServer:
    """Serves `image`, uint8 BGR [h, w >= 480, 3], at rtsp://127.0.0.1:PORT/cam until it is stopped."""

    def __init__(self, folder, image, **options):
        self._file, self._shape = folder / "image.bgr", image.shape
        self._file.write_bytes(image.tobytes())
        self._options = DEFAULTS | options
        self.start()

    def start(self):
        height, width, _ = self._shape
        command = [PYTHON, SERVER, self._file, width, height, json.dumps(self._options)]
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.port = self._options["port"] = int(self._process.stdout.readline())  # the same after a restart

    def url(self, login="", path="/cam"):
        return f"rtsp://{login}127.0.0.1:{self.port}{path}"

    def stop(self):
        self._process.kill()
        self._process.communicate()


def delay_s(image_bgr, now_s=None):
    """The age of an image of the server in seconds, by the time that is drawn in it."""
    now_s = time.monotonic() if now_s is None else now_s
    row = image_bgr[SQUARE // 2, SQUARE // 2 : BITS * SQUARE : SQUARE].mean(axis=1)
    sent_ms = int("".join("1" if value > 127 else "0" for value in row), 2)
    late_ms = (int(now_s * 1000) - sent_ms) % (1 << BITS)
    return (late_ms if late_ms < 1 << (BITS - 1) else late_ms - (1 << BITS)) / 1000
