"""The data that a bundle was trained on, split again as in training."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefer.bundle import Bundle
from edgefer.card import ModelCard
from edgefer.errors import DataError, InputError
from edgefer.progress import SILENT, Progress
from edgefer.text import counted
from edgefer.train.config import TrainConfig
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.folders import list_images, name_in
from edgefer.train.data.groups import group_images
from edgefer.train.data.load import BUILT_IN, DataOptions, load_dataset
from edgefer.train.run import RunFolder

SHOWN = 20


def training_data(
    bundle: Bundle,
    data: str,
    skip_bad: bool,
    *,
    names: str = "",
    progress: Progress = SILENT,
    cache: Path | None = None,
) -> Dataset:
    """`data`, or the data that the bundle's training folder names where that is "", with the labels of the bundle's network.
    names: of its labels or folders, instead of those of the training. InputError where no data is named, DataError where
    it has classes that the network does not know.

    Logs what is skipped, and warns where other images are held out than in training.
    """
    card = bundle.card
    if card.task != "read":
        raise InputError(
            f"{bundle.path} finds faces, and images labelled by class say nothing of that: `edgefer verify {bundle.path}` proves it "
            "without data."
        )
    if not data:
        known = remembered(bundle)
        if known is None:
            raise InputError(
                f"{bundle.path} does not say where the images lie that it was trained on ({card.provenance.data}): name them, or "
                "labelled ones like them, with --data PATH."
            )
        data, skip_bad = known.data, known.skip_bad
    dataset = load_dataset(data, card.input, _options(card, data, skip_bad, names), progress=progress, cache=cache)
    log_skipped(dataset.skipped, progress)
    if has_other_holdout(card, dataset):
        progress.log(
            f"{data} has changed since {card.name} was trained on it, and other images are held out now: it may have been "
            "trained on some of them, and look better than it is. Train again, or name data that it was not trained on."
        )
    return dataset.with_labels(card.labels)


def remembered(bundle: Bundle) -> TrainConfig | None:
    """The configuration of the bundle's own training, with its data; None if the bundle's folder has none."""
    run = RunFolder(bundle.path)
    return TrainConfig.load(run) if run.config.is_file() or run.spare_config.is_file() else None


def has_other_holdout(card: ModelCard, dataset: Dataset) -> bool:
    """Whether a network was trained on this data with other images held out, so that it may have seen some of these."""
    return dataset.name == card.provenance.data and card.provenance.held_images not in ("", dataset.holdout_hash)


def _options(card: ModelCard, data: str, skip_bad: bool, names: str) -> DataOptions:
    """As in training: with another split, training images would be evaluated on."""
    options = DataOptions(
        names=names or ("" if data == BUILT_IN else card.provenance.names),
        skip_bad=skip_bad,
        valid_fraction=card.provenance.valid_fraction,
        seed=card.provenance.seed,
        pooled=card.provenance.folds > 0,
        for_measuring=True,
    )
    folder = Path(data)
    if data == BUILT_IN:
        return options
    if not folder.is_dir():  # only CSVs have votes
        return replace(options, labels="" if names else card.provenance.labels)
    pattern = card.provenance.group_by
    return replace(options, group_by=pattern) if pattern and _has_groups(folder, pattern, options) else options


def _has_groups(folder: Path, pattern: str, options: DataOptions) -> bool:
    """Whether the pattern, which is of the training data's paths, names groups here too: of other data it may match no
    path, or put files of the same name in two splits into one group."""
    files = list_images(folder, options.names).files
    try:
        groups, _ = group_images(np.array([name_in(folder, file) for _, _, file in files]), pattern)
    except DataError:
        return False
    splits = ["train" if options.pooled and split == "valid" else split for split, _, _ in files]
    return len(set(zip(groups.tolist(), splits, strict=True))) == len(set(groups.tolist()))


def usual_split(card: ModelCard, dataset: Dataset, progress: Progress = SILENT) -> str:
    """The split to evaluate on by default: "valid", or "train" where the network was trained on all images; logs it if
    these are the images."""
    if "valid" in dataset.splits or not card.provenance.folds:
        return "valid"
    if card.provenance.data == dataset.name or card.provenance.held_images == dataset.holdout_hash:
        progress.log(
            f"{card.name} was trained on these images, or most of them: figures on them show what conversion changed, not how "
            f"good it is. For that see {card.measured_on} in its card."
        )
    return "train"


def log_skipped(skipped: tuple[str, ...], progress: Progress) -> None:
    """Log how many rows or images were skipped, and the first SHOWN of them."""
    if skipped:
        progress.log(f"Left out {counted(len(skipped), 'bad row or image', 'bad rows or images')}:")
        for line in skipped[:SHOWN]:
            progress.log(f"  {line}")
        if len(skipped) > SHOWN:
            progress.log(f"  and {len(skipped) - SHOWN} more")
