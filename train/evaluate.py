"""Evaluation of a network on a labelled split."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import TFLITE_VARIANTS, Bundle, Form
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
    """float32 logits [n, classes] of uint8 images [n, h, w, c]."""
    # Not model.predict, which builds a tf.data pipeline each time and logs warnings.
    batch = batch_for(model)
    starts = range(0, len(images), batch)
    logits = [np.asarray(model(to_float(images[start : start + batch]), training=False)) for start in starts]
    return np.concatenate(logits).astype(np.float32)


def evaluate(split: Split, logits: np.ndarray) -> Scores:
    """Accuracy, macro recall and macro F1 of logits [n, classes] on the split."""
    return scores(split.labels, logits.argmax(axis=1), logits.shape[1])


def class_table(
    split: Split, logits: np.ndarray, labels: tuple[str, ...]
) -> list[tuple[str, int, float, float, float]]:
    """(label, images, precision, recall, F1) of each class."""
    matrix = confusion_matrix(split.labels, logits.argmax(axis=1), len(labels))
    return list(zip(labels, matrix.sum(axis=1).tolist(), *(part.tolist() for part in per_class(matrix)), strict=True))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of one form of a network on one split.

    interval: 95% confidence interval of the accuracy (Wilson 1927). nll in nats, ece over 15 bins, aurc: see
    edgefer.metrics, all with the card's temperature. confusion: int64 [classes, classes], rows are true classes.
    probabilities: float64 [n, classes].
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
    """The forms of the bundle's network that can run here: name -> (uint8 [n, h, w, c] -> float32 logits [n, classes]).

    The TFLite forms, float32 first; Keras only where there are none, since float32.tflite is equivalent. BundleError
    where no form can run.
    """
    forms: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for variant in reversed(TFLITE_VARIANTS):
        if bundle.has(variant):
            forms[title(bundle, variant)] = Network.open(bundle, variant, RuntimeOptions(runtime=runtime)).logits
    if not forms and find_spec("tensorflow"):
        model = load_keras(bundle, Form.KERAS)
        forms[Form.KERAS.value] = lambda images: keras_logits(model, images)
    if not forms:
        raise BundleError(
            f"{bundle.path} holds no network that can run here: run `edgefer convert {bundle.path}` first."
        )
    return forms


def mirror_images(images: np.ndarray) -> np.ndarray:
    """The images [n, h, w, c] flipped horizontally."""
    return np.ascontiguousarray(images[:, :, ::-1])


def both_views(logits: Callable[[np.ndarray], np.ndarray], temperature: float) -> Callable[[np.ndarray], np.ndarray]:
    """The network with test-time flip: logits whose softmax at `temperature` is the mean over each image and its mirror
    image."""

    def averaged_logits(images: np.ndarray) -> np.ndarray:
        views = (images, mirror_images(images))
        mean = np.mean([softmax(logits(view), temperature) for view in views], axis=0)
        return (temperature * np.log(np.maximum(mean, 1e-12))).astype(np.float32)

    return averaged_logits


def full_evaluation(name: str, logits: np.ndarray, split: Split, temperature: float) -> Evaluation:
    """All figures of float32 logits [n, classes] on the split."""
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
