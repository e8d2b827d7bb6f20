"""edgefer bench: every stage measured on this board."""

from typing import Annotated

import typer

from edgefer.commands.inputs import (
    AsJson,
    BundleArgument,
    DetectorFile,
    DetectorOption,
    FacesOption,
    RuntimeOption,
    bundle_path,
)
from edgefer.options import DetectorName, RuntimeName


def bench(
    bundle: BundleArgument = None,
    source: Annotated[
        str, typer.Option(metavar="FILE", help="Video, picture or folder; 'builtin' is drawn faces as a video.")
    ] = "builtin",
    minutes: Annotated[
        float, typer.Option(min=0.01, max=1440, help="How long; throttling shows after 10 or more.")
    ] = 0.5,
    faces_of: FacesOption = None,
    detector: DetectorOption = DetectorName.AUTO,
    detector_file: DetectorFile = None,
    threads: Annotated[int | None, typer.Option(min=1, help="For the network; by default this board's.")] = None,
    runtime: RuntimeOption = RuntimeName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Measure every stage on this board.

    Median, p95, p99, temperature and memory, as a table ready for an issue. Every frame is searched for faces, as `run` does
    with files.
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.devices.bench import run_bench, to_markdown
    from edgefer.devices.board.software import slow_int8
    from edgefer.devices.reader import Reader
    from edgefer.options import ReaderOptions

    options = ReaderOptions(
        faces=faces_of, detector=detector, detector_file=detector_file, threads=threads, runtime=runtime
    )
    reader = Reader.open(Bundle.open(bundle_path(bundle)), options, log=console.say)
    if reason := slow_int8(reader.classifier.network.runtime):
        console.say(f"{reader.classifier.network.runtime} is {reason}: pip install ai-edge-litert")
    console.say(f"Measuring for {minutes:g} minutes; leave the board alone meanwhile.")
    result = run_bench(reader, where=source, minutes=minutes)
    if as_json:
        console.show_json(result.to_json())
    else:
        console.show(to_markdown(result))
