"""`edgefer convert` from a trained bundle to one a device can run: slim, prune, quantize, measure, write."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from edgefer.bundle import PARITY, TFLITE_VARIANTS, Bundle, write_bundle
from edgefer.card import ModelCard
from edgefer.convert.calibrate import fit_temperature
from edgefer.convert.comparison import Answers, compare
from edgefer.convert.mediapipe import VARIANT as MEDIAPIPE
from edgefer.convert.mediapipe import MediaPipeNetwork, to_mediapipe
from edgefer.convert.prune import copy_of, measured_sparsity, prune
from edgefer.convert.quantize import calibration_pictures, to_float16, to_float32
from edgefer.convert.search import Quantized, quantize
from edgefer.convert.slim import slim
from edgefer.convert.tune import tune
from edgefer.errors import InputError
from edgefer.interpreter import Network, softmax
from edgefer.metrics import ece
from edgefer.parity import make_vectors
from edgefer.tflite.metadata import with_metadata
from edgefer.train.data.dataset import Dataset, Split, pool, without_copies
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.fit import Watcher
from edgefer.train.folds import CROSS_VALIDATION, divide_folds, fold_network
from edgefer.train.networks import keras_bytes, load_keras
from edgefer.train.recipes import recipe_of

PRUNE_EPOCHS, AWARE_EPOCHS, SLIM_EPOCHS = 4, 3, 8
SLIM_RATE = 0.3  # of the recipe's: more is lost than by pruning, so there is more to learn


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make of a bundle: always float32.tflite; float16 and int8 too, and MediaPipe's form.

    slimmed: first remove filters with this share (0..1) of the multiply-adds. sparsity: then set this share of the
    weights to zero. aware: int8 by quantization-aware training. max_drop: int8 by the cheapest way that loses no more
    points of accuracy. epochs: of each fine-tuning; 0 for each one's own number. author, license: for the card and the
    files' metadata.
    """

    int8: bool = True
    float16: bool = False
    mediapipe: bool = False
    author: str = ""
    license: str = ""
    slimmed: float = 0.0
    sparsity: float = 0.0
    aware: bool = False
    max_drop: float | None = None
    epochs: int = 0
    seed: int = 0

    @property
    def suffix(self) -> str:
        """What the new bundle's name says of it."""
        last = "qat" if self.aware else "int8" if self.int8 else "float16" if self.float16 else "float32"
        return "-".join(["slim"] * bool(self.slimmed) + ["pruned"] * bool(self.sparsity) + [last])


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The new bundle, and how int8 came about where there is one."""

    bundle: Bundle
    quantized: Quantized | None


def convert(
    bundle: Bundle, dataset: Dataset, plan: Plan, out: Path, watcher: Watcher, *, unfinished: Path | None = None
) -> Converted:
    """Write a new bundle at `out` with the bundle's Keras network and its TFLite forms.

    dataset: what the network was trained on; its training split calibrates and fine-tunes, its held splits measure.
    unfinished: where fine-tuning keeps its checkpoints, so that an interrupted conversion goes on; by default a
    directory beside `out`, gone when all is done.
    """
    workshop = unfinished or out.with_name(f".{out.name}.unfinished")
    card, dataset = bundle.card, dataset.with_labels(bundle.card.labels)
    if card.provenance.group_by and not recipe_of(card).augment.copies:  # as in training, whose z-score is of these
        dataset = without_copies(dataset, card.provenance.group_by)
    stages = _Stages(workshop, dataset, watcher, plan.epochs)
    model = load_keras(bundle, "keras")
    held = {name: split for name, split in dataset.splits.items() if name != "train"}
    judged_on = card.measured_on
    if card.provenance.folds and (plan.sparsity or plan.slimmed):
        raise InputError(
            f"{bundle.path} was cross-validated, and its folds' networks are neither pruned nor slimmed: convert it "
            "without, or train it with a validation split."
        )
    files = {"keras": bundle.read("keras")}
    steps: list[str] = []

    if plan.slimmed:
        model, card, step = stages.slim(model, card, plan.slimmed)
        files["keras"] = keras_bytes(model)
        steps.append(step)
    trained = tuned = model
    if plan.sparsity:
        tuned = stages.prune(model, card, plan.sparsity)
        zeros = measured_sparsity(tuned)
        steps.append(f"prune to {zeros:.0%} zeros, {stages.epochs(PRUNE_EPOCHS)} epochs of fine-tuning")
    quantized = None
    if plan.int8:
        quantized = _quantize(tuned, card, dataset, plan, stages, trained)
        files["int8"] = quantized.best.int8
        tuned = quantized.best.network or tuned
        steps += [str(attempt) for attempt in quantized.attempts]
        if len(quantized.attempts) > 1:
            steps.append(f"kept the {quantized.best.how}")
    if tuned is not trained:
        files["tuned"] = keras_bytes(tuned)
    files["float32"] = to_float32(tuned)
    if plan.float16:
        files["float16"] = to_float16(tuned)

    metrics = {name: {"keras": evaluate(split, keras_logits(trained, split.images))} for name, split in held.items()}
    if tuned is not trained:
        for name, split in held.items():
            metrics[name]["tuned"] = evaluate(split, keras_logits(tuned, split.images))
    logits: dict[tuple[str, str], np.ndarray] = {}
    tflite = {name: files[name] for name in reversed(TFLITE_VARIANTS) if name in files}
    for variant, content in tflite.items():
        network = Network(content, card.input, len(card.labels))
        for name, split in held.items():
            logits[variant, name] = network.logits(split.images)
            metrics[name][variant] = evaluate(split, logits[variant, name])
    if card.provenance.folds:
        held[judged_on], pooled = _fold_answers(bundle, dataset, stages, plan)
        metrics[judged_on] = {"keras": card.metrics[judged_on]["keras"]}
        for variant, pooled_logits in pooled.items():
            logits[variant, judged_on] = pooled_logits
            metrics[judged_on][variant] = evaluate(held[judged_on], pooled_logits)
    runs = next(variant for variant in TFLITE_VARIANTS if variant in files)  # so what a score must be right for
    answers, truth = logits[runs, judged_on], held[judged_on].labels
    temperature = fit_temperature(answers, truth)
    before, after = (ece(softmax(answers, t), truth) for t in (1.0, temperature))
    steps.append(f"temperature {temperature:.3f} fitted on {judged_on} with {runs}: ECE {before:.3f} to {after:.3f}")
    if plan.mediapipe:
        files[MEDIAPIPE] = to_mediapipe(
            tuned, card.input, temperature, calibration_pictures(dataset.split("train"), plan.seed)
        )
        network = MediaPipeNetwork(files[MEDIAPIPE], card.input, len(card.labels))
        for name, split in held.items():
            if name == judged_on and card.provenance.folds:
                continue  # the folds' networks have no such form
            metrics[name][MEDIAPIPE] = evaluate(split, network.logits(split.images))
    provenance = card.provenance.model_copy(update={"steps": (*card.provenance.steps, *steps)})
    card = card.model_copy(
        update={"metrics": metrics, "provenance": provenance, "temperature": temperature}
        | {"author": plan.author or card.author, "license": plan.license or card.license}
    )
    files |= {name: with_metadata(files[name], card) for name in (*tflite, MEDIAPIPE) if name in files}
    files[PARITY] = make_vectors(card, tflite)
    kept = [*bundle.path.glob("report/*.png"), *bundle.path.glob(f"report/{CROSS_VALIDATION}")]
    report = {file.name: file.read_bytes() for file in sorted(kept)}
    if quantized:
        report["quantization.json"] = _quantization_report(quantized)
    written = write_bundle(out, card, files, report)
    if unfinished is None:
        shutil.rmtree(workshop, ignore_errors=True)
    return Converted(bundle=written, quantized=quantized)


class _Stages:
    """The fine-tunings of one conversion: each has a folder for its checkpoints, named by all that it depends on."""

    def __init__(self, workshop: Path, dataset: Dataset, watcher: Watcher, epochs: int):
        self.workshop, self.dataset, self.watcher, self.asked = workshop, dataset, watcher, epochs

    def epochs(self, default: int) -> int:
        return self.asked or default

    def folder(self, what: str, model) -> Path:
        weights = hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights()))
        weights.update(self.dataset.name.encode() + str(len(self.dataset.split("train"))).encode())
        return self.workshop / f"{what}-{self.asked}-{weights.hexdigest()[:12]}"

    def prune(self, model, card: ModelCard, sparsity: float):
        return prune(
            model,
            recipe_of(card),
            self.dataset,
            sparsity=sparsity,
            epochs=self.epochs(PRUNE_EPOCHS),
            folder=self.folder(f"prune-{sparsity:g}", model),
            watcher=self.watcher,
        )

    def slim(self, model, card: ModelCard, share: float):
        """The slim network, the card with its recipe, and what was done in words."""
        slimmed = slim(model, recipe_of(card), share)
        epochs = self.epochs(SLIM_EPOCHS)
        tune(
            slimmed.network,
            slimmed.recipe,
            self.dataset,
            teacher=model,
            epochs=epochs,
            rate=slimmed.recipe.optimizer.rate * SLIM_RATE,
            folder=self.folder(f"slim-{share:g}", model),
            watcher=self.watcher,
        )
        valid = self.dataset.split("valid")
        was, now = (keras_logits(network, valid.images) for network in (model, slimmed.network))
        cost = compare(Answers(name="trained", logits=was), Answers(name="slim", logits=now), valid, card.labels)
        low, high = cost.drop_interval
        step = (
            f"slim to {slimmed.recipe.model.layers}, {slimmed.multiply_adds_before / 1e6:.1f} to "
            f"{slimmed.multiply_adds / 1e6:.1f} million multiply-adds, {epochs} epochs of fine-tuning: "
            f"drop {cost.drop:+.2f} points [{low:+.2f}, {high:+.2f}]"
        )
        recipe = slimmed.recipe.model_dump(mode="json")
        provenance = card.provenance.model_copy(update={"recipe": recipe})
        # A copy: a network that was compiled would be saved with its optimizer's state, twice the bytes.
        return copy_of(slimmed.network), card.model_copy(update={"provenance": provenance}), step


def _quantize(model, card: ModelCard, dataset: Dataset, plan: Plan, stages: _Stages, teacher) -> Quantized:
    if "valid" not in dataset.splits:  # trained on all pictures: what rounding changed shows on those too
        dataset = replace(dataset, splits=dataset.splits | {"valid": dataset.split("train")})
    return quantize(
        model,
        card,
        dataset,
        aware=plan.aware,
        max_drop=plan.max_drop,
        epochs=stages.epochs(AWARE_EPOCHS),
        sparse=plan.sparsity > 0,
        teacher=teacher,
        seed=plan.seed,
        folder=stages.folder("aware", model),
        watcher=stages.watcher,
    )


def _fold_answers(bundle: Bundle, dataset: Dataset, stages: _Stages, plan: Plan) -> tuple[Split, dict[str, np.ndarray]]:
    """The cross-validation's pictures, and what its folds' networks, converted by the same plan, say of them: variant ->
    float32 logits [n, classes]. The shipped network saw every picture, so only these can tell what conversion cost."""
    card, recipe = bundle.card, recipe_of(bundle.card)
    about = card.provenance
    folds = divide_folds(
        dataset, recipe, folds=about.folds, group_by=about.group_by, valid_fraction=about.valid_fraction
    )
    parts: dict[str, list[np.ndarray]] = {}
    for fold in folds:
        model = fold_network(bundle, fold, recipe)
        forms = {"float32": to_float32(model)}
        if plan.float16:
            forms["float16"] = to_float16(model)
        if plan.int8:
            forms["int8"] = _quantize(model, card, fold.dataset, plan, stages, model).best.int8
        for variant, content in forms.items():
            network = Network(content, card.input, len(card.labels))
            parts.setdefault(variant, []).append(network.logits(fold.held.images))
    return pool([fold.held for fold in folds]), {variant: np.concatenate(some) for variant, some in parts.items()}


def _quantization_report(quantized: Quantized) -> bytes:
    attempts = [
        {
            "how": attempt.how,
            "accuracy": attempt.comparison.candidate.scores.accuracy,
            "float32_accuracy": attempt.comparison.reference.scores.accuracy,
            "drop_points": attempt.comparison.drop,
            "drop_interval": attempt.comparison.drop_interval,
            "agreement": attempt.comparison.agreement,
            "kept": attempt is quantized.best,
        }
        for attempt in quantized.attempts
    ]
    layers = [asdict(layer) for layer in quantized.layers]
    return json.dumps({"attempts": attempts, "holds": quantized.holds, "worst_layers": layers}, indent=2).encode()
