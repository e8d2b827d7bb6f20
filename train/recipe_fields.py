"""The fields of a recipe, by section, as pydantic models that refuse unknown ones."""

import re
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgefer.card import Faces, InputSpec
from edgefer.problems import first_problem
from edgefer.text import counted

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MAX_EPOCHS = 10_000
SCRATCH = "scratch"  # init_from of a stage with random initial weights
MAX_WIDTH = 999_999_999  # of a layer; memory ends earlier
LAYER = re.compile(r"C([1-9]\d{0,8})(/2)?|R([1-9]\d{0,8})")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(_Section):
    """The network. `family` selects the builder in edgefer.train.networks.

    - plain: `layers` such as "C16 C32/2 R32": C<n> is 3x3 convolution, batch norm, ReLU with n filters (/2: stride 2),
      R<n> a residual block of two; then global average pooling, `dropout`, and one logit per class.
    - four-block: per width 3x3 convolution, ReLU, batch norm, 2x2 max pooling and `dropout`; then a dense layer of
      `dense` units, dropout at twice the rate, and the logits.
    - cnn-mlp: per width 3x3 convolution, ReLU and 2x2 max pooling; then global average pooling, or average pooling to a
      4x4 grid (`pooling`); then dense layers of `dense` and half as many units with `dropout`.
    - keras-applications: `backbone` at width `alpha` without its classifier, with `weights` from a file, from Keras's
      download ("imagenet") or random (""); then global average pooling and `dropout`.
    - imported: a network that was imported (edgefer.convert.importing); it can be fine-tuned, not built.

    zscore: a first layer that normalizes by the training split's mean and standard deviation, per channel.
    freeze: train only the layers after the pooling.
    """

    family: Literal["plain", "four-block", "cnn-mlp", "keras-applications", "imported"]
    layers: str = ""
    widths: tuple[Annotated[int, Field(ge=1, le=MAX_WIDTH)], ...] = ()
    dense: int = Field(256, ge=2, le=MAX_WIDTH)
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
            previous = ""
            for word in self.layers.split():
                filters = word.removesuffix("/2")[1:]
                if word.startswith("R") and filters != previous:
                    raise ValueError(f"{word} adds to its input, so the layer before it must have {filters} filters")
                previous = filters
        elif self.family == "keras-applications":
            if not self.backbone:
                raise ValueError('the keras-applications family needs a backbone, such as "mobilenet_v2"')
            if self.zscore:
                raise ValueError("a keras-applications backbone has a normalization of its own: leave zscore out")
        elif self.family != "imported" and not self.widths:
            raise ValueError(f"the {self.family} family needs widths, such as [32, 64, 128, 256]")
        return self


class Augment(_Section):
    """Random augmentation of each training image, each time it is used; 0 is off.

    copies: also train on augmented copies in the data, where --group-by marks them with (?P<copy>...).
    """

    copies: bool = True
    flip: bool = False
    rotate_deg: float = Field(0, ge=0, le=180)
    zoom: float = Field(0, ge=0, lt=1, description="scale between 1 - zoom and 1 + zoom")
    shift: float = Field(0, ge=0, lt=1, description="fraction of the side, each way")
    brightness: float = Field(0, ge=0, le=1, description="added, in units of the full range")
    contrast: float = Field(0, ge=0, lt=1, description="factor between 1 - contrast and 1 + contrast")
    saturation: float = Field(0, ge=0, le=1, description="of colours: factor between 1 - saturation and 1 + saturation")
    camera: float = Field(
        1, ge=0, le=1, description="share of the images with camera effects, which are the fields from tilt_deg to jpeg"
    )
    tilt_deg: float = Field(0, ge=0, le=180, description="in place of rotate_deg, where larger")
    framing: float = Field(0, ge=0, lt=1, description="in place of zoom, where larger")
    dark: float = Field(0, ge=0, le=1, description="probability of underexposure")
    flat: float = Field(0, ge=0, le=1, description="probability of glare or of low contrast")
    blur: float = Field(0, ge=0, le=1, description="probability of Gaussian blur, sigma up to 2.2 pixels")
    motion: float = Field(0, ge=0, le=1, description="probability of motion blur, of 3 to 8 pixels")
    pixels: float = Field(0, ge=0, le=1, description="probability of downsampling to 0.3 to 0.9 of the side, and back")
    noise: float = Field(
        0, ge=0, le=1, description="largest standard deviation of pixel noise, in units of the full range"
    )
    jpeg: float = Field(0, ge=0, le=1, description="probability of JPEG at a quality of 8 to 60")
    erase: float = Field(0, ge=0, le=1, description="probability of random erasing")
    mixup: float = Field(0, ge=0, le=10, description="alpha of the Beta distribution of the blending weights")


class Optimizer(_Section):
    """`weight_decay` is decoupled (Loshchilov & Hutter 2019, arXiv:1711.05101) and excludes biases and batch norm: with
    SGD of momentum m it is like an L2 penalty of weight_decay * (1 - m)."""

    name: Literal["sgd", "adam", "adamw"]
    rate: float = Field(gt=0, le=10)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0, ge=0, le=1)


class Schedule(_Section):
    """The learning-rate schedule: cosine decay to `final_rate` after a linear warm-up; times `factor` every
    `every_epochs`, smoothly (exponential) or at once (step); or times `factor`, down to `final_rate`, after
    `every_epochs` without a better validation accuracy (plateau). A `final_rate` above the optimizer's is that one."""

    name: Literal["constant", "cosine", "exponential", "step", "plateau"] = "constant"
    warmup_epochs: float = Field(0, ge=0, le=MAX_EPOCHS, description="of cosine; the others have none")
    final_rate: float = Field(1e-4, ge=0, le=10)
    factor: float = Field(0.5, gt=0, le=1)
    every_epochs: float = Field(10, gt=0, le=MAX_EPOCHS)


class Distill(_Section):
    """weight: of the soft targets, where there are any, against the data's own; temperature: of the teachers' softmax."""

    weight: float = Field(0.7, ge=0, le=1)
    temperature: float = Field(2.0, gt=0, le=100)


class Fit(_Section):
    """Epochs and batches, class imbalance, and which epoch is kept."""

    epochs: int = Field(ge=1, le=MAX_EPOCHS)
    batch_size: int = Field(ge=1, le=65536)
    label_smoothing: float = Field(0, ge=0, lt=1)
    ema: float = Field(0, ge=0, lt=1, description="decay of the weights' moving average, such as 0.999; 0: none")
    clean_statistics: bool = Field(
        False,
        description="in the end, estimate batch-norm statistics on training images without augmentation: better on images like "
        "the data, worse on blurred ones",
    )
    balance: Literal["none", "class-weights", "oversample", "logit-adjustment"] = Field(
        "none", description="against class imbalance"
    )
    adjustment: float = Field(
        1,
        ge=0,
        le=3,
        description="strength of logit adjustment: with 1 the network predicts as if all classes were equally frequent",
    )
    patience: int = Field(
        0, ge=0, description="epochs without a better validation accuracy after which to stop; 0: never"
    )
    keep: Literal["best", "last"] = Field(
        "best", description="the epoch to keep: the best on the validation split, or the last"
    )
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _adjusts_something(self) -> "Fit":
        if self.adjustment != 1 and self.balance != "logit-adjustment":
            raise ValueError(f"adjustment={self.adjustment:g} has no effect without balance=logit-adjustment")
        return self


class Stage(_Section):
    """One of the trainings of a recipe with stages.

    name: by which later stages refer to its network. init_from: the stage with the initial weights, by default the one
    before, or "scratch" (`begin` in older recipes). teachers: stages to distil from. labels, votes: as in `edgefer
    train`. change: fields of the recipe that differ in this stage, by section.
    """

    name: str = Field(pattern=NAME)
    init_from: str = Field("", validation_alias=AliasChoices("init_from", "begin"))
    teachers: tuple[str, ...] = ()
    labels: str = ""
    votes: str = ""
    change: dict[str, Any] = {}

    @field_validator("change")
    @classmethod
    def _is_one_training(cls, change: dict[str, Any]) -> dict[str, Any]:
        if "stages" in change:
            raise ValueError("a stage has no stages of its own: put them into the recipe's [[stages]]")
        return change


class Recipe(_Section):
    """All sections of a training; with `stages` several trainings, each with these sections and its own changes."""

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
        earlier: list[str] = []
        for stage in self.stages:
            if stage.name in (*earlier, SCRATCH):
                raise ValueError(f"two stages cannot both be called {stage.name!r}, nor any {SCRATCH!r}")
            for named in (stage.init_from, *stage.teachers):
                if named not in ("", SCRATCH, *earlier):
                    raise ValueError(f"stage {stage.name!r} names {named!r}, which is not an earlier stage")
            self.of_stage(stage)
            earlier.append(stage.name)
        return self

    def of_stage(self, stage: Stage) -> "Recipe":
        """The recipe of one stage's training, without stages."""
        own = self.model_dump(exclude={"stages"})
        try:
            return Recipe.model_validate(merge(own, stage.change))
        except ValidationError as error:
            raise ValueError(f"stage {stage.name!r}: {first_problem(error, Recipe)}") from None

    @property
    def needs_validation(self) -> bool:
        """Whether training depends on a validation split."""
        return self.fit.keep == "best" or self.fit.patience > 0 or self.schedule.name == "plateau"

    @property
    def final_rate(self) -> float:
        """The lowest learning rate of a cosine or plateau schedule."""
        return min(self.schedule.final_rate, self.optimizer.rate)

    @property
    def warmup_note(self) -> str:
        """A sentence where a warm-up has no effect, or the training ends before it does, else ""."""
        warmup, epochs = self.schedule.warmup_epochs, self.fit.epochs
        if warmup and self.schedule.name != "cosine":
            return f"No warm-up (schedule.warmup_epochs={warmup:g}): only schedule.name=cosine has one, not {self.schedule.name}."
        if warmup < epochs:
            return ""
        return long_warmup(f"schedule.warmup_epochs={warmup:g}", counted(epochs, "epoch"))


def long_warmup(setting: str, training: str) -> str:
    """Says that a training ends before its warm-up does."""
    return (
        f"The warm-up ({setting}) is as long as the training ({training}): the learning rate rises to the end, and never decays. "
        "Train longer, or set a shorter one."
    )


def merge(fields: dict, changes: dict) -> dict:
    """`fields` updated by `changes`, recursively.

    >>> merge({"fit": {"epochs": 3, "seed": 0}}, {"fit": {"epochs": 5}})
    {'fit': {'epochs': 5, 'seed': 0}}
    """
    merged = dict(fields)
    for name, value in changes.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
