"""edgefer compare: every form a network can ship in, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import BundleArgument, SkipBad, bundle_path, check_share, made_from, training_data
from edgefer.errors import EdgeferError

if TYPE_CHECKING:
    pass


def compare(
    bundle: BundleArgument = None,
    prune: Annotated[float, typer.Option(metavar="SHARE", help="Share of zeros in the pruned ones.")] = 0.5,
    slim: Annotated[float, typer.Option(metavar="SHARE", help="Share of multiply-adds the slim ones lose.")] = 0.5,
    epochs: Annotated[int, typer.Option(min=0, help="Of each fine-tuning, as in convert.")] = 0,
    data: Annotated[str, typer.Option(metavar="PATH", help="What it was trained on when left out.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Instead of <bundle>-profiles.")] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Make and measure every form a network can ship in.

    float32, float16, int8, quantization-aware, pruned, slim: a bundle of each under one directory, and one table. What
    is there already is measured again, not made again.
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.convert.compare import make_profiles, measure, plans, write_profiles

    for option, share in (("--prune", prune), ("--slim", slim)):
        check_share(option, share)
    source = Bundle.open(bundle_path(bundle, or_shipped=False))
    source.file("keras")
    target = out or made_from(source, "profiles")
    dataset = training_data(source, data, skip_bad)
    wanted = plans(sparsity=prune, slimmed=slim, epochs=epochs)
    console.say(f"Making {', '.join(wanted)} in {target}")
    try:
        make_profiles(source, dataset, wanted, target, console.TrainingProgress())
    except KeyboardInterrupt:
        raise EdgeferError("Stopped; what is finished is kept: the same command goes on.") from None
    measured = measure(target, list(wanted), dataset, console.track)
    console.show_table(
        f"Profiles of {source.path}, valid split, {measured[0].comparison.candidate.scores.count} pictures",
        ("network", "bundle", "accuracy", "drop [95%]", "agreement", "bytes", "gzipped", "ms"),
        [
            (
                row.name,
                row.bundle,
                f"{row.comparison.candidate.scores.accuracy:.2%}",
                "{:+.2f} [{:+.2f}, {:+.2f}]".format(row.comparison.drop, *row.comparison.drop_interval),
                f"{row.comparison.agreement:.2%}",
                f"{row.bytes:,}",
                f"{row.gzip_bytes:,}",
                f"{row.ms:.2f}",
            )
            for row in measured
        ],
    )
    console.show("Zeros make a file compress better, not an int8 network faster; fewer filters do both.")
    console.show(f"The same as JSON: {write_profiles(target, measured)}")
