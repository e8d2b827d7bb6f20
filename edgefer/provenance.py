"""A network's provenance in its card: data and training, the last conversion, and the network it came from."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(ge=-100, le=100)]  # of accuracy, in percent
MAX_NAME = 64
OLDER_NAMES = {"held_pictures": "held_images"}
# Prefixes of conversions' notes, which older cards have among the steps.
NOTES = ("prune to ", "int8 ", "kept the ", "temperature ", "limits ", "quantize to int8")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("only spaces")
    return text


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_not_blank)]


class Part(BaseModel):
    """A part of a card: immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Provenance(Part):
    """The network's origin.

    group_by: the rule for grouping related images. folds: of the cross-validation that gave the figures, after which the
    network itself was trained on all images, or all but those that chose its epoch; 0 with a held-out validation split.
    held_images: a hash of the names of the held-out images, or of all with folds; "" in older cards. steps: what was done
    to the network. conversion: notes of the last conversion, which made the other forms; the next one replaces them.
    """

    data: str
    labels: str = Field("", description="the source of labels other than the data's own, such as ferplus")
    split_sizes: dict[str, Annotated[int, Field(ge=0)]]
    held_images: str = ""
    valid_fraction: float = Field(0.2, gt=0, lt=1)
    names: str = Field("", description="the names of numeric labels or class folders, such as 0=neutral,1=happy")
    group_by: str = ""
    folds: int = Field(0, ge=0)
    recipe: dict
    seed: int
    epoch: int
    versions: dict[str, str]
    steps: tuple[str, ...] = ()
    conversion: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_it_was(cls, fields: Any) -> Any:
        """Older cards have another name for a field, and a conversion's notes among the steps."""
        if not isinstance(fields, dict):
            return fields
        if "held_images" not in fields:
            fields = {OLDER_NAMES.get(name, name): value for name, value in fields.items()}
        steps = fields.get("steps")
        if "conversion" not in fields and isinstance(steps, list) and all(isinstance(one, str) for one in steps):
            notes = [one for one in steps if one.startswith(NOTES)]
            fields = fields | {"steps": [one for one in steps if one not in notes], "conversion": notes}
        return fields

    @property
    def everything(self) -> tuple[str, ...]:
        """Everything that was done, in order."""
        return (*self.steps, *self.conversion)


class Cost(Part):
    """What a converted network lost against the trained network, on the `count` images of a labelled split.

    variant: the form that was compared. drop: points of accuracy, with the 95% interval. agreement: share of equal decisions.
    """

    variant: Name
    split: Name
    count: int = Field(gt=0)
    drop: Points
    drop_interval: tuple[Points, Points]
    agreement: Fraction


class Lineage(Part):
    """The trained network that a converted one came from, however many conversions ago.

    name: its card's. sha256: of its Keras file; "" if a conversion started from a bundle that no longer held it.
    retrained: whether weights were removed or trained in between, not only rounded. cost: of the deployed form.
    """

    name: Name
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    retrained: bool = False
    cost: Cost | None = None
