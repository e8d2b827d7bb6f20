"""A conversion as people ask for it, by names and paths: `edgefer convert` and edgefer.convert start it alike."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from edgefer.bundle import Bundle, Form, made_from, new_directory
from edgefer.convert.edgetpu import CompilerLog, add_compiled, find_compiler
from edgefer.convert.faces import convert_faces
from edgefer.convert.pipeline import Converted, convert
from edgefer.convert.work import Plan
from edgefer.errors import EdgeferError, InputError
from edgefer.files import check_writable
from edgefer.progress import SILENT, Progress
from edgefer.train.data.cache import cache_folder
from edgefer.train.data.trained import training_data
from edgefer.train.faces.run import FaceOrder, calibration_images


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """What a conversion is asked for. data: a path; "": what the bundle was trained on. out: None: beside the bundle, named
    after what is done. edgetpu: compile the int8 network for a Coral Edge TPU too."""

    bundle: Bundle
    plan: Plan = field(default_factory=Plan)
    data: str = ""
    skip_bad: bool = False
    out: Path | None = None
    edgetpu: bool = False

    def __post_init__(self) -> None:
        if self.edgetpu and not self.plan.int8:
            raise InputError("--edgetpu is about the int8 network: leave --no-int8 out.")

    @property
    def target(self) -> Path:
        """Where the new bundle goes: as asked, or beside the old one under a name that is not taken. InputError when
        something is there already."""
        target = self.out or made_from(self.bundle, self.plan.suffix)
        if self.out is None and target.exists():
            return new_directory(target.parent, target.name)
        if target.exists():
            raise InputError(f"{target} is there already: choose another --out.")
        return target


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The new bundle; how it was converted (None of a network that finds faces); the Edge TPU compiler's log, or why it
    compiled nothing; and what does not hold, as one sentence, "" where all does."""

    bundle: Bundle
    converted: Converted | None = None
    compiled: CompilerLog | None = None
    not_compiled: EdgeferError | None = None

    @property
    def complaint(self) -> str:
        parts = [self.converted.complaint if self.converted else "", str(self.not_compiled or "")]
        return " ".join(filter(None, parts))


def start(request: ConvertRequest, progress: Progress = SILENT) -> Outcome:
    """Convert a bundle into a new one; everything that can be refused is refused before the work begins.

    BundleError without a Keras network, DataError, InputError; MissingDependency without the Edge TPU's compiler.
    EdgeferError when it is interrupted by Ctrl-C; finished epochs of fine-tuning are kept.
    """
    source, target = request.bundle, request.target
    source.file(Form.KERAS)
    check_writable(target)
    if request.edgetpu:
        find_compiler()
    if source.card.task != "read":
        outcome = Outcome(bundle=_convert_faces(request, target, progress))
    else:
        dataset = training_data(source, request.data, request.skip_bad, progress=progress, cache=cache_folder())
        progress.log(f"Converting {source.path} into {target}")
        try:
            converted = convert(source, dataset, request.plan, target, progress)
        except KeyboardInterrupt:
            raise EdgeferError(
                f"Stopped; {source.path} is as it was, and finished epochs of fine-tuning are kept: the same command goes on."
            ) from None
        outcome = Outcome(bundle=converted.bundle, converted=converted)
    return _compiled(outcome) if request.edgetpu else outcome


def _compiled(outcome: Outcome) -> Outcome:
    """With the network compiled for the Edge TPU added to the bundle, or the error."""
    try:
        bundle, log = add_compiled(outcome.bundle)
    except EdgeferError as error:
        return replace(outcome, not_compiled=error)
    return replace(outcome, bundle=bundle, compiled=log)


def _convert_faces(request: ConvertRequest, target: Path, progress: Progress) -> Bundle:
    """A network that finds faces: float32 and int8, calibrated on what it was trained on."""
    source, plan = request.bundle, request.plan
    if plan != Plan(author=plan.author, license=plan.license):
        raise InputError(
            f"{source.path} finds faces: it is converted to float32 and int8, with no other options than --edgetpu."
        )
    order = FaceOrder.load(source.path)
    if request.data:
        order = replace(order, data=str(Path(request.data).absolute()))
    progress.log(f"Converting {source.path} into {target}")
    images = calibration_images(order, cache_folder() / "faces", progress)
    return convert_faces(source, images, target, author=plan.author, license_=plan.license)
