"""Makes and measures every variant of a network side by side: accuracy lost, size and speed."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgefer.bundle import CARD, TFLITE_VARIANTS, Bundle, Form
from edgefer.convert.comparison import Answers, Comparison, compare
from edgefer.convert.pipeline import convert
from edgefer.convert.slim import why_not
from edgefer.convert.work import Plan
from edgefer.errors import InputError, RuntimeFault
from edgefer.files import write_file
from edgefer.interpreter import Network
from edgefer.lineage import origin_form
from edgefer.progress import SILENT, Progress
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import load_keras
from edgefer.train.recipe_fields import Recipe

ROUND = 10  # images per network and turn


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One variant of the network: its bundle and form, its comparison with the trained network on the validation split,
    its bytes, and its median milliseconds per image on one thread."""

    name: str
    bundle: str
    variant: str
    comparison: Comparison
    bytes: int
    gzip_bytes: int
    ms: float


def plans(recipe: Recipe, *, prune: float, slim: float, epochs: int) -> dict[str, Plan]:
    """The conversions that make every variant of a network of that recipe, by the name of the bundle each writes. There
    are no slim ones if the network cannot be slimmed that much or the share is 0."""
    made = [Plan(float16=True), Plan(qat=True, epochs=epochs)]
    if prune:
        made += [Plan(prune=prune, epochs=epochs), Plan(prune=prune, qat=True, epochs=epochs)]
    if slim and not why_not(recipe, slim):
        made.append(Plan(slim=slim, epochs=epochs))
    return {plan.suffix: plan for plan in made}


def make_profiles(
    bundle: Bundle, dataset: Dataset, wanted: dict[str, Plan], out: Path, progress: Progress = SILENT
) -> list[str]:
    """Convert into `out`/<name>, keeping finished bundles so that an interrupted run continues. Returns the new ones.

    A form that cannot be trained quantization-aware is logged and left out. InputError if existing bundles were made with
    other settings, for a cross-validated bundle, and for one that does not hold its trained network.
    """
    if origin_form(bundle.card) is None:
        raise InputError(
            f"{bundle.path} does not hold its trained network, so its variants cannot be compared with it: name the bundle "
            "that was trained."
        )
    if bundle.card.provenance.folds:
        raise InputError(
            f"{bundle.path} was cross-validated: it has no validation split to compare its variants on. Train it "
            "without --folds, or use edgefer convert and its report."
        )
    asked = {
        "bundle": bundle.hash,
        "data": dataset.content_hash,
        "plans": {name: asdict(plan) for name, plan in wanted.items()},
    }
    content, file = json.dumps(asked, indent=2).encode() + b"\n", out / "asked.json"
    if file.is_file() and file.read_bytes() != content:
        raise InputError(
            f"{out} holds variants of another network, or made with other data, shares or epochs: choose another --out."
        )
    write_file(file, content)
    made = []
    for name, plan in wanted.items():
        if not (out / name / CARD).is_file():
            progress.log(f"{name}:")
            try:
                convert(bundle, dataset, plan, out / name, progress, work_dir=out / ".unfinished")
            except RuntimeFault as error:
                if not plan.qat:
                    raise
                progress.log(f"No {name} form. {error}")
                continue
            made.append(name)
    shutil.rmtree(out / ".unfinished", ignore_errors=True)
    return made


@dataclass(frozen=True, kw_only=True)
class _Form:
    """A variant to measure: its title in the table, its bundle, and whether weights were trained for it."""

    title: str
    folder: str
    bundle: Bundle
    form: Form

    @property
    def retrained(self) -> bool:
        lineage = self.bundle.card.lineage
        return lineage is None or lineage.retrained


def measure_profiles(
    out: Path, wanted: dict[str, Plan], dataset: Dataset, progress: Progress = SILENT
) -> tuple[Profile, ...]:
    """Compare the bundles in `out`/<name> on the validation split, with all timings from one run.

    All are compared with the trained network. They are interleaved every few images, so that other load on the machine
    affects them equally.
    """
    forms = [
        _Form(title=_title(plan, form), folder=name, bundle=bundle, form=form)
        for name, plan in wanted.items()
        if (out / name / CARD).is_file()
        for bundle in (Bundle.open(out / name),)
        for form in reversed(TFLITE_VARIANTS)
        # The float network of quantization-aware training is not meant to be deployed.
        if bundle.has(form) and not (form is Form.FLOAT32 and plan.qat)
    ]
    card = forms[0].bundle.card
    images = dataset.with_labels(card.labels).split("valid")
    with progress.stage(f"Measuring the trained network on {len(images):,} images"):
        origin = _origin_answers(forms[0].bundle, images)
    logits, ms = _take_turns(forms, images, progress)
    return tuple(
        Profile(
            name=one.title,
            bundle=one.folder,
            variant=one.form.value,
            comparison=compare(
                origin,
                Answers(name=one.title, form=one.form, logits=logits[one.title]),
                images,
                card.labels,
                retrained=one.retrained,
            ),
            bytes=one.bundle.card.variants[one.form].bytes,
            gzip_bytes=one.bundle.card.variants[one.form].gzip_bytes,
            ms=ms[one.title],
        )
        for one in forms
    )


def _origin_answers(bundle: Bundle, images: Split) -> Answers:
    """The answers of the trained network."""
    form = origin_form(bundle.card)
    assert form  # or make_profiles would have refused it
    logits = keras_logits(load_keras(bundle, form), images.images)
    return Answers(name="the trained network", form=form, logits=logits)


def _take_turns(
    forms: list[_Form], images: Split, progress: Progress
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Each variant's logits and median milliseconds per image, by title."""
    networks = {one.title: Network.open(one.bundle, one.form) for one in forms}
    parts: dict[str, list[np.ndarray]] = {title: [] for title in networks}
    times: dict[str, list[float]] = {title: [] for title in networks}
    starts = range(0, len(images), ROUND)
    for at in progress.track(starts, len(starts), "Measuring"):
        pixels = images.images[at : at + ROUND]
        for title, network in networks.items():
            began = time.perf_counter()
            parts[title].append(network.logits(pixels))
            times[title].append(1000 * (time.perf_counter() - began) / len(pixels))
    return (
        {title: np.concatenate(part) for title, part in parts.items()},
        {title: float(np.median(some)) for title, some in times.items()},
    )


def _title(plan: Plan, form: Form) -> str:
    """For example "pruned int8 (QAT)" for a pruned network, int8 by quantization-aware training."""
    return " ".join(["slim"] * bool(plan.slim) + ["pruned"] * bool(plan.prune) + [form.value]) + (
        " (QAT)" if plan.qat else ""
    )


COLUMNS = ("network", "bundle", "accuracy", "drop [95%]", "agreement", "bytes", "gzipped", "ms")


def row(one: Profile) -> tuple[str, ...]:
    """A variant's figures, under COLUMNS."""
    low, high = one.comparison.drop_interval
    return (
        one.name,
        one.bundle,
        f"{one.comparison.candidate.scores.accuracy:.2%}",
        f"{one.comparison.drop:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{one.comparison.agreement:.2%}",
        f"{one.bytes:,}",
        f"{one.gzip_bytes:,}",
        f"{one.ms:.2f}",
    )


def to_json(profiles: Sequence[Profile]) -> list[dict[str, object]]:
    """The measurements as plain values."""
    return [
        {
            "name": profile.name,
            "bundle": profile.bundle,
            "variant": profile.variant,
            "count": profile.comparison.candidate.scores.count,
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


def write_profiles(out: Path, profiles: Sequence[Profile]) -> Path:
    """The measurements as `out`/profiles.json."""
    file = out / "profiles.json"
    write_file(file, json.dumps(to_json(profiles), indent=2).encode() + b"\n")
    return file
