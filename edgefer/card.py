"""card.json: a bundle's description of its network, on which host and device agree."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from edgefer.errors import BundleError, EdgeferError, InputError
from edgefer.faces import STRIDES
from edgefer.problems import first_problem
from edgefer.provenance import MAX_NAME, Fraction, Lineage, Name, Part, Provenance
from edgefer.text import printable, unprintable

SCHEMA_VERSION: Literal[1] = 1

Task = Literal["read", "find-faces", "refine-faces"]
Faces = Literal["human", "cat", "frame"]  # what a network reads: a human face, a cat's, or the centre of the frame
TAUGHT_BY = {"own": "yunet"}  # edgefer's own detector has the boxes of its teacher
MAX_LABELS = 1000
Factor = Annotated[float, Field(ge=-1e4, le=1e4, allow_inf_nan=False)]
Offset = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class InputSpec(Part):
    """A network's input, `height` x `width` uint8 pixels of 0..255 in one or three channels, and its preprocessing.

    color: one gray channel, or three in the order R, G, B or B, G, R.
    scale, offset: the network's input is pixel * scale + offset, with one number for all channels or one for each. They
    are stated for an imported network. Without a scale it is one of edgefer's own, which takes pixels / 255, and in int8
    must have the scale 1/255 and the zero point -128; with one, its int8 or uint8 input may have any scale and zero point.
    """

    height: int = Field(ge=16, le=512)
    width: int = Field(ge=16, le=512)
    color: Literal["gray", "rgb", "bgr"] = "gray"
    scale: Factor | tuple[Factor, ...] | None = None
    offset: Offset | tuple[Offset, ...] = 0.0

    @model_validator(mode="after")
    def _one_number_for_each_channel(self) -> "InputSpec":
        for name, value in (("scale", self.scale), ("offset", self.offset)):
            if isinstance(value, tuple) and len(value) != self.channels:
                raise ValueError(f"{name} has {len(value)} numbers for {self.channels} channels")
        if self.stated and not all(scale for scale, _ in self.per_channel()):
            raise ValueError("scale is 0: the channel would be the same in every image")
        if self.scale is None and self.offset != 0.0:
            raise ValueError("offset is stated without a scale")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_stated(self, handler: SerializerFunctionWrapHandler) -> dict:
        plain = handler(self)
        return {
            name: value for name, value in plain.items() if self.scale is not None or name not in ("scale", "offset")
        }

    @property
    def channels(self) -> int:
        return 1 if self.color == "gray" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def stated(self) -> bool:
        """Whether the card states a preprocessing other than edgefer's own."""
        return self.scale is not None

    def per_channel(self) -> tuple[tuple[float, float], ...]:
        """(scale, offset) of each channel."""
        scales, offsets = self.scale if self.scale is not None else 1 / 255, self.offset
        return tuple(
            (
                scales[channel] if isinstance(scales, tuple) else scales,
                offsets[channel] if isinstance(offsets, tuple) else offsets,
            )
            for channel in range(self.channels)
        )


class OutputSpec(Part):
    """A network's output: logits, or probabilities from its own softmax.

    float32: of the float32 form, if it ends in a softmax that int8 was made without: probabilities or their logarithms.
    """

    values: Literal["logits", "probabilities"] = "logits"
    float32: Literal["probabilities", "log-probabilities"] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_stated(self, handler: SerializerFunctionWrapHandler) -> dict:
        return {name: value for name, value in handler(self).items() if value is not None}

    def __str__(self) -> str:
        return f"{self.values}, of float32 {self.float32}" if self.float32 else self.values

    def of(self, *, quantized: bool) -> str:
        """The values of a form, by whether its output is quantized: "logits", "probabilities" or "log-probabilities"."""
        return self.values if quantized or self.float32 is None else self.float32


class CropSpec(Part):
    """How to derive the square that the network was trained on from a detector's box.

    With `side` the mean of the box's width and height, the crop is a square of `scale * side` pixels whose centre is
    (`dx * side`, `dy * side`) right of and below the box's centre. `faces` is the number of faces it was measured on;
    0 means that nothing was measured and the box is used unchanged.
    """

    scale: float = Field(1.0, ge=0.2, le=5)
    dx: float = Field(0.0, ge=-2, le=2)
    dy: float = Field(0.0, ge=-2, le=2)
    faces: int = Field(0, ge=0)


class Limits(Part):
    """The limits within which a network can read a face: the mean of its pixels (0 to 255) and its sharpness
    (edgefer.quality).

    `convert` fits them on the validation split (edgefer.train.limits). The defaults are those of a network trained without
    dark and blurred faces.
    """

    min_light: float = Field(13.0, ge=0, le=255)
    max_light: float = Field(235.0, ge=0, le=255)
    min_sharpness: float = Field(30.0, ge=0, le=1e6)

    @model_validator(mode="after")
    def _some_light_is_right(self) -> "Limits":
        if self.min_light >= self.max_light:
            raise ValueError(f"min_light {self.min_light:g} is not below max_light {self.max_light:g}")
        return self


NOT_FITTED = Limits()


class Variant(Part):
    """One of the bundle's network files."""

    file: Name
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    gzip_bytes: int = Field(gt=0)


class Scores(Part):
    """A variant's scores on one labelled split, without test-time augmentation.

    On a split like "5-fold": the pooled answers of the folds' networks, each on its held-out images.
    """

    count: int = Field(gt=0)
    accuracy: Fraction
    macro_recall: Fraction
    macro_f1: Fraction


def _unique_and_printable(labels: tuple[str, ...]) -> tuple[str, ...]:
    _check_printable(labels, "a label")
    if repeated := [label for label, count in Counter(labels).items() if count > 1]:
        raise ValueError(f"not unique: {repeated[0]!r} is named more than once")
    return labels


Labels = Annotated[tuple[Name, ...], Field(min_length=2, max_length=MAX_LABELS), AfterValidator(_unique_and_printable)]


class _OfLabels(Part):
    labels: Labels


class ModelCard(Part):
    """Everything a runtime needs to know about a network, and its provenance. Written to card.json.

    task: "read" classifies a face as one of `labels`. "find-faces" and "refine-faces" are the networks of the face detector;
    their `labels` name their outputs (edgefer.faces).
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Name
    labels: Labels
    task: Task = "read"
    input: InputSpec
    output: OutputSpec = OutputSpec()
    faces: Faces = "human"
    crops: dict[Name, CropSpec] = Field({}, max_length=16)
    temperature: float = Field(1.0, gt=0, le=100)
    limits: Limits = NOT_FITTED
    variants: dict[str, Variant] = Field({})
    metrics: dict[str, dict[str, Scores]] = Field({})
    author: str = ""
    license: str = ""
    provenance: Provenance
    lineage: Lineage | None = None

    @model_validator(mode="after")
    def _nothing_acts_on_a_terminal(self) -> "ModelCard":
        """Labels and names reach terminals, pages, CSV and MQTT, so no text of the card may hold a control character."""
        _check_printable(self.model_dump())
        return self

    @model_serializer(mode="wrap")
    def _without_the_usual_output(self, handler: SerializerFunctionWrapHandler) -> dict:
        plain = handler(self)
        usual = {
            "task": self.task == "read",
            "output": self.output == OutputSpec(),
            "limits": self.limits == NOT_FITTED,
            "lineage": self.lineage is None,
        }
        return {name: value for name, value in plain.items() if not usual.get(name)}

    @property
    def answers(self) -> int:
        """The number of outputs: one per label; a face finder gives these for every cell of its maps."""
        if self.task != "find-faces":
            return len(self.labels)
        return len(self.labels) * sum((self.input.height // s) * (self.input.width // s) for s in STRIDES)

    @property
    def measured_on(self) -> str:
        """The split with the network's main figures: the cross-validation's pooled folds, or "valid"."""
        return f"{self.provenance.folds}-fold" if self.provenance.folds else "valid"

    def to_dict(self) -> dict:
        """Plain values, as in card.json."""
        return self.model_dump(mode="json")

    def rows(self) -> list[dict]:
        """Its figures, for `pandas.DataFrame(card.rows())`: one flat dict per split and form of the network, with count,
        accuracy, macro_recall and macro_f1 (0..1), and the file's bytes."""
        return [
            {
                "split": split,
                "form": form,
                **scores.model_dump(),
                "bytes": getattr(self.variants.get(form), "bytes", None),
            }
            for split, by_form in self.metrics.items()
            for form, scores in by_form.items()
        ]

    def _repr_html_(self) -> str:
        """The card for notebooks: what the network is, its figures, and its provenance."""
        from edgefer.html import heading, paragraph, table

        shape = "x".join(str(side) for side in self.input.shape[:2])
        facts = [
            ("labels", ", ".join(self.labels)),
            ("takes", f"{self.input.color} {shape}, faces: {self.faces}"),
            ("trained on", self.provenance.data),
            ("licence", self.license or "not stated"),
            *(("step", step) for step in self.provenance.everything),
        ]
        columns = ("split", "form", "images", "accuracy", "macro recall", "macro F1", "bytes")
        figures = [
            (
                row["split"], row["form"], f"{row['count']:,}", f"{row['accuracy']:.2%}", f"{row['macro_recall']:.3f}",
                f"{row['macro_f1']:.3f}", f"{row['bytes']:,}" if row["bytes"] else "",
            )
            for row in self.rows()
        ]  # fmt: skip
        shown = [table(columns, figures)] if figures else [paragraph("No figures were measured.")]
        return "".join([heading(self.name, 3), table(("", ""), facts), *shown])

    def crop_for(self, detector: str) -> CropSpec:
        """The crop measured for `detector`, or for its teacher, which has the same boxes; without one, the box itself."""
        return self.crops.get(detector) or self.crops.get(TAUGHT_BY.get(detector, "")) or CropSpec()


def _check_printable(value: object, where: str = "") -> None:
    for place, text in _texts(where, value):
        if char := unprintable(text):
            raise ValueError(f"{printable(place)} holds the control character {char!a}: {printable(text):.80}")


def _texts(where: str, value: object) -> Iterator[tuple[str, str]]:
    """Every text in a card's plain values, keys included, with the path to it."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield where or "a key", str(key)
            yield from _texts(f"{where}.{key}".lstrip("."), part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(where, part)


def check_labels(labels: Sequence[str]) -> None:
    """InputError for labels that no card accepts."""
    try:
        _OfLabels(labels=tuple(labels))
    except ValidationError as error:
        raise InputError(
            f"{first_problem(error)}. Give each output a name of its own, of 1 to {MAX_NAME} characters."
        ) from None


def parse_card(text: str | bytes, where: str) -> ModelCard:
    """card.json's text as a ModelCard; raises BundleError with the first problem."""
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        newer = any(
            problem["type"] == "extra_forbidden" or "schema_version" in problem["loc"] for problem in error.errors()
        )
        hint = " If a newer edgefer wrote it, install that here." if newer else ""
        if error.errors()[0]["type"] == "json_invalid":
            hint = " Copy the bundle again."
        raise BundleError(f"{where} is not a valid model card: {first_problem(error)}.{hint}") from None
    except (ValueError, RecursionError, EdgeferError) as error:
        raise BundleError(f"{where} cannot be read as JSON: {error}.") from None
