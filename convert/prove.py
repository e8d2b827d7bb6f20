"""Question 2 of parity: what conversion cost, on labelled pictures, with every form of the network there is."""

import time
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from edgefer.bundle import TFLITE_VARIANTS, Bundle
from edgefer.convert.comparison import Answers, Comparison, compare
from edgefer.convert.mediapipe import VARIANT as MEDIAPIPE
from edgefer.convert.mediapipe import MediaPipeNetwork
from edgefer.errors import BundleError
from edgefer.interpreter import Network
from edgefer.train.data.dataset import Dataset, Split, Track, silent, stratified_rows
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import load_keras

CHUNK = 128
REFERENCE_PICTURES = 256  # for reference kernels, which are ten to thirty times slower


@dataclass(frozen=True, kw_only=True)
class Proof:
    """`cost`: each form of the network, on each runtime's optimized kernels, against the one it came from. `spread`: the
    same file on other runtimes, and on reference kernels, against the first runtime's optimized ones."""

    pictures: Split
    cost: tuple[Comparison, ...]
    spread: tuple[Comparison, ...]


def prove(
    bundle: Bundle,
    dataset: Dataset,
    split: str,
    *,
    runtimes: list[str],
    reference_kernels: bool = False,
    track: Track = silent,
) -> Proof:
    """What fine-tuning cost against the trained network, and what each TFLite form on each runtime cost against its source.

    The source of the TFLite forms is the fine-tuned network (pruned, or quantization-aware) if there is one, else the
    trained one; without TensorFlow, the float32 TFLite network. reference_kernels: run them too, on a stratified draw
    of REFERENCE_PICTURES.
    """
    card = bundle.card
    pictures = dataset.with_labels(card.labels).split(split)
    some = np.sort(stratified_rows(pictures.labels, min(REFERENCE_PICTURES, len(pictures)), seed=0))
    sources: list[Answers] = []
    for variant in ("keras", "tuned") if find_spec("tensorflow") else ():
        if bundle.has(variant):
            logits = keras_logits(load_keras(bundle, variant), pictures.images)
            sources.append(Answers(name=variant, logits=logits, temperature=card.temperature))
    forms: list[Answers] = []
    spread: list[Comparison] = []
    for variant in (*reversed(TFLITE_VARIANTS), MEDIAPIPE):
        if not bundle.has(variant):
            continue
        first = None
        for runtime in runtimes:
            for kernels, rows in {"optimized": None, "reference": some}.items():
                if kernels == "reference" and not reference_kernels:
                    continue
                answers = _ask(bundle, variant, runtime, kernels, pictures, rows, track)
                if kernels == "optimized":
                    forms.append(answers)
                if first is None:
                    first = answers
                else:
                    spread.append(compare(first, answers, pictures, card.labels))
    answered = sources + forms
    if len(answered) < 2:
        raise BundleError(f"{bundle.path} holds only one form of its network: run `edgefer convert` first.")
    source = next((one for one in sources if one.name == "tuned"), answered[0])
    pairs = [(answered[0], source)] if source is not answered[0] else []
    pairs += [(source, one) for one in forms if one is not source]
    cost = tuple(compare(before, after, pictures, card.labels) for before, after in pairs)
    return Proof(pictures=pictures, cost=cost, spread=tuple(spread))


def _ask(
    bundle: Bundle, variant: str, runtime: str, kernels: str, pictures: Split, rows: np.ndarray | None, track: Track
) -> Answers:
    """What a TFLite file of the bundle says of pictures `rows` (None: all), on a runtime's kernels."""
    card = bundle.card
    kind = MediaPipeNetwork if variant == MEDIAPIPE else Network
    network = kind(bundle.read(variant), card.input, len(card.labels), runtime=runtime, kernels=kernels)
    images = pictures.images if rows is None else pictures.images[rows]
    name = f"{variant} on {runtime}" + (", reference kernels" if kernels == "reference" else "")
    starts, parts, ms = range(0, len(images), CHUNK), [], []
    for at in track(starts, len(starts), name):
        chunk = images[at : at + CHUNK]
        began = time.perf_counter()
        parts.append(network.logits(chunk))
        ms.append(1000 * (time.perf_counter() - began) / len(chunk))
    return Answers(
        name=name,
        logits=np.concatenate(parts),
        rows=rows,
        ms=float(np.median(ms)) if kernels == "optimized" else None,
        quantum=network.scale if network.quantized else None,
        temperature=1.0 if variant == MEDIAPIPE else card.temperature,
    )
