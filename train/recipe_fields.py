"""What a recipe may say: its sections, as pydantic models that refuse what they do not know."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgefer.card import Faces, InputSpec, first_problem

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
SCRATCH = "scratch"  # where a stage begins with no stage's weights
LAYER = re.compile(r"C(\d+)(/2)?|R(\d+)")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(_Part):
    """The network. `family` picks the builder in edgefer.train.networks.

    plain: `layers` such as "C16 C32/2 R32": C<n> is 3x3 convolution, batch norm, ReLU with n filters (/2: stride 2),
    R<n> a residual block of two; then global average pooling, `dropout`, and one logit per class.
    four-block: per width 3x3 convolution, ReLU, batch norm, 2x2 max pooling and `dropout`; then a dense layer of
    `dense` units, `dropout` twice over, and the logits.
    cnn-mlp: per width 3x3 convolution, ReLU and 2x2 max pooling; then `pooling`, which leaves a mean a channel (global)
    or a mean for each cell of a 4x4 grid (grid); then dense layers of `dense` and half as many units with `dropout`.
    imported: a network that came from elsewhere (edgefer.convert.importing); it can be fine-tuned, not built.
    keras-applications: the trunk of `backbone` at width `alpha`, its `weights` from a file, by "imagenet" from the
    user's own download, or random; then global average pooling and `dropout`.

    zscore: a first layer that subtracts the training split's mean and divides by its standard deviation, per channel.
    freeze: only what follows the pooling is trained; the rest keeps the weights it begins with.
    """

    family: Literal["plain", "four-block", "cnn-mlp", "keras-applications", "imported"]
    layers: str = ""
    widths: tuple[int, ...] = ()
    dense: int = Field(256, ge=2)
    dropout: float = Field(0.0, ge=0, lt=1)
    pooling: Literal["global", "grid"] = "global"
    backbone: Literal["", "mobilenet_v2"] = ""
    alpha: float = Field(1.0, gt=0, le=2)
    weights: str = ""
    zscore: bool = False
    freeze: bool = False

    @model_validator(mode="after")
    def _complete(self) -> "Model":
        if self.family == "plain":
            bad = [word for word in self.layers.split() if not LAYER.fullmatch(word)]
            if bad or not self.layers.split():
                raise ValueError(f"layers must be words like C16, C32/2 or R32, not {(bad or [''])[0]!r}")
            before = ""
            for word in self.layers.split():
                filters = word.removesuffix("/2")[1:]
                if word.startswith("R") and filters != before:
                    raise ValueError(f"{word} adds to its input, so the layer before it must have {filters} filters")
                before = filters
        elif self.family == "keras-applications":
            if not self.backbone:
                raise ValueError('the keras-applications family needs a backbone, such as "mobilenet_v2"')
            if self.zscore:
                raise ValueError("a keras-applications backbone has a normalization of its own: leave zscore out")
        elif self.family != "imported" and (not self.widths or min(self.widths) < 1):
            raise ValueError(f"the {self.family} family needs widths, such as [32, 64, 128, 256]")
        return self


class Augment(_Part):
    """Random changes of each training image, drawn again each time it is seen; all off at 0.

    copies: train on the changed copies that the data brings too, where --group-by marks them with (?P<copy>...).
    """

    copies: bool = True
    flip: bool = False
    rotate_deg: float = Field(0, ge=0, le=180)
    zoom: float = Field(0, ge=0, lt=1, description="scale between 1 - zoom and 1 + zoom")
    shift: float = Field(0, ge=0, lt=1, description="fraction of the side, each way")
    brightness: float = Field(0, ge=0, le=1, description="added, in units of the full range")
    contrast: float = Field(0, ge=0, lt=1, description="factor between 1 - contrast and 1 + contrast")
    saturation: float = Field(0, ge=0, le=1, description="of colours: factor between 1 - saturation and 1 + saturation")
    camera: float = Field(1, ge=0, le=1, description="share of the images that see what a camera does, down to jpeg")
    tilt_deg: float = Field(0, ge=0, le=180, description="instead of rotate_deg, where it is more")
    framing: float = Field(0, ge=0, lt=1, description="instead of zoom, where it is more")
    dark: float = Field(0, ge=0, le=1, description="probability of too little light")
    flat: float = Field(0, ge=0, le=1, description="probability of glare or of little contrast")
    blur: float = Field(0, ge=0, le=1, description="probability of blurring, by up to 2.2 pixels")
    motion: float = Field(0, ge=0, le=1, description="probability of motion blur, of 3 to 8 pixels")
    pixels: float = Field(0, ge=0, le=1, description="probability of shrinking to 0.3 to 0.9 of the side, and back")
    noise: float = Field(
        0, ge=0, le=1, description="most standard deviation of pixel noise, in units of the full range"
    )
    jpeg: float = Field(0, ge=0, le=1, description="probability of JPEG at a quality of 8 to 60")
    erase: float = Field(0, ge=0, le=1, description="probability of blanking one rectangle")
    mixup: float = Field(0, ge=0, le=10, description="alpha of the Beta distribution images are blended by")


class Optimizer(_Part):
    """`weight_decay` is decoupled (Loshchilov & Hutter 2019) and spares biases and batch norm: under SGD with momentum
    m it acts like an L2 penalty of weight_decay * (1 - m)."""

    name: Literal["sgd", "adam", "adamw"]
    rate: float = Field(gt=0, le=10)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0, ge=0, le=1)


class Schedule(_Part):
    """How the learning rate falls: cosine to `final_rate` after a linear warm-up; by `factor` each `every_epochs`,
    smoothly (exponential) or at once (step); or by `factor`, down to `final_rate`, whenever `every_epochs` have passed
    without a better validation accuracy (plateau)."""

    name: Literal["constant", "cosine", "exponential", "step", "plateau"] = "constant"
    warmup_epochs: float = Field(0, ge=0)
    final_rate: float = Field(1e-4, ge=0)
    factor: float = Field(0.5, gt=0, le=1)
    every_epochs: float = Field(10, gt=0)


class Distill(_Part):
    """How much of a target comes from the teachers, when there are any, and the temperature of their softmax."""

    weight: float = Field(0.7, ge=0, le=1)
    temperature: float = Field(2.0, gt=0, le=100)


class Fit(_Part):
    epochs: int = Field(ge=1, le=10000)
    batch_size: int = Field(ge=1, le=65536)
    label_smoothing: float = Field(0, ge=0, lt=1)
    ema: float = Field(0, ge=0, lt=1, description="decay of averaged weights, such as 0.999; 0: none")
    clean_statistics: bool = Field(
        False,
        description="measure batch norm's statistics in the end on images as they are, not augmented: better on images like "
        "the data, worse on blurred ones",
    )
    balance: Literal["none", "class-weights", "oversample", "logit-adjustment"] = Field(
        "none", description="against rare classes being ignored"
    )
    adjustment: float = Field(
        1,
        ge=0,
        le=3,
        description="how far logit adjustment goes: 1 answers as if all classes were equally frequent, 0 not at all",
    )
    patience: int = Field(
        0, ge=0, description="stop after so many epochs without a better validation accuracy; 0: never"
    )
    keep: Literal["best", "last"] = Field(
        "best", description="which epoch: the best on the validation split, or the last"
    )
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _adjusts_something(self) -> "Fit":
        if self.adjustment != 1 and self.balance != "logit-adjustment":
            raise ValueError(f"adjustment={self.adjustment:g} has no effect without balance=logit-adjustment")
        return self


class Stage(_Part):
    """One of several trainings that a recipe is made of.

    name: what later stages call its network. begin: the stage whose weights it begins with, when left out the one
    before, or "scratch". teachers: stages whose networks it learns from too. labels, votes: as `edgefer train` takes
    them. change: fields of the recipe that are different in this stage, by section.
    """

    name: str = Field(pattern=NAME)
    begin: str = ""
    teachers: tuple[str, ...] = ()
    labels: str = ""
    votes: str = ""
    change: dict[str, Any] = {}


class Recipe(_Part):
    """All sections of one training; `stages` makes it several, each with these sections but for what it changes."""

    name: str = Field(pattern=NAME)
    description: str = ""
    input: InputSpec
    faces: Faces = "human"
    model: Model
    augment: Augment = Augment()
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    distill: Distill = Distill()
    fit: Fit
    stages: tuple[Stage, ...] = ()

    @model_validator(mode="after")
    def _in_order(self) -> "Recipe":
        before: list[str] = []
        for stage in self.stages:
            if stage.name in (*before, SCRATCH):
                raise ValueError(f"two stages cannot both be called {stage.name!r}, nor any {SCRATCH!r}")
            for named in (stage.begin, *stage.teachers):
                if named not in ("", SCRATCH, *before):
                    raise ValueError(f"stage {stage.name!r} names {named!r}, which is not an earlier stage")
            self.of_stage(stage)
            before.append(stage.name)
        return self

    def of_stage(self, stage: Stage) -> "Recipe":
        """The recipe of one stage's training, without stages."""
        own = self.model_dump(exclude={"stages"})
        try:
            return Recipe.model_validate(merge(own, stage.change))
        except ValidationError as error:
            raise ValueError(f"stage {stage.name!r}: {first_problem(error)}") from None

    @property
    def needs_validation(self) -> bool:
        """Whether anything in training depends on images that are held back."""
        return self.fit.keep == "best" or self.fit.patience > 0 or self.schedule.name == "plateau"


def merge(fields: dict, changes: dict) -> dict:
    """`fields` with `changes`, section by section."""
    both = dict(fields)
    for name, value in changes.items():
        old = both.get(name)
        both[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both
