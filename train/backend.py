"""The one door to TensorFlow: legacy Keras, quiet start, and the settings that make training quick on this machine."""

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

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_UNITS = {"amx_bf16", "avx512_bf16"}  # the CPU's flags for native products of bfloat16


def tensorflow():
    """Import and return TensorFlow, set up for edgefer. Raises MissingDependency with the line that installs it."""
    use_own_directory()
    # tfmot 0.8 works on Keras 2 only, and reads this when it and TensorFlow are imported.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # TensorFlow leaves oneDNN off on x86 CPUs without AVX-512: switching it on made fer-small train 1.6 times faster.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with quiet():
            tf = import_module("tensorflow")
            import_module("tf_keras")
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
    except ImportError as error:
        raise MissingDependency(
            f"Training and conversion need TensorFlow ({error}): pip install 'edgefer[train]' (on the host, not the device)."
        ) from None
    tf.get_logger().setLevel("ERROR")
    return tf


def precision() -> str:
    """The Keras policy that is fastest here: bfloat16 only where the hardware multiplies it natively.

    Emulated bfloat16 is several times slower than float32.
    """
    tf = tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "float32"
    with contextlib.suppress(OSError):
        if BFLOAT16_UNITS & set(CPUINFO.read_text().split()):
            return "mixed_bfloat16"
    return "float32"


@contextlib.contextmanager
def mixed_precision() -> Iterator[None]:
    """Build and fit networks by the policy that is fastest here; float32 again afterwards."""
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
    """The versions that made a network, for its card."""
    from importlib.metadata import version

    import cv2

    names = ("edgefer", "tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy")
    # OpenCV comes by several names, opencv-python-headless among them: it is asked itself.
    known = {name: version(name) for name in names} | {"opencv-python": cv2.__version__}
    return known | {"python": sys.version.split()[0]}


def batch_norm(**options):
    """Batch norm over the whole batch, also where a tf.distribute strategy divides it among several replicas."""
    import tensorflow as tf
    from tf_keras import layers

    return layers.BatchNormalization(synchronized=tf.distribute.get_strategy().num_replicas_in_sync > 1, **options)


def to_float_in_graph():
    """edgefer.preprocess.to_float inside TensorFlow's graph: by its own 256 answers, so that not a bit can differ."""
    tf = tensorflow()
    table = tf.constant(to_float(np.arange(256, dtype=np.uint8)))
    return lambda pixels: tf.gather(table, tf.cast(pixels, tf.int32))
