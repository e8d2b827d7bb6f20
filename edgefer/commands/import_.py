"""edgefer import: makes a bundle from a network trained elsewhere."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.grouped import grouped
from edgefer.commands.inputs import INPUT, OUTPUT, AsJson, Names, PairFlags, SkipBad, data_words
from edgefer.errors import InputError
from edgefer.files import is_regular
from edgefer.options import Color, DetectorFiles, FaceKind, Outputs

if TYPE_CHECKING:
    from edgefer.convert.contract import Contract
    from edgefer.convert.importing import Imported

CONTRACT, CARD = "What the network takes and gives", "For the card"


File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A .keras or .h5 file, a SavedModel folder, or a .tflite file.")
]
Labels = Annotated[
    str,
    typer.Option(
        metavar="A,B,...|FILE",
        help="Labels in the order of its outputs, or a labels.txt; by default those in FILE, or in the labels.txt beside it.",
        rich_help_panel=CONTRACT,
    ),
]
Scale = Annotated[
    str,
    typer.Option(
        metavar="NAME|SCALE,OFFSET",
        help="How it expects pixels: 0..1, 0..255, -1..1, imagenet, caffe, or the numbers of pixel * SCALE + OFFSET: two, or six for three channels.",
        rich_help_panel=CONTRACT,
    ),
]
ColorOption = Annotated[Color | None, typer.Option(help="The order of its channels.", rich_help_panel=CONTRACT)]
OutputsOption = Annotated[
    Outputs | None,
    typer.Option(help="The kind of its output, if the file does not say.", rich_help_panel=CONTRACT),
]
FacesOf = Annotated[
    FaceKind,
    typer.Option("--faces", help="What it reads: human faces, cats' faces, or whole images.", rich_help_panel=CARD),
]
Name = Annotated[
    str, typer.Option(metavar="NAME", help="The bundle's name; by default the file's.", rich_help_panel=CARD)
]
Author = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Author of the network; by default the one named in a .tflite.", rich_help_panel=CARD
    ),
]
License = Annotated[str, typer.Option("--license", metavar="NAME", help="Its licence; likewise.", rich_help_panel=CARD)]
Data = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="Labelled images for measuring what is not stated: every way to prepare the input is tried, and the one that fits is used.",
        rich_help_panel=INPUT,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Keras files with code in them (Lambda layers): let Keras run that code with your permissions, files and network access. "
        "Only for files from people you trust. The bundle is a plain float32 .tflite without that code.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The new bundle; by default runs/FILE.", rich_help_panel=OUTPUT)
]


@dataclass(frozen=True, kw_only=True)
class ContractFlags:
    """The network's input and output; what is left out is read from the file, or measured."""

    labels: Labels = ""
    scale: Scale = ""
    color: ColorOption = None
    outputs: OutputsOption = None


@dataclass(frozen=True, kw_only=True)
class CardFlags:
    """Other fields of the card."""

    faces: FacesOf = FaceKind.HUMAN
    name: Name = ""
    author: Author = ""
    license_: License = ""


@grouped
def import_(
    file: File,
    *,
    contract: ContractFlags,
    card: CardFlags,
    pair: PairFlags,
    data: Data = "",
    names: Names = "",
    skip_bad: SkipBad = False,
    trust: Trust = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Import a network trained elsewhere, so that every command works on it.

    The file is not trusted: no code in it is run without --trust. How its input is prepared is stated, read from the
    file or measured, never guessed, and the bundle must give the same answers as the file.

    - `edgefer import my.h5 --labels angry,happy,sad --data faces/`
    - `edgefer import model.tflite --labels labels.txt --scale -1..1 --color rgb`
    """
    from edgefer import checks, console
    from edgefer.api import face_detectors
    from edgefer.commands.bundle_json import bundle_json
    from edgefer.commands.check_report import show
    from edgefer.convert.import_options import ImportOptions, data_loader, target_folder
    from edgefer.convert.importing import import_network
    from edgefer.train.data.load import DataOptions

    files = DetectorFiles(**vars(pair))
    options = ImportOptions(
        labels=_labels(contract.labels), scale=contract.scale or None, color=contract.color,
        outputs=contract.outputs, faces=card.faces, trust=trust, name=card.name, author=card.author,
        license=card.license_,
    )  # fmt: skip
    request = options.request(
        file,
        load=data_loader(data, DataOptions(names=names, skip_bad=skip_bad), console.PROGRESS) if data else None,
        detectors=face_detectors(str(card.faces), files) if data else {},
        progress=console.PROGRESS,
    )
    target = target_folder(request, out)
    imported = import_network(request, target)
    if as_json:
        console.show_json(checks.to_json(imported.checks, **bundle_json(imported.bundle), contract=imported.settled()))
        return
    _show(imported)
    show(f"Import of {file}", imported.checks)
    if unsupported := _unsupported(imported):
        console.show(f"Not supported by `edgefer export c` and `export web`: {unsupported}.")
    console.show(f"Bundle: {target}. Next: {_next(imported, data_words(data, names, skip_bad) if data else 'PATH')}")


def _labels(text: str) -> tuple[str, ...] | None:
    """The named labels, or those of the named file."""
    from edgefer.convert.label_files import read_labels

    if is_regular(Path(text)):
        return read_labels(Path(text))
    if text.lower().endswith(".txt"):
        raise InputError(
            f"There is no labels file {text!r}: name one, or the labels themselves as --labels angry,happy,..."
        )
    return tuple(label.strip() for label in text.split(",")) if text else None


def _show(imported: "Imported") -> None:
    from edgefer import console

    for reason in imported.because:
        console.show(f"From the file: {reason}.")
    if imported.measured:
        console.show_table(
            f"Ways to feed it, on {len(imported.measured[0].right):,} images",
            ("scale", "color", "labels", "accuracy", ""),
            [
                (
                    one.contract.scale,
                    str(one.contract.color),
                    one.contract.order,
                    f"{one.accuracy:.1%}",
                    "taken" if one.contract == imported.contract else "",
                )
                for one in imported.measured[:12]
            ],
        )
    console.show(f"It takes {_words(imported.contract)}; labels: {', '.join(imported.contract.labels)}.")
    for detector, crop in imported.bundle.card.crops.items():
        if crop.faces:
            console.show(
                f"Boxes of {detector} are cropped {crop.scale:g} times as large, as measured on {crop.faces} of these images."
            )


def _unsupported(imported: "Imported") -> str:
    """Its operators that the portable C code lacks, each with its count and what to do about it."""
    from edgefer.tflite.flatbuffer import read_model
    from edgefer.tflite.layers import hint
    from edgefer.tflite.portable import unsupported

    form = imported.bundle.best_tflite()
    found = unsupported(read_model(imported.bundle.read(form), form))
    return ", ".join(f"{len(group)} {name} ({hint(name)})" for name, group in found.items())


def _words(contract: "Contract") -> str:
    from edgefer.convert.contract import describe

    return f"{contract.color} {describe((contract.scale, contract.values))} and gives {contract.output.values}"


def _next(imported: "Imported", data: str) -> str:
    from edgefer.convert.start import is_convertible

    path = shlex.quote(str(imported.bundle.path))
    if is_convertible(imported.bundle):
        return f"edgefer convert {path} --int8 --data {data}; edgefer run {path} --camera 0"
    return f"edgefer verify {path}; edgefer run {path} --camera 0"
