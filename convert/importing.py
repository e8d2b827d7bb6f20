"""Takes a network from elsewhere in: `edgefer import` and edgefer.import_model.

Its contract is stated, read off the file or measured on labelled images, never guessed in silence. A Keras network is
rebuilt so that it takes pixels / 255 and gives logits, as edgefer's own do, and everything works on it. A .tflite stays
as it is, and its card says how it is fed and read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from edgefer.bundle import PARITY, Bundle, write_bundle
from edgefer.card import CropSpec, InputSpec, ModelCard, Provenance, Scores, first_problem
from edgefer.checks import Check, status_if
from edgefer.convert.contract import Contract, Hypothesis, Stated, candidates, choose, describe, measure
from edgefer.convert.foreign import LOGITS, Foreign, affine_of, read_foreign
from edgefer.convert.import_options import Request
from edgefer.errors import EdgeferError, InputError
from edgefer.files import with_name_of_its_own
from edgefer.interpreter import Network, softmax
from edgefer.parity import make_vectors
from edgefer.text import printable
from edgefer.train import backend
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.framing import measure_crop
from edgefer.train.limits import Holdout, with_limits
from edgefer.train.networks import keras_bytes
from edgefer.train.recipe_fields import Recipe

if TYPE_CHECKING:
    import tf_keras

MAX_DIFFERENCE = 1e-3  # in a probability, between the network as it came and as it was taken in
MEASURED = 2000  # images by which a contract is measured
FRAMED = 200  # images whose framing is measured
Measured = Mapping[str, CropSpec]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The new bundle, its contract, the contracts that were measured (the best first), and the proof that it answers as
    the network that came."""

    bundle: Bundle
    contract: Contract
    measured: tuple[Hypothesis, ...]
    because: tuple[str, ...]
    checks: tuple[Check, ...]

    def settled(self) -> dict[str, object]:
        """As plain values: what the network makes of pixels, why that is known, and what was measured."""
        return _settled(self.contract, self.measured, self.because)


def import_network(request: Request, out: Path) -> Imported:
    """Take a network in as the bundle `out`. InputError where its contract stays open, EdgeferError where what was taken in
    does not answer as what came."""
    try:
        return _import(request, out)
    except ValidationError as error:  # of a card: names and numbers come from the file, and from whoever takes it in
        raise InputError(f"{request.path} cannot be taken in: {first_problem(error)}.") from None


def _import(request: Request, out: Path) -> Imported:
    foreign = read_foreign(request.path, trust=request.trust, log=request.log)
    where = str(request.path)
    known = request.stated.over(foreign.stated, where)
    height, width, _ = foreign.shape
    dataset = request.load(_any_spec(foreign)) if request.load else None
    contract, measured = _settle(known, foreign, dataset, where)
    spec = InputSpec(height=height, width=width, color=contract.color.value)
    if dataset is not None and spec != _any_spec(foreign) and request.load:
        dataset = request.load(spec)
    card = _card(request, foreign, contract, dataset, known)
    if dataset is not None:
        images = _some(dataset).images[:FRAMED]
        crops = {name: measure_crop(images, detect) for name, detect in request.detectors.items()}
        card = card.model_copy(update={"crops": {name: crop for name, crop in crops.items() if crop.faces}})
    files, checks = (_take_keras if foreign.layers else _take_tflite)(foreign, contract, card)
    if failed := [check for check in checks if not check.passed]:
        raise EdgeferError(f"{where} was not taken in: {failed[0].subject}: {failed[0].detail}.")
    if not foreign.layers:
        card = card.model_copy(update={"input": contract.spec(height, width), "output": contract.output})
    tflite = {name: content for name, content in files.items() if name != "keras"}
    card = card.model_copy(update={"metrics": _metrics(card, files, dataset)})
    card = _limited(card, tflite, dataset)
    files[PARITY] = make_vectors(card, tflite)
    settled = _settled(contract, measured, known.because) | {"checks": [check.to_json() for check in checks]}
    report = {"import.json": json.dumps(settled, indent=2).encode()}
    return Imported(
        bundle=write_bundle(out, card, files, report),
        contract=contract,
        measured=tuple(measured),
        because=known.because,
        checks=tuple(checks),
    )


def _any_spec(foreign: Foreign) -> InputSpec:
    """The input's size; its channels as RGB, for want of knowing better."""
    height, width, channels = foreign.shape
    return InputSpec(height=height, width=width, color="gray" if channels == 1 else "rgb")


def _settle(known: Stated, foreign: Foreign, dataset: Dataset | None, where: str) -> tuple[Contract, list[Hypothesis]]:
    """The contract, and what was measured to find it."""
    if known.labels and len(known.labels) != foreign.classes:
        raise InputError(
            f"{where} gives {foreign.classes} answers, and {len(known.labels)} labels are named: {', '.join(known.labels)}."
        )
    labels = dataset.labels if dataset else ()
    open_ones = candidates(known, foreign.shape[2], foreign.classes, labels)
    if not open_ones:
        raise InputError(
            f"{where} gives {foreign.classes} answers: name them in their order with --labels angry,happy,... or a labels.txt."
        )
    if dataset is None:
        if len(open_ones) > 1:
            missing = [
                option
                for option, is_known in (
                    ("--scale", known.scale),
                    ("--color", known.color or foreign.shape[2] == 1),
                    ("--labels", known.labels),
                )
                if not is_known
            ]
            raise InputError(
                f"{where} does not say how it is fed: state {' and '.join(missing)}, or give --data with labelled images, and what fits is "
                "measured."
            )
        return open_ones[0], []
    split = _some(dataset)

    def ask(contract: Contract) -> np.ndarray:
        images = split.images[..., ::-1] if contract.color == "bgr" else split.images
        return foreign.logits(images, contract.spec(*foreign.shape[:2]), contract.output)

    found = measure(open_ones, split, dataset.labels, ask)
    return choose(found, where), found


def _some(dataset: Dataset) -> Split:
    name = "valid" if "valid" in dataset.splits else next(iter(dataset.splits))
    split = dataset.split(name)
    if len(split) <= MEASURED:
        return split
    return split.take(np.sort(np.random.default_rng(0).permutation(len(split))[:MEASURED]))


def _card(request: Request, foreign: Foreign, contract: Contract, dataset: Dataset | None, known: Stated) -> ModelCard:
    height, width, _ = foreign.shape
    spec = InputSpec(height=height, width=width, color=contract.color.value)
    steps = [
        f"imported from {printable(with_name_of_its_own(request.path).name)} ({foreign.kind}, sha256 {foreign.sha256[:12]}), which takes "
        f"{contract.color} {describe((contract.scale, contract.values))} and "
        f"gives {contract.output.values}"
    ]
    recipe = Recipe.model_validate(
        {
            "name": "imported",
            "description": "A network that came from elsewhere; by this it is fine-tuned.",
            "input": spec.model_dump(),
            "faces": request.faces,
            "model": {"family": "imported"},
            "augment": {"flip": True, "rotate_deg": 10, "zoom": 0.1, "shift": 0.05, "brightness": 0.1, "contrast": 0.2},
            "optimizer": {"name": "sgd", "rate": 0.01, "momentum": 0.9},
            "fit": {"epochs": 1, "batch_size": 64},
        }
    )
    return ModelCard(
        name=request.name or _card_name(with_name_of_its_own(request.path)),
        labels=contract.labels,
        input=spec,
        faces=request.faces,
        author=request.author or foreign.author,
        license=request.license or foreign.license,
        provenance=Provenance(
            data=dataset.name if dataset else "not known",
            split_sizes={},
            recipe=recipe.model_dump(mode="json"),
            seed=0,
            epoch=0,
            versions=backend.versions(),
            steps=tuple(steps),
        ),
    )


def _card_name(path: Path) -> str:
    name = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in path.stem if sign.isascii())
    return name.strip("-._")[:64] or "imported"


def _take_keras(foreign: Foreign, contract: Contract, card: ModelCard) -> tuple[dict[str, bytes], list[Check]]:
    """The network made to take pixels / 255 and give logits; its files, and the proof."""
    from edgefer.convert.quantize import to_float32

    images = _images(card.input)
    # First: the rebuilt network shares its layers, and takes the softmax off the last one.
    came = foreign.logits(images, contract.spec(*foreign.shape[:2]), contract.output)
    model = own_network(foreign, contract)
    content = keras_bytes(model)
    float32 = to_float32(model)
    network = Network(float32, card.input, len(card.labels))
    checks = [
        _same("rebuilt against what came", softmax(came), softmax(keras_logits(model, images))),
        _same(f"float32.tflite on {network.runtime} against what came", softmax(came), softmax(network.logits(images))),
        _varied(f"{foreign.kind} as it came", softmax(came)),
    ]
    return {"keras": content, "float32": float32}, checks


def _take_tflite(foreign: Foreign, contract: Contract, card: ModelCard) -> tuple[dict[str, bytes], list[Check]]:
    """The .tflite as it is."""
    from edgefer.interpreter import INTEGERS

    spec = contract.spec(*foreign.shape[:2])
    network = Network(foreign.content, spec, foreign.classes, output=contract.output)
    variant = "int8" if network.answer_dtype in INTEGERS else "float32"
    answers = softmax(network.logits(_images(card.input)))
    subject = (
        f"{foreign.kind} as it came, {np.dtype(network.dtype).name} in and {np.dtype(network.answer_dtype).name} out"
    )
    return {variant: foreign.content}, [_varied(subject, answers)]


def _varied(subject: str, answers: np.ndarray) -> Check:
    varied = bool((answers.std(axis=0) > 1e-6).any())
    detail = "it answers differently to different images" if varied else "it gives the same answer to every image"
    return Check(subject=subject, status=status_if(varied), detail=detail)


def own_network(foreign: Foreign, contract: Contract) -> "tf_keras.Model":
    """The Keras network with what edgefer's own contract asks for: pixels / 255 in, logits out.

    Scaling is one 1x1 depthwise convolution in front, together with the network's own first scaling layers, and is left
    out where the two together change nothing; a softmax at the end goes.
    """
    import tf_keras

    from edgefer.train.keras_build import connect

    assert foreign.layers
    built, architecture = foreign.layers
    channels = foreign.shape[2]
    scale, offset = (np.broadcast_to(np.asarray(part, float), (channels,)) for part in contract.values)
    skipped = [layer for layer in _layers(built) if layer.name in foreign.passes]
    own_scale, own_offset = affine_of(skipped, channels)
    scale, offset = 255 * scale * own_scale, offset * own_scale + own_offset
    pixels = x = tf_keras.Input(foreign.shape, name="pixels")
    if not (np.allclose(scale, 1, atol=1e-6) and np.allclose(offset, 0, atol=1e-6)):
        adapter = tf_keras.layers.DepthwiseConv2D(1, name="edgefer_scaling")
        x = adapter(x)
        adapter.set_weights([scale.reshape(1, 1, channels, 1), offset])
    last = _layers(built)[-1]
    passes = set(foreign.passes)
    if contract.output != LOGITS:
        if type(last).__name__ in ("Softmax", "Activation"):
            passes.add(last.name)
        else:
            last.activation = tf_keras.activations.linear
    (logits,) = connect(built, architecture, [x], skip=frozenset(passes))
    return tf_keras.Model(pixels, logits, name="imported")


def _layers(built) -> list:
    return [layer for part in built.parts for layer in (_layers(part) if part.parts else [part.layer])]


def _same(subject: str, came: np.ndarray, taken: np.ndarray) -> Check:
    off = float(np.abs(came - taken).max())
    detail = f"off by {off:.2g} in a probability at worst over {len(came)} images (allowed {MAX_DIFFERENCE:g})"
    return Check(subject=subject, status=status_if(off <= MAX_DIFFERENCE), detail=detail)


def _images(spec: InputSpec, count: int = 24) -> np.ndarray:
    """Drawn faces and noise: uint8 [count, h, w, c]."""
    from edgefer import drawn
    from edgefer.preprocess import prepare

    faces, _ = drawn.face_set(count // 2, seed=3)
    noise = np.random.default_rng(3).integers(0, 256, (count - count // 2, *spec.shape), dtype=np.uint8)
    return np.concatenate([np.stack([prepare(face, spec) for face in faces]), noise])


def _metrics(card: ModelCard, files: Mapping[str, bytes], dataset: Dataset | None) -> dict[str, dict[str, Scores]]:
    if dataset is None or set(dataset.labels) != set(card.labels):
        return {}
    dataset = dataset.with_labels(card.labels)
    held = {name: split for name, split in dataset.splits.items() if name != "train"}
    metrics: dict[str, dict[str, Scores]] = {}
    for name, split in held.items():
        metrics[name] = {
            variant: evaluate(split, Network.of(content, card).logits(split.images))
            for variant, content in files.items()
            if variant not in ("keras", PARITY)
        }
    return metrics


def _limited(card: ModelCard, tflite: Mapping[str, bytes], dataset: Dataset | None) -> ModelCard:
    """The card with the limits of what devices run, where there are labelled images that were held back."""
    if dataset is None or set(dataset.labels) != set(card.labels) or "valid" not in dataset.splits:
        return card
    ((form, content),) = tflite.items()
    held = Holdout(Network.of(content, card).logits, dataset.with_labels(card.labels).split("valid"))
    card, note = with_limits(card, [held], "valid", form)
    steps = (*card.provenance.steps, note)
    return card.model_copy(update={"provenance": card.provenance.model_copy(update={"steps": steps})})


def _settled(contract: Contract, measured: Sequence[Hypothesis], because: Sequence[str]) -> dict[str, object]:
    return {
        "scale": contract.scale,
        "values": contract.values,
        "color": contract.color,
        "output": contract.output.values,
        "labels": contract.labels,
        "because": list(because),
        "measured": [
            {
                "scale": one.contract.scale,
                "color": one.contract.color,
                "labels": one.contract.order,
                "accuracy": one.accuracy,
                "images": len(one.right),
            }
            for one in measured
        ],
    }
