"""The commands about the board: doctor, cameras, devices, bench."""

from typing import Annotated

import typer

from edgefer.commands.inputs import (
    BundleArgument,
    DetectorFile,
    DetectorOption,
    FacesOption,
    bundle_path,
    open_detector,
)
from edgefer.errors import InputError

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def doctor(as_json: AsJson = False) -> None:
    """Check this computer for what is known to go wrong.

    Offline. Exit code 1 when something must be mended, each with the line that mends it.
    """
    from dataclasses import asdict

    from edgefer import console
    from edgefer.devices.doctor import examine

    checks = examine()
    count = {status: sum(check.status == status for check in checks) for status in ("pass", "warn", "fail")}
    if as_json:
        _print_json({"checks": [asdict(check) for check in checks], **count})
    else:
        console.show_table(
            "",
            ("check", "", "found"),
            [
                (check.name, check.status.upper() if check.status == "fail" else check.status, check.found)
                for check in checks
            ],
        )
        # Below the table, each on a line of its own: a line folded in a cell cannot be copied.
        for check in checks:
            if check.fix:
                console.show(f"{check.name}: {check.fix}")
        console.show(f"{count['pass']} passed, {count['warn']} warned, {count['fail']} failed.")
    if count["fail"]:
        raise typer.Exit(1)


def cameras(as_json: AsJson = False) -> None:
    """List the cameras that are here and try each. No picture is kept."""
    from dataclasses import asdict

    from edgefer import console
    from edgefer.devices.cameras import open_camera
    from edgefer.devices.discovery import find_cameras, try_camera

    found = [(camera, try_camera(open_camera(camera.camera))) for camera in find_cameras()]
    if as_json:
        _print_json({"cameras": [asdict(camera) | asdict(trial) for camera, trial in found]})
    elif not found:
        console.show("There is no camera here that can be read. Plug one in; for what is amiss: edgefer doctor.")
        console.show("Without one: edgefer run --source builtin")
    else:
        console.show_table(
            "",
            ("--camera", "name", "through", "picture", "frames/s"),
            [
                (
                    c.camera,
                    c.name,
                    c.reached_by,
                    t.problem or f"{t.width}x{t.height}",
                    "" if t.problem else f"{t.fps:.1f}",
                )
                for c, t in found
            ],
        )


def devices(
    name: Annotated[str, typer.Argument(metavar="[BOARD]", help="One board, with its install lines.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the boards edgefer is for, or show one.

    Settings, install lines, what will not work.
    """
    from dataclasses import asdict

    from edgefer import console
    from edgefer.devices.boards import BOARDS, board_model, this_board

    here = this_board()
    if name and name not in BOARDS:
        raise InputError(f"There is no board {name!r}: choose {', '.join(BOARDS)}.")
    if as_json:
        wanted = [BOARDS[name]] if name else list(BOARDS.values())
        _print_json({"boards": [asdict(board) | {"this_board": board is here} for board in wanted]})
    elif not name:
        console.show_table(
            "",
            ("", "name", "threads", "detector width", "frames/s", ""),
            [
                (b.key, b.name, b.threads, b.detector_width, b.target_fps, "this board" if b is here else "")
                for b in BOARDS.values()
            ],
        )
        console.show("Where to start, not measurements: those are edgefer bench. Install lines: edgefer devices BOARD")
    else:
        board = BOARDS[name]
        mark = f" (this board: {board_model() or 'no model is told'})" if board is here else ""
        console.show(f"{board.name}{mark}\n")
        console.show(
            f"Network threads {board.threads}, detector width {board.detector_width} px, aim {board.target_fps} frames/s"
        )
        console.show("\nInstall:")
        for line in board.install:
            console.show(f"  {line}")
        console.show("\nWhat will not work:")
        for line in board.limits:
            console.show(f"  - {line}")


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
    from edgefer.devices.boards import this_board
    from edgefer.interpreter import Classifier

    board = this_board()
    threads = threads or board.threads
    opened = Bundle.open(bundle_path(bundle))
    classifier = Classifier.load(opened, runtime=runtime, threads=threads)
    faces = open_detector(detector, detector_file, width=board.detector_width, card=opened.card, faces=faces_of)
    console.say(f"Measuring for {minutes:g} minutes; leave the board alone meanwhile.")
    result = run_bench(classifier, faces, where=source, minutes=minutes, threads=threads)
    if as_json:
        _print_json(result.to_json())
    else:
        console.show(to_markdown(result))


def _print_json(value: object) -> None:
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))
