"""Training on several GPUs or machines: the tf.distribute strategy, and which worker this process is."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgefer.errors import EdgeferError, InputError
from edgefer.train.backend import tensorflow


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One of the `count` processes of a training. index: from 0; worker 0 is the chief, which writes the run's files."""

    index: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        return self.index == 0


SINGLE_WORKER = Worker()


def this_worker() -> Worker:
    """Which worker this process is, by TensorFlow's environment variable TF_CONFIG; a single one where it is not set.

    It is {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, perhaps with a "chief" in
    the cluster. InputError for anything else.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return SINGLE_WORKER
    try:
        config = json.loads(text)
        hosts = [(job, index) for job in ("chief", "worker") for index, _ in enumerate(config["cluster"].get(job, ()))]
        task = config["task"]
        index = hosts.index((task["type"], int(task["index"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"TF_CONFIG does not say which worker this is: {text[:160]}. It must look like "
            '{"cluster": {"worker": ["host0:7000", "host1:7000"]}, "task": {"type": "worker", "index": 0}}.'
        ) from None
    return Worker(index=index, count=len(hosts))


@contextlib.contextmanager
def strategy_for(worker: Worker, run: Path) -> Iterator:
    """The tf.distribute.Strategy: multi-worker, mirrored over several GPUs, or the default one.

    With several workers it must be made before anything else uses TensorFlow, and waits for all of them. Gradients are
    reduced by NCCL between GPUs, by a ring over gRPC between CPUs. EdgeferError with the command to resume by when
    another worker is lost, which TensorFlow notices within about ten seconds.
    """
    if worker.count == 1:
        tf = tensorflow()
        several = len(tf.config.list_physical_devices("GPU")) > 1
        yield tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
        return
    # Without TensorFlow's own ten lines on a lost worker.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tf = tensorflow()
    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    )
    try:
        yield tf.distribute.MultiWorkerMirroredStrategy()
    except lost:
        raise EdgeferError(
            "Another worker of this training has stopped or cannot be reached; its own output says why. Every finished epoch "
            f"is kept. Continue by starting all workers again with: edgefer train --resume --out {run}"
        ) from None
