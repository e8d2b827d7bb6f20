"""Several GPUs or machines: which strategy of tf.distribute serves this process, and what only the chief does."""

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
    """One of the `count` processes of a training, by its index from 0: the first, the chief, writes what stays."""

    index: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        return self.index == 0


SINGLE_WORKER = Worker()


def this_worker() -> Worker:
    """Which worker this process is, from TF_CONFIG, TensorFlow's own environment variable for it: {"cluster": {"worker":
    ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, perhaps with a "chief" beside the workers. Raises InputError
    when TF_CONFIG is anything else.
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
    """The tf.distribute.Strategy for what is here: over the workers, over this machine's GPUs, or the default one.

    With several workers, nothing else may have used TensorFlow before, and it waits for all of them. They exchange
    gradients by NCCL between GPUs, in a ring over gRPC between CPUs. When one of them is gone, TensorFlow notices within
    some ten seconds, and EdgeferError says how to go on.
    """
    if worker.count == 1:
        tf = tensorflow()
        several = len(tf.config.list_physical_devices("GPU")) > 1
        yield tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
        return
    # A lost worker is reported in one sentence, not in C++'s ten lines.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tf = tensorflow()
    gone = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    )
    try:
        yield tf.distribute.MultiWorkerMirroredStrategy()
    except gone:
        raise EdgeferError(
            "Another worker of this training is gone or cannot be reached; its own output says why. Every finished epoch "
            f"is kept. Continue by starting all workers again with: edgefer train --resume --out {run}"
        ) from None
