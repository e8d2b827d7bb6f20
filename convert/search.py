"""int8 by the cheapest accurate method: post-training quantization, other calibrations, quantization-aware training.

TFLite's converter takes each activation's range from the extremes it sees, so the only choice in calibration is the
number of images: more widen the ranges, fewer leave rare extremes out and round the rest more finely.
"""

import csv
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import Form
from edgefer.card import ModelCard
from edgefer.convert.aware import AWARE, quantization_aware
from edgefer.convert.comparison import Answers, compare
from edgefer.convert.quantize import CALIBRATION_IMAGES, calibration_images, int8_converter, to_int8
from edgefer.convert.requantize import tflite_to_int8
from edgefer.convert.tune import FineTuning, Tuner
from edgefer.convert.work import Attempt, LayerError, Plan, Quantized, Work
from edgefer.errors import RuntimeFault
from edgefer.interpreter import Network
from edgefer.preprocess import to_float
from edgefer.quiet import quiet
from edgefer.text import counted
from edgefer.tflite.flatbuffer import read_model
from edgefer.train.backend import tensorflow
from edgefer.train.evaluate import keras_logits

if TYPE_CHECKING:
    import tf_keras

OTHER_CALIBRATIONS = (2048, 128)  # images
DEBUG_IMAGES = 64
DEAD_SCALE = 1e-8  # TFLite gives 2e-6 / 255 to a tensor that is always 0, too little for XNNPACK
Made = tuple[bytes, "tf_keras.Model | None"]  # the .tflite, and the float network if its weights are new


def search_int8(work: Work, plan: Plan, tuner: Tuner) -> Quantized:
    """int8 by quantization-aware training if the plan says so; else by calibration and, with a max_drop, by further methods
    until the accuracy drops by no more points than that against the trained network."""
    images, stage = work.choosing, tuner.progress.stage
    with stage(f"Measuring the trained network on {len(images):,} images"):
        reference = Answers(name="trained", form=Form.ORIGIN, logits=_trained_logits(work, images.images))
    attempts: list[Attempt] = []
    failures: list[tuple[str, RuntimeFault]] = []
    holds = plan.max_drop is None
    for way, make in _ways(work, plan, tuner):
        try:
            content, network = make()
            with stage(f"Measuring int8 on {len(images):,} images"):
                logits = _loaded(content, work.card, keras=work.tuned is not None).logits(images.images)
        except RuntimeFault as error:
            failures.append((way, error))
            continue
        answers = Answers(name="int8", form=Form.INT8, logits=logits)
        comparison = compare(reference, answers, images, work.card.labels)
        attempts.append(Attempt(way=way, int8=content, comparison=comparison, network=network))
        if plan.max_drop is not None and comparison.drop <= plan.max_drop:
            holds = True
            break
    if not attempts:
        raise failures[0][1]
    for way, failure in failures:
        tuner.progress.log(f"Not possible: {way}. {failure}")
    best = min(attempts, key=lambda attempt: attempt.comparison.drop)
    layers: tuple[LayerError, ...] = ()
    if not holds:
        with stage("Finding the layers with the largest rounding errors"):
            layers = worst_layers(work, calibration_images(work.dataset.split("train"), plan.seed))
    return Quantized(attempts=tuple(attempts), best=best, holds=holds, layers=layers)


def _trained_logits(work: Work, images: np.ndarray) -> np.ndarray:
    if work.origin is not None:
        return keras_logits(work.origin, images)
    return Network.of(work.files[Form.FLOAT32], work.card).logits(images)


def _loaded(content: bytes, card: ModelCard, *, keras: bool = True) -> Network:
    """The int8 network; a RuntimeFault names the layers that are the reason."""
    try:
        return Network.of(content, card)
    except RuntimeFault as error:
        outputs = (one for operator in read_model(content, "int8.tflite").operators for one in operator.outputs)
        dead = dict.fromkeys(one.name.split(";")[0] for one in outputs if one.steps and one.steps[0] < DEAD_SCALE)
        if not dead:
            raise
        instead = "convert it with --no-int8" if keras else "run its float32 form"
        raise RuntimeFault(
            f"int8 cannot run, since all outputs of {', '.join(dead)} are 0 on the calibration images, which leaves them no scale: "
            f"train the network again, or {instead}."
        ) from error


def _ways(work: Work, plan: Plan, tuner: Tuner) -> Iterator[tuple[str, Callable[[], Made]]]:
    """The methods that the plan allows, the cheapest first: a description, and the function that runs it."""
    train, controlled = work.dataset.split("train"), plan.max_drop is not None

    def calibrated(count: int) -> Made:
        with tuner.progress.stage(f"Calibrating int8 on {count:,} training images"):
            images = calibration_images(train, plan.seed, count)
            if work.tuned is not None:
                return to_int8(work.tuned, images), None
            return tflite_to_int8(work.files[Form.FLOAT32], work.card.input, images), None

    def trained(task: FineTuning) -> Made:
        calibration = calibration_images(train, plan.seed)
        made = quantization_aware(work.tuned, calibration, task, keep_zeros=plan.prune > 0)
        return made.int8, made.network

    if not plan.qat:
        counts = (CALIBRATION_IMAGES, *(OTHER_CALIBRATIONS if controlled else ()))
        for count in dict.fromkeys(min(count, len(train)) for count in counts):
            yield f"int8 calibrated on {counted(count, 'training image')}", partial(calibrated, count)
    if work.tuned is not None and (plan.qat or controlled):
        task = tuner.task("aware", work.tuned, work.card, work.dataset, work.origin)
        kept = "prune-preserving " if plan.prune else ""
        yield f"int8 by {kept}{AWARE}, {counted(task.epochs, 'epoch')}", partial(trained, task)


def worst_layers(work: Work, calibration: np.ndarray) -> tuple[LayerError, ...]:
    """The network's layers by the quantization error of their outputs, the worst first; none if TFLite's debugger cannot
    run the network, as one with a layer whose outputs are all zero."""
    tf, spec = tensorflow(), work.card.input
    try:
        if work.tuned is not None:
            network = {"converter": int8_converter(work.tuned, calibration)}
        else:
            content = tflite_to_int8(work.files[Form.FLOAT32], spec, calibration, debug=True)
            network = {"quant_debug_model_content": content}
        with quiet(show_on_failure=False):
            debugger = tf.lite.experimental.QuantizationDebugger(
                **network, debug_dataset=lambda: ([to_float(one, spec)[None]] for one in calibration[:DEBUG_IMAGES])
            )
            debugger.run()
    except (RuntimeError, RuntimeFault):
        return ()
    table = io.StringIO()
    debugger.layer_statistics_dump(table)
    table.seek(0)
    errors = [
        LayerError(
            layer=row["tensor_name"].split(";")[0],
            operator=row["op_name"],
            error=float(row["mean_squared_error"]) ** 0.5 / float(row["scale"]),
        )
        for row in csv.DictReader(table)
    ]
    return tuple(sorted(errors, key=lambda error: -error.error))
