"""Question 2 of parity: what conversion cost, on labelled pictures, with every form of the network there is."""

from importlib.util import find_spec

import numpy as np

from edgefer.bundle import TFLITE_VARIANTS, Bundle
from edgefer.convert.pipeline import load_keras
from edgefer.errors import BundleError
from edgefer.interpreter import Network
from edgefer.parity import Comparison, compare
from edgefer.train.datasets import Dataset, Track, silent
from edgefer.train.evaluate import keras_logits

CHUNK = 128


def prove(
    bundle: Bundle, dataset: Dataset, split: str, *, runtimes: list[str], track: Track = silent
) -> tuple[Comparison, ...]:
    """Each form of the network, on each runtime, against the first there is of: Keras, TFLite float32.

    Without TensorFlow the float32 TFLite network is the reference.
    """
    card = bundle.card
    pictures = dataset.with_labels(card.labels).split(split)
    answers = {}
    if find_spec("tensorflow") and bundle.has("keras"):
        for variant in ("keras", "pruned"):
            if bundle.has(variant):
                answers[variant] = keras_logits(load_keras(bundle, variant), pictures.images)
    for variant in reversed(TFLITE_VARIANTS):
        for runtime in runtimes if bundle.has(variant) else ():
            network = Network(bundle.read(variant), card.input, len(card.labels), runtime=runtime)
            chunks = range(0, len(pictures), CHUNK)
            parts = track(chunks, len(chunks), f"{variant} on {runtime}")
            answers[f"{variant} on {runtime}"] = np.concatenate(
                [network.logits(pictures.images[at : at + CHUNK]) for at in parts]
            )
    if len(answers) < 2:
        raise BundleError(f"{bundle.path} holds only one form of its network: run `edgefer convert` first.")
    (reference, expected), *candidates = answers.items()
    return tuple(
        compare((reference, expected), candidate, pictures.labels, card.labels, pictures.ids) for candidate in candidates
    )
