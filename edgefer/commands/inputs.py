"""What several commands take: a bundle, and the data it was trained on."""

from pathlib import Path
from typing import Annotated

import typer

from edgefer.errors import InputError

BundleArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[BUNDLE]", help="Bundle directory; the newest under runs/ when left out."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows and pictures out, and list them.")]


def bundle_path(bundle: Path | None) -> Path:
    """The bundle that was named, or the newest under runs/."""
    from edgefer.bundle import newest_bundle

    return bundle if bundle is not None else newest_bundle()


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
