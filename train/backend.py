"""The only place that imports TensorFlow: legacy Keras, a quiet start, and fast settings for this machine."""

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np

from edgefer.errors import EdgeferError, MissingDependency
from edgefer.preprocess import to_float
from edgefer.quiet import quiet
from edgefer.scratch import use_own_directory

MAX_PYTHON = (3, 13)  # of TensorFlow 2.21
CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}  # CPU flags of native bfloat16 multiplication


def tensorflow():
    """Import and return TensorFlow, set up for edgefer. MissingDependency, with the command to install it, where it is
    missing."""
    use_own_directory()
    # tfmot 0.8 needs Keras 2; it and TensorFlow read this when they are imported.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # Off by default on x86 CPUs without AVX-512, where it made fer-small train 1.6 times faster.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with quiet():
            tf = import_module("tensorflow")
            import_module("tf_keras")
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
    except ImportError as error:
        raise MissingDependency(f"Training and conversion need TensorFlow ({error}): {_to_install()}.") from None
    tf.get_logger().setLevel("ERROR")
    return tf


def _to_install() -> str:
    if sys.version_info[:2] > MAX_PYTHON:
        newest, here = (".".join(map(str, version[:2])) for version in (MAX_PYTHON, sys.version_info))
        return f"it has no package for Python {here}, so train and convert in an environment of Python 3.11 to {newest}"
    return "pip install 'edgefer[train]' (on the host, not the device)"


def precision() -> str:
    """The fastest Keras mixed-precision policy here: mixed_bfloat16 where the hardware is native, since emulated
    bfloat16 is several times slower than float32."""
    tf = tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "float32"
    with contextlib.suppress(OSError):
        if BFLOAT16_FLAGS & set(CPUINFO.read_text().split()):
            return "mixed_bfloat16"
    return "float32"


@contextlib.contextmanager
def mixed_precision() -> Iterator[None]:
    """Set the fastest Keras policy (`precision`) within the context, and float32 again afterwards."""
    tensorflow()
    import tf_keras

    tf_keras.mixed_precision.set_global_policy(precision())
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


def out_of_memory(error: Exception, kept: Path | None) -> EdgeferError:
    """One sentence for TensorFlow's ResourceExhaustedError. kept: the folder of the checkpoints, where there are any."""
    advice = f"Finished work is kept in {kept}: make room and --resume, or train" if kept else "Train"
    return EdgeferError(
        f"Memory or disk space ran out ({str(error).strip().splitlines()[0]:.120}). {advice} again with a smaller --batch-size."
    )


def versions() -> dict[str, str]:
    """Versions of the libraries that train a network, for its card."""
    from importlib.metadata import version

    import cv2

    names = ("edgefer", "tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy")
    # OpenCV has several distributions, opencv-python-headless among them.
    known = {name: version(name) for name in names} | {"opencv-python": cv2.__version__}
    return known | {"python": sys.version.split()[0]}


def batch_norm(**options):
    """A batch-norm layer over the whole batch, synchronized where a tf.distribute strategy divides it among replicas."""
    import tensorflow as tf
    from tf_keras import layers

    return layers.BatchNormalization(synchronized=tf.distribute.get_strategy().num_replicas_in_sync > 1, **options)


def to_float_in_graph():
    """edgefer.preprocess.to_float as a graph op: a table of its 256 values, so that it is bit-exact."""
    tf = tensorflow()
    table = tf.constant(to_float(np.arange(256, dtype=np.uint8)))
    return lambda pixels: tf.gather(table, tf.cast(pixels, tf.int32))
