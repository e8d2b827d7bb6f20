"""Opens the outputs of `edgefer run`."""

import os
import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgefer.commands.outputs import OutputFlags
from edgefer.errors import EdgeferError, InputError, MissingDependency

if TYPE_CHECKING:
    from edgefer.card import ModelCard
    from edgefer.devices.outputs.feeds import Feed
    from edgefer.devices.outputs.settings import LiveSettings
    from edgefer.devices.outputs.sink import Sink
    from edgefer.devices.outputs.stats import RunStats
    from edgefer.devices.sources.cameras import Source


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The run of the outputs. bundle_hash: identifies the network. stop: the run's; once set, slow files are not waited
    for. settings: what the page may change."""

    source: "Source"
    card: "ModelCard"
    runtime: str
    bundle_hash: str
    stats: "RunStats"
    stop: threading.Event | None = None
    settings: "LiveSettings | None" = None


def open_outputs(wanted: OutputFlags, run: RunFacts) -> "OpenOutputs":
    """Open all wanted outputs, or text on stdout if there are none. InputError or MissingDependency if one cannot be."""
    opener = _Opener(wanted, run)
    try:
        return opener.open()
    except BaseException:
        opener.close()
        raise


def check_outputs(wanted: OutputFlags, source: "Source", labels: Sequence[str]) -> None:
    """InputError or MissingDependency for outputs that do not suit the source, the network's labels or this installation.
    Opens none, and the source may be closed."""
    from edgefer.devices.outputs import actions
    from edgefer.devices.outputs.broker import parse_broker

    if wanted.mqtt_ca and not wanted.mqtt:
        raise InputError("--mqtt-ca is for --mqtt mqtts://...: give both or neither.")
    if wanted.mqtt and source.streams > 1 and not source.stills:  # each would overwrite the other's state
        raise InputError(
            f"--mqtt takes one source, but {source.streams} are named: run it once for each, with its own topic prefix."
        )
    for text in wanted.on or ():
        actions.parse_command(actions.parse_on(text, "--on", labels)[1])
    for text in wanted.snapshot_on or ():
        actions.parse_on(text, "--snapshot-on", labels)
    if wanted.metrics:
        _needing("prometheus", "--metrics", "metrics")
        parse_address(wanted.metrics, "--metrics")
    if wanted.serve:
        _needing("web", "--serve", "web")
        parse_address(wanted.serve, "--serve")
    if wanted.mqtt:
        _needing("mqtt", "--mqtt", "mqtt")
        parse_broker(wanted.mqtt, ca=wanted.mqtt_ca)


class _Opener:
    """Opens the outputs one by one, those most likely to fail first."""

    def __init__(self, wanted: OutputFlags, run: RunFacts):
        from edgefer import __version__
        from edgefer.devices.outputs.overlay import View
        from edgefer.devices.outputs.tokens import new_token

        self._wanted, self._run = wanted, run
        self._labels = tuple(run.card.labels)
        self._about = {
            "network": run.card.name, "bundle": run.bundle_hash, "runtime": run.runtime, "version": __version__,
        }  # fmt: skip
        self._view: View = View(blur_faces=wanted.blur_faces)
        self._generated = "" if wanted.token else new_token()
        self._page_url = ""
        self.fed: list[Feed] = []
        self.unfed: list[Sink] = []  # sinks that need no queue

    def open(self) -> "OpenOutputs":
        check_outputs(self._wanted, self._run.source, self._labels)
        self._open_files()
        self._open_actions()
        self._open_servers()
        self._open_mqtt()
        self._open_screen()
        self._run.stats.sinks = self.fed
        return OpenOutputs(sinks=[*self.fed, *self.unfed], fed=self.fed, live=self._run.source.live)

    def close(self) -> None:
        for sink in (*self.fed, *self.unfed):
            sink.close()

    def _feed(self, sink: "Sink") -> "Feed":
        from edgefer import console
        from edgefer.devices.outputs.feeds import Feed

        # From a file every frame is written; a camera does not wait for a slow disk.
        wait = sink.every_frame and not self._run.source.live
        feed = Feed(sink, wait=wait, stop=self._run.stop, log=console.log)
        if before := [other.sink.name for other in self.fed].count(sink.name):  # as of two --on happy=...
            feed.name = f"{sink.name} #{before + 1}"  # in the metrics, each needs its own
        self.fed.append(feed)
        return feed

    def _open_files(self) -> None:
        from edgefer import console

        if self._wanted.csv:
            from edgefer.devices.outputs.csvfile import Csv

            self._feed(Csv(self._wanted.csv, self._labels))
        if self._wanted.save:
            from edgefer.devices.outputs.video import ImageFolder, VideoFile

            source = self._run.source
            if not self._wanted.save.suffix:
                if source.live:
                    raise InputError("--save FOLDER keeps every frame, and is for files: name a video, out.mp4.")
                self._feed(ImageFolder(self._wanted.save, view=self._view))
                return
            video = VideoFile(
                self._wanted.save, source.fps, live=source.live, view=self._view, overwrite=self._wanted.overwrite
            )
            if video.notice:
                console.log(video.notice)
            self._feed(video)

    def _open_actions(self) -> None:
        from edgefer import console
        from edgefer.devices.outputs import actions

        timing = actions.Timing(
            hold_s=self._wanted.on_hold, pause_s=self._wanted.on_pause, stills=self._run.source.stills
        )
        for text in self._wanted.on or ():
            label, command = actions.parse_on(text, "--on", self._labels)
            self._feed(actions.CommandOn(label, actions.parse_command(command), timing, log=console.log))
        for text in self._wanted.snapshot_on or ():
            label, folder = actions.parse_on(text, "--snapshot-on", self._labels)
            self._feed(actions.SnapshotOn(label, Path(folder), timing, view=self._view))

    def _open_servers(self) -> None:
        from edgefer import console
        from edgefer.records import UNSURE
        from edgefer.text import own_word

        if self._wanted.metrics:
            prometheus = _needing("prometheus", "--metrics", "metrics")
            host, port = parse_address(self._wanted.metrics, "--metrics")
            # On loopback without a token, so that existing scrapers keep working.
            token = "" if _is_loopback(host) else self._token(host)
            labels = (*self._labels, own_word(UNSURE, self._labels))
            served = prometheus.Metrics(
                self._run.stats, host, port, labels=labels, about=self._about, token=token, log=console.log
            )
            console.log(f"Metrics at {served.url}{self._shown(host)}")
            self.unfed.append(served)
        if self._wanted.serve:
            web = _needing("web", "--serve", "web")
            host, port = parse_address(self._wanted.serve, "--serve")
            options = web.PageOptions(
                labels=self._labels, about=self._about, view=self._view, settings=self._run.settings
            )
            page = web.WebPage(self._run.stats, host, port, options, token=self._token(host), log=console.log)
            console.log(f"The page is at {page.url}{self._shown(host)}")
            self._page_url = "" if _is_loopback(host) else page.url
            self.unfed.append(page)

    def _token(self, host: str) -> str:
        return self._wanted.token or ("" if _is_loopback(host) else self._generated)

    def _shown(self, host: str) -> str:
        """The token to print after a URL: only a generated one, since the user knows their own."""
        return f"?token={self._generated}" if self._generated and not _is_loopback(host) else ""

    def _open_mqtt(self) -> None:
        from edgefer import console

        if self._wanted.mqtt:
            from edgefer.devices.outputs.broker import parse_broker

            mqtt = _needing("mqtt", "--mqtt", "mqtt")
            broker = parse_broker(self._wanted.mqtt, os.environ.get("EDGEFER_MQTT_PASSWORD", ""), self._wanted.mqtt_ca)
            console.log(f"MQTT topics are {broker.prefix}/state and others, at {broker.host}:{broker.port}.")
            self._feed(
                mqtt.Mqtt(
                    broker, self._labels, rate=self._wanted.mqtt_rate, stats=self._run.stats, page_url=self._page_url,
                    log=console.log,
                )
            )  # fmt: skip

    def _open_screen(self) -> None:
        from edgefer import console
        from edgefer.devices.outputs.lines import Changes, FaceLines, JsonLines
        from edgefer.devices.outputs.window import Window

        if self._wanted.json_lines:
            network = f"{self._run.card.name} {self._run.bundle_hash[:12]}"
            self._feed(JsonLines(sys.stdout, network=network, clock=self._run.source.live))
        if not self._wanted.headless and Window.possible():
            self.unfed.append(Window(self._view))  # without a queue: a window belongs to the main thread
        elif not self._wanted.headless:
            console.log("There is no display for a window: running without one.")
        source = self._run.source
        one_image = source.stills and source.total == 1 and not self._wanted.json_lines
        if one_image or not (self.fed or self.unfed):
            self._feed(FaceLines(sys.stdout) if source.stills else Changes(sys.stdout, named=source.streams > 1))


@dataclass(frozen=True, kw_only=True)
class OpenOutputs:
    """The sinks, and those with a queue."""

    sinks: "list[Sink]"
    fed: "list[Feed]"
    live: bool = False

    def conclude(self) -> None:
        """Log what was saved after a run. EdgeferError if an output file failed, or the broker did not get the last
        state of a recorded source, BrokenPipeError for stdout."""
        from edgefer import console

        for feed in self.fed:
            if not feed.error and (saved := feed.sink.summary()):
                console.log(f"Saved {saved}")
        failed = [feed for feed in self.fed if feed.error]
        for feed in failed:
            if isinstance(feed.error, BrokenPipeError):
                raise feed.error
        # For a camera, the broker's trouble was logged during the run; for a file, the last state would be missing.
        failed += [feed for feed in self.fed if feed.unsent and not feed.error and not self.live]
        if failed:
            reasons = [f"{feed.name} ({feed.trouble or 'no reply before the end'})" for feed in failed]
            raise EdgeferError(f"Not all results were written: {', '.join(reasons)}.")


def parse_address(text: str, option: str) -> tuple[str, int]:
    """`8000`, `HOST:8000` or `[::1]:8000` as host and port; without a host it is this machine alone, 127.0.0.1."""
    host, _, port = text.rpartition(":")
    valid_port = re.fullmatch(r"[0-9]{1,5}", port) and int(port) < 65536
    if not valid_port or (":" in host and not host.startswith("[")):
        raise InputError(
            f"{option} {text!r} is not an address: write a port such as 8000, or host and port, 0.0.0.0:8000."
        )
    host = host.strip("[]") or "127.0.0.1"
    try:
        host.encode("idna")  # as the sockets will
    except UnicodeError:
        raise InputError(f"{option} {text!r} names no host: write 0.0.0.0:8000, for instance.") from None
    return host, int(port)


def _is_loopback(host: str) -> bool:
    from edgefer.devices.outputs.tokens import is_loopback

    return is_loopback(host)


def _needing(module: str, option: str, extra: str) -> ModuleType:
    """A module of edgefer.devices that needs an extra."""
    try:
        return import_module(f"edgefer.devices.outputs.{module}")
    except ImportError as error:
        library = (error.name or module).partition(".")[0]
        raise MissingDependency(f"{option} needs {library}: pip install 'edgefer[{extra}]'") from None
