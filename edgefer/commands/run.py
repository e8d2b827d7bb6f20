"""edgefer run: read faces from cameras, videos and images."""

import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands import outputs as out
from edgefer.commands.config import ConfigOption
from edgefer.commands.inputs import DetectorFile, DetectorOption, FacesOption, RuntimeOption, SkipBad, bundle_path
from edgefer.commands.outputs import Outputs, RunFacts
from edgefer.errors import IncompleteError, InputError
from edgefer.options import (
    DetectorName,
    DeviceName,
    ReaderOptions,
    Rotation,
    RuntimeName,
    Smoothing,
    parse_region,
    parse_size,
)
from edgefer.text import printable

if TYPE_CHECKING:
    from edgefer.devices.outputs.stats import RunStats
    from edgefer.devices.reader import Reader, SourceOptions
    from edgefer.devices.sources.files import Source

INPUT, FACES, RUNTIME = "Input", "Faces", "Runtime"
MAX_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What one run reads, how, and where its results go."""

    bundle: Path
    sources: tuple[str, ...]
    reader: ReaderOptions
    source_options: "SourceOptions"
    outputs: Outputs = field(default_factory=Outputs)
    frames: int | None = None


def run(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BUNDLE] [SOURCE]...",
            help="A bundle's folder or shipped name, and what to read: a camera's number, video, image, folder, URL or 'builtin'. "
            "A folder with a card.json is a bundle, anything else is a source.",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="BUNDLE",
            help="The bundle; the newest under runs/, else ferplus-small, when left out.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|PATH|csi",
            help="Camera number, /dev path, or csi for a Raspberry Pi's own. May be given several times.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|FOLDER|URL",
            help="Video, image, folder, stream, gst:PIPELINE, or 'builtin'; the password of a rtsp://user@host/path may be in "
            "EDGEFER_SOURCE_PASSWORD. May be given several times.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Image size to ask a camera for, such as 640x480.", rich_help_panel=INPUT)
    ] = "",
    fps: Annotated[
        float | None, typer.Option(min=1, help="Frame rate to ask a camera for.", rich_help_panel=INPUT)
    ] = None,
    mjpg: Annotated[
        bool | None,
        typer.Option(
            "--mjpg/--no-mjpg", help="USB cameras: compressed frames; on above 640x480.", rich_help_panel=INPUT
        ),
    ] = None,
    rotate: Annotated[
        Rotation, typer.Option(help="Rotate every image clockwise by this many degrees.", rich_help_panel=INPUT)
    ] = Rotation.NONE,
    loop: Annotated[
        bool, typer.Option("--loop", help="Files: from the start again when they end.", rich_help_panel=INPUT)
    ] = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Files: at their own frame rate, no faster.", rich_help_panel=INPUT)
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for a camera or stream that is not there yet.", rich_help_panel=INPUT)
    ] = False,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many frames.", rich_help_panel=INPUT)
    ] = None,
    skip_bad: SkipBad = False,
    config: ConfigOption = None,
    faces_of: FacesOption = None,
    detector: DetectorOption = DetectorName.AUTO,
    detector_file: DetectorFile = None,
    min_face: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="Look for faces down to this size, and leave smaller ones out; by default about a twelfth of the image's longer side. Small ones take longer to find.",
            rich_help_panel=FACES,
        ),
    ] = 0,
    roi: Annotated[
        str,
        typer.Option(
            metavar="LEFT,TOP,WxH",
            help="Look for faces in this part of the image only, in pixels.",
            rich_help_panel=FACES,
        ),
    ] = "",
    target_fps: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Look for faces only as often as this frame rate allows, and follow them in between. By default this board's "
            "for live sources; files are searched frame by frame.",
            rich_help_panel=FACES,
        ),
    ] = None,
    follow: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Look in the whole of every Nth frame only, and in between around the known faces: several times the frames a "
            "second; a new face shows up to N frames later.",
            rich_help_panel=FACES,
        ),
    ] = 1,
    smooth: Annotated[
        Smoothing, typer.Option(help="How steady labels are: calm is slower to change.", rich_help_panel=FACES)
    ] = Smoothing.RESPONSIVE,
    reject: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Say `unsure` below this score, or of a face too poor to read; 0: never.",
            rich_help_panel=FACES,
        ),
    ] = 0.45,
    headless: out.Headless = False,
    save: out.Save = None,
    json_lines: out.JsonLinesOption = False,
    csv: out.CsvOption = None,
    on: out.On = None,
    snapshot_on: out.SnapshotOn = None,
    on_hold: out.OnHold = 0.5,
    on_pause: out.OnPause = 5.0,
    blur_faces: out.BlurFaces = False,
    serve: out.Serve = "",
    token: out.Token = "",
    mqtt: out.MqttOption = "",
    mqtt_rate: out.MqttRate = 5,
    mqtt_ca: out.MqttCa = None,
    metrics: out.MetricsOption = "",
    runtime: RuntimeOption = RuntimeName.AUTO,
    threads: Annotated[
        int | None, typer.Option(min=1, help="For the network; by default this board's.", rich_help_panel=RUNTIME)
    ] = None,
    device: Annotated[
        DeviceName, typer.Option(help="coral: an Edge TPU, with a bundle compiled for it.", rich_help_panel=RUNTIME)
    ] = DeviceName.CPU,
    allow_cpu_fallback: Annotated[
        bool,
        typer.Option(
            "--allow-cpu-fallback",
            help="Coral: go on with the int8 network on the CPU when it fails or hangs.",
            rich_help_panel=RUNTIME,
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="First check that the network gives its stored answers here.",
            rich_help_panel=RUNTIME,
        ),
    ] = True,
) -> None:
    """Read faces from cameras, videos and images. No frame is stored or sent unless asked.

    `edgefer run photo.jpg`, `edgefer run BUNDLE --camera 0`, `edgefer run BUNDLE film.mp4 --csv out.csv`.
    """
    from edgefer.devices.reader import SourceOptions
    from edgefer.devices.sources.captures import CaptureOptions
    from edgefer.devices.sources.playback import Playback

    named_bundle, sources = sort_inputs(inputs or [], bundle)
    sources += [*(camera or []), *(source or [])]
    if not sources:
        raise InputError(
            "Name what to read: `edgefer run photo.jpg`, --camera 0, or --source with a video, image, folder, URL or builtin."
        )
    if mjpg is not None and any(name.startswith("csi") for name in sources):
        raise InputError("--mjpg is for USB cameras: a CSI camera's frames are never compressed. Leave it out.")
    if save and len(sources) > 1:
        raise InputError(f"--save takes one source, and {len(sources)} are named: run it once for each.")
    _run(
        RunOptions(
            bundle=bundle_path(named_bundle),
            sources=tuple(sources),
            reader=ReaderOptions(
                check=check, smooth=smooth, reject=reject, detector=detector, detector_file=detector_file, faces=faces_of,
                min_face=min_face, roi=parse_region(roi) if roi else None, runtime=runtime, threads=threads, device=device,
                target_fps=target_fps, follow=follow, allow_cpu_fallback=allow_cpu_fallback,
            ),
            source_options=SourceOptions(
                capture=CaptureOptions(size=parse_size(size) if size else None, fps=fps, mjpg=mjpg),
                playback=Playback(loop=loop, realtime=realtime, rotate=rotate), skip_bad=skip_bad, wait=wait,
            ),
            outputs=Outputs(
                window=not headless, save=save, json_lines=json_lines, csv=csv, serve=serve, token=token, mqtt=mqtt,
                mqtt_rate=mqtt_rate, mqtt_ca=mqtt_ca, metrics=metrics, on=tuple(on or ()), snapshot_on=tuple(snapshot_on or ()),
                on_hold=on_hold, on_pause=on_pause, blur_faces=blur_faces,
            ),
            frames=frames,
        )
    )  # fmt: skip


def sort_inputs(inputs: list[str], bundle: Path | None) -> tuple[Path | None, list[str]]:
    """Which of the arguments is the bundle, and which are sources.

    A folder with a card.json, or with an unfinished training, is a bundle, and so is the name of a shipped one where
    nothing of that name lies here; anything else is a source.
    """
    from edgefer.bundle import CARD, shipped_bundles
    from edgefer.devices.sources.cameras import BUILT_IN, GSTREAMER, is_camera
    from edgefer.devices.sources.urls import shown_address

    shipped = shipped_bundles()
    bundles, sources = ([] if bundle is None else [bundle]), []
    for name in inputs:
        path = Path(name)
        made_here = (path / CARD).exists() or (path / "training").is_dir()
        if made_here or (name in shipped and not path.exists()):
            bundles.append(path)
        elif path.exists() or is_camera(name) or "://" in name or name.startswith(GSTREAMER) or name == BUILT_IN:
            sources.append(name)
        else:
            raise InputError(
                f"There is no bundle, file or folder {shown_address(name)}: name a bundle or one of {', '.join(shipped)}; and a "
                "video, image, folder, address such as rtsp://host/path, camera's number or builtin."
            )
    if len(bundles) > 1:
        raise InputError(f"{' and '.join(printable(str(one)) for one in bundles)} are bundles: name one of them.")
    return (bundles[0] if bundles else None), sources


def _run(options: RunOptions) -> None:
    """Open everything that was asked for, read until the end, and say what was seen."""
    from dataclasses import replace

    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.devices import loop
    from edgefer.devices.board.notify import Notifier
    from edgefer.devices.outputs.stats import RunStats
    from edgefer.devices.reader import Reader

    stop, notifier = threading.Event(), Notifier()
    reader = Reader.open(Bundle.open(options.bundle), options.reader, log=console.say, stop=stop)
    _end_on_signals(stop, notifier)
    source_options = replace(options.source_options, trying=notifier.trying)
    damage: IncompleteError | None = None
    with reader.open_sources(options.sources, source_options) as source:
        stats = RunStats(skipped=lambda: source.skipped, on_frame=notifier.frame)
        session = reader.session(live=source.live)
        settings, controls = _controls(reader, session, stats, stop, notifier)
        facts = RunFacts(
            source=source, card=reader.card, runtime=reader.classifier.network.runtime, stats=stats, stop=stop, settings=settings
        )  # fmt: skip
        outputs = options.outputs.open(facts)
        ending = "" if source.stills else "; Ctrl-C ends"
        console.say(f"{reader.card.name} on {facts.runtime}, {options.reader.device}{ending}.")
        if options.outputs.serve:
            outputs.sinks.append(controls)
        notifier.send(READY="1")
        try:
            loop.run(
                _with_progress(source, options), session, outputs.sinks, frames=options.frames, stop=stop, stats=stats
            )
        except IncompleteError as error:
            damage = error
    _say_what_was_seen(stats, source)
    outputs.conclude(stats.frames)
    if damage:
        raise damage


def _end_on_signals(stop: threading.Event, notifier) -> None:
    """End after the frame at hand on Ctrl-C, SIGTERM, and a closed terminal: what is saved is finished all the same."""

    def end(number: int, at: object) -> None:
        if stop.is_set():  # the second time: no more waiting
            raise KeyboardInterrupt
        stop.set()
        notifier.send(STOPPING="1")

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, end)


def _controls(reader: "Reader", session, stats: "RunStats", stop: threading.Event, notifier):
    """What the page may change while the run goes on, and the sink that puts it into force."""
    from edgefer import console
    from edgefer.devices.outputs.settings import Controls, LiveSettings, RunSettings

    detectors, options = reader.detectors(), reader.options
    now = RunSettings(smooth=options.smooth, reject=options.reject, detector=options.detector)
    settings = LiveSettings(now, smooths=tuple(Smoothing), detectors=tuple(detectors), reasons=reader.reasons)
    stats.paused = lambda: settings.read().paused
    controls = Controls(settings, session, detectors, stop=stop, waiting=notifier.trying, log=console.say)
    return settings, controls


def _with_progress(source: "Source", options: RunOptions):
    """The frames, with a progress bar where their number is known and nothing else is written to the terminal."""
    import sys

    from edgefer import console

    wanted = options.outputs
    lines = wanted.json_lines or not (wanted.save or wanted.csv or wanted.serve or wanted.mqtt)
    if source.live or not source.total or source.total < 2 or (lines and sys.stdout.isatty()):
        return source
    total = min(source.total, options.frames or source.total)
    return console.track(source, total, source.name)


def _say_what_was_seen(stats: "RunStats", source: "Source") -> None:
    from edgefer import console

    if source.left_out:
        console.say(f"Left out {len(source.left_out)} files:")
        for line in source.left_out[:MAX_LISTED]:
            console.say(f"  {line}")
        if len(source.left_out) > MAX_LISTED:
            console.say(f"  and {len(source.left_out) - MAX_LISTED} more")
    if not stats.frames:
        console.say(f"Nothing was read: {source.name} gave no image.")
        return
    stages = "  ".join(f"{stage} {ms:.1f}" for stage, ms in stats.stage_ms().items())
    console.say(
        f"{_count(stats.frames, 'frame')} in {stats.seconds:.1f} s: {stats.fps:.1f} frames/s. Milliseconds per frame: {stages}"
    )
    if not stats.faces:
        console.say(
            "No face was found: faces must look at the camera and fill a twelfth of the image's longer side or more "
            "(--min-face PIXELS looks for smaller ones). --faces frame reads the middle of the frame as it is."
        )
        return
    seen = ", ".join(f"{label} {count}" for label, count in sorted(stats.labels.items(), key=lambda item: -item[1]))
    console.say(f"{_count(stats.faces, 'face')} in {_count(stats.frames_with_faces, 'frame')}: {seen}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
