"""Knowledge distillation with precomputed targets (Hinton et al. 2015, arXiv:1503.02531).

Teachers predict each training image and its mirror image once, before training, so that epochs take no longer.
"""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefer.bundle import Bundle, Form
from edgefer.errors import DataError, InputError
from edgefer.files import MAX_NETWORK, read_regular, write_file
from edgefer.interpreter import softmax
from edgefer.npz import ArraySpec, read_arrays
from edgefer.progress import SILENT, Progress
from edgefer.train.data.dataset import Split
from edgefer.train.data.matching import matched
from edgefer.train.evaluate import keras_logits, mirror_images, networks
from edgefer.train.networks import load_keras


def teacher_probabilities(
    teacher: Bundle, split: Split, labels: tuple[str, ...], temperature: float, progress: Progress = SILENT
) -> np.ndarray:
    """softmax(logits / temperature) of a teacher, its logits averaged over image and mirror image: float32 [n,
    classes].

    Columns are in the order of `labels`; other labels of the teacher are left out before the softmax. InputError where
    it lacks one, or takes images of another shape.
    """
    card = teacher.card
    known = matched(labels, card.labels)
    if missing := [label for label in labels if label not in known]:
        raise InputError(f"The teacher {teacher.path} does not know {', '.join(missing)}: choose one that does.")
    logits = flip_averaged(teacher, _predictor(teacher), split, progress)
    logits = logits[:, [card.labels.index(known[label]) for label in labels]]
    return softmax(logits, temperature).astype(np.float32)


def flip_averaged(
    teacher: Bundle, predict: Callable[[np.ndarray], np.ndarray], split: Split, progress: Progress = SILENT
) -> np.ndarray:
    """The mean of `predict` (uint8 [n, h, w, c] -> float32 [n, m]) over each image and its mirror image: float32 [n,
    m].

    InputError where the teacher takes images of another shape.
    """
    spec = teacher.card.input
    if spec.shape != split.images.shape[1:]:
        settings = " ".join(f"--set input.{name}={getattr(spec, name)}" for name in ("height", "width", "color"))
        raise InputError(
            f"The teacher {teacher.path} takes images of {spec.shape}, the recipe {split.images.shape[1:]}: "
            f"train with {settings}, or name another teacher."
        )
    outputs = []
    starts = range(0, len(split), 512)
    for start in progress.track(starts, len(starts), f"Predicting with {teacher.path.name}"):
        images = split.images[start : start + 512]
        outputs.append((predict(images) + predict(mirror_images(images))) / 2)
    return np.concatenate(outputs)


def _predictor(bundle: Bundle) -> Callable[[np.ndarray], np.ndarray]:
    """The bundle's network as a function: uint8 [n, h, w, c] -> float32 logits [n, classes]."""
    if bundle.has(Form.KERAS):
        model = load_keras(bundle, Form.KERAS)
        return lambda images: keras_logits(model, images)
    return next(iter(networks(bundle).values()))  # float32 where there is one


MAX_ROWS, MAX_CLASSES, MAX_CHARS = 1 << 24, 1000, 9999
MAX_SOFT_BYTES = 2 << 30
SOFT_LABELS = {
    "probabilities": (ArraySpec(dtypes=("<f2", "<f4", "<f8"), shape=((MAX_ROWS,), (MAX_CLASSES,))),),
    "labels": (
        ArraySpec(dtypes=("<U",), shape=(), max_chars=MAX_CHARS),
        ArraySpec(dtypes=("<U",), shape=((MAX_CLASSES,),), max_chars=MAX_CHARS),
    ),
    "ids": (
        ArraySpec(dtypes=("<U",), shape=((MAX_ROWS,),), max_chars=MAX_CHARS),
        ArraySpec(dtypes=("<i4", "<i8"), shape=((MAX_ROWS,),)),
    ),
}


def save_soft_labels(file: Path, split: Split, labels: tuple[str, ...], probabilities: np.ndarray) -> None:
    """Write soft labels as an .npz: probabilities float32 [n, classes], labels (JSON of their names), ids (row or
    file)."""
    content = io.BytesIO()
    np.savez(content, probabilities=probabilities, labels=np.array(json.dumps(labels)), ids=split.ids)
    write_file(file, content.getvalue())


def load_soft_labels(file: Path, split: Split, labels: tuple[str, ...]) -> np.ndarray:
    """Soft labels for the split's images: float32 [n, classes], rows summing to 1.

    The .npz has probabilities [n, classes], labels (names, or JSON of them) and perhaps ids; without ids its rows are
    the training images in order. Rows are normalized. DataError for a file that does not fit the split or the labels.
    """
    content = read_regular(file, MAX_NETWORK, error=DataError)
    try:
        arrays = read_arrays(content, SOFT_LABELS, MAX_SOFT_BYTES)
        probabilities, ids = arrays["probabilities"].astype(np.float32), arrays.get("ids")
        stored = arrays["labels"]
        names = [str(name) for name in (json.loads(str(stored)) if stored.ndim == 0 else stored)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{file} is not a file of soft labels (.npz with probabilities and labels): {error}.") from None
    if probabilities.ndim != 2 or probabilities.shape[1] != len(names):
        raise DataError(f"{file} has probabilities of shape {probabilities.shape} for {len(names)} labels.")
    known = matched(labels, names)
    if missing := [label for label in labels if label not in known]:
        raise DataError(f"{file} has no column for {', '.join(missing)}: it has {', '.join(names)}.")
    if ids is None:
        if len(probabilities) != len(split):
            raise DataError(f"{file} has {len(probabilities):,} rows for {len(split):,} training images.")
    else:
        row_of = {str(name): row for row, name in enumerate(ids)}
        if len(row_of) < len(ids):
            raise DataError(f"{file} has more than one row for the same id: keep one of each.")
        if absent := [str(name) for name in split.ids if str(name) not in row_of]:
            raise DataError(f"{file} has nothing for {absent[0]} and {len(absent) - 1} other training images.")
        probabilities = probabilities[[row_of[str(name)] for name in split.ids]]
    probabilities = probabilities[:, [names.index(known[label]) for label in labels]]
    sums = probabilities.sum(axis=1, keepdims=True)
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or sums.min() <= 0:
        raise DataError(f"{file} holds numbers that are not probabilities: they must be 0 or more, and finite.")
    return probabilities / sums


def with_soft_targets(split: Split, probabilities: np.ndarray, weight: float) -> Split:
    """The split with targets (1 - weight) * its own + weight * probabilities [n, classes]."""
    own = split.soft_labels(probabilities.shape[1])
    return replace(split, targets=((1 - weight) * own + weight * probabilities).astype(np.float32))
