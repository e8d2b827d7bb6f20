"""What several commands take: a bundle, and the data it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.errors import InputError
from edgefer.options import MAX_THREADS, DetectorName, FaceKind, RuntimeName

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
DEFAULT_MODEL = "ferplus-small"
FacesOption = Annotated[
    FaceKind | None,
    typer.Option(
        "--faces", help="What to read: people's faces, cats', or the middle of the frame. The bundle's own when left out.",
        rich_help_panel=FACES,
    ),
]  # fmt: skip
DetectorOption = Annotated[
    DetectorName,
    typer.Option(
        "--detector",
        help="auto: YuNet where its file was fetched, else edgefer's own, which needs no download. yunet is fetched on first use; haar is the oldest.",
        rich_help_panel=FACES,
    ),
]
DetectorFile = Annotated[
    Path | None,
    typer.Option(
        "--detector-file", metavar="FILE", help="YuNet's .onnx, instead of fetching it (offline boards).",
        rich_help_panel=FACES,
    ),
]  # fmt: skip
FinderOption = Annotated[
    Path | None,
    typer.Option(
        "--finder", metavar="BUNDLE", help="Your own converted finder, for --detector own; by default the one that ships.",
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
    typer.Option(
        "--runtime", help="What runs the network; auto is the first that is installed.", rich_help_panel=RUNTIME
    ),
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
    """Which faces are looked for, and by what."""

    faces_of: FacesOption = None
    detector: DetectorOption = DetectorName.AUTO
    detector_file: DetectorFile = None


@dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """What runs the network."""

    runtime: RuntimeOption = RuntimeName.AUTO
    threads: ThreadsOption = None


GroupBy = Annotated[
    str,
    typer.Option(
        metavar="REGEX",
        help="What it captures in an image's path names the image's group; groups never cross a split. `(?P<copy>…)` marks "
        "copies, which are only trained on.",
        rich_help_panel=INPUT,
    ),
]
Names = Annotated[
    str,
    typer.Option(
        "--names",
        metavar="0=NAME,1=NAME,...",
        help="Names for labels or class folders that are numbers, or other names for them.",
        rich_help_panel=INPUT,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=OUTPUT)]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Skip bad rows and images, and list them.", rich_help_panel=INPUT)
]


def bundle_path(bundle: Path | None, *, reads: bool = False) -> Path:
    """The bundle that was named, by path or by the name of a shipped one; else the newest under runs/; else the default
    of the shipped ones. reads: of those under runs/ only one that reads faces, and does not find them."""
    from edgefer.bundle import newest_bundle, path_or_shipped, shipped_bundles, shipped_networks

    if bundle is not None:
        return path_or_shipped(bundle, shipped_networks())
    return newest_bundle(reads=reads) or shipped_bundles()[DEFAULT_MODEL]


def trained_bundle_path(bundle: Path | None) -> Path:
    """The same, and where none is named the newest under runs/ that was trained or imported and is not converted yet."""
    from edgefer.bundle import newest_bundle, with_keras

    if bundle is not None:
        return bundle_path(bundle)
    if newest := newest_bundle(trained=True):
        return newest
    raise InputError(
        f"There is no trained bundle under runs/: name one ({', '.join(with_keras())} ship), or train one with `edgefer train --data PATH`."
    )


def training_data(bundle: "Bundle", data: str, skip_bad: bool) -> "Dataset":
    """The data a bundle was trained on, as named or as its training remembers; what is left out of it is shown."""
    from edgefer.console import PROGRESS
    from edgefer.train.data.cache import cache_folder
    from edgefer.train.data.trained import training_data

    return training_data(bundle, data, skip_bad, progress=PROGRESS, cache=cache_folder())


def report_folder(bundle: "Bundle") -> Path:
    """Where a report on a bundle goes: into it, or for one that came with edgefer to report/<name> here. InputError where a
    stranger's bundle leads it elsewhere by a link."""
    from edgefer.bundle import is_shipped

    if is_shipped(bundle):
        return Path("report") / bundle.path.name
    folder = bundle.path / "report"
    if folder.is_symlink():
        raise InputError(f"{folder} is a link, and nothing is written through it: remove it first.")
    return folder


def usual_split(card: "ModelCard", dataset: "Dataset") -> str:
    """The split to look at when none is named; what that means is shown where it is not "valid"."""
    from edgefer.console import PROGRESS
    from edgefer.train.data.trained import usual_split

    return usual_split(card, dataset, PROGRESS)
