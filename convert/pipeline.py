"""`edgefer convert` from a trained bundle to one a device can run: prune, convert, quantize, measure, write."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefer.bundle import PARITY, TFLITE_VARIANTS, Bundle, write_bundle
from edgefer.convert.calibrate import fit_temperature
from edgefer.convert.mediapipe import VARIANT as MEDIAPIPE
from edgefer.convert.mediapipe import MediaPipeNetwork, to_mediapipe
from edgefer.convert.metadata import with_metadata
from edgefer.convert.prune import measured_sparsity, prune
from edgefer.convert.quantize import calibration_pictures, to_float32, to_int8
from edgefer.interpreter import Network, softmax
from edgefer.metrics import ece
from edgefer.parity import make_vectors
from edgefer.train.datasets import Dataset
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.fit import Watcher
from edgefer.train.models import keras_bytes, load_keras
from edgefer.train.recipes import recipe_of


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make of a bundle: always float32.tflite; int8 too; pruned first when `sparsity` (0..1) is above 0.

    mediapipe: also the form that MediaPipe's ImageClassifier takes. author, license: for the card and the metadata.
    """

    int8: bool = True
    mediapipe: bool = False
    author: str = ""
    license: str = ""
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
    pictures = calibration_pictures(dataset.split("train"), plan.seed)
    if plan.int8:
        files["int8"] = to_int8(model, pictures)
        steps.append(f"int8 calibrated on {len(pictures)} training pictures")
    logits: dict[tuple[str, str], np.ndarray] = {}
    tflite = {name: files[name] for name in reversed(TFLITE_VARIANTS) if name in files}
    for variant, content in tflite.items():
        network = Network(content, card.input, len(card.labels))
        for name, split in held.items():
            logits[variant, name] = network.logits(split.images)
            metrics[name][variant] = evaluate(split, logits[variant, name])
    runs = "int8" if plan.int8 else "float32"  # what devices will run, so what a score must be right for
    temperature = fit_temperature(logits[runs, "valid"], held["valid"].labels)
    before, after = (ece(softmax(logits[runs, "valid"], t), held["valid"].labels) for t in (1.0, temperature))
    steps.append(f"temperature {temperature:.3f} fitted on valid with {runs}: ECE {before:.3f} to {after:.3f}")
    if plan.mediapipe:
        files[MEDIAPIPE] = to_mediapipe(model, card.input, temperature, pictures)
        network = MediaPipeNetwork(files[MEDIAPIPE], card.input, len(card.labels))
        for name, split in held.items():
            metrics[name][MEDIAPIPE] = evaluate(split, network.logits(split.images))
    provenance = card.provenance.model_copy(update={"steps": tuple(steps)})
    card = card.model_copy(
        update={"metrics": metrics, "provenance": provenance, "temperature": temperature}
        | {"author": plan.author or card.author, "license": plan.license or card.license}
    )
    files |= {name: with_metadata(files[name], card) for name in (*tflite, MEDIAPIPE) if name in files}
    files[PARITY] = make_vectors(card, tflite)
    report = {file.name: file.read_bytes() for file in sorted((bundle.path / "report").glob("*.png"))}
    return write_bundle(out, card, files, report)
