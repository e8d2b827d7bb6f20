"""edgefer bench: measures every stage on this board."""

from typing import Annotated

import typer

from edgefer.commands.grouped import grouped
from edgefer.commands.inputs import INPUT, RUNTIME, AsJson, BundleArgument, DetectorFlags, NetworkFlags, bundle_path


@grouped
def bench(
    bundle: BundleArgument = None,
    source: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Video, image or folder; 'builtin' is drawn faces as a video.", rich_help_panel=INPUT
        ),
    ] = "builtin",
    minutes: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1440,
            metavar="MINUTES",
            help="How long to measure; throttling shows after 10 or more.",
            rich_help_panel=RUNTIME,
        ),
    ] = 0.5,
    *,
    faces: DetectorFlags,
    network: NetworkFlags,
    as_json: AsJson = False,
) -> None:
    """Measure every stage on this board.

    Median, p95, p99, temperature and memory, as a table ready for an issue. Every frame is searched for faces, as in `run`
    with files.

    - `edgefer bench`
    - `edgefer bench fer-nano --minutes 10 --json`
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.devices.bench import run_bench, to_markdown
    from edgefer.devices.board.probes import LITERT, PIP
    from edgefer.devices.board.software import slow_int8
    from edgefer.devices.reader import Reader
    from edgefer.options import ReaderOptions

    options = ReaderOptions(**vars(faces), **vars(network))
    reader = Reader.open(Bundle.open(bundle_path(bundle, reads=True)), options, log=console.log)
    if reason := slow_int8(reader.classifier.network.runtime):
        console.log(f"{reader.classifier.network.runtime} is {reason}: {PIP} install '{LITERT}'")
    console.log(f"Measuring for {minutes:g} minutes; do not use the board meanwhile.")
    result = run_bench(reader, where=source, minutes=minutes)
    if as_json:
        console.show_json(result.to_json())
    else:
        console.show(to_markdown(result))
