"""Votes as a teacher: FER+'s ten votes on an image, translated to the labels that its data set gave it.

FER2013 has one label per image, FER+ ten votes, and they disagree too often for the votes to be targets themselves. A
small network therefore learns which label the data set gives to images of such votes. Its answer keeps what the
image shows of the label, and loses most of the noise in it (learning from privileged information: Lopez-Paz et
al. 2016, arXiv:1511.03643).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgefer.bundle import Bundle
from edgefer.interpreter import softmax
from edgefer.progress import SILENT, Progress
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.data.ferplus import votes_of
from edgefer.train.distill import mirror_averaged
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import LOGITS, load_keras

PARTS, EPOCHS, BATCH, HIDDEN = 5, 12, 256, 256


def translated(
    dataset: Dataset, votes: Path, auxiliary: Sequence[Bundle], seed: int, progress: Progress = SILENT
) -> np.ndarray:
    """The label of each training image by its votes: float32 [n, classes], rows summing to 1.

    votes: the file of votes. auxiliary: networks that learned from such votes; their features of the image are
    inputs beside them. Each fifth of the images is answered by a network that learned from the others: none is given its own
    label. DataError when the votes belong to other images, InputError when one of them takes other ones.
    """
    split = dataset.split("train")
    counts = votes_of(dataset, "train", votes)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    seen = [_seen(bundle, split, progress) for bundle in auxiliary]
    inputs = np.concatenate([shares, shares > 0, *seen], axis=1).astype(np.float32)
    inputs = (inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-3)
    part = np.random.default_rng(seed).permutation(len(split)) % PARTS
    answers = np.zeros((len(split), len(dataset.labels)), np.float32)
    for held in progress.track(range(PARTS), PARTS, "Translating votes"):
        rest, own = np.flatnonzero(part != held), np.flatnonzero(part == held)
        answers[own] = _answers(inputs[rest], split.labels[rest], inputs[own], len(dataset.labels), seed)
    return answers


def _seen(bundle: Bundle, split: Split, progress: Progress = SILENT) -> np.ndarray:
    """What a network makes of each image before its last layer: float32 [n, features]."""
    import tf_keras

    model = load_keras(bundle, "keras")
    features = tf_keras.Model(model.input, model.get_layer(LOGITS).input)
    return mirror_averaged(bundle, lambda images: keras_logits(features, images), split, progress)


def _answers(inputs: np.ndarray, labels: np.ndarray, held: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Probabilities for `held`, of a small network that learned the labels of `inputs`."""
    from tf_keras import Sequential, layers, losses, optimizers, utils

    utils.set_random_seed(seed)
    network = Sequential([layers.Dense(HIDDEN, activation="relu"), layers.Dropout(0.5), layers.Dense(classes)])
    rate = optimizers.schedules.CosineDecay(3e-3, EPOCHS * -(-len(inputs) // BATCH))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizers.AdamW(rate, weight_decay=1e-3), loss)
    network.fit(inputs, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return softmax(np.asarray(network(held, training=False)))
