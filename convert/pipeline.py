"""`edgefer convert`, from a trained bundle to a deployable one: slim, prune, quantize, export, judge, publish."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from edgefer.bundle import PARITY, Bundle, Form, write_bundle
from edgefer.card import ModelCard
from edgefer.checks import Check, status_if
from edgefer.convert import steps
from edgefer.convert.aware import check_aware, int8_fix
from edgefer.convert.calibrate import calibrate
from edgefer.convert.comparison import Budget, Comparison, judge
from edgefer.convert.measure import Measured, held_by, measure, networks
from edgefer.convert.tune import Tuner
from edgefer.convert.work import Plan, Quantized, Work
from edgefer.errors import InputError
from edgefer.files import beside
from edgefer.lineage import is_retrained, origin_form
from edgefer.options import MAX_DROP, MIN_AGREEMENT
from edgefer.progress import Progress
from edgefer.provenance import Lineage
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.rewrite import int8_output
from edgefer.train.data.dataset import Dataset, without_copies
from edgefer.train.folds import divide_folds, fold_network
from edgefer.train.limits import Holdout, with_limits
from edgefer.train.networks import load_keras
from edgefer.train.recipes import recipe_of
from edgefer.vectors import make_vectors

__all__ = ["Converted", "Plan", "convert"]


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The new bundle; how int8 was made, if it was; what the deployed form lost against the trained network, and how much
    was allowed. decisions: question 2 of `edgefer verify`, on the held-out images."""

    bundle: Bundle
    quantized: Quantized | None
    cost: Comparison
    max_drop: float | None
    decisions: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        return self.max_drop is None or self.cost.drop <= self.max_drop

    @property
    def checks(self) -> tuple[Check, ...]:
        """Whether the accuracy holds, with its figures, if a max_drop was given."""
        if self.max_drop is None:
            return ()
        low, high = self.cost.drop_interval
        detail = f"drop {self.cost.drop:+.2f} points [{low:+.2f}, {high:+.2f}] (allowed {self.max_drop:g})"
        subject = f"{self.cost.candidate.name} against the trained network"
        return (Check(subject=subject, status=status_if(self.holds), detail=detail, question=2),)

    @property
    def complaint(self) -> str:
        """One sentence if the accuracy does not hold; "" if it does."""
        if self.holds:
            return ""
        low, high = self.cost.drop_interval
        text = (
            f"{self.cost.candidate.name} loses {self.cost.drop:+.2f} points [{low:+.2f}, {high:+.2f}] against the trained "
            f"network, more than --max-drop {self.max_drop:g}: the best result is kept in {self.bundle.path}."
        )
        if self.quantized and self.quantized.layers:
            worst = ", ".join(layer.layer for layer in self.quantized.layers[:3])
            text += f" Rounding hurts most in {worst}; all layers are in report/quantization.json."
        return text

    @property
    def warning(self) -> str:
        """One sentence if `edgefer verify` would fail on these images, "" if not."""
        failed = [check for check in self.decisions if not check.passed]
        if not failed:
            return ""
        which = f"{self.cost.candidate.scores.count:,} images of {self.bundle.card.measured_on}"
        fix = next((check.fix for check in reversed(failed) if check.fix), "")
        return f"`edgefer verify` would fail on these {which}: {failed[-1].subject}, {failed[-1].detail}{fix and f': {fix}'}."


def convert(
    bundle: Bundle, dataset: Dataset, plan: Plan, out: Path, progress: Progress, *, work_dir: Path | None = None
) -> Converted:
    """Write a new bundle at `out` with the bundle's Keras network and its TFLite forms; of a network that was imported as a
    .tflite, with that and int8.

    dataset: what the network was trained on; the training split is for calibration and fine-tuning, held-out splits for
    measuring. work_dir: holds the checkpoints of fine-tuning, so that an interrupted conversion can continue; by default
    a directory beside `out`, removed at the end, or when interrupted before an epoch is finished.

    InputError if max_drop cannot be checked because the bundle does not hold its trained network.
    """
    if plan.max_drop is not None and origin_form(bundle.card) is None:
        raise InputError(
            f"{bundle.path} does not hold its trained network, so --max-drop cannot be checked: convert the bundle that "
            "was trained."
        )
    if not bundle.card.provenance.folds and bundle.card.measured_on not in dataset.splits:
        raise InputError(
            f"{dataset.name} has no {bundle.card.measured_on} split to measure on: name data that has one."
        )
    with contextlib.nullcontext(work_dir) if work_dir else _work_folder(out) as folder:
        return _convert(bundle, dataset, plan, out, Tuner(work_dir=folder, progress=progress, epochs=plan.epochs))


def unfinished(out: Path) -> Path | None:
    """The folder from which an interrupted conversion to `out` continues; None if no epoch of it was finished."""
    folder = beside(out, "unfinished")
    return folder if any(folder.glob("*/ckpt-*.index")) else None


@contextlib.contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """The folder for the checkpoints of fine-tuning. It stays only after an interruption that can be continued."""
    folder = beside(out, "unfinished")
    try:
        yield folder
    except BaseException:
        if unfinished(out) is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _convert(bundle: Bundle, dataset: Dataset, plan: Plan, out: Path, tuner: Tuner) -> Converted:
    works = _works(bundle, dataset)
    if plan.qat and plan.prune:  # before hours of pruning
        check_aware(works[0].trained, keep_zeros=True)
    works = [_shaped(work, plan, tuner) for work in works]
    judged_on, stage = bundle.card.measured_on, tuner.progress.stage
    with stage(f"Fitting the temperature of its scores on {judged_on}"):
        temperature, note = _temperature(works, judged_on)
        notes = [note, *filter(None, [works[0].dataset.absent_note])]
        works = [steps.stamp(work, plan, temperature).noted(*notes) for work in works]
    with stage(f"Fitting the limits of light and sharpness on {judged_on}"):
        works = _limited(works, judged_on)
    splits = list(dict.fromkeys(name for work in works for name in work.held))
    with stage(f"Measuring every form on {' and '.join(splits)}"):
        measured = measure(works, splits)
    with stage(f"Storing images and answers for its proof, and writing {out}"):
        return _publish(bundle, works[0], measured, out, plan)


def _works(bundle: Bundle, dataset: Dataset) -> list[Work]:
    """The bundle's own network, followed by those of its folds if it was cross-validated: these are measured."""
    card = bundle.card
    dataset = dataset.with_labels(card.labels)
    if (
        card.provenance.group_by and not recipe_of(card).augment.copies
    ):  # as in training, which computes its z-score on these
        dataset = without_copies(dataset, card.provenance.group_by)
    held = {name: split for name, split in dataset.splits.items() if name != "train"}
    form = origin_form(card)
    if form is Form.FLOAT32:
        imported: dict[Form, bytes] = {form: bundle.read(form)}
        output = int8_output(read_model(imported[form], str(bundle.file(form))), card.output)
        card = card.model_copy(update={"output": output})
        own = Work(card=card, origin=None, trained=None, tuned=None, dataset=dataset, held=held, files=imported)
        note = f"int8 gives logits, without the softmax at the end of float32, which gives {output.float32}"
        return [own.noted(note) if output.float32 else own]
    trained = load_keras(bundle, Form.KERAS)
    origin = trained if form in (None, Form.KERAS) else load_keras(bundle, form)
    files = {Form.KERAS: bundle.read(Form.KERAS)}
    own = Work(card=card, origin=origin, trained=trained, tuned=trained, dataset=dataset, held=held, files=files)
    return [own, *_fold_works(bundle, dataset)] if card.provenance.folds else [own]


def _fold_works(bundle: Bundle, dataset: Dataset) -> list[Work]:
    card, recipe = bundle.card, recipe_of(bundle.card)
    asked = card.provenance
    folds = divide_folds(
        dataset, recipe, folds=asked.folds, group_by=asked.group_by, valid_fraction=asked.valid_fraction
    )
    works = []
    for fold in folds:
        model = fold_network(bundle, fold, recipe)
        held = {card.measured_on: fold.holdout}
        works.append(Work(card=card, origin=model, trained=model, tuned=model, dataset=fold.dataset, held=held))
    return works


def _shaped(work: Work, plan: Plan, tuner: Tuner) -> Work:
    """Run the steps that change the network itself."""
    work = steps.slim(work, plan, tuner)
    work = steps.prune(work, plan, tuner)
    work = steps.quantize(work, plan, tuner)
    with tuner.progress.stage("Writing the float forms"):
        return steps.export(work, plan)


def _temperature(works: list[Work], split: str) -> tuple[float, str]:
    """The temperature that calibrates the deployed form's scores, and a note of it."""
    deployed = works[0].deployed
    measured = measure(works, [split], [deployed])
    logits, labels = measured.logits[split][deployed], measured.splits[split].labels
    temperature = calibrate(logits, labels)
    return temperature.value, temperature.note(split, deployed, len(labels))


def _limited(works: list[Work], split: str) -> list[Work]:
    """The works with the deployed form's limits in the first one's card, and a note of them."""
    deployed, card = works[0].deployed, works[0].card
    parts = [Holdout(networks(work, [deployed])[deployed], images) for work, images in held_by(works, split)]
    card, note = with_limits(card, parts, split, deployed)
    return [works[0].noted(note, card=card), *works[1:]]


def _publish(bundle: Bundle, work: Work, measured: Measured, out: Path, plan: Plan) -> Converted:
    """Write the new bundle, without the old one's reports, which are of another network."""
    split, retrained, origin = bundle.card.measured_on, _retrained(bundle, work), origin_form(bundle.card)
    cost = measured.against_origin(work.deployed, split, work.card.labels, retrained=retrained)
    lineage = _lineage(bundle.card).model_copy(
        update={"retrained": retrained, "cost": cost.cost(split) if origin is not None else None}
    )
    provenance = work.card.provenance.model_copy(update={"conversion": work.notes})
    card = work.card.model_copy(update={"metrics": measured.scores(), "provenance": provenance, "lineage": lineage})
    files = work.files | steps.host_files(work, bundle.read(origin) if origin is not None else None)
    vectors = make_vectors(card, {form.value: content for form, content in work.tflite.items()})
    report = {"quantization.json": steps.quantization_report(work.quantized)} if work.quantized else {}
    written = write_bundle(
        out, card, {form.value: content for form, content in files.items()} | {PARITY: vectors}, report
    )
    decisions = _decisions(measured.every_comparison(split, card.labels), written, plan)
    return Converted(bundle=written, quantized=work.quantized, cost=cost, max_drop=plan.max_drop, decisions=decisions)


def _decisions(comparisons: tuple[Comparison, ...], written: Bundle, plan: Plan) -> tuple[Check, ...]:
    budget = Budget.of(MAX_DROP if plan.max_drop is None else plan.max_drop, MIN_AGREEMENT)
    fix = cache(partial(int8_fix, written))
    return tuple(judge(one, budget, fix) for one in comparisons)


def _lineage(card: ModelCard) -> Lineage:
    """The lineage of the source bundle: its card's, or the bundle itself if it was never converted."""
    if card.lineage is not None:
        return card.lineage
    origin = origin_form(card)
    return Lineage(name=card.name, sha256=card.variants[origin].sha256 if origin is not None else "")


def _retrained(bundle: Bundle, work: Work) -> bool:
    """Whether weights were removed or trained between the trained network and the deployed one, earlier conversions
    included. Conversion starts from `keras`, so an earlier one's `tuned` does not count."""
    return work.retrained or (origin_form(bundle.card) is None and is_retrained(bundle.card))
