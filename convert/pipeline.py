"""`edgefer convert` from a trained bundle to one a device can run: prune, convert, quantize, measure, write."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefer.bundle import PARITY, TFLITE_VARIANTS, Bundle, write_bundle
from edgefer.convert.calibrate import fit_temperature
from edgefer.convert.prune import measured_sparsity, prune
from edgefer.convert.quantize import calibration_pictures, to_float32, to_int8
from edgefer.errors import InputError
from edgefer.interpreter import Network, softmax
from edgefer.metrics import ece
from edgefer.parity import make_vectors
from edgefer.train.datasets import Dataset, Split, pool
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.fit import Watcher
from edgefer.train.folds import CROSS_VALIDATION, divide_folds, fold_network
from edgefer.train.models import keras_bytes, load_keras
from edgefer.train.recipes import recipe_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make of a bundle: always float32.tflite; int8 too; pruned first when `sparsity` (0..1) is above 0."""

    int8: bool = True
    sparsity: float = 0.0
    prune_epochs: int = 4
    seed: int = 0

    @property
    def suffix(self) -> str:
        """What the new bundle's name says of it."""
        return "-".join(["pruned"] * bool(self.sparsity) + ["int8" if self.int8 else "float32"])


def convert(bundle: Bundle, dataset: Dataset, plan: Plan, out: Path, watcher: Watcher) -> Bundle:
    """Write a new bundle at `out` with the bundle's Keras network and its TFLite forms.

    dataset: what the network was trained on; its training split calibrates and fine-tunes, its held splits measure.
    """
    card = bundle.card
    dataset = dataset.with_labels(card.labels)
    model = load_keras(bundle, "keras")
    held = {name: split for name, split in dataset.splits.items() if name != "train"}
    metrics = {name: {"keras": evaluate(split, keras_logits(model, split.images))} for name, split in held.items()}
    judged_on = card.measured_on
    if card.provenance.folds and plan.sparsity:
        raise InputError(
            f"{bundle.path} was cross-validated, and its folds' networks are not pruned: convert it without --prune, or "
            "train it with a validation split."
        )
    files = {"keras": bundle.read("keras")}
    steps = [*card.provenance.steps]

    if plan.sparsity:
        recipe = recipe_of(card)
        model = prune(model, recipe, dataset, sparsity=plan.sparsity, epochs=plan.prune_epochs, watcher=watcher)
        files["pruned"] = keras_bytes(model)
        for name, split in held.items():
            metrics[name]["pruned"] = evaluate(split, keras_logits(model, split.images))
        steps.append(f"prune to {measured_sparsity(model):.0%} zeros, {plan.prune_epochs} epochs of fine-tuning")

    files["float32"] = to_float32(model)
    if plan.int8:
        pictures = calibration_pictures(dataset.split("train"), plan.seed)
        files["int8"] = to_int8(model, pictures)
        steps.append(f"int8 calibrated on {len(pictures)} training pictures")
    logits: dict[tuple[str, str], np.ndarray] = {}
    tflite = {name: files[name] for name in reversed(TFLITE_VARIANTS) if name in files}
    for variant, content in tflite.items():
        network = Network(content, card.input, len(card.labels))
        for name, split in held.items():
            logits[variant, name] = network.logits(split.images)
            metrics[name][variant] = evaluate(split, logits[variant, name])
    if card.provenance.folds:
        held[judged_on], pooled = _fold_answers(bundle, dataset, plan)
        metrics[judged_on] = {"keras": card.metrics[judged_on]["keras"]}
        for variant, answers in pooled.items():
            logits[variant, judged_on] = answers
            metrics[judged_on][variant] = evaluate(held[judged_on], answers)
    runs = "int8" if plan.int8 else "float32"  # what devices will run, so what a score must be right for
    answers, truth = logits[runs, judged_on], held[judged_on].labels
    temperature = fit_temperature(answers, truth)
    before, after = (ece(softmax(answers, t), truth) for t in (1.0, temperature))
    steps.append(f"temperature {temperature:.3f} fitted on {judged_on} with {runs}: ECE {before:.3f} to {after:.3f}")
    provenance = card.provenance.model_copy(update={"steps": tuple(steps)})
    card = card.model_copy(update={"metrics": metrics, "provenance": provenance, "temperature": temperature})
    files[PARITY] = make_vectors(card, tflite)
    kept = [*bundle.path.glob("report/*.png"), *bundle.path.glob(f"report/{CROSS_VALIDATION}")]
    report = {file.name: file.read_bytes() for file in sorted(kept)}
    return write_bundle(out, card, files, report)


def _fold_answers(bundle: Bundle, dataset: Dataset, plan: Plan) -> tuple[Split, dict[str, np.ndarray]]:
    """The cross-validation's pictures, and what its folds' networks, converted by the same plan, say of them: variant ->
    float32 logits [n, classes]. The shipped network saw every picture, so only these can tell what conversion cost."""
    card, recipe = bundle.card, recipe_of(bundle.card)
    provenance = card.provenance
    folds = divide_folds(
        dataset,
        recipe,
        folds=provenance.folds,
        group_by=provenance.group_by,
        valid_fraction=provenance.valid_fraction,
    )
    parts: dict[str, list[np.ndarray]] = {}
    for fold in folds:
        model = fold_network(bundle, fold, recipe)
        forms = {"float32": to_float32(model)}
        if plan.int8:
            forms["int8"] = to_int8(model, calibration_pictures(fold.dataset.split("train"), plan.seed))
        for variant, content in forms.items():
            network = Network(content, card.input, len(card.labels))
            parts.setdefault(variant, []).append(network.logits(fold.held.images))
    return pool([fold.held for fold in folds]), {variant: np.concatenate(some) for variant, some in parts.items()}
