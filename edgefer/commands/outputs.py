"""The output options of `edgefer run`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

PANEL = "Output"
Headless = Annotated[bool, typer.Option("--headless", help="Open no window.", rich_help_panel=PANEL)]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE|FOLDER",
        help="Annotated video (.mp4, .avi), image (.png, .jpg), or a folder for one image per frame.",
        rich_help_panel=PANEL,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="--save: replace a file of that name, unless it is a source.", rich_help_panel=PANEL
    ),
]
JsonLinesOption = Annotated[
    bool, typer.Option("--json", help="One JSON object per frame on stdout.", rich_help_panel=PANEL)
]
CsvOption = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        metavar="FILE",
        help="One row per face, appended to the file; see `edgefer report`.",
        rich_help_panel=PANEL,
    ),
]
On = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        metavar="LABEL=COMMAND",
        help="Run a command when this label appears, without a shell; EDGEFER_LABEL, EDGEFER_SCORE, EDGEFER_ID, EDGEFER_TIME_S "
        "and EDGEFER_SOURCE are in its environment. May be given several times.",
        rich_help_panel=PANEL,
    ),
]
SnapshotOn = Annotated[
    list[str] | None,
    typer.Option(
        "--snapshot-on",
        metavar="LABEL=FOLDER",
        help="Save the annotated image in this folder when this label appears. May be given several times.",
        rich_help_panel=PANEL,
    ),
]
OnHold = Annotated[
    float,
    typer.Option(
        "--on-hold",
        min=0,
        metavar="SECONDS",
        help="--on, --snapshot-on: once the label has lasted this long.",
        rich_help_panel=PANEL,
    ),
]
OnPause = Annotated[
    float,
    typer.Option(
        "--on-pause",
        min=0,
        metavar="SECONDS",
        help="--on, --snapshot-on: minimum time until the next one.",
        rich_help_panel=PANEL,
    ),
]
BlurFaces = Annotated[
    bool,
    typer.Option(
        "--blur-faces", help="Make faces unrecognizable in every image that is shown or kept.", rich_help_panel=PANEL
    ),
]
Serve = Annotated[
    str,
    typer.Option(
        "--serve",
        metavar="[HOST:]PORT",
        help="A web page with image, faces and settings; accessible only from this machine, unless HOST is given, and then "
        "only with the token.",
        rich_help_panel=PANEL,
    ),
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="EDGEFER_TOKEN",
        show_envvar=True,
        help="The token for --serve and --metrics; generated when left out.",
        rich_help_panel=PANEL,
    ),
]
MqttOption = Annotated[
    str,
    typer.Option(
        "--mqtt",
        metavar="URL",
        help="mqtt://HOST/PREFIX, or mqtts:// for TLS, with USER:PASSWORD@ before HOST and :PORT after it; for Home Assistant "
        "too. The password may be in EDGEFER_MQTT_PASSWORD.",
        rich_help_panel=PANEL,
    ),
]
MqttRate = Annotated[
    float,
    typer.Option(
        "--mqtt-rate", min=0.01, metavar="N", help="At most this many messages per second.", rich_help_panel=PANEL
    ),
]
MqttCa = Annotated[
    Path | None,
    typer.Option(
        "--mqtt-ca",
        metavar="FILE",
        help="mqtts://: the CA (PEM) of the broker's certificate.",
        rich_help_panel=PANEL,
    ),
]
MetricsOption = Annotated[
    str,
    typer.Option(
        "--metrics",
        metavar="[HOST:]PORT",
        help="Figures for Prometheus, at /metrics; with HOST only with the token (Authorization: Bearer).",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """Where results go; "" and None: nowhere."""

    headless: Headless = False
    save: Save = None
    overwrite: Overwrite = False
    json_lines: JsonLinesOption = False
    csv: CsvOption = None
    on: On = None
    snapshot_on: SnapshotOn = None
    on_hold: OnHold = 0.5
    on_pause: OnPause = 5.0
    blur_faces: BlurFaces = False
    serve: Serve = ""
    token: Token = field(default="", repr=False)
    mqtt: MqttOption = field(default="", repr=False)
    mqtt_rate: MqttRate = 5
    mqtt_ca: MqttCa = None
    metrics: MetricsOption = ""
