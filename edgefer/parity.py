"""Is it still the same network? Three questions, each with its own tolerance.

1. Same pixels?      This machine crops and resizes stored images to exactly the host's pixels: bit-exact.
2. Same decisions?   On labelled images, the converted network against the one it came from: accuracy drop, agreement.
3. Same answers?     This runtime on this processor gives the stored answers to stored pixels: within a few quanta.

1 and 3 need only the bundle (`verify`); 2 needs data (edgefer.convert.comparison).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgefer.bundle import TFLITE_VARIANTS, Bundle, Form, remake
from edgefer.card import CropSpec
from edgefer.checks import Check, Status, status_if
from edgefer.errors import BundleError, RuntimeFault
from edgefer.interpreter import Network, RuntimeOptions
from edgefer.lineage import check_recorded_cost
from edgefer.onnx import check_onnx
from edgefer.preprocess import look_up, quantized_table
from edgefer.tflite.arithmetic import outputs
from edgefer.tflite.flatbuffer import ends, read_model
from edgefer.tflite.int8_network import UnsupportedNetwork
from edgefer.tflite.layers import read_layers
from edgefer.tflite.quanta import check_quanta
from edgefer.tflite.titles import title
from edgefer.tflite.weights import check_weights
from edgefer.vectors import ROLLS_DEG, Vectors, cut_crops, first_crop, stored_crops

# Int8 kernels of different runtimes and processors occasionally round a sum differently by one step, which propagates
# through the network: tflite-runtime 2.14 against ai-edge-litert 2.1 gave at most 3 quanta in a logit and 0.37 on average
# over 210 faces. An error moves every answer, so the limit of the mean is tighter than that of the maximum.
INT8_WORST, INT8_MEAN = 4, 0.5
# OpenVINO computes in float and rounds differently: at most 3 quanta and 0.38 to 0.56 on average, by network.
INT8_MEANS = {"openvino": 0.75}
# Float kernels add in different orders; this is a thousandth of the usual distance between two neighbouring logits.
FLOAT_TOLERANCE = 1e-3
QUICK = 6  # every sixth image is checked before a run
MAX_VERIFY_S = 60.0  # for the stored images of one network: tens of milliseconds are usual
MAX_EXACT_WORK = 2_000_000_000  # operations per image, for which numpy takes seconds
# The forms that `verify` does not run, and why.
NOT_RUN = {
    Form.INT8_EDGETPU: "only an Edge TPU runs it: `edgefer run --device coral` compares its answers before the first frame",
    Form.INT8_ETHOSU: "only an Arm Ethos-U runs it: compare its answers on the device with those in parity.npz",
    Form.MEDIAPIPE: "the bundle stores no answers of it: `edgefer verify --data` compares its decisions",
}
EXACT = 4  # every fourth is computed exactly, a second or two without a runtime


def verify(
    bundle: Bundle,
    *,
    runtime: str = "auto",
    variants: Sequence[str] = TFLITE_VARIANTS,
    vectors: Vectors | None = None,
) -> list[Check]:
    """Questions 1 and 3 for the bundle on this machine: needs neither data nor TensorFlow. vectors: the bundle's, if
    already loaded."""
    vectors = vectors or Vectors.load(bundle)
    return check_pixels(bundle, vectors) + check_answers(bundle, vectors, runtime=runtime, variants=variants)


def check_bundle(bundle: Bundle, runtimes: Sequence[str] = ("auto",)) -> list[Check]:
    """All checks of the bundle without data, with question 3 on each runtime, as in `edgefer verify` without --data."""
    vectors = Vectors.load(bundle)
    checks = check_pixels(bundle, vectors)
    for runtime in runtimes:
        checks += check_answers(bundle, vectors, runtime=runtime)
    checks += (
        check_exactly(bundle, vectors)
        + check_onnx(bundle, vectors)
        + check_not_run(bundle)
        + check_weights(bundle)
        + check_quanta(bundle, vectors.quanta)
    )
    recorded = check_recorded_cost(bundle)
    return [*checks, recorded] if recorded else checks


def check_pixels(bundle: Bundle, vectors: Vectors) -> list[Check]:
    """Question 1: a check for the crop of each detector in the card, for levelled heads, and for the kind of faces."""
    card = bundle.card

    def cut(crop: CropSpec, rolls_deg: Sequence[float] = (0.0,)) -> np.ndarray:
        return cut_crops(vectors.frames, vectors.boxes, crop, card, rolls_deg)

    checks = [
        _check_crops(bundle, f"pixels of {name}'s crop" if name else "pixels", cut(crop), vectors.crops.get(name))
        for name, crop in stored_crops(card).items()
    ]
    if card.task == "read":
        levelled = cut(first_crop(card), ROLLS_DEG)
        checks.append(_check_crops(bundle, "pixels of levelled heads", levelled, vectors.levelled))
    return [*checks, _check_faces(bundle, vectors)]


def _check_crops(bundle: Bundle, subject: str, crops: np.ndarray, expected: np.ndarray | None) -> Check:
    if expected is None:
        detail, fix = "the bundle stores no pixels for it", remake(bundle)
        return Check(question=1, subject=subject, status=Status.NOT_CHECKED, detail=detail, fix=fix)
    wrong = int((crops != expected).sum())
    detail = f"{wrong:,} of {crops.size:,} pixels of {len(crops)} crops differ"
    return Check(question=1, subject=subject, status=status_if(wrong == 0), detail=detail)


def _check_faces(bundle: Bundle, vectors: Vectors) -> Check:
    """A changed `faces` in the card selects another detector, which no stored pixel or answer would show."""
    faces = bundle.card.faces
    if vectors.faces:  # compared by Vectors.load
        return Check(question=1, subject="faces", status=Status.PASS, detail=f"{faces}, as when the vectors were made")
    detail = f"the card says {faces}; the bundle stores nothing to compare it with"
    return Check(question=1, subject="faces", status=Status.NOT_CHECKED, detail=detail, fix=remake(bundle))


def check_answers(
    bundle: Bundle, vectors: Vectors, *, runtime: str = "auto", variants: Sequence[str] = TFLITE_VARIANTS
) -> list[Check]:
    """Question 3: a check for each TFLite network of the bundle on one runtime."""
    checks = []
    for variant in variants:
        if bundle.has(variant):
            network = Network.open(bundle, variant, RuntimeOptions(runtime=runtime))
            check = _check_answers(network, variant, vectors.pixels, vectors.answers[variant])
            checks.append(replace(check, subject=f"{title(bundle, variant)} on {network.runtime}"))
    return checks


def check_not_run(bundle: Bundle) -> list[Check]:
    """Question 3 for the forms that are not run here: whether those compiled from int8 at least take and give the same."""
    checks = []
    for form, reason in NOT_RUN.items():
        if not bundle.has(form):
            continue
        status, detail = Status.NOT_CHECKED, reason
        if form is not Form.MEDIAPIPE and bundle.has(Form.INT8):
            own, source = (ends(read_model(bundle.read(one), bundle.file(one).name)) for one in (form, Form.INT8))
            if own != source:
                status = Status.FAIL
                detail = "its input or output is not that of int8: it was compiled from another network"
        fix = remake(bundle) if status is Status.FAIL else ""
        checks.append(Check(question=3, subject=form.value, status=status, detail=detail, fix=fix))
    return checks


def check_exactly(bundle: Bundle, vectors: Vectors) -> list[Check]:
    """Question 3 for int8 without any runtime: whether the stored answers are those of the exact integer arithmetic.

    They are, bit for bit, if ai-edge-litert on x86-64 made them. Other kernels' rounding differs by a step or two, so a
    difference is doubtful: a changed weight may have no larger effect.
    """
    if not bundle.has("int8"):
        return []
    subject = "int8, computed exactly"
    card, stored = bundle.card, vectors.answers["int8"][::EXACT]
    try:
        network = read_layers(bundle.read("int8"), bundle.file("int8").name)
        if network.input.shape != card.input.shape or network.answers != card.answers:
            raise UnsupportedNetwork("its ends are not those of its card.")
    except UnsupportedNetwork as error:
        detail = str(error).rstrip(".")
        return [Check(question=3, subject=subject, status=Status.NOT_CHECKED, detail=detail)]
    if network.work > MAX_EXACT_WORK:
        detail = f"{network.work:,} operations per image are too many to compute without a runtime"
        return [Check(question=3, subject=subject, status=Status.NOT_CHECKED, detail=detail)]
    table = quantized_table(card.input, np.int8, float(network.input.scale), network.input.zero)
    images = look_up(vectors.pixels[::EXACT], table)
    answers = np.stack([outputs(network, image) for image in images]).astype(np.int64)
    off = np.abs(answers - stored)
    detail = f"{int((off > 0).sum())} of {off.size} stored answers differ"
    if off.any():
        detail += f", by {off.max()} quanta at worst: other kernels made them, or the network was changed since"
    return [Check(question=3, subject=subject, status=Status.DOUBTFUL if off.any() else Status.PASS, detail=detail)]


def check_at_load(bundle: Bundle, network: Network, variant: str) -> None:
    """Question 3 on a few images, in milliseconds: RuntimeFault if the network does not give its stored answers.

    It catches a runtime that returns zeros, or other answers than the host's, before the first frame.
    """
    vectors = Vectors.load(bundle)
    variant = "int8" if network.quantized else variant  # the Edge TPU's compiled network has the answers of int8
    if variant not in vectors.answers:
        raise BundleError(f"{bundle.path}: its parity vectors hold no answers of {variant}: convert it again.")
    check = _check_answers(network, variant, vectors.pixels[::QUICK], vectors.answers[variant][::QUICK])
    if not check.passed:
        raise RuntimeFault(
            f"{network.name} does not give its bundle's stored answers on {network.runtime} ({check.detail}): do not trust it "
            "here. See `edgefer verify`, try another --runtime, or run it anyway with --no-check."
        )


def _check_answers(network: Network, variant: str, pixels: np.ndarray, expected: np.ndarray) -> Check:
    if network.quantized != (variant == "int8"):
        raise BundleError(
            f"{network.name} is the bundle's {variant} file, but takes {np.dtype(network.dtype).name}: convert it again."
        )
    answers = network.raw(pixels, total_s=MAX_VERIFY_S).astype(np.float64)
    if answers.shape != expected.shape:
        raise BundleError(
            f"{network.name} gives {answers.shape} answers, its parity vectors hold {expected.shape}: convert it again."
        )
    off = np.abs(answers - expected)
    worst, mean = float(off.max()), float(off.mean())
    same = int((answers.argmax(axis=1) == expected.argmax(axis=1)).sum())
    if network.quantized:
        allowed = INT8_MEANS.get(network.runtime, INT8_MEAN)
        passed = worst <= INT8_WORST and mean <= allowed
        detail = f"off by {mean:.2f} quanta on average, {worst:.0f} at worst (allowed {allowed} and {INT8_WORST})"
    else:
        passed = worst <= FLOAT_TOLERANCE  # False for a NaN
        detail = f"off by {worst:.2g} in a logit at worst (allowed {FLOAT_TOLERANCE})"
    detail += f", {same} of {len(pixels)} decisions equal"
    if not answers.any():
        detail += "; every answer is zero: this runtime cannot run this network"
    return Check(question=3, subject=f"{variant} on {network.runtime}", status=status_if(passed), detail=detail)
