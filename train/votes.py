"""FER+ votes as a teacher for the labels of FER2013.

FER2013's labels and FER+'s ten votes per image disagree too often for the votes to be targets themselves. An MLP
therefore predicts the label from the votes. Its out-of-fold predictions are soft targets with less label noise
(learning from privileged information: Lopez-Paz et al. 2016, arXiv:1511.03643).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import Bundle, Form
from edgefer.interpreter import softmax
from edgefer.progress import SILENT, Progress
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.data.ferplus import votes_of
from edgefer.train.distill import flip_averaged
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import load_keras
from edgefer.train.objective import create_variables

if TYPE_CHECKING:
    import tf_keras

FOLDS, EPOCHS, BATCH, HIDDEN = 5, 12, 256, 256


def labels_from_votes(
    dataset: Dataset, votes: Path, auxiliary: Sequence[Bundle], seed: int, progress: Progress = SILENT
) -> np.ndarray:
    """Out-of-fold predictions of each training image's label from its votes: float32 [n, classes], rows summing to 1.

    votes: the file of votes. auxiliary: networks that were trained on such votes; their features are further inputs.
    Five folds, so that no prediction comes from a network that was trained on the image's own label. DataError where
    the votes do not match the data, InputError where an auxiliary network takes images of another shape.
    """
    split = dataset.split("train")
    counts = votes_of(dataset, "train", votes)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    features = [_features(bundle, split, progress) for bundle in auxiliary]
    inputs = np.concatenate([shares, shares > 0, *features], axis=1).astype(np.float32)
    inputs = (inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-3)
    fold_of = np.random.default_rng(seed).permutation(len(split)) % FOLDS
    predictions = np.zeros((len(split), len(dataset.labels)), np.float32)
    network = _mlp(inputs, len(dataset.labels), seed)
    initial = [(variable, variable.numpy()) for variable in (*network.weights, *network.optimizer.variables)]
    for fold in progress.track(range(FOLDS), FOLDS, "Predicting labels from votes"):
        train, holdout = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        for variable, value in initial:
            variable.assign(value)
        network.fit(inputs[train], split.labels[train], batch_size=BATCH, epochs=EPOCHS, verbose=0)
        predictions[holdout] = softmax(np.asarray(network(inputs[holdout], training=False)))
    return predictions


def _features(bundle: Bundle, split: Split, progress: Progress) -> np.ndarray:
    """The inputs of a network's last layer if that is dense, as in all trained here, or its logits: float32 [n, features]."""
    import tf_keras

    model = load_keras(bundle, Form.KERAS)
    last = model.layers[-1]
    features = tf_keras.Model(model.input, last.input if isinstance(last, tf_keras.layers.Dense) else last.output)
    return flip_averaged(bundle, lambda images: keras_logits(features, images), split, progress)


def _mlp(inputs: np.ndarray, classes: int, seed: int) -> "tf_keras.Model":
    """An MLP from inputs float32 [n, features] to logits [n, classes], compiled to be trained on one fold."""
    from tf_keras import Sequential, layers, losses, optimizers, utils

    utils.set_random_seed(seed)
    network = Sequential([layers.Dense(HIDDEN, activation="relu"), layers.Dropout(0.5), layers.Dense(classes)])
    network.build(inputs.shape)
    steps = -(-len(inputs) * (FOLDS - 1) // (FOLDS * BATCH))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizers.AdamW(optimizers.schedules.CosineDecay(3e-3, EPOCHS * steps), weight_decay=1e-3), loss)
    create_variables(network, tensorflow().zeros([1, classes]))
    return network
