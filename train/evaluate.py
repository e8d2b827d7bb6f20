"""What a network is worth on a labelled split."""

from typing import TYPE_CHECKING

import numpy as np

from edgefer.card import Scores
from edgefer.metrics import confusion_matrix, per_class, scores
from edgefer.preprocess import to_float
from edgefer.train.datasets import Split

if TYPE_CHECKING:
    import tf_keras


def keras_logits(model: "tf_keras.Model", images: np.ndarray) -> np.ndarray:
    """float32 logits [n, classes] of uint8 images [n, h, w, c], in their order."""
    # One call per batch rather than model.predict, which re-batches through a data set and warns as it goes.
    parts = [np.asarray(model(to_float(images[at : at + 256]), training=False)) for at in range(0, len(images), 256)]
    return np.concatenate(parts).astype(np.float32)


def evaluate(split: Split, logits: np.ndarray) -> Scores:
    """The scores of logits [n, classes] against the split's labels."""
    return scores(split.labels, logits.argmax(axis=1), logits.shape[1])


def class_table(
    split: Split, logits: np.ndarray, labels: tuple[str, ...]
) -> list[tuple[str, int, float, float, float]]:
    """Per class: label, pictures, precision, recall, F1."""
    matrix = confusion_matrix(split.labels, logits.argmax(axis=1), len(labels))
    return list(zip(labels, matrix.sum(axis=1).tolist(), *(part.tolist() for part in per_class(matrix)), strict=True))
