"""Every form a network can ship in, made and measured side by side: what each costs and what it gains."""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgefer.bundle import CARD, Bundle, write_file
from edgefer.convert.comparison import Answers, Comparison, compare
from edgefer.convert.pipeline import Plan, convert
from edgefer.errors import InputError
from edgefer.interpreter import Network
from edgefer.train.data.dataset import Dataset, Track, silent
from edgefer.train.fit import Watcher

ROUND = 10  # pictures that each network gets before it is the next one's turn


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One form of the network: the bundle and variant that hold it, its comparison with the float32 one on the
    validation split, its bytes, and its median milliseconds a picture on one thread."""

    name: str
    bundle: str
    variant: str
    comparison: Comparison
    bytes: int
    gzip_bytes: int
    ms: float


def plans(*, sparsity: float, slimmed: float, epochs: int) -> dict[str, Plan]:
    """The conversions that give every form, by the name of the bundle each makes."""
    made = [
        Plan(float16=True, epochs=epochs),
        Plan(aware=True, epochs=epochs),
        Plan(sparsity=sparsity, epochs=epochs),
        Plan(sparsity=sparsity, aware=True, epochs=epochs),
        Plan(slimmed=slimmed, epochs=epochs),
    ]
    return {plan.suffix: plan for plan in made}


def make_profiles(bundle: Bundle, dataset: Dataset, wanted: dict[str, Plan], out: Path, watcher: Watcher) -> list[str]:
    """Convert into `out`/<name>, leaving what is there already: an interrupted run goes on. Returns what was made.

    InputError when what is there was asked for otherwise, and for a cross-validated bundle.
    """
    if bundle.card.provenance.folds:
        raise InputError(
            f"{bundle.path} was cross-validated: it has no validation split on which its forms could be compared. Train it "
            "without --folds, or look at edgefer convert and its report."
        )
    asked = {"bundle": bundle.hash, "plans": {name: asdict(plan) for name, plan in wanted.items()}}
    content, file = json.dumps(asked, indent=2).encode() + b"\n", out / "asked.json"
    if file.is_file() and file.read_bytes() != content:
        raise InputError(
            f"{out} holds the forms of another network, or of other shares or epochs: choose another --out."
        )
    write_file(file, content)
    made = []
    for name, plan in wanted.items():
        if not (out / name / CARD).is_file():
            convert(bundle, dataset, plan, out / name, watcher, unfinished=out / ".unfinished")
            made.append(name)
    shutil.rmtree(out / ".unfinished", ignore_errors=True)
    return made


def measure(out: Path, names: list[str], dataset: Dataset, track: Track = silent) -> tuple[Profile, ...]:
    """Compare what lies in `out`/<name> on the validation split, with the milliseconds of all from one run.

    The networks take turns every few pictures, so that what else the machine does falls on all of them alike.
    """
    bundles = {name: Bundle.open(out / name) for name in names}
    card = next(iter(bundles.values())).card
    valid = dataset.with_labels(card.labels).split("valid")
    forms = {
        _title(name, variant): (name, variant)
        for name, bundle in bundles.items()
        for variant in ("float32", "float16", "int8")
        # The float twin of quantization-aware training is not a form to ship.
        if bundle.has(variant) and not (variant == "float32" and name.endswith("qat"))
    }
    networks = {
        title: Network(bundles[name].read(variant), card.input, len(card.labels))
        for title, (name, variant) in forms.items()
    }
    parts: dict[str, list[np.ndarray]] = {title: [] for title in forms}
    times: dict[str, list[float]] = {title: [] for title in forms}
    starts = range(0, len(valid), ROUND)
    for at in track(starts, len(starts), "Measuring"):
        pictures = valid.images[at : at + ROUND]
        for title, network in networks.items():
            began = time.perf_counter()
            parts[title].append(network.logits(pictures))
            times[title].append(1000 * (time.perf_counter() - began) / len(pictures))
    logits = {title: np.concatenate(part) for title, part in parts.items()}
    return tuple(
        Profile(
            name=title,
            bundle=name,
            variant=variant,
            comparison=compare(
                Answers(name="float32", logits=logits["float32"]),
                Answers(name=title, logits=logits[title]),
                valid,
                card.labels,
            ),
            bytes=bundles[name].card.variants[variant].bytes,
            gzip_bytes=bundles[name].card.variants[variant].gzip_bytes,
            ms=float(np.median(times[title])),
        )
        for title, (name, variant) in forms.items()
    )


def _title(name: str, variant: str) -> str:
    """int8 of pruned-qat is "pruned int8 (QAT)"."""
    *what, last = name.split("-")
    return " ".join([*what, variant]) + (" (QAT)" if last == "qat" else "")


def write_profiles(out: Path, profiles: tuple[Profile, ...]) -> Path:
    """The measurements as `out`/profiles.json."""
    rows = [
        {
            "name": profile.name,
            "bundle": profile.bundle,
            "variant": profile.variant,
            "pictures": profile.comparison.candidate.scores.count,
            "accuracy": profile.comparison.candidate.scores.accuracy,
            "drop_points": profile.comparison.drop,
            "drop_interval": profile.comparison.drop_interval,
            "agreement": profile.comparison.agreement,
            "bytes": profile.bytes,
            "gzip_bytes": profile.gzip_bytes,
            "ms": profile.ms,
        }
        for profile in profiles
    ]
    file = out / "profiles.json"
    write_file(file, json.dumps(rows, indent=2).encode() + b"\n")
    return file
