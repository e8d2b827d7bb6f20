"""The answers of each form of a network on held-out images: of a split, or of the folds of a cross-validation.

A cross-validated network was trained on every image, so its folds' networks are measured in its place, each converted by
the same steps and each on its held-out images. A network with a held-out split is the case of one fold.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgefer.bundle import TFLITE_VARIANTS, Form
from edgefer.card import Scores
from edgefer.convert.comparison import Answers, Comparison, compare, pairs
from edgefer.convert.mediapipe import MediaPipeNetwork
from edgefer.convert.work import Work
from edgefer.interpreter import Network
from edgefer.train.data.dataset import Split, pool
from edgefer.train.evaluate import evaluate, keras_logits

Ask = Callable[[np.ndarray], np.ndarray]  # uint8 [n, h, w, c] -> float32 logits [n, classes]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The images of each split, and every form's answers to them: float32 logits [n, classes]."""

    splits: dict[str, Split]
    logits: dict[str, dict[Form, np.ndarray]]

    def scores(self) -> dict[str, dict[str, Scores]]:
        """The scores for the card: split -> form -> scores."""
        return {
            name: {form.value: evaluate(self.splits[name], logits) for form, logits in forms.items()}
            for name, forms in self.logits.items()
        }

    def against_origin(self, form: Form, split: str, labels: tuple[str, ...], *, retrained: bool) -> Comparison:
        """Compare a form with the trained network: `keras` unless that was replaced, `float32` without a Keras network."""
        logits = self.logits[split]
        origin = next(one for one in (Form.ORIGIN, Form.KERAS, Form.FLOAT32) if one in logits)
        before = Answers(name="the trained network", form=origin, logits=logits[origin])
        after = Answers(name=form.value, form=form, logits=logits[form])
        return compare(before, after, self.splits[split], labels, retrained=retrained)

    def every_comparison(self, split: str, labels: tuple[str, ...]) -> tuple[Comparison, ...]:
        """The comparisons that `edgefer verify` will make of the new bundle on these images."""
        answers = {
            form: Answers(name=form.value, form=form, logits=found) for form, found in self.logits[split].items()
        }
        keras, tflite = (
            [answers[form] for form in forms if form in answers]
            for forms in ((Form.ORIGIN, Form.KERAS, Form.TUNED), (*reversed(TFLITE_VARIANTS), Form.MEDIAPIPE))
        )
        return tuple(
            compare(before, after, self.splits[split], labels, retrained=retrained)
            for before, after, retrained in pairs(keras, tflite)
        )


def measure(works: Sequence[Work], splits: Iterable[str], forms: Sequence[Form] = tuple(Form)) -> Measured:
    """Measure every form, or those named, on each named split; images of a split held by several networks are pooled."""
    held, logits = {}, {}
    for name in splits:
        parts = held_by(works, name)
        held[name] = pool([split for _, split in parts]) if len(parts) > 1 else parts[0][1]
        answers: dict[Form, list[np.ndarray]] = {}
        for work, split in parts:
            for form, ask in networks(work, forms).items():
                answers.setdefault(form, []).append(ask(split.images))
        logits[name] = {form: np.concatenate(some) for form, some in answers.items()}
    return Measured(splits=held, logits=logits)


def held_by(works: Sequence[Work], split: str) -> list[tuple[Work, Split]]:
    """The networks to measure on a split, each with its part of it."""
    return [(work, work.held[split]) for work in works if split in work.held]


def networks(work: Work, forms: Sequence[Form]) -> dict[Form, Ask]:
    """Those of `forms` that the network has, ready to run."""
    keras = {} if work.trained is None else {Form.KERAS: work.trained}
    if work.origin is not work.trained:
        keras[Form.ORIGIN] = work.origin
    if work.tuned is not work.trained:
        keras[Form.TUNED] = work.tuned
    asks: dict[Form, Ask] = {form: partial(keras_logits, model) for form, model in keras.items() if form in forms}
    asks |= {form: Network.of(content, work.card).logits for form, content in work.tflite.items() if form in forms}
    if Form.MEDIAPIPE in work.files and Form.MEDIAPIPE in forms:
        network = MediaPipeNetwork(work.files[Form.MEDIAPIPE], work.card.input, len(work.card.labels))
        asks[Form.MEDIAPIPE] = network.logits
    return asks
