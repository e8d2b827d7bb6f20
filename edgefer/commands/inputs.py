"""Inputs of several commands: a bundle, and the data it was trained on."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.errors import InputError
from edgefer.options import DEFAULT_MODEL, MAX_THREADS, DetectorName, FaceKind, RuntimeName

if TYPE_CHECKING:
    from edgefer.bundle import Bundle
    from edgefer.card import ModelCard
    from edgefer.train.data.dataset import Dataset

INPUT, FACES, OUTPUT, RUNTIME = "Input", "Faces", "Output", "Runtime"

BundleArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="BUNDLE",
        help="A bundle's folder or shipped name; the newest under runs/, else ferplus-small, when left out.",
    ),
]
TrainedBundle = Annotated[
    Path | None,
    typer.Argument(
        metavar="BUNDLE",
        help="A trained bundle's folder; the newest under runs/ that is not converted yet, when left out.",
    ),
]

FacesOption = Annotated[
    FaceKind | None,
    typer.Option(
        "--faces", help="What to read: human faces, cats' faces, or the centre of the frame. The bundle's own when left out.",
        rich_help_panel=FACES,
    ),
]  # fmt: skip
DetectorOption = Annotated[
    DetectorName,
    typer.Option(
        "--detector",
        help="auto: YuNet if its file was downloaded, else edgefer's own, which needs no download. yunet is downloaded on first use; haar is the oldest.",
        rich_help_panel=FACES,
    ),
]
YunetOption = Annotated[
    Path | None,
    typer.Option(
        "--yunet", metavar="FILE", help="YuNet's .onnx, instead of downloading it (offline boards).",
        rich_help_panel=FACES,
    ),
]  # fmt: skip
FinderOption = Annotated[
    Path | None,
    typer.Option(
        "--finder", metavar="BUNDLE", help="Your own converted finder, for --detector own; by default the shipped one.",
        rich_help_panel=FACES,
    ),
]  # fmt: skip
RefinerOption = Annotated[
    Path | None,
    typer.Option(
        "--refiner", metavar="BUNDLE", help="Your own converted refiner, likewise; it refines YuNet's faces too.",
        rich_help_panel=FACES,
    ),
]  # fmt: skip
RuntimeOption = Annotated[
    RuntimeName,
    typer.Option("--runtime", help="What runs the network; auto is the first installed one.", rich_help_panel=RUNTIME),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=MAX_THREADS,
        metavar="N",
        help="Threads for the network; by default this board's.",
        rich_help_panel=RUNTIME,
    ),
]


@dataclass(frozen=True, kw_only=True)
class PairFlags:
    """The two networks of edgefer's own detector."""

    finder: FinderOption = None
    refiner: RefinerOption = None


@dataclass(frozen=True, kw_only=True)
class DetectorFlags(PairFlags):
    """Which faces are detected, and by which detector."""

    faces: FacesOption = None
    detector: DetectorOption = DetectorName.AUTO
    yunet: YunetOption = None


@dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """The runtime of the network."""

    runtime: RuntimeOption = RuntimeName.AUTO
    threads: ThreadsOption = None


GroupBy = Annotated[
    str,
    typer.Option(
        metavar="REGEX",
        help="A regular expression whose captures in an image's path name its group; groups never cross a split. "
        "`(?P<copy>…)` marks copies, which are only used for training.",
        rich_help_panel=INPUT,
    ),
]
Names = Annotated[
    str,
    typer.Option(
        "--names",
        metavar="0=NAME,1=NAME,...",
        help="Names for numeric labels or class folders, or other names for them.",
        rich_help_panel=INPUT,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=OUTPUT)]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Skip bad rows and images, and list them.", rich_help_panel=INPUT)
]


def bundle_path(bundle: Path | None, *, reads: bool = False) -> Path:
    """The named bundle, by path or by the name of a shipped one; else the newest under runs/; else the default shipped
    one. reads: skip face-detection networks under runs/."""
    from edgefer.bundle import path_or_shipped, shipped_bundles, shipped_networks

    if bundle is not None:
        return path_or_shipped(bundle, shipped_networks())
    return newest_made(reads=reads) or shipped_bundles()[DEFAULT_MODEL]


def newest_made(*, reads: bool = False, trained: bool = False) -> Path | None:
    """The newest bundle under runs/, if there is one (see newest_bundle), after a line that says so."""
    from edgefer import console
    from edgefer.bundle import newest_bundle

    if newest := newest_bundle(reads=reads, trained=trained):
        console.log(f"Using {newest}, the newest under runs/{' that is not converted yet' * trained}.")
    return newest


def trained_bundle_path(bundle: Path | None) -> Path:
    """The same, but by default the newest under runs/ that was trained or imported and is not converted yet."""
    from edgefer.bundle import with_keras

    if bundle is not None:
        return bundle_path(bundle)
    if newest := newest_made(trained=True):
        return newest
    raise InputError(
        f"There is no trained bundle under runs/: name one ({', '.join(with_keras())} ship), or train one with `edgefer train --data PATH`."
    )


def training_data(bundle: "Bundle", data: str, skip_bad: bool, names: str = "") -> "Dataset":
    """The data a bundle was trained on, named or recorded by its training, with the network's labels; logs what is skipped."""
    from edgefer.console import PROGRESS
    from edgefer.train.data.cache import cache_folder
    from edgefer.train.data.trained import training_data

    return training_data(bundle, data, skip_bad, names=names, progress=PROGRESS, cache=cache_folder())


def data_words(data: str, names: str, skip_bad: bool) -> str:
    """The data of a command to try next, as on the command line, with the options by which it is read."""
    return f"{shlex.quote(data)}{f' --names {shlex.quote(names)}' if names else ''}{' --skip-bad' if skip_bad else ''}"


def report_folder(bundle: "Bundle") -> Path:
    """The folder of a report on a bundle: inside it, or for a shipped one report/<name> in the current folder. InputError
    if an untrusted bundle has a link there."""
    from edgefer.bundle import is_shipped

    if is_shipped(bundle):
        return Path("report") / bundle.path.name
    folder = bundle.path / "report"
    if folder.is_symlink():
        raise InputError(f"{folder} is a link, and nothing is written through it: remove it first.")
    return folder


def usual_split(card: "ModelCard", dataset: "Dataset") -> str:
    """The default split; logs an explanation if it is not "valid"."""
    from edgefer.console import PROGRESS
    from edgefer.train.data.trained import usual_split

    return usual_split(card, dataset, PROGRESS)
