"""The steps of a conversion: each takes the record of a network and returns the next one."""

import json
from dataclasses import asdict, replace

from edgefer.bundle import Form
from edgefer.convert.comparison import Answers, compare
from edgefer.convert.mediapipe import to_mediapipe
from edgefer.convert.prune import copy_of, measured_sparsity
from edgefer.convert.prune import prune as prune_weights
from edgefer.convert.quantize import calibration_images, to_float16, to_float32
from edgefer.convert.search import search_int8
from edgefer.convert.slim import slim as remove_filters
from edgefer.convert.tune import Tuner, tune
from edgefer.convert.work import Plan, Quantized, Work
from edgefer.text import counted
from edgefer.tflite.metadata import with_metadata
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import keras_bytes
from edgefer.train.recipes import recipe_of


def slim(work: Work, plan: Plan, tuner: Tuner) -> Work:
    """Remove filters and fine-tune; the card gets the recipe of the smaller network."""
    if not plan.slim:
        return work
    slimmed = remove_filters(work.trained, recipe_of(work.card), plan.slim)
    task = tuner.task(f"slim-{plan.slim:g}", work.trained, work.card, work.dataset, work.origin)
    tune(slimmed.network, replace(task, recipe=slimmed.recipe))
    # A copy: a compiled network would be saved with its optimizer's state, twice the bytes.
    network = copy_of(slimmed.network)
    step = (
        f"slim to {slimmed.recipe.model.layers}, {slimmed.multiply_adds_before / 1e6:.1f} to "
        f"{slimmed.multiply_adds / 1e6:.1f} million multiply-adds, {counted(task.epochs, 'epoch')} of fine-tuning: {_drop(work, network, tuner)}"
    )
    before = work.card.provenance
    changes = {"recipe": slimmed.recipe.model_dump(mode="json"), "steps": (*before.steps, step)}
    card = work.card.model_copy(update={"provenance": before.model_copy(update=changes)})
    files = work.files | {Form.KERAS: keras_bytes(network)}
    return replace(work, card=card, trained=network, tuned=network, files=files)


def prune(work: Work, plan: Plan, tuner: Tuner) -> Work:
    """Set a share of the weights to zero and fine-tune."""
    if not plan.prune:
        return work
    task = tuner.task(f"prune-{plan.prune:g}", work.tuned, work.card, work.dataset, work.origin)
    network = prune_weights(work.tuned, plan.prune, task)
    note = f"prune to {measured_sparsity(network):.0%} zeros, {counted(task.epochs, 'epoch')} of fine-tuning: {_drop(work, network, tuner)}"
    return work.noted(note, tuned=network)


def quantize(work: Work, plan: Plan, tuner: Tuner) -> Work:
    """Quantize to int8 by the cheapest method that the plan allows."""
    if not plan.int8:
        return work
    quantized = search_int8(work, plan, tuner)
    notes = [str(attempt) for attempt in quantized.attempts]
    if len(quantized.attempts) > 1:
        notes.append(f"kept the {quantized.best.way}")
    files = work.files | {Form.INT8: quantized.best.int8}
    return work.noted(*notes, tuned=quantized.best.network or work.tuned, files=files, quantized=quantized)


def export(work: Work, plan: Plan) -> Work:
    """Write the float forms."""
    if work.tuned is None:
        return work
    files = {Form.FLOAT32: to_float32(work.tuned)}
    if plan.float16:
        files[Form.FLOAT16] = to_float16(work.tuned)
    return replace(work, files=work.files | files)


def stamp(work: Work, plan: Plan, temperature: float) -> Work:
    """Write what depends on the temperature: the card, MediaPipe's form, and each file's metadata. No .tflite changes
    after this: the measured files are the deployed ones."""
    stated = {"author": plan.author or work.card.author, "license": plan.license or work.card.license}
    card = work.card.model_copy(update={"temperature": temperature, **stated})
    files = work.tflite
    if plan.mediapipe:
        calibration = calibration_images(work.dataset.split("train"), plan.seed)
        files = files | {Form.MEDIAPIPE: to_mediapipe(work.tuned, card.input, temperature, calibration)}
    # The trained network, whose hash the card's lineage has, stays as it is.
    kept = () if work.trained else (Form.FLOAT32,)
    stamped = {form: with_metadata(content, card) for form, content in files.items() if form not in kept}
    return replace(work, card=card, files=work.files | stamped)


def host_files(work: Work, origin: bytes | None) -> dict[Form, bytes]:
    """The Keras networks of the new bundle. origin: the trained network's file, None if it is not available."""
    if work.trained is None:
        return {}
    files = {Form.KERAS: work.files[Form.KERAS]}
    if origin is not None and origin != files[Form.KERAS]:
        files[Form.ORIGIN] = origin
    if work.tuned is not work.trained:
        files[Form.TUNED] = keras_bytes(work.tuned)
    return files


def quantization_report(quantized: Quantized) -> bytes:
    """report/quantization.json: every method tried, and the worst layers if none holds."""
    attempts = [
        {
            "how": attempt.way,
            "accuracy": attempt.comparison.candidate.scores.accuracy,
            "float32_accuracy": attempt.comparison.reference.scores.accuracy,
            "drop_points": attempt.comparison.drop,
            "drop_interval": attempt.comparison.drop_interval,
            "agreement": attempt.comparison.agreement,
            "kept": attempt is quantized.best,
        }
        for attempt in quantized.attempts
    ]
    layers = [asdict(layer) for layer in quantized.layers]
    return json.dumps({"attempts": attempts, "holds": quantized.holds, "worst_layers": layers}, indent=2).encode()


def _drop(work: Work, network, tuner: Tuner) -> str:
    """What a fine-tuned network lost against the trained one on the images for choosing a method, as text."""
    images = work.choosing
    with tuner.progress.stage(f"Measuring the accuracy lost on {len(images):,} images"):
        before, after = (keras_logits(one, images.images) for one in (work.origin, network))
    reference = Answers(name="trained", form=Form.ORIGIN, logits=before)
    return compare(reference, Answers(name="tuned", form=Form.TUNED, logits=after), images, work.card.labels).summary
