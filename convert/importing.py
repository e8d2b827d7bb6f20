"""Imports a network trained elsewhere: `edgefer import` and edgefer.import_model.

Its contract is stated, read from the file or measured on labelled images, never guessed. A Keras network is rebuilt to
take pixels / 255 and return logits, like edgefer's own, so every feature works on it. A .tflite is left unchanged, and
its card records its input and output.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from edgefer.bundle import PARITY, Bundle, write_bundle
from edgefer.card import InputSpec, ModelCard, check_labels
from edgefer.checks import Check
from edgefer.convert.contract import (
    Contract,
    Hypothesis,
    Stated,
    best_order,
    candidates,
    choose,
    describe,
    doubt,
    measure,
)
from edgefer.convert.equivalence import adapt_keras, adapt_tflite
from edgefer.convert.foreign import Foreign, check_runs, read_foreign
from edgefer.convert.import_options import Request
from edgefer.convert.label_files import read_labels
from edgefer.convert.label_order import is_unusual, spelled_alike
from edgefer.convert.outputs import check_end
from edgefer.errors import EdgeferError, InputError
from edgefer.files import with_name_of_its_own
from edgefer.interpreter import Network
from edgefer.options import Color
from edgefer.problems import first_problem
from edgefer.provenance import Provenance
from edgefer.text import counted, printable
from edgefer.tflite.titles import form_title
from edgefer.train import backend
from edgefer.train.data.dataset import Dataset, Split, pool
from edgefer.train.evaluate import evaluate
from edgefer.train.framing import in_rgb, measure_crop
from edgefer.train.limits import Holdout, with_limits
from edgefer.train.recipe_fields import Recipe
from edgefer.vectors import make_vectors

MEASURED = 2000  # images on which a contract is measured
FRAMED = 200  # images whose framing is measured
UNUSUAL = "Check --labels: no known data set has its labels in the order {labels}, and without --data the order cannot be measured."


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The new bundle, its contract, the measured contracts (the best first), and the proof that it gives the same answers
    as the original file. warning: what of the contract is doubtful, "" if nothing is."""

    bundle: Bundle
    contract: Contract
    measured: tuple[Hypothesis, ...]
    because: tuple[str, ...]
    checks: tuple[Check, ...]
    warning: str = ""

    def settled(self) -> dict[str, object]:
        """The contract as plain values, with how it is known and what was measured."""
        return _settled(self.contract, self.measured, self.because, self.warning)


def import_network(request: Request, out: Path) -> Imported:
    """Import a network as the bundle `out`. InputError if its contract is not settled, EdgeferError if the imported
    network's answers differ from the original's."""
    try:
        return _import(request, out)
    except ValidationError as error:  # of a card: names and numbers come from the file and the user
        raise InputError(f"{request.path} cannot be imported: {first_problem(error)}.") from None


def _import(request: Request, out: Path) -> Imported:
    progress = request.progress
    foreign = read_foreign(request.path, trust=request.trust, progress=progress)
    check_runs(foreign)
    where = str(request.path)
    known = _with_labels(request.stated.over(foreign.stated, where), request.path)
    known = _with_output(known, foreign, where)
    height, width, _ = foreign.shape
    _check_stated(known, foreign, where)
    dataset = _labelled(request, _any_spec(foreign), known)
    contract, measured, warning = _settle(known, foreign, dataset, request)
    spec = InputSpec(height=height, width=width, color=contract.color.value)
    if dataset is not None and spec != _any_spec(foreign):
        dataset = _labelled(request, spec, known)
    card = _card(request, foreign, contract, dataset, known)
    if dataset is not None:
        images = in_rgb(measured_images(dataset).images[:FRAMED], spec.color)
        crops = {name: measure_crop(images, detect, progress) for name, detect in request.detectors.items()}
        card = card.model_copy(update={"crops": {name: crop for name, crop in crops.items() if crop.faces}})
    with progress.stage("Comparing its answers with the file's"):
        files, checks = (adapt_keras if foreign.layers else adapt_tflite)(foreign, contract, card)
    if failed := [check for check in checks if not check.passed]:
        raise EdgeferError(f"{where} was not imported: {failed[0].subject}: {failed[0].detail}.")
    if not foreign.layers:
        card = card.model_copy(update={"input": contract.spec(height, width), "output": contract.output})
    tflite = {name: content for name, content in files.items() if name != "keras"}
    with progress.stage("Measuring it and storing images and answers for its proof"):
        card = _measured(card, tflite, dataset)
        files[PARITY] = make_vectors(card, tflite)
    settled = _settled(contract, measured, known.because, warning) | {"checks": [check.to_json() for check in checks]}
    report = {"import.json": json.dumps(settled, indent=2).encode()}
    return Imported(
        bundle=write_bundle(out, card, files, report),
        contract=contract,
        measured=tuple(measured),
        because=known.because,
        checks=tuple(checks),
        warning=warning,
    )


def _labelled(request: Request, spec: InputSpec, known: Stated) -> Dataset | None:
    """The labelled images, if there are any; InputError if they have classes that the known labels do not name."""
    if request.load is None:
        return None
    dataset = request.load(spec)
    return spelled_alike(dataset, known.labels) if known.labels else dataset


def _with_labels(known: Stated, file: Path) -> Stated:
    """With the labels of a labels.txt beside the file, if neither the user nor the file names any."""
    beside = file.parent / "labels.txt"
    if known.labels or not (file.is_file() and beside.is_file()):
        return known
    because = (*known.because, "its labels are those of the labels.txt beside it")
    return replace(known, labels=read_labels(beside), because=because)


def _with_output(known: Stated, foreign: Foreign, where: str) -> Stated:
    """With the kind of its output, and a note if that was stated and not read from the file."""
    output = check_end(foreign.end, known.output, where, rebuilt=foreign.layers is not None)
    because = known.because
    if foreign.end.output is None:
        because += (
            f"it ends with {foreign.end.name}, and its answers are taken for {output.values} because that was stated",
        )
    return replace(known, output=output, because=because)


def _any_spec(foreign: Foreign) -> InputSpec:
    """The input's size; its channels as RGB, since their order is not known yet."""
    height, width, channels = foreign.shape
    return InputSpec(height=height, width=width, color="gray" if channels == 1 else "rgb")


def _check_stated(known: Stated, foreign: Foreign, where: str) -> None:
    """InputError for a color or labels that do not fit the network's input and output."""
    if known.color and (known.color is Color.GRAY) != (foreign.shape[2] == 1):
        raise InputError(
            f"{where} takes images of {counted(foreign.shape[2], 'channel')}, not {known.color} ones: "
            f"{'state --color rgb or bgr' if foreign.shape[2] > 1 else 'leave --color out'}."
        )
    if known.labels and len(known.labels) != foreign.classes:
        raise InputError(
            f"{where} gives {foreign.classes} answers, and {len(known.labels)} labels are named: {', '.join(known.labels)}."
        )
    if known.labels:
        check_labels(known.labels)  # those of the file; stated ones were checked before it was read


def _settle(
    known: Stated, foreign: Foreign, dataset: Dataset | None, request: Request
) -> tuple[Contract, list[Hypothesis], str]:
    """The contract, the measurements that settled it, and a warning, "" if nothing is doubtful; it is logged, too."""
    where = str(request.path)
    labels = dataset.labels if dataset else ()
    open_ones = candidates(known, foreign.shape[2], foreign.classes, labels)
    if not open_ones:
        others = f", and the images have {len(labels)} labels" if labels else ""
        raise InputError(
            f"{where} gives {foreign.classes} answers{others}: name them in their order with --labels angry,happy,... or a labels.txt."
        )
    if known.quanta:
        open_ones = [one for one in open_ones if known.quanta.holds(one.spec(*foreign.shape[:2]))]
        if not open_ones:
            given = describe(known.scale) if known.scale else "no usual scaling of pixels"
            raise InputError(
                f"{where} has an integer input that stands for {known.quanta}, and {given} would fill too little of it: state the --scale "
                "with which it was quantized."
            )
    if dataset is None:
        if len(open_ones) > 1 or not known.scale:
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
                f"{where} does not say how it is fed{f' ({known.because[0]})' if known.quanta else ''}: state {' and '.join(missing)}, or "
                "give --data with labelled images, and what fits is measured."
            )
        labels = open_ones[0].labels
        warning = UNUSUAL.format(labels=",".join(labels)) if is_unusual(labels) else ""
        if warning:
            request.progress.log(warning)
        return open_ones[0], [], warning
    if note := dataset.with_labels(known.labels or labels).absent_note:
        request.progress.log(f"{note}.")
    split = measured_images(dataset)

    def ask(contract: Contract) -> np.ndarray:
        images = split.images[..., ::-1] if contract.color == "bgr" else split.images
        return foreign.logits(images, contract.spec(*foreign.shape[:2]), contract.output)

    tried = [*open_ones, *_unstated(open_ones, known, foreign, labels)]
    with request.progress.stage(f"Measuring {counted(len(tried), 'way')} to feed it on {len(split):,} images"):
        measured = measure(tried, split, labels, ask)
    found = [one for one in measured if one.contract in open_ones]
    # Of equal ones the first: an order that is known.
    best = max(filter(None, (measured[0], best_order(measured))), key=lambda one: one.accuracy)
    contract = choose(found, where, best)
    if warning := doubt(found[0], best):
        request.progress.log(warning)
    return contract, found, warning


def _unstated(open_ones: Sequence[Contract], known: Stated, foreign: Foreign, labels: Sequence[str]) -> list[Contract]:
    """What else would be measured if the user had stated nothing, for a warning; an integer input has its own check."""
    if known.quanta:
        return []
    read = replace(known, scale=foreign.stated.scale, color=foreign.stated.color, labels=foreign.stated.labels)
    others = candidates(read, foreign.shape[2], foreign.classes, labels)
    return [one for one in others if one not in open_ones]


def measured_images(dataset: Dataset) -> Split:
    """At most MEASURED images: of the validation split, and where that has fewer of the training split too."""
    splits = [dataset.splits[name] for name in ("valid", "train") if name in dataset.splits]
    parts: list[Split] = []
    for split in splits or list(dataset.splits.values())[:1]:
        left = MEASURED - sum(map(len, parts))
        parts.append(split.take(np.sort(np.random.default_rng(0).permutation(len(split))[:left])))
    return pool(parts)


def _card(request: Request, foreign: Foreign, contract: Contract, dataset: Dataset | None, known: Stated) -> ModelCard:
    height, width, _ = foreign.shape
    spec = InputSpec(height=height, width=width, color=contract.color.value)
    kind = ", ".join(filter(None, (foreign.kind, foreign.computes)))
    steps = [
        f"imported from {printable(with_name_of_its_own(request.path).name)} ({kind}, sha256 {foreign.sha256[:12]}), which takes "
        f"{contract.color} {describe((contract.scale, contract.values))} and "
        f"gives {contract.output.values}{f', as was stated: it ends with {foreign.end.name}' if foreign.end.output is None else ''}"
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


def _measured(card: ModelCard, tflite: Mapping[str, bytes], dataset: Dataset | None) -> ModelCard:
    """The card with figures and limits from held-out labelled images, if there are any."""
    if dataset is None:
        return card
    dataset = dataset.with_labels(card.labels)
    ((form, content),) = tflite.items()
    logits = Network.of(content, card).logits
    held = {name: split for name, split in dataset.splits.items() if name != "train"}
    metrics = {name: {form: evaluate(split, logits(split.images))} for name, split in held.items()}
    card = card.model_copy(update={"metrics": metrics})
    if "valid" not in held:
        return card
    title = form_title(form, content, stated=card.input.stated)
    card, note = with_limits(card, [Holdout(logits, held["valid"])], "valid", title)
    notes = (note, *filter(None, [dataset.absent_note]))
    return card.model_copy(update={"provenance": card.provenance.model_copy(update={"conversion": notes})})


def _settled(
    contract: Contract, measured: Sequence[Hypothesis], because: Sequence[str], warning: str
) -> dict[str, object]:
    return {
        "scale": contract.scale,
        "values": contract.values,
        "color": contract.color,
        "output": contract.output.values,
        "labels": contract.labels,
        "because": list(because),
        "warning": warning,
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
