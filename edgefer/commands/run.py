"""The commands of the device: run."""

import os
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefer.commands.inputs import (
    BundleArgument,
    DetectorFile,
    DetectorOption,
    FacesOption,
    bundle_path,
    detector_maker,
)
from edgefer.commands.outputs import Outputs
from edgefer.errors import InputError


def run(
    bundle: BundleArgument = None,
    camera: Annotated[
        str | None,
        typer.Option(metavar="N|PATH|csi", help="Camera number, /dev path, or csi for a Raspberry Pi's own."),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            metavar="FILE|FOLDER|URL",
            help="Video, picture, folder, stream, gst:PIPELINE, or 'builtin'; the password of a rtsp://user@host/path "
            "may be in EDGEFER_SOURCE_PASSWORD.",
        ),
    ] = "",
    size: Annotated[str, typer.Option(metavar="WxH", help="Picture size to ask a camera for, such as 640x480.")] = "",
    fps: Annotated[float | None, typer.Option(min=1, help="Frame rate to ask a camera for.")] = None,
    mjpg: Annotated[
        bool | None, typer.Option("--mjpg/--no-mjpg", help="USB cameras: compressed frames; on above 640x480.")
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="No window.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Annotated video (.mp4, .avi) or picture (.png, .jpg).")
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a frame on stdout.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="A row a face, added to the file.")] = None,
    serve: Annotated[
        str,
        typer.Option(
            metavar="[HOST:]PORT",
            help="A web page with picture and faces; only this machine may see it, "
            "unless HOST is given, and then only with the token.",
        ),
    ] = "",
    token: Annotated[
        str, typer.Option(envvar="EDGEFER_TOKEN", show_envvar=True, help="The page's; made up when left out.")
    ] = "",
    mqtt: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="mqtt://[user[:password]@]host[:port]/topic-prefix, for Home Assistant "
            "too; the password may be in EDGEFER_MQTT_PASSWORD.",
        ),
    ] = "",
    mqtt_rate: Annotated[float, typer.Option(min=0.01, help="At most so many messages a second.")] = 5,
    metrics: Annotated[str, typer.Option(metavar="[HOST:]PORT", help="Figures for Prometheus, at /metrics.")] = "",
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    faces_of: FacesOption = "",
    detector: DetectorOption = "haar",
    detector_file: DetectorFile = None,
    target_fps: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Seek faces only as often as this frame rate allows, and follow them between. By default this "
            "board's for live sources; files are searched frame by frame.",
        ),
    ] = None,
    smooth: Annotated[
        str, typer.Option(metavar="off|responsive|calm", help="How steady labels are: calm is slower to change.")
    ] = "responsive",
    reject: Annotated[
        float,
        typer.Option(min=0, max=1, help="Say `unsure` below this score, or of a face too poor to read; 0: never."),
    ] = 0.45,
    runtime: Annotated[str, typer.Option(help="auto, litert, tflite-runtime or tensorflow.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="For the network; by default this board's.")] = None,
    device: Annotated[str, typer.Option(help="cpu, or coral: an Edge TPU, with a bundle compiled for it.")] = "cpu",
    allow_cpu_fallback: Annotated[
        bool,
        typer.Option(
            "--allow-cpu-fallback", help="Coral: go on with the int8 network on the CPU when it fails or hangs."
        ),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a camera or stream that is not there yet.")] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="First see that the network gives its stored answers here.")
    ] = True,
) -> None:
    """Read faces from a camera, video or pictures. No frame is stored or sent unless asked."""
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.devices import loop
    from edgefer.devices.board.boards import this_board
    from edgefer.devices.board.notify import Notifier
    from edgefer.devices.faces.smoothing import PRESETS, LabelSmoother
    from edgefer.devices.faces.tracking import Tracker
    from edgefer.devices.guarded import GuardedClassifier, GuardedDetector
    from edgefer.devices.sources.cameras import open_camera, open_source, parse_size
    from edgefer.devices.sources.captures import CaptureOptions, without_secrets
    from edgefer.interpreter import Classifier
    from edgefer.parity import check_at_load

    if (camera is None) == (not source):
        raise InputError("Name one input: --camera 0, or --source with a video, picture, folder, URL or builtin.")
    if camera is None and (size or fps or mjpg is not None):
        raise InputError("--size, --fps and --mjpg are for --camera: a file or stream has its own.")
    if mjpg is not None and str(camera).startswith("csi"):
        raise InputError("--mjpg is for USB cameras: a CSI camera's frames are never compressed. Leave it out.")
    if smooth not in PRESETS:
        raise InputError(f"There is no --smooth {smooth!r}: choose {', '.join(PRESETS)}.")
    wanted = Outputs(
        window=not headless, save=save, json_lines=json_lines, csv=csv, serve=serve, token=token, mqtt=mqtt,
        mqtt_rate=mqtt_rate, metrics=metrics,
    )  # fmt: skip
    options = CaptureOptions(size=parse_size(size) if size else None, fps=fps, mjpg=mjpg)
    opened = Bundle.open(bundle_path(bundle))
    board = this_board()

    def load(device: str, check: bool) -> Classifier:
        loaded = Classifier.load(opened, runtime=runtime, threads=threads or board.threads, device=device)
        if check:
            check_at_load(opened, loaded.network, loaded.variant)
        return loaded

    stop, notifier = threading.Event(), Notifier()
    guard: dict[str, Any] = {"say": console.say, "stop": stop}
    if device == "coral":
        spare = load("cpu", check=True) if allow_cpu_fallback else None
        classifier: Classifier = GuardedClassifier(
            load(device, check),
            (lambda: spare) if spare else None,
            on_fault=spare is not None,
            name="The Edge TPU",
            then="going on with the int8 network on the CPU",
            advice="replug it, or run with --allow-cpu-fallback",
            **guard,
        )
    else:
        classifier = GuardedClassifier(load(device, check), lambda: load(device, check), **guard)
    make_detector = detector_maker(
        detector, detector_file, width=board.detector_width, card=opened.card, faces=faces_of
    )
    faces = GuardedDetector(make_detector, **guard)

    def end(number: int, at: object) -> None:
        if stop.is_set():  # the second time: no more waiting
            raise KeyboardInterrupt
        stop.set()  # the frame at hand is finished
        notifier.send(STOPPING="1")

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(
            signal.SIGHUP, end
        )  # the terminal is closed, or ssh is gone: what is saved is finished all the same
    live: dict[str, Any] = {"stop": stop, "say": console.say, "wait": wait, "trying": notifier.trying}
    if camera is not None:
        frames_from = open_camera(camera, options, **live)
    else:
        frames_from = open_source(source, password=os.environ.get("EDGEFER_SOURCE_PASSWORD", ""), **live)
    if wait and not frames_from.live:
        raise InputError(f"--wait is for cameras and streams: {without_secrets(source)} is read as it is.")
    with frames_from as frames_in:
        outputs = wanted.open(frames_in, opened.card, classifier.network.runtime, stop)
        console.say(f"{opened.card.name} on {classifier.network.runtime}, {device}; Ctrl-C ends.")
        tracker = Tracker(faces, target_fps=target_fps or (board.target_fps if frames_in.live else None))
        smoother = LabelSmoother(PRESETS[smooth], reject=reject)

        def on_frame(laps: loop.Laps) -> None:
            notifier.frame(laps)
            outputs.on_frame(laps)

        notifier.send(READY="1")
        summary = loop.run(
            frames_in,
            tracker,
            classifier,
            outputs.sinks,
            smoother=smoother,
            frames=frames,
            stop=stop,
            on_frame=on_frame,
        )
    stages = "  ".join(f"{stage} {ms:.1f}" for stage, ms in summary.stage_ms().items())
    console.say(
        f"{summary.frames} frames in {summary.seconds:.1f} s: {summary.fps:.1f} frames/s. Milliseconds a frame: {stages}"
    )
    if summary.faces == 0:
        console.say(
            "No face was found: faces must look at the camera and fill an eighth of the picture's height or more. "
            "--faces frame reads the middle of the frame as it is."
        )
    else:
        seen = ", ".join(
            f"{label} {count}" for label, count in sorted(summary.labels.items(), key=lambda item: -item[1])
        )
        console.say(f"{summary.faces} faces in {summary.frames_with_faces} frames: {seen}")
    outputs.conclude(summary.frames)
