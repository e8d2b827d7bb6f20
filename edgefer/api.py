"""The functions behind `import edgefer`: the one module of the core that knows the other packages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from inspect import getdoc, signature
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgefer.bundle import Bundle, open_named
from edgefer.errors import EdgeferError, InputError
from edgefer.options import AS_SHIPPED, DEFAULT_MODEL, MAX_DROP, MIN_AGREEMENT, DetectorFiles, as_path, as_record
from edgefer.progress import SILENT, Lines, Progress
from edgefer.records import Frame
from edgefer.words import in_python

if TYPE_CHECKING:
    import numpy as np

    from edgefer.devices.reader import Reader
    from edgefer.train.distribute import Worker
    from edgefer.train.framing import Detect
    from edgefer.train.pipeline import Result
    from edgefer.train.start import TrainRequest
    from edgefer.verification import Verification


class CallablePackage(ModuleType):
    """A callable package: `edgefer.train` is both the package and the function, whichever was loaded first."""

    _function: Callable[..., Any]

    def set_function(self, function: Callable[..., Any]) -> None:
        """Call `function` when called; help() and inspect.signature show its parameters and its documentation."""
        self._function = function
        self.__signature__ = signature(function)
        self.__doc__ = f"{self.__doc__}\n\n{self.__name__}{self.__signature__}\n\n{getdoc(function)}"

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function(*arguments, **options)


def find_bundle(bundle: "str | Path | Bundle") -> Bundle:
    """A bundle by the path of its folder, or by the name of a shipped one. BundleError if there is none.

    >>> find_bundle("fer-nano").card.labels[:3]
    ('angry', 'disgust', 'fear')
    """
    if isinstance(bundle, Bundle):
        return bundle
    return open_named(as_path(bundle, "bundle"))


@in_python
def load(
    bundle: "str | Path | Bundle" = DEFAULT_MODEL,
    *,
    check: bool = True,
    log: Callable[[str], None] = SILENT.log,
    **options: Any,
) -> "Reader":
    """Load a bundle as a Reader of faces.

    bundle: its folder, or the name of a shipped one. check: first run the network on the bundle's stored images and
    compare its answers, which takes milliseconds. log: called with a line of text when a camera, detector or runtime is
    replaced or recovers. options: the fields of edgefer.options.ReaderOptions, such as detector="yunet", reject=0.6,
    smooth="calm", min_face=40.

    Raises BundleError if the bundle does not exist or is damaged, RuntimeFault if the network does not give its stored
    answers on this machine, MissingDependency without a TFLite runtime, InputError for an invalid option or value.

    >>> import edgefer
    >>> from edgefer import drawn
    >>> image = next(drawn.scene())[0].image_bgr
    >>> reader = edgefer.load("ferplus-small", reject=0)
    >>> faces = reader(image)
    >>> len(faces), image.shape, image.dtype
    (2, (360, 480, 3), dtype('uint8'))
    >>> all(face.label in reader.labels and face.score == face.scores[face.label] for face in faces)
    True
    >>> edgefer.draw(faces).shape
    (360, 480, 3)
    >>> reader(image / 255.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    edgefer.errors.InputError: An image of float64 cannot be read: give a path, a PIL image, or uint8 [height, width, 3]...
    """
    from edgefer.devices.reader import Reader
    from edgefer.options import ReaderOptions

    return Reader.open(find_bundle(bundle), as_record(ReaderOptions, {"check": check, **options}), log=log)


@in_python
def draw(frame: Frame, *, blur_faces: bool = False) -> "np.ndarray":
    """Draw a frame's faces on a copy of its image, each with its box, label and scores: uint8 BGR [h, w, 3].

    frame: what a reader returned or `reader.watch` yielded. blur_faces: make faces unrecognizable. Raises InputError for
    anything but a Frame, such as its image alone.

    >>> import numpy as np
    >>> draw(Frame(index=0, time_s=0.0, image_bgr=np.zeros((48, 64, 3), np.uint8))).shape
    (48, 64, 3)
    """
    from edgefer.devices.outputs.overlay import View

    if not isinstance(frame, Frame):
        raise InputError(
            "draw takes the Frame that a reader returns, not its image or anything else: draw(reader(image))."
        )
    return View(blur_faces=blur_faces).annotated(frame).copy()


@in_python
def verify(
    bundle: "str | Path | Bundle",
    data: str | Path = "",
    *,
    runtimes: Sequence[str] = ("auto",),
    names: str = "",
    skip_bad: bool = False,
    split: str = "",
    max_drop: float = MAX_DROP,
    min_agreement: float = MIN_AGREEMENT,
    reference_kernels: bool = False,
    progress: Progress = SILENT,
) -> "Verification":
    """Prove that a bundle is still the same network on this machine, like `edgefer verify`.

    Without data it checks the bundle's pixels, its stored answers on each runtime, and its weights, in seconds and without
    TensorFlow.

    data: labelled images (a CSV or a folder), to also measure how many decisions conversion changed and how much accuracy
    it cost. runtimes: those to test, of "auto" (the first installed one), "litert", "tflite-runtime", "tensorflow",
    "openvino". names: "0=angry,1=happy", the names of the data's labels or folders if they are not the network's. skip_bad:
    skip bad rows and images. split: of the data; by default "valid", or "train" if no images are held out. max_drop: points
    of accuracy that conversion may cost, 0..100. min_agreement: the smallest share of equal decisions, 0..1.
    reference_kernels: also run TFLite's reference kernels, which takes minutes. progress: receives progress reports, such
    as edgefer.console.PROGRESS.

    Returns a Verification: `.passed`, the sequence of its checks, `.to_dict()`, `.rows()` for pandas, `.save(page)`.
    Raises BundleError, DataError, MissingDependency, InputError.

    >>> import edgefer
    >>> proof = edgefer.verify("fer-nano")
    >>> proof.passed, proof[0].question, proof[0].status
    (True, 1, <Status.PASS: 'pass'>)
    >>> sorted(proof.rows()[0])
    ['detail', 'fix', 'passed', 'question', 'status', 'subject']
    """
    from edgefer.options import RuntimeName, choice
    from edgefer.verification import Verification, verify_alone

    opened = find_bundle(bundle)
    wanted = [runtimes] if isinstance(runtimes, str) else runtimes
    if not isinstance(wanted, list | tuple):
        raise InputError(f"runtimes {wanted!r} is not a list of names, such as ['litert', 'tensorflow'].")
    kinds = [str(choice(RuntimeName, one, "runtime")) for one in wanted]
    if not data:
        given = {
            "split": split != "", "max_drop": max_drop != MAX_DROP, "min_agreement": min_agreement != MIN_AGREEMENT,
            "reference_kernels": reference_kernels, "names": names != "", "skip_bad": skip_bad,
        }  # fmt: skip
        for name, asked in given.items():
            if asked:
                raise InputError(f"{name} is about decisions on labelled images: name some with data=PATH.")
        return verify_alone(opened, kinds)
    from edgefer.convert.certificate import certify
    from edgefer.convert.comparison import Budget
    from edgefer.train.data.cache import cache_folder
    from edgefer.train.data.trained import training_data, usual_split

    _check_share("max_drop", max_drop, 100)
    _check_share("min_agreement", min_agreement, 1)
    dataset = training_data(opened, str(data), skip_bad, names=names, progress=progress, cache=cache_folder())
    certificate = certify(
        opened,
        dataset,
        split or usual_split(opened.card, dataset, progress),
        runtimes=kinds,
        budget=Budget.of(max_drop, min_agreement),
        reference_kernels=reference_kernels,
        progress=progress,
    )
    return Verification(
        bundle=opened, checks=certificate.checks, runtimes=certificate.runtimes, certificate=certificate
    )


@in_python
def train(
    data: str | Path = "",
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
    **options: Any,
) -> Bundle:
    """Train a network by a recipe, as `edgefer train` does, and return its bundle.

    data: fer2013.csv, a folder of images by class, or "builtin"; for recipe="face-finder" and "face-refiner" a folder of
    scenes. out: the bundle's folder, by default runs/RECIPE-N. resume: continue the training at `out`, which keeps its data
    and recipe. progress: receives progress reports, such as edgefer.console.PROGRESS. options: the fields of
    edgefer.train.start.TrainRequest, such as recipe="fer-small", epochs=20, seed=1, set={"optimizer.rate": 0.05},
    teacher=["ferplus-small"], and of edgefer.options.DetectorFiles: yunet, finder, refiner.

    Raises DataError, RecipeError, InputError and MissingDependency, each with one sentence, before training begins.

    >>> import edgefer
    >>> edgefer.train("builtin", recipe="huge")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ...
    edgefer.errors.RecipeError: There is no recipe 'huge'...
    """
    from edgefer.train.start import TrainRequest

    for name in ("lr", "learning_rate"):
        if name in options:
            raise InputError(
                f"There is no option {name!r}: the recipe has the learning rate, --set optimizer.rate=0.1."
            )
    folder = _folder(out)
    files = {one.name: options.pop(one.name) for one in fields(DetectorFiles) if one.name in options}
    if resume and (folder is None or data or options):
        raise InputError("A resumed training keeps its data and recipe: give resume=True and out alone.")
    request = None if resume else TrainRequest.of(data=str(data), **options)
    return Bundle.open(start_training(request, folder, files=as_record(DetectorFiles, files), progress=progress)[0])


def start_training(
    request: "TrainRequest | None",
    out: Path | None,
    *,
    files: DetectorFiles = AS_SHIPPED,
    worker: "Worker | None" = None,
    progress: Progress = SILENT,
) -> "tuple[Path, Result | None]":
    """Start the training that `request` describes; without one, resume the training at `out`, or the only one under runs/.

    Used by `edgefer train` and edgefer.train; the recipe decides whether the network reads faces or detects them. files:
    the detectors whose crops are measured, and the YuNet that is the teacher for detection, by default the cached one.
    Returns the folder and the result, which is None for a face-detection network and for a worker that is not the chief.
    Raises DataError, InputError and RecipeError before training begins.
    """
    from edgefer.train.distribute import SINGLE_WORKER
    from edgefer.train.faces.recipe import is_face_recipe
    from edgefer.train.faces.start import is_face_run
    from edgefer.train.run import unfinished_run
    from edgefer.train.start import new_run, resumed, start

    if request is None:
        run = out or unfinished_run().path
        if is_face_run(run):
            return _train_faces(None, run, files, progress), None
        run, config = resumed(run)
    elif is_face_recipe(request.recipe):
        return _train_faces(request, out, files, progress), None
    else:
        config = request.config()
        run = new_run(out, config, worker or SINGLE_WORKER)
    result = start(
        config,
        run,
        detectors=lambda config: face_detectors(config.recipe.faces, files),
        progress=progress,
        worker=worker or SINGLE_WORKER,
    )
    return run, result


def _train_faces(request: "TrainRequest | None", out: Path | None, files: DetectorFiles, progress: Progress) -> Path:
    from edgefer.devices.faces.own import CandidateMiner
    from edgefer.devices.faces.yunet import cached_yunet
    from edgefer.train.faces.start import new_config, resumed, start

    if files.finder or files.refiner:
        raise InputError(
            "--finder and --refiner are for networks that read faces: name the finder for a refiner's training with --teacher."
        )
    if request is None:
        assert out is not None, "a training continues in its folder"
        folder, config = out, resumed(out)
    else:
        folder, config = new_config(request, files.yunet or cached_yunet(), out)
    return start(config, folder, CandidateMiner.of, progress=progress).path


@in_python
def convert(
    bundle: "str | Path | Bundle",
    *,
    data: str | Path = "",
    names: str = "",
    skip_bad: bool = False,
    out: str | Path | None = None,
    edgetpu: bool = False,
    ethosu: str = "",
    onnx: bool = False,
    progress: Progress = SILENT,
    **options: Any,
) -> Bundle:
    """Convert a trained bundle to TFLite like `edgefer convert`, int8 by default, and return the new bundle.

    data: calibration images; by default what the network was trained on. names: "0=angry,1=happy", the names of its
    labels or folders if they are not the network's. skip_bad: skip bad rows and images. out: the new bundle's folder,
    by default the old one's name with "-int8" or the like. edgetpu: also compile for a Coral Edge TPU. ethosu: also
    compile for this Arm accelerator, such as "u55-128". onnx: also write it as ONNX. progress: receives progress
    reports, such as edgefer.console.PROGRESS. options: as on the command line: int8=False, float16=True,
    mediapipe=True, qat=True, max_drop=0.5, prune=0.5, slim=0.5, epochs=4, author, license.

    Raises BundleError, DataError, InputError; EdgeferError when it loses more than max_drop (the bundle is kept).

    >>> import edgefer
    >>> edgefer.convert("pets-small", data="builtin")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ...
    edgefer.errors.BundleError: ...pets-small holds no Keras network...
    """
    from edgefer.convert.extras import Extras
    from edgefer.convert.start import ConvertRequest, start
    from edgefer.convert.work import Plan

    plan = as_record(Plan, options)
    extras = Extras(edgetpu=edgetpu, ethosu=ethosu, onnx=onnx)
    request = ConvertRequest(
        bundle=find_bundle(bundle),
        plan=plan,
        data=str(data),
        names=names,
        skip_bad=skip_bad,
        out=_folder(out),
        extras=extras,
    )
    outcome = start(request, progress)
    if outcome.complaint:
        raise EdgeferError(outcome.complaint)
    return outcome.bundle


@in_python
def import_model(
    file: str | Path,
    *,
    data: str | Path = "",
    names: str = "",
    skip_bad: bool = False,
    out: str | Path | None = None,
    log: Callable[[str], None] = SILENT.log,
    **options: Any,
) -> Bundle:
    """Import a network trained elsewhere (.keras, .h5, a SavedModel folder, .tflite), and return its bundle.

    data: labelled images for measuring what is not stated. names: "0=angry,1=happy", the names of its labels or
    folders, if they are not the network's. skip_bad: skip bad rows and images. out: the bundle's folder, by default
    runs/FILE. log: receives warnings: of what `trust` means, and of labels or values that fit the images worse than
    others, which the bundle's report/import.json has, too. options: the fields of
    edgefer.convert.import_options.ImportOptions, such as labels=["angry", "happy"], scale="-1..1", color="gray",
    outputs="logits", faces="human", trust=False, author, license.

    Raises InputError if its preprocessing cannot be determined, or the file holds more than plain layers; EdgeferError if
    the bundle would not give the same answers as the file. With data, the card also says how each detector's boxes are
    cropped for it.

    >>> import edgefer
    >>> edgefer.import_model("nowhere.h5", color="grey")
    Traceback (most recent call last):
    ...
    edgefer.errors.InputError: color 'grey' is not known: choose gray, rgb, bgr.
    """
    from edgefer.convert.import_options import ImportOptions, data_loader, target_folder
    from edgefer.convert.importing import import_network
    from edgefer.train.data.load import DataOptions

    wanted = as_record(ImportOptions, options)
    request = wanted.request(
        as_path(file, "file"),
        load=data_loader(str(data), DataOptions(names=names, skip_bad=skip_bad)) if data else None,
        detectors=face_detectors(wanted.faces.value) if data else {},
        progress=Lines(log),
    )
    return import_network(request, target_folder(request, _folder(out))).bundle


def face_detectors(faces: str, files: DetectorFiles = AS_SHIPPED) -> "Mapping[str, Detect]":
    """The detectors whose crops a training or an import measures, by name, for a kind of faces: "human", "cat", "frame"
    (which has none).

    files: YuNet's .onnx, without which it is omitted, and a finder and refiner to replace the shipped pair.
    """
    from edgefer.devices.faces.detectors import HaarDetector
    from edgefer.devices.faces.own import OwnDetector
    from edgefer.devices.faces.pair import has_pair, refuse_pair
    from edgefer.devices.faces.yunet import YuNetDetector

    if faces != "human":
        refuse_pair(files, faces)
    detectors: dict[str, Detect] = {}
    if faces != "frame":
        # A measured face fills half of its scene (edgefer.train.framing): to search for smaller ones takes five times as long.
        cascade = HaarDetector(faces=faces, least=0.25)
        detectors[cascade.name] = cascade.detect
    if faces == "human" and has_pair(files):
        detectors[OwnDetector.name] = OwnDetector.of(files).detect
    if files.yunet:
        detectors[YuNetDetector.name] = YuNetDetector(files.yunet).detect
    return detectors


def _folder(out: str | Path | None) -> Path | None:
    """The named output folder; None if it is left out."""
    return None if out is None else as_path(out, "out")


def _check_share(name: str, value: Any, most: int) -> None:
    """InputError unless it is a number from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise InputError(f"{name} {value!r} is not a number from 0 to {most}.")
