"""What several commands take: a bundle, and the data it was trained on."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.errors import InputError

if TYPE_CHECKING:
    from edgefer.bundle import Bundle
    from edgefer.card import ModelCard
    from edgefer.devices.faces.detectors import Detector
    from edgefer.train.data.dataset import Dataset

BundleArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[BUNDLE]",
        help="Bundle directory or shipped name; the newest under runs/, else ferplus-small, when left out.",
    ),
]
DEFAULT_MODEL = "ferplus-small"
DETECTORS = ("haar", "yunet")
FACES = ("human", "cat", "frame")
FacesOption = Annotated[
    str,
    typer.Option(
        "--faces",
        metavar="human|cat|frame",
        help="What to read: people's faces, cats', or the middle of the frame. The bundle's own when left out.",
    ),
]
DetectorOption = Annotated[
    str, typer.Option("--detector", metavar="haar|yunet", help="yunet is the better one; fetched on first use.")
]
DetectorFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YuNet's .onnx, instead of fetching it (offline boards).")
]
GroupBy = Annotated[
    str,
    typer.Option(
        metavar="REGEX",
        help="What it captures of a picture's path names its group, and groups never cross a split; (?P<copy>…) marks "
        "copies, which are only trained on.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows and pictures out, and list them.")]


def bundle_path(bundle: Path | None, *, or_shipped: bool = True) -> Path:
    """The bundle that was named, by path or by the name of a shipped one; else the newest under runs/; else the default
    of the shipped ones."""
    from edgefer.bundle import newest_bundle, shipped_bundles

    if bundle is not None:
        return bundle if bundle.exists() else shipped_bundles().get(str(bundle), bundle)
    if newest := newest_bundle():
        return newest
    if or_shipped and DEFAULT_MODEL in shipped_bundles():
        return shipped_bundles()[DEFAULT_MODEL]
    raise InputError("There is no bundle under runs/: name one, or train one with `edgefer train --data PATH`.")


def training_data(bundle, data: str, skip_bad: bool):
    """The data a bundle was trained on, loaded: as named, or as its training run remembers."""
    from edgefer import console
    from edgefer.train.data.dataset import BUILT_IN, cache_folder, load_dataset
    from edgefer.train.pipeline import Order

    if not data:
        if not (bundle.path / "training" / "order.json").is_file():
            raise InputError(f"{bundle.path} does not remember its training data: name it with --data PATH.")
        order = Order.load(bundle.path)
        data, skip_bad = order.data, order.skip_bad
    card = bundle.card
    folder = Path(data).is_dir()
    dataset = load_dataset(
        data,
        card.input,
        # Votes are FER2013's, and groups are of its own paths: other data is taken without.
        labels="" if folder or data == BUILT_IN else card.provenance.labels,
        skip_bad=skip_bad,
        # As in training, or pictures that were trained on would come back as validation pictures.
        valid_fraction=card.provenance.valid_fraction,
        seed=card.provenance.seed,
        group_by=_grouping(card, Path(data)) if folder and card.provenance.group_by else "",
        pooled=card.provenance.folds > 0,
        track=console.track,
        cache=cache_folder(),
    )
    list_skipped(dataset.skipped)
    if dataset.name == card.provenance.data and card.provenance.held_pictures not in ("", dataset.held_pictures):
        console.say(
            f"{data} has changed since {card.name} was trained on it, and other pictures are held back now: it may have "
            "learnt from some of them and look better than it is. Train again, or name data it never saw."
        )
    return dataset


def _grouping(card: "ModelCard", folder: Path) -> str:
    """The rule by which the training pictures belonged together, unless these are others: it matches none of them."""
    from edgefer.train.data.folders import listing

    rule = card.provenance.group_by
    return rule if any(re.search(rule, str(file.relative_to(folder))) for _, _, file in listing(folder)[1]) else ""


def report_folder(bundle: "Bundle") -> Path:
    """Where a report on a bundle goes: into it, or for one that came with edgefer to report/<name> here."""
    return Path("report") / bundle.path.name if _is_shipped(bundle) else bundle.path / "report"


def made_from(bundle: "Bundle", suffix: str) -> Path:
    """Where what is made of a bundle goes: beside it, or for one that came with edgefer under runs/ here."""
    parent = Path("runs") if _is_shipped(bundle) else bundle.path.parent
    return parent / f"{bundle.path.name}-{suffix}"


def _is_shipped(bundle: "Bundle") -> bool:
    from edgefer.bundle import shipped_bundles

    return bundle.path in shipped_bundles().values()


def usual_split(card: "ModelCard", dataset: "Dataset") -> str:
    """The split to look at when none is named: "valid", or "train" where the network was trained on all pictures."""
    from edgefer import console

    if "valid" in dataset.splits or not card.provenance.folds:
        return "valid"
    console.say(
        f"{card.name} was trained on these pictures, or most of them: here it shows what conversion changed, not how good it is. "
        f"For that see {card.measured_on} in its card."
    )
    return "train"


def list_skipped(skipped: tuple[str, ...]) -> None:
    """Say which rows or pictures were left out, the first twenty by name."""
    from edgefer import console

    if skipped:
        console.say(f"Left out {len(skipped)} bad rows or pictures:")
        for line in skipped[:20]:
            console.say(f"  {line}")
        if len(skipped) > 20:
            console.say(f"  and {len(skipped) - 20} more")


def open_detector(name: str, file: Path | None, *, width: int, card: "ModelCard", faces: str = "") -> "Detector":
    """What finds the faces that a network reads, its card's kind unless `faces` names another: for human ones Haar, or
    YuNet from `file` or fetched once. Says so when the card has no crop for it."""
    return detector_maker(name, file, width=width, card=card, faces=faces)()


def detector_maker(
    name: str, file: Path | None, *, width: int, card: "ModelCard", faces: str = ""
) -> "Callable[[], Detector]":
    """Makes what `open_detector` opens, as often as it is needed; what there is to fetch or say is done here, once."""
    from functools import partial

    from edgefer import console
    from edgefer.devices.faces.detectors import FrameDetector, HaarDetector
    from edgefer.devices.faces.yunet import YuNetDetector, cached_yunet, fetch_yunet

    faces = faces or card.faces
    if name not in DETECTORS:
        raise InputError(f"There is no detector {name!r}: choose {' or '.join(DETECTORS)}.")
    if faces not in FACES:
        raise InputError(f"There are no faces {faces!r}: choose {', '.join(FACES)}.")
    if faces != "human" and name == YuNetDetector.name:
        raise InputError(f"--detector yunet finds human faces, but {card.name} is to read {faces}: leave it out.")
    if file and name != YuNetDetector.name:
        raise InputError("--detector-file is for --detector yunet: Haar's comes with OpenCV.")
    if faces == "frame":
        return FrameDetector
    key = name if faces == "human" else f"{name}-{faces}"
    if not card.crop_for(key).faces:
        console.say(
            f"{card.name} was not measured for {key}: its boxes are taken as they are, which may cost accuracy. "
            f"Train with {'--yunet FILE' if name == YuNetDetector.name else 'this edgefer'} to measure it."
        )
    if name == HaarDetector.name:
        return partial(HaarDetector, faces=faces, width=width)
    return partial(YuNetDetector, file or fetch_yunet(cached_yunet(), track=console.track))


def check_share(option: str, share: float) -> None:
    if not 0 <= share <= 0.95:
        raise InputError(f"{option} {share:g}: the share to remove must lie between 0 and 0.95.")
