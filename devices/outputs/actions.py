"""Actions when an expression appears: run a command, or save an image."""

import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edgefer.devices.outputs.files import check_room, images_in, make_folder
from edgefer.devices.outputs.overlay import View
from edgefer.devices.outputs.sink import Sink
from edgefer.errors import InputError
from edgefer.images import write_image
from edgefer.records import UNSURE, Face, Frame
from edgefer.text import own_word, printable, safe_name

MAX_RUNNING = 4  # concurrent commands per trigger; more are skipped
COMMAND_S = 60.0  # a command that takes longer is killed
SECRET = re.compile(r"EDGEFER_(TOKEN|\w+_PASSWORD)")  # environment variables
GONE_FRAMES = 100  # of the other streams: after so many without one of its own, a stream shows no label any more


@dataclass(frozen=True, kw_only=True)
class Timing:
    """hold_s: how long a face must keep the label. pause_s: the minimum time to the next action, before which the label
    must also have disappeared once. stills: the frames are independent images, and each one with the label counts."""

    hold_s: float = 0.5
    pause_s: float = 5.0
    stills: bool = False


@dataclass
class Trigger:
    """Fires when a label appears: once per appearance, not for a flicker, and not repeatedly."""

    label: str
    timing: Timing
    _since: dict[tuple[int, int], float] = field(default_factory=dict)  # (stream, face) -> when the label appeared
    _last: dict[int, int] = field(default_factory=dict)  # stream -> the number of its last frame, counting all streams'
    _count: int = 0
    _ready: bool = True
    # stream -> the time of its last frame, and that at the last action: the times of two files have nothing in common
    _now_s: dict[int, float] = field(default_factory=dict)
    _fired_s: dict[int, float] = field(default_factory=dict)

    def fires(self, frame: Frame) -> Face | None:
        """The face that has now had the label for long enough, or None."""
        if self.timing.stills:
            return next((face for face in frame.faces if face.label == self.label), None)
        self._count += 1
        self._last[frame.stream], self._now_s[frame.stream] = self._count, frame.time_s
        seen = {(frame.stream, face.id): face for face in frame.faces if face.label == self.label}
        ours = {key: since for key, since in self._since.items() if key in seen or self._elsewhere(key[0], frame)}
        self._since = dict.fromkeys(seen, frame.time_s) | ours
        if not self._since:
            self._ready = True
        if not self._ready or frame.time_s - self._fired_s.get(frame.stream, -math.inf) < self.timing.pause_s:
            return None
        held = (face for key, face in seen.items() if frame.time_s - self._since[key] >= self.timing.hold_s)
        face = next(held, None)
        if face is not None:
            self._ready, self._fired_s = False, dict(self._now_s)
        return face

    def _elsewhere(self, stream: int, frame: Frame) -> bool:
        """Whether it is another stream than the frame's, and still gives frames: a camera may be unplugged."""
        return stream != frame.stream and self._count - self._last[stream] <= GONE_FRAMES


class CommandOn(Sink):
    """Runs a command when a label appears. Never through a shell: the label is passed only in an environment variable.

    EDGEFER_LABEL, EDGEFER_SCORE, EDGEFER_ID, EDGEFER_TIME_S, EDGEFER_SOURCE; edgefer's own tokens and passwords are left
    out of its environment. log: receives a message if a command fails or is skipped.
    """

    every_frame = True

    def __init__(
        self, label: str, command: Sequence[str], timing: Timing, *, log: Callable[[str], None] = lambda text: None
    ):
        self.name = f"--on {printable(label)}"
        self._command, self._trigger, self._log = list(command), Trigger(label, timing), log
        self._running: list[tuple[subprocess.Popen, float]] = []

    def write(self, frame: Frame) -> None:
        self._collect()
        face = self._trigger.fires(frame)
        if face is None:
            return
        if len(self._running) >= MAX_RUNNING:
            self._failed(f"is still running {MAX_RUNNING} times, so it was not started again")
            return
        try:
            process = subprocess.Popen(
                self._command, env=_without_secrets() | facts_of(frame, face), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            self._failed(f"cannot be run: {getattr(error, 'strerror', None) or error}")
            return
        self._running.append((process, time.monotonic()))

    def _collect(self) -> None:
        """Collect finished commands, and kill those that take too long."""
        going = []
        for process, began in self._running:
            code = process.poll()
            if code is None and time.monotonic() - began > COMMAND_S:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with its child processes
                self._failed(f"took longer than {COMMAND_S:.0f} s and was killed")
            elif code is None:
                going.append((process, began))
            elif code:
                self._failed(f"ended with exit code {code}")
            else:
                self.trouble = ""
        self._running = going

    def _failed(self, problem: str) -> None:
        self.errors += 1
        if problem != self.trouble:
            self._log(f"{self.name}: {printable(self._command[0])} {problem}.")
        self.trouble = problem

    def close(self) -> None:
        """Running commands continue; they are not waited for."""
        self._collect()


class SnapshotOn(Sink):
    """Saves the annotated frame as a .jpg in a folder when a label appears."""

    every_frame = True

    def __init__(self, label: str, folder: Path, timing: Timing, *, view: View | None = None):
        self.name = f"--snapshot-on {printable(label)}"
        self._folder, self._trigger, self._view = folder, Trigger(label, timing), view or View()
        make_folder(folder)
        self.saved = 0

    def write(self, frame: Frame) -> None:
        face = self._trigger.fires(frame)
        if face is None:
            return
        check_room(self._folder)
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
        write_image(self._folder / f"{moment}-{safe_name(face.label)}-{frame.index}.jpg", self._view.annotated(frame))
        self.saved += 1

    def kept(self) -> str:
        return images_in(self.saved, printable(str(self._folder)))


def _without_secrets() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not SECRET.fullmatch(name)}


def facts_of(frame: Frame, face: Face) -> dict[str, str]:
    """The face's data for a command, as environment variables."""
    facts = {
        "EDGEFER_LABEL": face.label,
        "EDGEFER_SCORE": f"{face.score:.4f}",
        "EDGEFER_ID": str(face.id),
        "EDGEFER_TIME_S": f"{frame.time_s:.3f}",
        "EDGEFER_SOURCE": frame.source,
    }
    return {name: printable(value) for name, value in facts.items()}


def parse_on(text: str, option: str, labels: Sequence[str]) -> tuple[str, str]:
    """LABEL=REST as (label, rest). InputError for an unknown label, or without a rest."""
    kind, example = ("COMMAND", "'mpg123 yay.mp3'") if option == "--on" else ("FOLDER", "pictures/")
    known = (*labels, own_word(UNSURE, labels))
    label, found, rest = text.partition("=")
    if not found or not rest.strip():
        raise InputError(f"{option} {printable(text)!r} must be LABEL={kind}, such as {option} {known[0]}={example}.")
    if label not in known:
        raise InputError(f"{option} {printable(label)!r}: this network has no such label. Choose {', '.join(known)}.")
    return label, rest


def parse_command(text: str) -> list[str]:
    """The command of --on as words. InputError if its program cannot be run."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--on: the command {printable(text)!r} cannot be read ({error}).") from None
    program = words[0] if words else ""
    if not shutil.which(program):
        shown = printable(program or text)
        if Path(program).is_file():
            folder = "" if "/" in program else f", and name it with its folder, ./{shown}"
            raise InputError(f"--on: {shown} is not a program yet: run `chmod +x` on it{folder}.")
        raise InputError(f"--on: there is no program {shown!r} that can be run here.")
    return words
