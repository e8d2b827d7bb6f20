"""Where `edgefer run` sends what it sees: the sinks that were asked for."""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgefer.errors import EdgeferError, InputError, MissingDependency

if TYPE_CHECKING:
    from edgefer.card import ModelCard
    from edgefer.devices.outputs.feeds import Feed
    from edgefer.devices.outputs.sinks import Sink
    from edgefer.devices.sources.cameras import Source


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What was asked for on the command line; "" and None: not this one."""

    window: bool = False
    save: Path | None = None
    json_lines: bool = False
    csv: Path | None = None
    serve: str = ""
    token: str = field(default="", repr=False)
    mqtt: str = field(default="", repr=False)
    mqtt_rate: float = 5
    metrics: str = ""

    def open(
        self, source: "Source", card: "ModelCard", runtime: str, stop: threading.Event | None = None
    ) -> "OpenOutputs":
        """Open all of them; text on stdout where there would be none. InputError or MissingDependency for what cannot be.

        stop: that of the run, which then waits for no slow file.
        """
        from edgefer import __version__, console
        from edgefer.devices.outputs import sinks
        from edgefer.devices.outputs.feeds import Feed
        from edgefer.devices.outputs.stats import Vitals
        from edgefer.records import UNSURE

        about = {"network": card.name, "runtime": runtime, "version": __version__}
        fed: list[Feed] = []
        opened: list[Sink] = []  # what is asked for by others, and needs no queue
        vitals = Vitals(fed, lambda: source.skipped)

        def feed(sink: sinks.Sink) -> None:
            # From a file every frame is written; a camera does not wait for a slow disk.
            fed.append(Feed(sink, wait=sink.every_frame and not source.live, stop=stop, say=console.say))

        if self.metrics:
            served = _needing("prometheus", "--metrics", "metrics").Metrics(
                vitals, *parse_address(self.metrics, "--metrics"), labels=(*card.labels, UNSURE), about=about
            )
            console.say(f"Metrics at {served.url}")
            opened.append(served)
        if self.serve:
            web = _needing("web", "--serve", "web")
            page = web.WebPage(
                vitals, *parse_address(self.serve, "--serve"), labels=tuple(card.labels), about=about, token=self.token,
                say=console.say,
            )  # fmt: skip
            console.say(f"The page is at {page.url}")
            opened.append(page)
        if opened:
            opened.append(vitals)
        if self.mqtt:
            mqtt = _needing("mqtt", "--mqtt", "mqtt")
            broker = mqtt.parse_broker(self.mqtt, os.environ.get("EDGEFER_MQTT_PASSWORD", ""))
            feed(mqtt.Mqtt(broker, tuple(card.labels), rate=self.mqtt_rate, say=console.say))
        if self.csv:
            feed(sinks.Csv(self.csv, tuple(card.labels)))
        if self.save:
            feed(sinks.VideoFile(self.save, source.fps, live=source.live))
        if self.json_lines:
            feed(sinks.JsonLines(sys.stdout))
        if self.window and sinks.Window.possible():
            opened.append(sinks.Window())  # without a queue: a window belongs to the main thread
        elif self.window:
            console.say("There is no display that a window can open on: running without one.")
        if not fed and not opened:
            feed(sinks.Changes(sys.stdout))
        return OpenOutputs(sinks=[*fed, *opened], fed=fed, on_frame=vitals.laps, saved=self.save)


@dataclass(frozen=True, kw_only=True)
class OpenOutputs:
    """The sinks, those behind a queue, and what the loop's laps go to."""

    sinks: "list[Sink]"
    fed: "list[Feed]"
    on_frame: Callable[[dict[str, float]], None]
    saved: Path | None

    def conclude(self, frames: int) -> None:
        """After a run of so many frames: say what was saved. EdgeferError when a file has ended early, BrokenPipeError for stdout."""
        from edgefer import console
        from edgefer.devices.outputs.sinks import STILLS

        if self.saved and self.saved.exists():
            last = f", the last of {frames} frames" if self.saved.suffix.lower() in STILLS and frames > 1 else ""
            console.say(f"Saved {self.saved}{last}")
        failed = [feed for feed in self.fed if feed.error]
        for feed in failed:
            if isinstance(feed.error, BrokenPipeError):
                raise feed.error
        if failed:
            raise EdgeferError(f"Not all was written: {', '.join(f'{feed.name} ({feed.trouble})' for feed in failed)}.")


def parse_address(text: str, option: str) -> tuple[str, int]:
    """`8000`, `HOST:8000` or `[::1]:8000` as host and port; without a host it is this machine alone, 127.0.0.1."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536) or (":" in host and not host.startswith("[")):
        raise InputError(f"{option} {text!r} is no address: write a port such as 8000, or host and port, 0.0.0.0:8000.")
    host = host.strip("[]") or "127.0.0.1"
    try:
        host.encode("idna")  # as the sockets will
    except UnicodeError:
        raise InputError(f"{option} {text!r} names no host: write 0.0.0.0:8000, for instance.") from None
    return host, int(port)


def _needing(module: str, option: str, extra: str) -> ModuleType:
    """A module of edgefer.devices that needs an extra."""
    try:
        return import_module(f"edgefer.devices.outputs.{module}")
    except ImportError as error:
        library = (error.name or module).partition(".")[0]
        raise MissingDependency(f"{option} needs {library}: pip install 'edgefer[{extra}]'") from None
