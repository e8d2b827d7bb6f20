"""A training's soft targets: from a file, teachers and FER+ votes, averaged; computed once, and kept in the run's
folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgefer.bundle import Bundle
from edgefer.errors import DataError
from edgefer.progress import SILENT, Progress
from edgefer.train.config import TrainConfig
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.ferplus import votes_file
from edgefer.train.distill import load_soft_labels, save_soft_labels, teacher_probabilities
from edgefer.train.run import RunFolder
from edgefer.train.votes import labels_from_votes


def soft_targets(
    config: TrainConfig, dataset: Dataset, run: RunFolder, *, scratch: Path | None = None, progress: Progress = SILENT
) -> np.ndarray:
    """The mean over the sources of soft labels for the training images: float32 [n, classes], rows summing to 1.

    scratch: where a worker that is not the chief keeps them instead of `run`. DataError and InputError as the sources
    raise.
    """
    supervision, train, labels = config.supervision, dataset.split("train"), dataset.labels

    def kept(file: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
        file = scratch / file.name if scratch else file
        if file.is_file():
            try:
                return load_soft_labels(file, train, labels)
            except DataError:
                progress.log(f"{file} is damaged: it is computed again.")
        save_soft_labels(file, train, labels, compute())
        return load_soft_labels(file, train, labels)

    def from_teachers() -> np.ndarray:
        teachers = [Bundle.open(Path(teacher)) for teacher in supervision.teachers]
        temperature = config.recipe.distill.temperature
        return np.mean([teacher_probabilities(one, train, labels, temperature, progress) for one in teachers], axis=0)

    def from_votes() -> np.ndarray:
        file = votes_file(supervision.votes, config.data)
        auxiliary = [Bundle.open(Path(bundle)) for bundle in supervision.auxiliary]
        return labels_from_votes(dataset, file, auxiliary, config.recipe.fit.seed, progress)

    sources = []
    if supervision.soft_labels:
        sources.append(load_soft_labels(Path(supervision.soft_labels), train, labels))
    if supervision.teachers:
        sources.append(kept(run.soft_labels, from_teachers))
    if supervision.votes:
        sources.append(kept(run.votes, from_votes))
    return np.mean(sources, axis=0)
