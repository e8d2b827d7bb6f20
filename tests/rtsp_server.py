"""A real RTSP server, run by the system's Python: python3 rtsp_server.py IMAGE.bgr WIDTH HEIGHT OPTIONS-as-JSON.

Serves /cam: the image with the time of its sending in its top 20 rows (24 bits of milliseconds of time.monotonic, the most
significant first, each a square of 20 pixels, white for 1). Prints its port; each line of stdin, WIDTHxHEIGHT, changes the
stream's size.
"""

import json
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

SQUARE, BITS = 20, 24
ENCODERS = {
    "h264": "x264enc {h264} ! h264parse ! rtph264pay config-interval=1 name=pay0 pt=96",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
}
AUDIO = " appsrc name=sound is-live=true format=time do-timestamp=true caps=audio/x-alaw,rate=8000,channels=1 ! rtppcmapay name=pay1 pt=8"
SILENCE_MS, A_LAW_ZERO = 20, b"\xd5"


class Camera(GstRtspServer.RTSPMediaFactory):
    def __init__(self, image: bytes, size: tuple[int, int], options: dict):
        super().__init__()
        self._image, self._size, self._options = image, size, options
        self.set_shared(True)
        self.set_protocols(
            {
                "tcp": GstRtsp.RTSPLowerTrans.TCP,
                "udp": GstRtsp.RTSPLowerTrans.UDP,
                "any": GstRtsp.RTSPLowerTrans.TCP | GstRtsp.RTSPLowerTrans.UDP,
            }[options["transport"]]
        )

    def do_create_element(self, url):
        width, height = self._size
        encoder = ENCODERS[self._options["codec"]].format(h264=self._options["h264"])
        line = (
            f"appsrc name=src is-live=true format=time do-timestamp=true caps=video/x-raw,format=BGR,width={width},"
            f"height={height},framerate={self._options['fps']}/1 ! queue max-size-buffers=2 leaky=downstream ! videoconvert !"
            f" video/x-raw,format=I420 ! {encoder}"
        ) + (AUDIO if self._options["audio"] else "")
        pipeline = Gst.parse_launch(line)
        threading.Thread(target=self._push, args=(pipeline.get_by_name("src"),), daemon=True).start()
        if sound := pipeline.get_by_name("sound"):
            threading.Thread(target=_push_silence, args=(sound,), daemon=True).start()
        return pipeline

    def _push(self, source):
        width, _ = self._size
        body = self._image[SQUARE * width * 3 :]
        _wait_for_clock(source)
        began, number = time.monotonic(), 0
        while True:
            stamp = int(time.monotonic() * 1000) & ((1 << BITS) - 1)
            row = b"".join((b"\xff" if stamp >> (BITS - 1 - bit) & 1 else b"\0") * (SQUARE * 3) for bit in range(BITS))
            buffer = Gst.Buffer.new_wrapped(row.ljust(width * 3, b"\0") * SQUARE + body)
            if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return
            number += 1
            time.sleep(max(0.0, began + number / self._options["fps"] - time.monotonic()))


def _wait_for_clock(source) -> None:
    """Wait until the pipeline plays: its sources refuse buffers before."""
    while source.get_state(0)[1] != Gst.State.PLAYING:
        time.sleep(0.02)


def _push_silence(source) -> None:
    _wait_for_clock(source)
    while source.emit("push-buffer", Gst.Buffer.new_wrapped(A_LAW_ZERO * 8 * SILENCE_MS)) == Gst.FlowReturn.OK:
        time.sleep(SILENCE_MS / 1000)


def main() -> None:
    file, width, height, options = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
    Gst.init(None)
    with open(file, "rb") as opened:
        camera = Camera(opened.read(), (width, height), options)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options["port"]))
    server.get_mount_points().add_factory("/cam", camera)
    if options["user"]:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        if options["digest"]:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(options["user"], options["password"], token)
        else:
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options["user"], options["password"]), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        camera.set_permissions(permissions)
    server.attach(None)
    loop = GLib.MainLoop()

    def end_with_the_test() -> None:
        sys.stdin.read()
        loop.quit()

    threading.Thread(target=end_with_the_test, daemon=True).start()
    print(server.get_bound_port(), flush=True)
    loop.run()


main()
