"""Question 2 of parity: what conversion cost, on labelled pictures, with every form of the network there is."""

import time
from importlib.util import find_spec

import numpy as np

from edgefer.bundle import TFLITE_VARIANTS, Bundle
from edgefer.errors import BundleError
from edgefer.interpreter import Network
from edgefer.parity import Comparison, compare
from edgefer.train.datasets import Dataset, Track, silent
from edgefer.train.evaluate import keras_logits
from edgefer.train.models import load_keras

CHUNK = 128


def prove(
    bundle: Bundle, dataset: Dataset, split: str, *, runtimes: list[str], track: Track = silent
) -> tuple[Comparison, ...]:
    """What fine-tuning cost against the trained network, and what each TFLite form on each runtime cost against its source.

    The source of the TFLite forms is the fine-tuned network (pruned, or quantization-aware) if there is one, else the
    trained one; without TensorFlow, the float32 TFLite network.
    """
    card = bundle.card
    pictures = dataset.with_labels(card.labels).split(split)
    answers: dict[str, np.ndarray] = {}
    times: dict[str, float] = {}
    for variant in ("keras", "tuned") if find_spec("tensorflow") else ():
        if bundle.has(variant):
            answers[variant] = keras_logits(load_keras(bundle, variant), pictures.images)
    for variant in reversed(TFLITE_VARIANTS):
        for runtime in runtimes if bundle.has(variant) else ():
            network = Network(bundle.read(variant), card.input, len(card.labels), runtime=runtime)
            name, starts = f"{variant} on {runtime}", range(0, len(pictures), CHUNK)
            parts, ms = [], []
            for at in track(starts, len(starts), name):
                chunk = pictures.images[at : at + CHUNK]
                began = time.perf_counter()
                parts.append(network.logits(chunk))
                ms.append(1000 * (time.perf_counter() - began) / len(chunk))
            answers[name], times[name] = np.concatenate(parts), float(np.median(ms))
    if len(answers) < 2:
        raise BundleError(f"{bundle.path} holds only one form of its network: run `edgefer convert` first.")

    names = list(answers)
    source = "tuned" if "tuned" in answers else names[0]
    pairs = [(names[0], "tuned")] if source == "tuned" else []
    pairs += [(source, name) for name in names if name not in ("keras", source)]
    return tuple(
        compare((a, answers[a]), (b, answers[b]), pictures.labels, card.labels, pictures.ids, ms=times.get(b))
        for a, b in pairs
    )
