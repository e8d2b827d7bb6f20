"""The plan of a conversion, and the record that its steps pass on."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgefer.bundle import TFLITE_VARIANTS, Form
from edgefer.card import ModelCard
from edgefer.convert.comparison import Comparison
from edgefer.errors import InputError
from edgefer.options import MAX_REMOVED
from edgefer.text import unprintable
from edgefer.train.data.dataset import Dataset, Split

if TYPE_CHECKING:
    import tf_keras


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make of a bundle: always float32.tflite; optionally float16, int8 and MediaPipe's form.

    slim: first remove filters with this share (0..1) of the multiply-adds. prune: then set this share of the weights to
    zero. qat: int8 by quantization-aware training. max_drop: int8 by the cheapest method that loses no more
    points of accuracy against the trained network. epochs: of each fine-tuning; 0 for the step's default. author,
    license: for the card and the files' metadata.
    """

    int8: bool = True
    float16: bool = False
    mediapipe: bool = False
    author: str = ""
    license: str = ""
    slim: float = 0.0
    prune: float = 0.0
    qat: bool = False
    max_drop: float | None = None
    epochs: int = 0
    seed: int = 0

    def __post_init__(self):
        for option, share in (("--prune", self.prune), ("--slim", self.slim)):
            if not 0 <= share <= MAX_REMOVED:
                raise InputError(f"{option} {share:g}: the share to remove must lie between 0 and {MAX_REMOVED}.")
        for option, number, least, most in (
            ("--max-drop", self.max_drop or 0, 0, 100), ("--epochs", self.epochs, 0, 10_000), ("seed", self.seed, 0, 2**31 - 1),
        ):  # fmt: skip
            if not least <= number <= most:
                raise InputError(f"{option} {number:g} is not a number from {least} to {most}.")
        for option, text in (("--author", self.author), ("--license", self.license)):
            if char := unprintable(text):  # cards that hold one are rejected
                raise InputError(f"{option} holds the control character {char!a}: leave it out.")
        if self.qat and not self.int8:
            raise InputError("--qat is about the int8 network: leave --no-int8 out.")
        if self.qat and self.max_drop is not None:
            raise InputError("--max-drop tries quantization-aware training itself if necessary: leave --qat out.")
        if self.epochs and not self.trains:
            raise InputError(
                "--epochs is for fine-tuning, which --slim, --prune, --qat or --max-drop ask for: leave it out."
            )

    @property
    def trains(self) -> bool:
        """Whether weights are, or may be, fine-tuned."""
        return bool(self.slim or self.prune or self.qat or self.max_drop is not None)

    @property
    def needs_keras(self) -> str:
        """The first option that needs the Keras network, "" for none."""
        options = {
            "--slim": self.slim, "--prune": self.prune, "--qat": self.qat, "--epochs": self.epochs,
            "--float16": self.float16, "--mediapipe": self.mediapipe, "--no-int8": not self.int8,
        }  # fmt: skip
        return next((option for option, given in options.items() if given), "")

    @property
    def suffix(self) -> str:
        """The suffix of the new bundle's name."""
        last = "qat" if self.qat else "int8" if self.int8 else "float16" if self.float16 else "float32"
        return "-".join(["slim"] * bool(self.slim) + ["pruned"] * bool(self.prune) + [last])


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One method of quantization: the .tflite, its paired comparison with the trained network on held-out images, and the
    float network with the same weights if the method trained them."""

    way: str
    int8: bytes
    comparison: Comparison
    network: "tf_keras.Model | None" = None

    def __str__(self) -> str:
        return f"{self.way}: {self.comparison.summary}"


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """The error of a tensor of the int8 network against the float one, from TFLite's QuantizationDebugger.

    error: root mean squared error, in steps of the tensor's scale; rounding alone gives 0.29.
    """

    layer: str
    operator: str
    error: float


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """The result of quantization: the attempts in order, the best, whether it holds, and if not the worst layers."""

    attempts: tuple[Attempt, ...]
    best: Attempt
    holds: bool
    layers: tuple[LayerError, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Work:
    """A network during conversion. A step takes the record and returns the next one.

    origin: the trained network, which all forms are compared with. trained: the new bundle's `keras`: the origin, or its
    slimmed version. tuned: what the TFLite forms are made from: `trained`, or its version after pruning and
    quantization-aware training. dataset: its training split is for calibration and fine-tuning. held: held-out images
    by the name of the split. notes: how the TFLite forms were made, for the card.

    A network that was imported as a .tflite has no Keras networks (None): its float32 form is the trained network.
    """

    card: ModelCard
    origin: "tf_keras.Model | None"
    trained: "tf_keras.Model | None"
    tuned: "tf_keras.Model | None"
    dataset: Dataset
    held: dict[str, Split]
    files: dict[Form, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    quantized: Quantized | None = None

    @property
    def choosing(self) -> Split:
        """The images for choosing a method; if all were trained on, those: rounding errors show on them too."""
        return self.dataset.splits.get("valid", self.dataset.split("train"))

    @property
    def retrained(self) -> bool:
        return self.tuned is not self.origin

    @property
    def tflite(self) -> dict[Form, bytes]:
        """The TFLite forms that exist, float first."""
        return {form: self.files[form] for form in reversed(TFLITE_VARIANTS) if form in self.files}

    @property
    def deployed(self) -> Form:
        """The form that devices run, for which scores are calibrated."""
        return next(form for form in TFLITE_VARIANTS if form in self.files)

    def noted(self, *notes: str, **changes) -> "Work":
        """The record with these changes and additional notes."""
        return replace(self, notes=(*self.notes, *notes), **changes)
