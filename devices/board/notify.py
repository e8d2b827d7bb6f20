"""Reports the program's state to systemd with the protocol of sd_notify(3), a datagram to a socket.

Implemented here because it is this small: the PyPI package sdnotify has had no release since 2017, and the manual page
recommends this to programs without libsystemd.
"""

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping

PINGS = 4  # within the watchdog's timeout; sd_watchdog_enabled(3) recommends 2


class Notifier:
    """The service manager that started this process; without one, every call does nothing.

    environment: has NOTIFY_SOCKET and, with a watchdog, WATCHDOG_USEC and WATCHDOG_PID.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ):
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if mine and usec.isdigit() else None
        self._pinged, self._frames = -math.inf, 0

    def send(self, **fields: str) -> None:
        """One message, such as READY="1". One that cannot be sent is ignored: the watchdog will act on it."""
        if not self._address:
            return
        text = "\n".join(f"{name}={' '.join(value.split())}" for name, value in fields.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto(text.encode(), self._address)

    def frame(self, *_: object) -> None:
        """A frame was processed."""
        self._frames += 1
        if (since_s := self._since()) is not None:
            self._ping(
                "the first frame is processed" if since_s == math.inf else f"{self._frames / since_s:.1f} frames/s"
            )

    def trying(self) -> None:
        """An attempt was made to get frames."""
        if self._since() is not None:
            self._ping("no frames from the camera: trying to connect")

    def _since(self) -> float | None:
        """Seconds since the last ping if another is due: for the watchdog, or every 10 s."""
        since_s = time.monotonic() - self._pinged
        return since_s if since_s >= (self.watchdog_s or 10 * PINGS) / PINGS else None

    def _ping(self, status: str) -> None:
        self._pinged, self._frames = time.monotonic(), 0
        self.send(**({"WATCHDOG": "1"} if self.watchdog_s else {}), STATUS=status)
