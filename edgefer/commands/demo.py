"""`edgefer demo`: every stage once, on built-in data, with the commands a user would type."""

import contextlib
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from edgefer.commands.inputs import OUTPUT
from edgefer.errors import EdgeferError, InputError


def demo(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where everything goes; by default runs/demo-N.", rich_help_panel=OUTPUT),
    ] = None,
) -> None:
    """Run the whole workflow once on built-in drawn faces.

    Train, prune, quantize, prove, run: about two minutes, no data needed.

    - `edgefer demo`
    """
    from edgefer import console
    from edgefer.bundle import new_directory

    out = out or new_directory(Path("runs"), "demo")
    if out.exists():
        raise InputError(f"{out} already exists: choose another --out.")
    began = time.monotonic()
    files = _stages(out)
    right, faces = _score(files["what was seen, frame by frame"])
    console.show(
        f"\nIn the video {right} of {faces} faces were found and read as drawn. Done in {time.monotonic() - began:.0f} s."
    )
    for title, file in files.items():
        console.show(f"  {title:30} {file}")
    console.show("Drawn faces only show that the machinery works: for real faces, train on FER2013 (see README).")
    console.show(f"Open the certificate in a browser: {files['parity certificate'].resolve().as_uri()}")


def _stages(out: Path) -> dict[str, Path]:
    """Run every stage once; returns the files by description."""
    from edgefer.commands.convert import convert
    from edgefer.commands.run import run
    from edgefer.commands.train import train
    from edgefer.commands.verify import verify
    from edgefer.options import Smoothing

    trained, converted = out / "trained", out / "converted"
    video, lines, certificate = out / "faces.mp4", out / "faces.jsonl", out / "certificate" / "parity.html"

    _step(1, "Train on drawn faces", f"edgefer train --data builtin --recipe demo --out {trained}")
    train(data="builtin", recipe="demo", out=trained)
    _step(
        2,
        "Prune half the weights, convert, quantize to int8",
        f"edgefer convert {trained} --int8 --prune 0.5 --out {converted}",
    )
    convert(trained, prune=0.5, out=converted)
    _step(
        3,
        "Prove that it is still the same network",
        f"edgefer verify {converted} --data builtin --report {certificate.parent}",
    )
    verify(converted, data="builtin", report=certificate.parent)
    _step(
        4,
        "Read the faces of a video",
        f"edgefer run {converted} --source builtin --headless --save {video} --json --smooth off > {lines}",
    )
    with lines.open("w") as file, contextlib.redirect_stdout(file):
        # Each frame by itself.
        run(bundle=converted, source=["builtin"], headless=True, save=video, json_lines=True, smooth=Smoothing.OFF)

    return {
        "annotated video": video,
        "what was seen, frame by frame": lines,
        "training curves": trained / "report" / "history.png",
        "confusion matrix": trained / "report" / "confusion-valid.png",
        "bundle for the device": converted,
        "parity certificate": certificate,
    }


def _step(number: int, title: str, command: str) -> None:
    from edgefer import console

    console.show(f"\n[{number}/4] {title}\n      $ {command}")


def _score(lines: Path) -> tuple[int, int]:
    """How many drawn faces of the built-in scene were detected and classified correctly, and of how many."""
    from edgefer import drawn

    right = faces = 0
    seen, scene = lines.read_text().splitlines(), drawn.scene_truths()
    if len(seen) < len(scene):
        raise EdgeferError(f"Stopped while reading the video; results so far are in {lines.parent}.")
    for line, truths in zip(seen, scene, strict=True):
        found = json.loads(line)["faces"]
        for truth in truths:
            x = (truth.box_xyxy[0] + truth.box_xyxy[2]) / 2
            y = (truth.box_xyxy[1] + truth.box_xyxy[3]) / 2
            faces += 1
            right += any(
                face["label"] == truth.label
                and face["box_xyxy"][0] < x < face["box_xyxy"][2]
                and face["box_xyxy"][1] < y < face["box_xyxy"][3]
                for face in found
            )
    return right, faces
