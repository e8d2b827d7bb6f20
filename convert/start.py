"""Starts a conversion from names and paths, for both `edgefer convert` and edgefer.convert."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from edgefer.bundle import Bundle, Form, made_from, new_directory
from edgefer.checks import Check
from edgefer.convert.extras import Added, Extras, add_extras
from edgefer.convert.faces import convert_faces
from edgefer.convert.pipeline import Converted, convert, unfinished
from edgefer.convert.slim import why_not
from edgefer.convert.work import Plan
from edgefer.errors import InputError, Interrupted
from edgefer.files import check_absent, check_writable
from edgefer.lineage import origin_form
from edgefer.progress import SILENT, Progress
from edgefer.tflite.flatbuffer import quantization, read_model
from edgefer.train.data.cache import cache_folder
from edgefer.train.data.trained import remembered, training_data
from edgefer.train.faces.run import FaceConfig, calibration_images
from edgefer.train.recipes import recipe_of

QUANTIZABLE = ("float32", "float16")  # arithmetic of an imported .tflite that int8 is made of
UNLEARNT = "A network that is fine-tuned without images of a class forgets it."


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """The options of a conversion. data: a path; "": what the bundle was trained on. names: of its labels or folders. out: None: beside the bundle, named
    after the plan."""

    bundle: Bundle
    plan: Plan = field(default_factory=Plan)
    data: str = ""
    names: str = ""
    skip_bad: bool = False
    out: Path | None = None
    extras: Extras = field(default_factory=Extras)

    @property
    def target(self) -> Path:
        """The new bundle's path: `out`, or beside the old one under a free name. InputError if it exists."""
        target = self.out or made_from(self.bundle, self.plan.suffix)
        if self.out is None and target.exists():
            return new_directory(target.parent, target.name)
        check_absent(target)
        return target


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The new bundle; how it was converted (None for a face-detection network); the results of the extras; and what
    failed, "" if nothing did. data: what it was calibrated on, as in `--data`, with names and skip_bad."""

    bundle: Bundle
    converted: Converted | None = None
    added: tuple[Added, ...] = ()
    data: str = ""
    names: str = ""
    skip_bad: bool = False

    @property
    def checks(self) -> tuple[Check, ...]:
        """Whether the accuracy holds, if that was checked, and the checks of the extras."""
        budget = self.converted.checks if self.converted else ()
        return (*budget, *(check for one in self.added for check in one.checks))

    @property
    def complaint(self) -> str:
        parts = [self.converted.complaint if self.converted else "", *(one.failure for one in self.added)]
        return " ".join(filter(None, parts))


def start(request: ConvertRequest, progress: Progress = SILENT) -> Outcome:
    """Convert a bundle into a new one; whatever can be checked beforehand is checked before the work begins.

    BundleError without a Keras network, DataError, InputError; MissingDependency without what an extra needs.
    Interrupted on Ctrl-C; finished epochs of fine-tuning are kept.
    """
    source, target, data, skip_bad = request.bundle, request.target, request.data, request.skip_bad
    _check_source(source, request.plan)
    check_writable(target)
    request.extras.check(request.plan.int8)
    if source.card.task != "read":
        made, converted = _convert_faces(request, target, progress), None
    else:
        if request.plan.slim and (reason := why_not(recipe_of(source.card), request.plan.slim)):
            raise InputError(reason)
        if not data and (known := remembered(source)):
            data, skip_bad = known.data, known.skip_bad
        dataset = training_data(source, data, skip_bad, names=request.names, progress=progress, cache=cache_folder())
        if dataset.absent_note:
            progress.log(f"{dataset.absent_note}.{f' {UNLEARNT}' if request.plan.trains else ''}")
        progress.log(f"Converting {source.path} into {target}")
        try:
            converted = convert(source, dataset, request.plan, target, progress)
        except KeyboardInterrupt:
            kept = unfinished(target)
            raise Interrupted(
                f"Stopped; {source.path} is unchanged, and "
                + (
                    f"{kept} holds the finished epochs: the same command continues."
                    if kept
                    else "nothing is left behind."
                )
            ) from None
        made = converted.bundle
    try:
        made, added = add_extras(request.extras, made, progress)
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped; {made.path} is complete, but for what was still to be added to it.") from None
    return Outcome(
        bundle=made, converted=converted, added=tuple(added), data=data, names=request.names, skip_bad=skip_bad
    )


def is_convertible(source: Bundle) -> bool:
    """Whether a bundle holds its Keras network, or the float .tflite as which it was imported."""
    if source.has(Form.KERAS):
        return True
    return origin_form(source.card) is Form.FLOAT32 and _arithmetic(source, Form.FLOAT32) in QUANTIZABLE


def _arithmetic(imported: Bundle, form: Form) -> str:
    return quantization(read_model(imported.read(form), str(imported.file(form))))


def _check_source(source: Bundle, plan: Plan) -> None:
    """BundleError unless it holds its Keras network, or the float .tflite as which it was imported; InputError for what
    cannot be made of that."""
    card = source.card
    imported = Form.INT8 if card.input.stated and card.lineage is None and source.has(Form.INT8) else origin_form(card)
    if source.has(Form.KERAS) or imported not in (Form.FLOAT32, Form.INT8):
        source.file(Form.KERAS)
        return
    if (computes := _arithmetic(source, imported)) not in QUANTIZABLE:
        raise InputError(
            f"{source.path} holds a network that was quantized before it was imported ({computes}): import the float32 .tflite that it "
            "was made from."
        )
    if option := plan.needs_keras:
        raise InputError(
            f"{option} needs the Keras network, and {source.path} was imported as a .tflite, of which int8 can be made: leave {option} "
            "out, or import the network's .keras or .h5 file."
        )


def _convert_faces(request: ConvertRequest, target: Path, progress: Progress) -> Bundle:
    """Convert a face-detection network to float32 and int8, calibrated on its training data."""
    source, plan = request.bundle, request.plan
    if plan != Plan(author=plan.author, license=plan.license) or request.names:
        raise InputError(
            f"{source.path} finds faces: it is converted to float32 and int8, with no other options than --edgetpu, --ethosu and --onnx."
        )
    config = FaceConfig.load(source.path)
    if request.data:
        config = replace(config, data=str(Path(request.data).absolute()))
    progress.log(f"Converting {source.path} into {target}")
    images = calibration_images(config, cache_folder() / "faces", progress)
    with progress.stage(f"Calibrating int8 on {len(images):,} images and storing answers for its proof"):
        return convert_faces(source, images, target, author=plan.author, license_=plan.license)
