"""The settings of a run that the page can change while it runs, and the sink that applies them."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

from edgefer.devices.faces.detectors import Detector
from edgefer.devices.faces.smoothing import PRESETS
from edgefer.devices.mailbox import Ended, Late, Mailbox
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.session import Session
from edgefer.errors import EdgeferError, InputError
from edgefer.records import Frame

TICK_S = 0.1  # interval of checking for the end of a pause


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """smooth: a name of edgefer.devices.faces.smoothing's presets. reject: scores below it are unsure. detector: a name.
    paused: frames are neither classified nor shown nor written."""

    smooth: str
    reject: float
    detector: str
    paused: bool = False


class LiveSettings:
    """The current settings. The page changes them, the loop reads them at every frame."""

    def __init__(
        self,
        settings: RunSettings,
        *,
        smooths: Sequence[str],
        detectors: Sequence[str],
        reasons: Mapping[str, str] = MappingProxyType({}),
    ):
        """reasons: why a detector was chosen, by its name, if known."""
        self._now, self._lock, self._reasons = settings, threading.Lock(), reasons
        self.choices = {"smooth": tuple(smooths), "detector": tuple(detectors)}

    def read(self) -> RunSettings:
        return self._now

    def change(self, given: object) -> RunSettings:
        """Set these values, by name; the others stay. InputError when one is wrong, and then nothing changes."""
        if not isinstance(given, Mapping) or not given:
            raise InputError('Settings are an object such as {"reject": 0.5}.')
        for name, value in given.items():
            self._check(name, value)
        with self._lock:
            self._now = replace(self._now, **given)
            return self._now

    def _check(self, name: object, value: object) -> None:
        if name in self.choices:
            if value not in self.choices[str(name)]:
                raise InputError(f"{name} must be one of {', '.join(self.choices[str(name)])}.")
        elif name == "reject":
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InputError("reject must be a number from 0 to 1.")
        elif name == "paused":
            if not isinstance(value, bool):
                raise InputError("paused must be true or false.")
        else:
            raise InputError(
                f"There is no setting {str(name)[:40]!r}: choose reject, paused, {', '.join(self.choices)}."
            )

    def to_json(self) -> dict:
        """The current values, the choices, and why the detector was chosen."""
        choices = {name: list(values) for name, values in self.choices.items()}
        now = self._now
        return asdict(now) | {"choices": choices, "detector_reason": self._reasons.get(now.detector, "")}


class Controls(Sink):
    """Applies changed settings between two frames, and blocks the loop while it is paused.

    detectors: a function that opens each one, by name. stop: ends a pause. waiting: called during one, and while a
    detector is opened, for systemd's watchdog. log: receives a message if a detector cannot be opened; the previous one stays.
    """

    name = "settings"

    def __init__(
        self,
        settings: LiveSettings,
        session: Session,
        detectors: Mapping[str, Callable[[], Detector]],
        *,
        stop: threading.Event,
        waiting: Callable[[], None] = lambda: None,
        log: Callable[[str], None] = lambda text: None,
    ):
        self._settings, self._session, self._detectors = settings, session, detectors
        self._stop, self._waiting, self._log = stop, waiting, log
        self._in_force = settings.read()

    def write(self, frame: Frame) -> None:
        while self._settings.read().paused and not self._stop.wait(TICK_S):
            self._waiting()
        wanted = self._settings.read()
        if wanted is self._in_force:
            return
        self._session.change(PRESETS[wanted.smooth], wanted.reject)
        if wanted.detector != self._in_force.detector:
            try:
                detector = self._opened(wanted.detector)
            except Ended:  # the run ends
                return
            except EdgeferError as error:
                self._log(f"{error} Continuing with {self._in_force.detector}.")
                wanted = self._settings.change({"detector": self._in_force.detector})
            else:
                self._session.use(detector)
        self._in_force = wanted

    def _opened(self, name: str) -> Detector:
        """Open a detector in a thread: it may be downloaded, and meanwhile a stop and systemd's watchdog must be served."""
        opened: Mailbox[Detector] = Mailbox()

        def run() -> None:
            try:
                opened.put(self._detectors[name]())
            except BaseException as error:  # raised below
                opened.end(error)

        threading.Thread(target=run, name="edgefer-detector", daemon=True).start()
        while True:
            try:
                return opened.take(TICK_S, self._stop.is_set)
            except Late:
                self._waiting()
            except Ended as end:
                raise end.error or end from None
