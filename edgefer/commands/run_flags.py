"""The options of `edgefer run`, except its outputs, as records: sources, faces and runtime."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.config import ConfigOption
from edgefer.commands.inputs import FACES, INPUT, RUNTIME, DetectorFlags, NetworkFlags, SkipBad
from edgefer.errors import InputError
from edgefer.options import (
    MAX_FPS,
    MIN_TARGET_FPS,
    DeviceName,
    ReaderOptions,
    Rotation,
    Smoothing,
    parse_region,
    parse_size,
)
from edgefer.text import printable

if TYPE_CHECKING:
    from edgefer.devices.reader import SourceOptions

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="BUNDLE|SOURCE",
        help="A bundle's folder or shipped name, and what to read: a camera's number, video, image, folder, URL or 'builtin'. "
        "A folder with a card.json is a bundle, anything else is a source.",
        show_default=False,
    ),
]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        metavar="BUNDLE",
        help="The bundle; the newest under runs/, else ferplus-small, when left out.",
        rich_help_panel=INPUT,
    ),
]
Camera = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N|PATH|csi",
        help="Camera number, /dev path, or csi for a Raspberry Pi's CSI camera. May be given several times.",
        rich_help_panel=INPUT,
    ),
]
SourceName = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|FOLDER|URL",
        help="Video, image, folder, stream, gst:PIPELINE, or 'builtin'; the password of an rtsp://user@host/path may be in "
        "EDGEFER_SOURCE_PASSWORD. May be given several times.",
        rich_help_panel=INPUT,
    ),
]
Size = Annotated[
    str, typer.Option(metavar="WxH", help="Image size of a camera, such as 640x480.", rich_help_panel=INPUT)
]
Fps = Annotated[
    float | None,
    typer.Option(min=1, max=MAX_FPS, metavar="FPS", help="Frame rate of a camera.", rich_help_panel=INPUT),
]
Mjpg = Annotated[
    bool | None,
    typer.Option(
        "--mjpg/--no-mjpg",
        help="USB cameras: use compressed frames; the default above 640x480.",
        rich_help_panel=INPUT,
    ),
]
Rotate = Annotated[
    Rotation, typer.Option(help="Rotate every image clockwise by this many degrees.", rich_help_panel=INPUT)
]
Loop = Annotated[bool, typer.Option("--loop", help="Files: start again when they end.", rich_help_panel=INPUT)]
Realtime = Annotated[
    bool, typer.Option("--realtime", help="Files: play at their own frame rate, no faster.", rich_help_panel=INPUT)
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait for a camera or stream that is not available yet.", rich_help_panel=INPUT)
]
Frames = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Stop after this many frames.", rich_help_panel=INPUT)
]
MinFace = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="PIXELS",
        help="The minimum side of a face to detect; by default about 1/10 of the image's longer side. Smaller takes longer.",
        show_default=False,
        rich_help_panel=FACES,
    ),
]
Region = Annotated[
    str,
    typer.Option(
        metavar="LEFT,TOP,WxH",
        help="Detect faces only in this part of the image, in pixels.",
        rich_help_panel=FACES,
    ),
]
TargetFps = Annotated[
    float | None,
    typer.Option(
        min=MIN_TARGET_FPS,
        max=MAX_FPS,
        metavar="FPS",
        help="Detect faces only as often as this frame rate allows, and track them in between. By default this board's "
        "for live sources; files are searched frame by frame.",
        rich_help_panel=FACES,
    ),
]
Follow = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Search only every Nth frame in full, and in between near the known faces. Most useful with YuNet and with "
        "--min-face; a new face appears up to N frames later.",
        rich_help_panel=FACES,
    ),
]
Smooth = Annotated[
    Smoothing, typer.Option(help="How steady labels are: calm is slower to change.", rich_help_panel=FACES)
]
Reject = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="SCORE",
        help="Show `unsure` below this score, or for a face that cannot be read well; 0: never.",
        rich_help_panel=FACES,
    ),
]
Device = Annotated[
    DeviceName, typer.Option(help="coral: an Edge TPU, with a bundle compiled for it.", rich_help_panel=RUNTIME)
]
AllowCpuFallback = Annotated[
    bool,
    typer.Option(
        "--allow-cpu-fallback",
        help="Coral: continue with the int8 network on the CPU when it fails or hangs.",
        rich_help_panel=RUNTIME,
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check/--no-check",
        help="First check that the network gives its stored answers here.",
        rich_help_panel=RUNTIME,
    ),
]


@dataclass(frozen=True, kw_only=True)
class SourceFlags:
    """The sources, and how they are opened."""

    bundle: BundleOption = None
    camera: Camera = None
    source: SourceName = None
    size: Size = ""
    fps: Fps = None
    mjpg: Mjpg = None
    rotate: Rotate = Rotation.NONE
    loop: Loop = False
    realtime: Realtime = False
    wait: Wait = False
    frames: Frames = None
    skip_bad: SkipBad = False
    config: ConfigOption = None

    def named(self, inputs: list[str]) -> tuple[Path | None, list[str]]:
        """The bundle and the sources, from arguments and options. InputError if they conflict."""
        from edgefer.bundle import refuse_network
        from edgefer.devices.sources.cameras import is_camera, is_csi
        from edgefer.devices.sources.urls import shown_address

        bundle, sources = sort_inputs(inputs, self.bundle)
        for name in self.camera or []:
            if not is_camera(name):
                raise InputError(
                    f"--camera {shown_address(name)!r} is not a camera: name a number, a path such as /dev/video0, or csi; other "
                    "sources are named with --source."
                )
        sources += [*(self.camera or []), *(self.source or [])]
        for name in sources:
            refuse_network(name)
        if not sources:
            raise InputError(
                "Name what to read: `edgefer run photo.jpg`, --camera 0, or --source with a video, image, folder, URL or builtin."
            )
        if self.mjpg is not None and any(is_csi(name) for name in sources):
            raise InputError("--mjpg is for USB cameras: a CSI camera's frames are never compressed. Leave it out.")
        return bundle, sources

    def options(self) -> "SourceOptions":
        from edgefer.devices.reader import SourceOptions

        return SourceOptions(
            size=parse_size(self.size) if self.size else None,
            fps=self.fps,
            mjpg=self.mjpg,
            loop=self.loop,
            realtime=self.realtime,
            rotate=self.rotate,
            skip_bad=self.skip_bad,
            wait=self.wait,
        )


@dataclass(frozen=True, kw_only=True)
class FaceFlags(DetectorFlags):
    """Which faces are detected, how, and when a label is accepted."""

    min_face: MinFace = 0
    roi: Region = ""
    target_fps: TargetFps = None
    follow: Follow = 1
    smooth: Smooth = ReaderOptions.smooth
    reject: Reject = ReaderOptions.reject


@dataclass(frozen=True, kw_only=True)
class RuntimeFlags(NetworkFlags):
    """The runtime, and whether the network is checked first."""

    device: Device = DeviceName.CPU
    allow_cpu_fallback: AllowCpuFallback = False
    check: Check = True


def reader_options(faces: FaceFlags, runtime: RuntimeFlags) -> ReaderOptions:
    """The options have the names of ReaderOptions' fields."""
    region = parse_region(faces.roi) if faces.roi else None
    return ReaderOptions(**vars(faces) | vars(runtime) | {"roi": region})


def sort_inputs(inputs: list[str], bundle: Path | None) -> tuple[Path | None, list[str]]:
    """Which of the arguments is the bundle, and which are sources.

    A folder with a card.json, or with an unfinished training, is a bundle, and so is the name of a shipped one unless a
    file or folder has that name; anything else is a source, also a missing file with a video's or image's suffix.
    """
    from edgefer.bundle import CARD, is_begun, shipped_bundles
    from edgefer.devices.sources.cameras import BUILT_IN, GSTREAMER, VIDEOS, is_camera
    from edgefer.devices.sources.urls import shown_address
    from edgefer.files import mode_of
    from edgefer.images import SUFFIXES

    shipped = shipped_bundles()
    bundles, sources = ([] if bundle is None else [bundle]), []
    for name in inputs:
        path = Path(name)
        there = mode_of(path)
        made_here = mode_of(path / CARD) or is_begun(path)
        if made_here or (name in shipped and not there):
            bundles.append(path)
        elif there or is_camera(name) or "://" in name or name.startswith(GSTREAMER) or name == BUILT_IN:
            sources.append(name)
        elif path.suffix.lower() in {*VIDEOS, *SUFFIXES}:
            sources.append(name)  # the others are read if it is one of several
        else:
            raise InputError(
                f"There is no bundle, file or folder {shown_address(name)}: name a bundle or one of {', '.join(shipped)}; and a "
                "video, image, folder, address such as rtsp://host/path, camera's number or builtin."
            )
    if len(bundles) > 1:
        raise InputError(f"{' and '.join(printable(str(one)) for one in bundles)} are bundles: name one of them.")
    return (bundles[0] if bundles else None), sources
