"""What a network is worth on a labelled split."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import TFLITE_VARIANTS, Bundle
from edgefer.card import Scores
from edgefer.errors import BundleError
from edgefer.interpreter import Network, RuntimeOptions, softmax
from edgefer.metrics import aurc, confusion_matrix, ece, nll, per_class, scores, wilson_interval
from edgefer.preprocess import to_float
from edgefer.tflite.titles import title
from edgefer.train.data.dataset import Split
from edgefer.train.memory import batch_for
from edgefer.train.networks import load_keras

if TYPE_CHECKING:
    import tf_keras


def keras_logits(model: "tf_keras.Model", images: np.ndarray) -> np.ndarray:
    """float32 logits [n, classes] of uint8 images [n, h, w, c], in their order."""
    # One call per batch rather than model.predict, which re-batches through a data set and warns as it goes.
    batch = batch_for(model)
    parts = [
        np.asarray(model(to_float(images[at : at + batch]), training=False)) for at in range(0, len(images), batch)
    ]
    return np.concatenate(parts).astype(np.float32)


def evaluate(split: Split, logits: np.ndarray) -> Scores:
    """The scores of logits [n, classes] against the split's labels."""
    return scores(split.labels, logits.argmax(axis=1), logits.shape[1])


def class_table(
    split: Split, logits: np.ndarray, labels: tuple[str, ...]
) -> list[tuple[str, int, float, float, float]]:
    """Per class: label, images, precision, recall, F1."""
    matrix = confusion_matrix(split.labels, logits.argmax(axis=1), len(labels))
    return list(zip(labels, matrix.sum(axis=1).tolist(), *(part.tolist() for part in per_class(matrix)), strict=True))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One form of a network on one labelled split.

    interval: 95% for the accuracy (Wilson 1927). nll in nats, ece over 15 bins, aurc: see edgefer.metrics, all three with
    the card's temperature.
    probabilities: float64 [n, classes], in the split's order.
    """

    name: str
    scores: Scores
    interval: tuple[float, float]
    nll: float
    ece: float
    aurc: float
    confusion: np.ndarray
    probabilities: np.ndarray


def networks(bundle: Bundle, runtime: str = "auto") -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Every form of the bundle's network that can run here: name -> (uint8 [n, h, w, c] -> float32 [n, classes]).

    The TFLite forms, float first; the Keras one only where there are none, for it is float32.tflite's twin.
    """
    forms: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for variant in reversed(TFLITE_VARIANTS):
        if bundle.has(variant):
            forms[title(bundle, variant)] = Network.open(bundle, variant, RuntimeOptions(runtime=runtime)).logits
    if not forms and find_spec("tensorflow"):
        model = load_keras(bundle, "keras")
        forms["keras"] = lambda images: keras_logits(model, images)
    if not forms:
        raise BundleError(
            f"{bundle.path} holds no network that can run here: run `edgefer convert {bundle.path}` first."
        )
    return forms


def mirror_images(images: np.ndarray) -> np.ndarray:
    """Each of the images [n, h, w, c] with left and right exchanged."""
    return np.ascontiguousarray(images[:, :, ::-1])


def both_views(logits: Callable[[np.ndarray], np.ndarray], temperature: float) -> Callable[[np.ndarray], np.ndarray]:
    """The network asked of each image and its mirror image (test-time flip): logits whose softmax at `temperature` is
    the mean of the two probabilities."""

    def answer(images: np.ndarray) -> np.ndarray:
        views = (images, mirror_images(images))
        mean = np.mean([softmax(logits(view), temperature) for view in views], axis=0)
        return (temperature * np.log(np.maximum(mean, 1e-12))).astype(np.float32)

    return answer


def full_evaluation(name: str, logits: np.ndarray, split: Split, temperature: float) -> Evaluation:
    """All figures of float32 logits [n, classes] against the split's labels."""
    probabilities = softmax(logits, temperature)
    result = evaluate(split, logits)
    return Evaluation(
        name=name,
        scores=result,
        interval=wilson_interval(result.accuracy, result.count),
        nll=nll(probabilities, split.labels),
        ece=ece(probabilities, split.labels),
        aurc=aurc(probabilities, split.labels),
        confusion=confusion_matrix(split.labels, logits.argmax(axis=1), logits.shape[1]),
        probabilities=probabilities,
    )
