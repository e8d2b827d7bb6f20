"""What several commands take: a bundle, and the data it was trained on."""

from pathlib import Path
from typing import Annotated

import typer

from edgefer.errors import InputError

BundleArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[BUNDLE]",
        help="Bundle directory or shipped name; the newest under runs/, else fer-small, when left out.",
    ),
]
DEFAULT_MODEL = "fer-small"
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
    from edgefer.train.datasets import cache_folder, load_dataset
    from edgefer.train.pipeline import Order

    if not data:
        if not (bundle.path / "training" / "order.json").is_file():
            raise InputError(f"{bundle.path} does not remember its training data: name it with --data PATH.")
        order = Order.load(bundle.path)
        data, skip_bad = order.data, order.skip_bad
    card = bundle.card
    dataset = load_dataset(
        data,
        card.input,
        skip_bad=skip_bad,
        # As in training, or pictures that were trained on would come back as validation pictures.
        valid_fraction=card.provenance.valid_fraction,
        seed=card.provenance.seed,
        track=console.track,
        cache=cache_folder(),
    )
    list_skipped(dataset.skipped)
    return dataset


def list_skipped(skipped: tuple[str, ...]) -> None:
    """Say which rows or pictures were left out, the first twenty by name."""
    from edgefer import console

    if skipped:
        console.say(f"Left out {len(skipped)} bad rows or pictures:")
        for line in skipped[:20]:
            console.say(f"  {line}")
        if len(skipped) > 20:
            console.say(f"  and {len(skipped) - 20} more")
