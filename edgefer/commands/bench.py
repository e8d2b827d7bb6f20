"""edgefer bench: every stage measured on this board."""

from typing import Annotated

import typer

from edgefer.commands.inputs import (
    AsJson,
    BundleArgument,
    DetectorFile,
    DetectorOption,
    FacesOption,
    bundle_path,
    open_detector,
)


def bench(
    bundle: BundleArgument = None,
    source: Annotated[
        str, typer.Option(metavar="FILE", help="Video, picture or folder; 'builtin' is drawn faces as a video.")
    ] = "builtin",
    minutes: Annotated[float, typer.Option(min=0.01, max=1440, help="How long; heat shows after 10 or more.")] = 0.5,
    faces_of: FacesOption = "",
    detector: DetectorOption = "haar",
    detector_file: DetectorFile = None,
    threads: Annotated[int | None, typer.Option(min=1, help="For the network; by default this board's.")] = None,
    runtime: Annotated[str, typer.Option(help="auto, litert, tflite-runtime or tensorflow.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure every stage on this board.

    Median, p95, p99, heat and memory, as a table ready for an issue. Every frame is searched for faces, as `run` does
    with files.
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.devices.bench import run_bench, to_markdown
    from edgefer.devices.board.boards import this_board
    from edgefer.interpreter import Classifier

    board = this_board()
    threads = threads or board.threads
    opened = Bundle.open(bundle_path(bundle))
    classifier = Classifier.load(opened, runtime=runtime, threads=threads)
    faces = open_detector(detector, detector_file, width=board.detector_width, card=opened.card, faces=faces_of)
    console.say(f"Measuring for {minutes:g} minutes; leave the board alone meanwhile.")
    result = run_bench(classifier, faces, where=source, minutes=minutes, threads=threads)
    if as_json:
        console.show_json(result.to_json())
    else:
        console.show(to_markdown(result))
