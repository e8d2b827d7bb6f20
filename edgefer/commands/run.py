"""edgefer run: read faces from cameras, videos and images."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefer.commands.grouped import grouped
from edgefer.commands.inputs import bundle_path
from edgefer.commands.outputs import OutputFlags
from edgefer.commands.run_flags import FaceFlags, Inputs, RuntimeFlags, SourceFlags, reader_options
from edgefer.errors import IncompleteError, InputError
from edgefer.options import ReaderOptions, Smoothing
from edgefer.text import counted

if TYPE_CHECKING:
    from edgefer.devices.outputs.stats import RunStats
    from edgefer.devices.reader import Reader, SourceOptions
    from edgefer.devices.sources.files import Source

MAX_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run: sources, processing and outputs."""

    bundle: Path
    sources: tuple[str, ...]
    reader: ReaderOptions
    source_options: "SourceOptions"
    outputs: OutputFlags
    frames: int | None = None


@grouped
def run(
    inputs: Inputs = None, *, source: SourceFlags, faces: FaceFlags, outputs: OutputFlags, runtime: RuntimeFlags
) -> None:
    """Read faces from cameras, videos and images. No frame is stored or sent unless you ask for it.

    Exit code 1 if a source or an output failed during the run; results so far are kept.

    - `edgefer run photo.jpg --save out.png`
    - `edgefer run fer-small --camera 0 --serve 8000`
    - `edgefer run film.mp4 --csv out.csv && edgefer report out.csv`
    """
    _on_termination(_terminate)
    try:
        _run(run_options(inputs, source, faces, outputs, runtime))
    except Terminated:
        from edgefer import console

        console.log("Stopped before the first frame.")


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP while the run is being prepared: not a failure to a service manager, as it is none later."""


def run_options(
    inputs: list[str] | None, source: SourceFlags, faces: FaceFlags, outputs: OutputFlags, runtime: RuntimeFlags
) -> RunOptions:
    """What the command line means. InputError for options that conflict."""
    bundle, sources = source.named(inputs or [])
    if outputs.save and len(sources) > 1:
        raise InputError(f"--save takes one source, but {len(sources)} are named: run it once for each.")
    if outputs.overwrite:
        _check_overwritable(outputs.save, sources)
    return RunOptions(
        bundle=bundle_path(bundle, reads=True),
        sources=tuple(sources),
        reader=reader_options(faces, runtime),
        source_options=source.options(),
        outputs=outputs,
        frames=source.frames,
    )


def _check_overwritable(save: Path | None, sources: list[str]) -> None:
    """InputError unless --save names a file, which is neither a source nor in a folder that is one."""
    if save is None or not save.suffix:
        raise InputError("--overwrite is for --save FILE: give both, or leave it out.")
    place = save.resolve()
    if {place, place.parent} & {Path(source).resolve() for source in sources if os.path.exists(source)}:
        raise InputError(f"{save} would overwrite what is read: choose another --save.")


def _run(options: RunOptions) -> None:
    """Open all sources and outputs, read until the end, and log a summary."""
    from dataclasses import replace

    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.commands.opening import RunFacts, open_outputs
    from edgefer.devices import loop
    from edgefer.devices.board.notify import Notifier
    from edgefer.devices.outputs.stats import RunStats
    from edgefer.devices.reader import Reader
    from edgefer.devices.threads import HANG_S

    stop, notifier = threading.Event(), Notifier()
    bundle = Bundle.open(options.bundle)
    reader = Reader.open(bundle, options.reader, log=console.log, stop=stop)
    _end_on_signals(stop, notifier)
    source_options = replace(options.source_options, trying=notifier.trying)
    damage: IncompleteError | None = None
    with reader.open_sources(options.sources, source_options) as source:
        stats = RunStats(skipped=lambda: source.skipped, on_frame=notifier.frame)
        stats.sources = lambda: source.states
        session = reader.session(live=source.live, stills=source.stills)
        settings, controls = _controls(reader, session, stats, stop, notifier)
        facts = RunFacts(
            source=source, card=reader.card, runtime=reader.classifier.network.runtime, bundle_hash=bundle.hash,
            stats=stats, stop=stop, settings=settings,
        )  # fmt: skip
        outputs = open_outputs(options.outputs, facts)
        ending = "" if source.stills else "; Ctrl-C ends"
        console.log(f"{reader.card.name} on {facts.runtime}, {options.reader.device}{ending}.")
        if options.outputs.serve:
            outputs.sinks.append(controls)
        notifier.send(READY="1")
        try:
            loop.run(
                _with_progress(source, options), session, outputs.sinks, frames=options.frames, stop=stop, stats=stats,
                limit_s=None if source_options.realtime else HANG_S,
            )  # fmt: skip
        except IncompleteError as error:
            damage = error
    _log_what_was_seen(stats, source, options.reader)
    outputs.conclude()
    if damage:
        raise damage
    if source.failed:  # of a run that was stopped before its end
        raise IncompleteError(" ".join(source.failed))


def _end_on_signals(stop: threading.Event, notifier) -> None:
    """End after the current frame on Ctrl-C, SIGTERM, and a closed terminal, so that output files are finished."""

    def end(number: int, at: object) -> None:
        if stop.is_set():  # the second time: do not wait
            raise KeyboardInterrupt
        stop.set()
        notifier.send(STOPPING="1")

    signal.signal(signal.SIGINT, end)
    _on_termination(end)


def _on_termination(handler: Callable[[int, object], None]) -> None:
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, handler)


def _terminate(number: int, at: object) -> None:
    raise Terminated


def _controls(reader: "Reader", session, stats: "RunStats", stop: threading.Event, notifier):
    """The settings that the page may change during the run, and the sink that applies them."""
    from edgefer import console
    from edgefer.devices.outputs.settings import Controls, LiveSettings, RunSettings

    detectors, options = reader.detectors(), reader.options
    now = RunSettings(smooth=options.smooth, reject=options.reject, detector=options.detector)
    settings = LiveSettings(now, smooths=tuple(Smoothing), detectors=tuple(detectors), reasons=reader.reasons)
    stats.paused = lambda: settings.read().paused
    controls = Controls(settings, session, detectors, stop=stop, waiting=notifier.trying, log=console.log)
    return settings, controls


def _with_progress(source: "Source", options: RunOptions):
    """The frames, with a progress bar if their number is known and nothing else is written to the terminal."""
    import sys

    from edgefer import console

    wanted = options.outputs
    lines = wanted.json_lines or not (wanted.save or wanted.csv or wanted.serve or wanted.mqtt)
    total = None if source.live else source.total
    if not total or total < 2 or (lines and sys.stdout.isatty()):
        return source
    return console.PROGRESS.track(source, min(total, options.frames or total), source.name)


def _log_what_was_seen(stats: "RunStats", source: "Source", options: ReaderOptions) -> None:
    from edgefer import console

    if source.left_out:
        console.log(f"Skipped {counted(len(source.left_out), 'file')}:")
        for line in source.left_out[:MAX_LISTED]:
            console.log(f"  {line}")
        if len(source.left_out) > MAX_LISTED:
            console.log(f"  and {len(source.left_out) - MAX_LISTED} more")
    if source.unchecked:
        console.log(source.unchecked)
    if not stats.frames:
        console.log(f"Nothing was read: {source.name} gave no image.")
        return
    stages = "  ".join(f"{stage} {ms:.1f}" for stage, ms in stats.stage_ms().items())
    console.log(
        f"{counted(stats.frames, 'frame')} in {stats.seconds:.1f} s: {stats.fps:.1f} frames/s. Milliseconds per frame: {stages}"
    )
    if not stats.faces:
        console.log(_no_face(options))
        return
    seen = ", ".join(f"{label} {count}" for label, count in sorted(stats.labels.items(), key=lambda item: -item[1]))
    console.log(f"{counted(stats.faces, 'face')} in {counted(stats.frames_with_faces, 'frame')}: {seen}")


def _no_face(options: ReaderOptions) -> str:
    size = f"fill at least a tenth of the {'region' if options.roi else 'image'}'s longer side (--min-face PIXELS detects smaller ones)"
    if options.min_face:
        size = f"measure at least {options.min_face} pixels (--min-face)"
    return f"No face was found: faces must look at the camera and {size}. --faces frame reads the centre of the frame."
