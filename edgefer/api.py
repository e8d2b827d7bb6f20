"""What `import edgefer` offers, behind its front door: the one module of the core that knows the other packages."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.errors import EdgeferError

if TYPE_CHECKING:
    import numpy as np

    from edgefer.checks import Check
    from edgefer.devices.reader import Reader
    from edgefer.records import Frame


class CallablePackage(ModuleType):
    """A package that can be called: `edgefer.train` is both the package and the function, whichever was loaded first."""

    _function: Callable[..., Any]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function(*arguments, **options)


def find_bundle(bundle: "str | Path | Bundle") -> Bundle:
    """A bundle by the path of its folder, or by the name of one that comes with edgefer. BundleError when there is none."""
    if isinstance(bundle, Bundle):
        return bundle
    path = Path(bundle)
    return Bundle.open(path if path.exists() else shipped_bundles().get(str(bundle), path))


def load(
    bundle: "str | Path | Bundle" = "ferplus-small",
    *,
    check: bool = True,
    log: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> "Reader":
    """A reader of faces from a bundle: the path of its folder, or the name of one that comes with edgefer.

    check: run the bundle's stored vectors first and compare its answers, which takes milliseconds. log: takes a line
    when something is replaced or comes back on the way. options: the fields of edgefer.options.ReaderOptions, such as
    detector="yunet", reject=0.6, smooth="calm", min_face=40.

    Raises BundleError when there is no such bundle or it is damaged, RuntimeFault when the network does not give its stored
    answers here, MissingDependency without a TFLite runtime, InputError for an option that cannot be.

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
    >>> reader(image / 255.0)
    Traceback (most recent call last):
    ...
    edgefer.errors.InputError: An image of float64 cannot be read: give a path, a PIL image, or uint8 [height, width, 3] in BGR order or [height, width] in gray, such as (image * 255).astype('uint8') where it is 0..1.
    """
    from edgefer.devices.reader import Reader
    from edgefer.options import ReaderOptions

    return Reader.open(find_bundle(bundle), ReaderOptions(check=check, **options), log=log)


def draw(frame: "Frame", *, blur_faces: bool = False) -> "np.ndarray":
    """A copy of a frame's image with a box, a label and its scores for each face: uint8 BGR [h, w, 3]."""
    from edgefer.devices.outputs.overlay import View

    return View(blur_faces=blur_faces).annotated(frame).copy()


def verify(
    bundle: "str | Path | Bundle", data: str | Path = "", *, runtimes: Sequence[str] = ("auto",), split: str = ""
) -> "list[Check]":
    """Prove that a bundle is still the same network here: `all(check.passed for check in edgefer.verify("ferplus-small"))`.

    Without data: its pixels, its stored answers on each runtime, and its weights; in seconds, without TensorFlow. data:
    labelled images (a CSV or a folder): also how many decisions conversion changed and what accuracy it cost.
    Raises BundleError, DataError, MissingDependency.

    >>> import edgefer
    >>> checks = edgefer.verify("ferplus-small")
    >>> checks[0].passed
    True
    """
    from edgefer.parity import check_bundle

    opened = find_bundle(bundle)
    if not data:
        return check_bundle(opened, list(runtimes))
    from edgefer.commands.inputs import training_data, usual_split
    from edgefer.convert.certificate import certify

    dataset = training_data(opened, str(data), False)
    named = [runtime for runtime in runtimes if runtime != "auto"]
    return [*certify(opened, dataset, split or usual_split(opened.card, dataset), runtimes=named).checks]


def train(data: str | Path, *, out: str | Path, **options: Any) -> Bundle:
    """Train a network as `edgefer train --data DATA --out OUT` does, and return its bundle.

    data: fer2013.csv, a folder of images by class, or "builtin". options: those of the command, by name, such as
    recipe="fer-small", epochs=20, seed=1. Raises DataError, RecipeError and the like with one sentence.
    """
    from edgefer.commands.train import train as command

    _run(command, data=str(data), out=Path(out), **options)
    return Bundle.open(Path(out))


def convert(bundle: "str | Path | Bundle", *, out: str | Path | None = None, **options: Any) -> Bundle:
    """Convert a trained bundle to TFLite as `edgefer convert` does, int8 by default, and return the new bundle.

    out: its folder, by default the bundle's name with "-int8". options: those of the command, by name, such as
    data="fer2013.csv", qat=True, max_drop=0.5, edgetpu=True. Raises BundleError, InputError and the like; EdgeferError when
    it was converted and judged to be another network.
    """
    from edgefer.commands.convert import convert as command
    from edgefer.commands.inputs import made_from

    source = find_bundle(bundle)
    target = Path(out) if out else made_from(source, "int8")
    _run(command, bundle=source.path, out=target, **options)
    return Bundle.open(target)


def import_model(
    file: str | Path,
    *,
    labels: Sequence[str] | None = None,
    scale: "str | tuple[float, float] | None" = None,
    color: str | None = None,
    outputs: str | None = None,
    data: str | Path = "",
    out: str | Path | None = None,
    faces: str = "human",
) -> Bundle:
    """Take in a network from elsewhere (.keras, .h5, a SavedModel folder, .tflite), so that everything here works on it.

    labels: in the order of its answers. scale: what it makes of pixels, "0..1", "0..255", "-1..1", "imagenet", "caffe", or
    (factor, offset). color: "gray", "rgb" or "bgr". outputs: "logits" or "probabilities". What is not given is read off the
    file, or measured on `data`, labelled images. out: the bundle's folder, by default runs/FILE.
    Raises InputError when how it is fed stays open, or when the file holds more than plain layers; EdgeferError when the
    bundle would not answer as the file does.
    """
    from edgefer.card import OutputSpec
    from edgefer.convert.contract import Stated, parse_scale
    from edgefer.convert.importing import Request, data_loader, import_network, target_folder
    from edgefer.options import Color, FaceKind, Outputs, choice

    stated = Stated(
        scale=parse_scale(scale) if isinstance(scale, str) else ("stated", scale) if scale else None,
        color=choice(Color, color, "color") if color else None,
        output=OutputSpec.model_validate({"values": choice(Outputs, outputs, "outputs").value}) if outputs else None,
        labels=tuple(labels) if labels else None,
    )
    load = data_loader(str(data)) if data else None
    request = Request(path=Path(file), stated=stated, load=load, faces=choice(FaceKind, faces, "faces").value)
    return import_network(request, target_folder(request, Path(out) if out else None)).bundle


def _run(command: Callable[..., None], **options: Any) -> None:
    """Call a command of the command line as the function that it is; its exit code becomes an exception."""
    import typer

    try:
        command(**options)
    except typer.Exit as end:
        if end.exit_code:
            raise EdgeferError(f"The {command.__name__} was done and judged to have failed: see its report.") from None
