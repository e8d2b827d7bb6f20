"""Reads untrusted network files: what they are, what they say about themselves, and what they answer."""

from collections.abc import Callable, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefer.bundle import COMPILED_FOR
from edgefer.card import InputSpec, OutputSpec
from edgefer.convert.contract import Quanta, Stated
from edgefer.convert.label_files import packed_labels
from edgefer.convert.outputs import End, keras_end, tflite_end
from edgefer.convert.scaling import keras_contract
from edgefer.errors import InputError
from edgefer.interpreter import LOGITS, Network
from edgefer.options import Color
from edgefer.preprocess import to_float
from edgefer.progress import SILENT, Progress
from edgefer.runtimes import installed_runtimes
from edgefer.text import counted, printable
from edgefer.tflite.description import read_description
from edgefer.tflite.flatbuffer import Model, Tensor, read_model
from edgefer.tflite.titles import described
from edgefer.tflite.trial import try_network

if TYPE_CHECKING:
    from edgefer.train.keras_build import Built

MAX_BYTES = 1 << 30
MAX_ORIGIN = 200  # characters of an author or a licence
KERAS, TFLITE = (".keras", ".h5", ".hdf5"), (".tflite", ".lite")
NO_CLASSIFIER = "edgefer runs classifiers, of one image in and one row of answers out"
PYTORCH = (
    "{path} is a PyTorch file, which edgefer does not load, since that may run code: convert the network in PyTorch with litert-torch "
    "(formerly ai-edge-torch) to a .tflite whose input is channels last (litert_torch.to_channel_last_io), and import that."
)
INTEGERS: dict[str, type] = {"UINT8": np.uint8, "INT8": np.int8, "INT16": np.int16}


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A network file before import.

    shape: height, width, channels of its input. logits: (uint8 [n, h, w, c], InputSpec, OutputSpec) -> float32 [n, classes],
    of the unchanged network. stated: what its file says of its contract. end: how it ends.
    layers: its Keras layers and their connections, if it has them; passes: those that only scale pixels.
    content, computes: the .tflite file, if it is one, and its arithmetic. author, license: from its metadata, or "".
    """

    path: str
    sha256: str
    kind: str
    shape: tuple[int, int, int]
    classes: int
    stated: Stated
    logits: Callable[[np.ndarray, InputSpec, OutputSpec], np.ndarray] = field(repr=False)
    end: End
    layers: "tuple[Built, dict] | None" = field(default=None, repr=False)
    passes: tuple[Any, ...] = ()
    content: bytes = field(default=b"", repr=False)
    computes: str = ""
    author: str = ""
    license: str = ""


def read_foreign(path: Path, *, trust: bool = False, progress: Progress = SILENT) -> Foreign:
    """Read a network file; InputError for anything but a supported image classifier.

    trust: run the code in a Keras file, if there is any, in a separate process (edgefer.convert.trusted).
    progress: receives a warning of what that means, before it is done.
    """
    import hashlib

    if path.is_dir():
        content, kind = saved_model_as_tflite(path, progress), "SavedModel"
    else:
        content, kind = _read(path), path.suffix.lower()
    common = {"path": str(path), "sha256": hashlib.sha256(content).hexdigest()}
    if not content:
        raise InputError(f"{path} is empty: copy it again.")
    if _is_pytorch(path, content):
        raise InputError(PYTORCH.format(path=path))
    if content[4:8] == b"TFL3" and not trust:
        return _tflite(content, kind, str(path), common)
    if content[:4] == b"PK\x03\x04" or content[:8] == b"\x89HDF\r\n\x1a\n":
        return _trusted(path, content, common, progress) if trust else _checked(path, content, common)
    if trust:
        raise InputError(f"--trust is for Keras files with code in them, and {path} is none: leave it out.")
    raise InputError(f"{path} is neither a Keras file (.keras, .h5) nor a .tflite: {_what_instead(path)}")


def _checked(path: Path, content: bytes, common: dict) -> Foreign:
    from edgefer.train.keras_layers import UnknownLayer

    try:
        return _keras(content, str(path), common)
    except UnknownLayer as error:
        raise InputError(
            f"{error} Or, where you know who made it: --trust, which runs the code that it holds."
        ) from None


def _trusted(path: Path, content: bytes, common: dict, progress: Progress) -> Foreign:
    """Without code in the file nothing is run: a network of plain layers is rebuilt as usual."""
    from edgefer.convert.trusted import MEANING, run_and_convert
    from edgefer.train.keras_layers import UnknownLayer

    try:
        return _keras(content, str(path), common)
    except UnknownLayer:
        progress.log(MEANING.format(file=path))
        return _tflite(run_and_convert(path), "Keras, run with --trust", str(path), common)


def _read(path: Path) -> bytes:
    from edgefer.files import read_regular

    return read_regular(path, MAX_BYTES, error=InputError)


def _is_pytorch(path: Path, content: bytes) -> bool:
    """Whether torch.save, TorchScript or torch.export wrote it: a zip with these names, or by its suffix."""
    if content[:4] == b"PK\x03\x04" and (b"/data.pkl" in content or b"/archive_format" in content):
        return True
    return path.suffix.lower() in (".pt", ".pth", ".pt2", ".ckpt") and content[4:8] != b"TFL3"


def _what_instead(path: Path) -> str:
    if path.suffix.lower() == ".onnx":
        return (
            "no maintained ONNX converter installs beside TensorFlow 2.21, so convert it to .tflite elsewhere (pip install onnx2tf in a "
            "separate environment; onnx2tf -i FILE) and import that."
        )
    if path.name == "saved_model.pb":
        return f"name its folder, {path.absolute().parent.name}, which holds the weights too."
    return "name a network file."


def _check_ends(inputs: Sized, outputs: Sized, where: str) -> None:
    if len(inputs) != 1 or len(outputs) != 1:
        found = f"{counted(len(inputs), 'input')} and {counted(len(outputs), 'output')}"
        raise InputError(f"{where} has {found}: {NO_CLASSIFIER}; build a network of the one output with the labels.")


def _shape(shape: tuple, where: str) -> tuple[int, int, int]:
    """Height, width and channels of an input [n, h, w, c] or [n, h, w]."""
    sides = tuple(int(side) if side else 0 for side in shape[1:])
    if len(sides) == 2:
        sides = (*sides, 1)
    if len(sides) != 3 or sides[2] not in (1, 3) or not all(16 <= side <= 512 for side in sides[:2]):
        first = len(sides) == 3 and sides[0] in (1, 3)
        raise InputError(
            f"{where} takes {list(shape)}: edgefer runs networks of one image [1, height, width, 1 or 3] of 16 to 512 pixels a "
            f"side, channels last{'; of a PyTorch network, litert_torch.to_channel_last_io makes one' if first else ''}."
        )
    return sides[0], sides[1], sides[2]


def _classes(shape: tuple, where: str) -> int:
    """The number of labels of an output [1, n]; a .tflite's may have more dimensions of 1."""
    row = bool(shape) and all(size == 1 for size in shape[:-1])
    if row and shape[-1] == 1:
        raise InputError(
            f"{where} gives a single answer, and edgefer shares the score among two labels or more: of two labels, train it with two "
            "outputs and a softmax."
        )
    if not row or not shape[-1] or shape[-1] < 2:
        raise InputError(f"{where} answers with {list(shape)}, not one row of labels: it is not a classifier.")
    return int(shape[-1])


def check_runs(foreign: Foreign) -> None:
    """InputError for a .tflite that the preferred runtime does not run. Tried in a separate process: a malicious file may
    crash the runtime, hang it or exhaust the memory."""
    for runtime in installed_runtimes()[:1] if foreign.content else ():
        tried = try_network(foreign.content, runtime)
        if not tried.runs:
            reason = tried.reason.rstrip(".")
            raise InputError(f"{foreign.path} does not run on {runtime}: {reason}. Convert or copy it again.")


def _keras(content: bytes, where: str, common: dict) -> Foreign:
    from edgefer.train.keras_file import read_layers
    from edgefer.train.keras_trial import check_readable

    check_readable(content, where)
    built, architecture = read_layers(content, where)
    network = built.layer
    _check_ends(network.inputs, network.outputs, where)
    if len(network.output_shape) != 2:
        raise InputError(f"{where} answers with {list(network.output_shape)}, not one row of labels: {NO_CLASSIFIER}.")
    shape, classes = _shape(network.input_shape, where), _classes((1, network.output_shape[-1]), where)
    passes, stated = keras_contract(built, architecture, shape[2])
    end = keras_end(built, architecture)

    def logits(pixels: np.ndarray, spec: InputSpec, kind: OutputSpec) -> np.ndarray:
        values = to_float(pixels, spec)
        answers = [np.asarray(network(values[at : at + 128], training=False)) for at in range(0, len(values), 128)]
        return _as_logits(np.concatenate(answers), kind)

    return Foreign(
        **common, kind="Keras", shape=shape, classes=classes, logits=logits, end=end,
        stated=replace(stated, output=end.output), layers=(built, architecture), passes=passes,
    )  # fmt: skip


def _as_logits(answers: np.ndarray, kind: OutputSpec) -> np.ndarray:
    answers = answers.astype(np.float32)
    return answers if kind == LOGITS else np.log(np.maximum(answers, 1e-7)).astype(np.float32)


def _tflite(content: bytes, kind: str, where: str, common: dict) -> Foreign:
    model = read_model(content, where)
    if accelerators := [COMPILED_FOR[one.name] for one in model.operators if one.name in COMPILED_FOR]:
        raise InputError(f"{where} is compiled for {accelerators[0]}: import the file it was compiled from.")
    names = {one.name for one in model.operators}
    if "READ_VARIABLE" in names and "CALL_ONCE" not in names:  # which would fill them
        raise InputError(
            f"{where} holds no weights: it reads them from variables that nothing in the file fills. Convert the network again, with "
            "tf.lite.TFLiteConverter.from_keras_model(network) or from_saved_model(folder), and import that."
        )
    _check_ends(model.main.inputs, model.main.outputs, where)
    image, answer = model.main.inputs[0], model.main.outputs[0]
    if image.shape and image.shape[0] > 1:
        raise InputError(f"{where} takes {image.shape[0]} images at once: convert it again with a batch size of 1.")
    shape, classes = _shape(image.shape, where), _classes(answer.shape, where)

    def logits(pixels: np.ndarray, spec: InputSpec, output: OutputSpec) -> np.ndarray:
        return Network(content, spec, classes, output=output, name=where).logits(pixels)

    quanta, end = _quanta(image, where), tflite_end(model)
    usual = quanta is not None and quanta.usual
    author, license_ = _origin(model)
    because: tuple[str, ...] = (f"its {image.dtype} input stands for {quanta}",) if quanta else ()
    if author or license_:
        because += (f"its metadata says: author {author or 'not named'}, licence {license_ or 'not named'}",)
    stated = Stated(
        scale=("stated", quanta.filled) if quanta and usual else None,
        output=end.output,
        labels=packed_labels(content, classes),
        color=Color.GRAY if shape[2] == 1 else None,
        because=because,
        quanta=None if usual else quanta,
    )
    return Foreign(
        **common, kind=kind, shape=shape, classes=classes, stated=stated, logits=logits, end=end, content=content,
        computes=described(model), author=author, license=license_,
    )  # fmt: skip


def _origin(model: Model) -> tuple[str, str]:
    """Author and licence from TFLite Metadata, each as one line without control characters; "" if absent."""
    try:
        described = read_description(bytes(model.description))
    except ValueError:
        return "", ""
    author, license_ = (
        printable(" ".join(text.split()))[:MAX_ORIGIN] for text in (described.author, described.license)
    )
    return author, license_


def _quanta(image: Tensor, where: str) -> Quanta | None:
    """What the quanta of an integer input stand for. InputError for an invalid scale or zero point."""
    if image.dtype not in INTEGERS:
        return None
    if len(image.steps) != 1:
        raise InputError(
            f"{where} takes {image.dtype} without the scale that says what its integers mean: convert it again with a float32 input."
        )
    step, zero = image.steps[0], (image.zeros or (0,))[0]
    range_ = np.iinfo(INTEGERS[image.dtype])
    if not (0 < step < np.inf and range_.min <= zero <= range_.max):
        raise InputError(
            f"{where} is damaged: its {image.dtype} input has the scale {step} and the zero point {zero}. Convert or copy it again."
        )
    return Quanta(dtype=INTEGERS[image.dtype], step=step, zero=zero)


def saved_model_as_tflite(folder: Path, progress: Progress) -> bytes:
    """A SavedModel's float32 .tflite, converted in a separate process; its graph may hold arithmetic only."""
    from edgefer.convert.saved_model import check_saved_model, to_tflite

    check_saved_model(folder)
    with progress.stage(f"Converting {folder} to a .tflite"):
        return to_tflite(folder)
