"""Question 2 of parity: what conversion cost, on labelled images, for every form of the network."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from edgefer.bundle import TFLITE_VARIANTS, Bundle, Form
from edgefer.checks import Check, Status
from edgefer.convert.comparison import Answers, Comparison, compare, pairs
from edgefer.convert.mediapipe import MediaPipeNetwork
from edgefer.errors import BundleError
from edgefer.interpreter import Network, RuntimeOptions
from edgefer.lineage import SUBJECT, check_origin, origin_form
from edgefer.progress import SILENT, Progress
from edgefer.runtimes import WITHOUT_REFERENCE
from edgefer.tflite.titles import title
from edgefer.train.data.dataset import Dataset, Split, stratified_rows
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import load_keras

CHUNK = 128
REFERENCE_IMAGES = 256  # for reference kernels, which are 10 to 30 times slower


@dataclass(frozen=True, kw_only=True)
class Proof:
    """origin: whether the trained network is available for comparison. cost: each form of the network, on each runtime's
    optimized kernels, against the trained network and, if weights were trained after that, also against the float network
    it was made from. spread: the same file on other runtimes, and on reference kernels, against the first runtime's
    optimized ones."""

    images: Split
    origin: Check
    cost: tuple[Comparison, ...]
    spread: tuple[Comparison, ...]


def prove(
    bundle: Bundle,
    dataset: Dataset,
    split: str,
    *,
    runtimes: Sequence[str],
    reference_kernels: bool = False,
    progress: Progress = SILENT,
) -> Proof:
    """Compare every form of the bundle's network with the trained network, however many conversions ago.

    Without the trained network, or TensorFlow to run it, forms are compared with the nearest one available, and `origin`
    says so. reference_kernels: run them too, on a stratified sample of REFERENCE_IMAGES.
    """
    check_comparable(bundle, runtimes)
    card = bundle.card
    images = dataset.with_labels(card.labels).split(split)
    with progress.stage(f"Measuring the trained network on {len(images):,} images"):
        keras = _keras_answers(bundle, images)
    forms, spread = _tflite_answers(bundle, images, runtimes, reference_kernels, progress)
    cost = tuple(
        compare(before, after, images, card.labels, retrained=retrained)
        for before, after, retrained in pairs(keras, forms)
    )
    return Proof(images=images, origin=_origin(bundle), cost=cost, spread=spread)


def check_comparable(bundle: Bundle, runtimes: Sequence[str]) -> None:
    """BundleError if there is nothing to compare: the bundle holds one form of its network, for one runtime."""
    if len(_keras_forms(bundle)) + len(_tflite_forms(bundle)) * len(runtimes) < 2:
        raise BundleError(
            f"{bundle.path} holds only one form of its network, so there is nothing to compare it with: `edgefer verify {bundle.path}` "
            f"proves it without data, and `edgefer evaluate {bundle.path}` measures it on data."
        )


def _keras_forms(bundle: Bundle) -> list[Form]:
    """The Keras networks that can be run here: first the trained network, last the one TFLite was made from."""
    if not find_spec("tensorflow"):
        return []
    origin = [Form.ORIGIN] if origin_form(bundle.card) is Form.ORIGIN else []
    return [form for form in (*origin, Form.KERAS, Form.TUNED) if bundle.has(form)]


def _tflite_forms(bundle: Bundle) -> list[Form]:
    return [form for form in (*reversed(TFLITE_VARIANTS), Form.MEDIAPIPE) if bundle.has(form)]


def _origin(bundle: Bundle) -> Check:
    """check_origin, and whether TensorFlow is installed to run it."""
    check = check_origin(bundle)
    if check.status is Status.PASS and origin_form(bundle.card) is not Form.FLOAT32 and not find_spec("tensorflow"):
        detail = "it needs TensorFlow, which is not installed here: the forms are compared with float32.tflite"
        fix = "run the same command on the host"
        return Check(question=2, subject=SUBJECT, status=Status.NOT_CHECKED, detail=detail, fix=fix)
    return check


def _keras_answers(bundle: Bundle, images: Split) -> list[Answers]:
    """The answers of the bundle's Keras networks, as in _keras_forms."""
    found = []
    for form in _keras_forms(bundle):
        logits = keras_logits(load_keras(bundle, form), images.images)
        found.append(Answers(name=form.value, form=form, logits=logits, temperature=bundle.card.temperature))
    return found


def _tflite_answers(
    bundle: Bundle, images: Split, runtimes: Sequence[str], reference_kernels: bool, progress: Progress
) -> tuple[list[Answers], tuple[Comparison, ...]]:
    """Every TFLite form's answers on every runtime's optimized kernels, and how other kernels differ from the first."""
    some = np.sort(stratified_rows(images.labels, min(REFERENCE_IMAGES, len(images)), seed=0))
    kernels = {"optimized": None} | ({"reference": some} if reference_kernels else {})
    forms: list[Answers] = []
    spread: list[Comparison] = []
    for form in _tflite_forms(bundle):
        answers = {
            (runtime, kind): _answers(FormOnRuntime(bundle, form, runtime, kind), images, rows, progress)
            for runtime in runtimes
            for kind, rows in kernels.items()
            if kind == "optimized" or runtime not in WITHOUT_REFERENCE
        }
        forms += [one for (_, kind), one in answers.items() if kind == "optimized"]
        first, *others = answers.values()
        spread += [compare(first, one, images, bundle.card.labels) for one in others]
    return forms, tuple(spread)


@dataclass(frozen=True)
class FormOnRuntime:
    """A TFLite form of a bundle on a runtime's kernels."""

    bundle: Bundle
    form: Form
    runtime: str
    kernels: str

    @property
    def name(self) -> str:
        return f"{title(self.bundle, self.form)} on {self.runtime}" + (
            ", reference kernels" if self.kernels == "reference" else ""
        )

    def open(self) -> Network:
        options = RuntimeOptions(runtime=self.runtime, kernels=self.kernels)
        kind = MediaPipeNetwork if self.form is Form.MEDIAPIPE else Network
        return kind.open(self.bundle, self.form, options)


def _answers(tested: FormOnRuntime, images: Split, rows: np.ndarray | None, progress: Progress) -> Answers:
    """Its answers to images `rows` (None: all)."""
    network = tested.open()
    gives_logits = network.output == "logits" and tested.form is not Form.MEDIAPIPE
    pixels = images.images if rows is None else images.images[rows]
    starts, parts, ms = range(0, len(pixels), CHUNK), [], []
    for at in progress.track(starts, len(starts), tested.name):
        chunk = pixels[at : at + CHUNK]
        began = time.perf_counter()
        parts.append(network.logits(chunk))
        ms.append(1000 * (time.perf_counter() - began) / len(chunk))
    return Answers(
        name=tested.name,
        form=tested.form,
        logits=np.concatenate(parts),
        rows=rows,
        ms=float(np.median(ms)) if tested.kernels == "optimized" else None,
        quantum=network.scale if network.quantized and gives_logits else None,
        normalized=not gives_logits,
        temperature=1.0 if tested.form is Form.MEDIAPIPE else tested.bundle.card.temperature,
    )
