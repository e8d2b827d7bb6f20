"""The data that a bundle was trained on, divided again as it was."""

import re
from dataclasses import replace
from pathlib import Path

from edgefer.bundle import Bundle
from edgefer.card import ModelCard
from edgefer.errors import InputError
from edgefer.progress import SILENT, Progress
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.folders import listing, name_in
from edgefer.train.data.load import BUILT_IN, DataOptions, load_dataset
from edgefer.train.order import Order
from edgefer.train.run import RunFolder

SHOWN = 20


def training_data(
    bundle: Bundle, data: str, skip_bad: bool, *, progress: Progress = SILENT, cache: Path | None = None
) -> Dataset:
    """`data`, or what the bundle's own training remembers where that is "". InputError when it remembers nothing."""
    card = bundle.card
    if not data:
        run = RunFolder(bundle.path)
        if not (run.order.is_file() or run.spare_order.is_file()):
            raise InputError(
                f"{bundle.path} does not say where its training data is, only a bundle that edgefer train wrote does: "
                "name it with --data PATH."
            )
        order = Order.load(run)
        data, skip_bad = order.data, order.skip_bad
    dataset = load_dataset(data, card.input, _options(card, data, skip_bad), progress=progress, cache=cache)
    log_skipped(dataset.skipped, progress)
    if has_other_holdout(card, dataset):
        progress.log(
            f"{data} has changed since {card.name} was trained on it, and other images are held back now: it may have "
            "learned from some of them and look better than it is. Train again, or name data it never saw."
        )
    return dataset


def has_other_holdout(card: ModelCard, dataset: Dataset) -> bool:
    """Whether a network was trained on this data with other images held out than now, so that it may have seen some of these."""
    return dataset.name == card.provenance.data and card.provenance.held_pictures not in ("", dataset.held_pictures)


def _options(card: ModelCard, data: str, skip_bad: bool) -> DataOptions:
    """As in training, or images that were trained on would come back as validation images."""
    options = DataOptions(
        names=card.provenance.names,
        skip_bad=skip_bad,
        valid_fraction=card.provenance.valid_fraction,
        seed=card.provenance.seed,
        pooled=card.provenance.folds > 0,
    )
    folder = Path(data)
    if data == BUILT_IN:
        return options
    if not folder.is_dir():  # votes are FER2013's
        return replace(options, labels=card.provenance.labels)
    # Groups are of the training data's own paths: other data, none of whose names match, is taken without.
    rule, files = card.provenance.group_by, listing(folder, options.names).files
    known = rule and any(re.search(rule, name_in(folder, file)) for _, _, file in files)
    return replace(options, group_by=rule if known else "")


def usual_split(card: ModelCard, dataset: Dataset, progress: Progress = SILENT) -> str:
    """The split to look at when none is named: "valid", or "train" where the network was trained on all images."""
    if "valid" in dataset.splits or not card.provenance.folds:
        return "valid"
    progress.log(
        f"{card.name} was trained on these images, or most of them: here it shows what conversion changed, not how good it is. "
        f"For that see {card.measured_on} in its card."
    )
    return "train"


def log_skipped(skipped: tuple[str, ...], progress: Progress) -> None:
    """Which rows or images were left out, the first by name."""
    if skipped:
        progress.log(f"Left out {len(skipped)} bad rows or images:")
        for line in skipped[:SHOWN]:
            progress.log(f"  {line}")
        if len(skipped) > SHOWN:
            progress.log(f"  and {len(skipped) - SHOWN} more")
