"""The bundle: the directory that goes from training to the device, and the only connection between the stages.

card.json            what the network is (edgefer.card); written last, so a directory without it is not a bundle yet
origin.keras         the trained network, if slimming replaced it with a smaller one (edgefer.lineage)
model.keras          the trained network
tuned.keras          the same after pruning or quantization-aware training; these three stay on the host
float32.tflite       the network as TFLite, float
float16.tflite       the same with float16 weights
int8.tflite          the network as TFLite, int8 in and out
int8_edgetpu.tflite  the same, compiled for a Coral Edge TPU
int8_ethosu.tflite   the same, compiled for an Arm Ethos-U
int8.onnx            the same as ONNX
mediapipe.tflite     the network in the format of MediaPipe's ImageClassifier: RGB uint8 in, probabilities uint8 out
parity.npz           images and expected answers (edgefer.parity)
report/              plots and tables; not covered by the card
"""

import gzip
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgefer.card import ModelCard, Task, Variant, parse_card
from edgefer.errors import BundleError, InputError
from edgefer.files import (
    MAX_CARD,
    MAX_NETWORK,
    mode_of,
    naming,
    read_regular,
    regular_size,
    staging_directory,
    with_name_of_its_own,
    write_file,
)
from edgefer.text import printable

CARD = "card.json"
EXPORTED = "export.json"  # in a folder that `edgefer export` wrote, instead of a card
PARITY = "parity"


class Form(StrEnum):
    """The forms of a network that a bundle may hold, as its card names them."""

    ORIGIN = "origin"
    KERAS = "keras"
    TUNED = "tuned"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    INT8_EDGETPU = "int8_edgetpu"
    INT8_ETHOSU = "int8_ethosu"
    ONNX = "onnx"
    MEDIAPIPE = "mediapipe"


FILES = {
    Form.ORIGIN: "origin.keras",
    Form.KERAS: "model.keras",
    Form.TUNED: "tuned.keras",
    Form.FLOAT32: "float32.tflite",
    Form.FLOAT16: "float16.tflite",
    Form.INT8: "int8.tflite",
    Form.INT8_EDGETPU: "int8_edgetpu.tflite",
    Form.INT8_ETHOSU: "int8_ethosu.tflite",
    Form.ONNX: "int8.onnx",
    Form.MEDIAPIPE: "mediapipe.tflite",
    PARITY: "parity.npz",
}
EDGETPU_OPERATOR = "edgetpu-custom-op"  # replaces the operators that edgetpu_compiler mapped
ETHOSU_OPERATOR = "ethos-u"  # replaces those that the NPU runs
COMPILED_FOR = {EDGETPU_OPERATOR: "the Edge TPU", ETHOSU_OPERATOR: "an Arm Ethos-U"}
TFLITE_VARIANTS = (Form.INT8, Form.FLOAT16, Form.FLOAT32)  # the order in which a device prefers them


USES: dict[Task, str] = {  # what a bundle without a Keras network can still be used for, by its task
    "read": "be run, measured, and be a --teacher",
    "find-faces": "be a --finder, and a refiner's --teacher",
    "refine-faces": "be a --refiner",
}
NETWORK_FILES = {".keras", ".h5", ".hdf5", ".tflite", ".onnx", ".pt", ".pth", ".pb"}
IMAGES_IN = {".csv", ".gz", ".zip"}  # labelled, for training
TRAINING = "training"  # holds what a training needs to resume


def is_begun(folder: Path) -> bool:
    """Whether a folder holds an unfinished training that can be resumed."""
    return (folder / TRAINING).is_dir()


def imported_as_tflite(card: ModelCard) -> bool:
    """Whether the network was imported as a .tflite, whose card states its input: a Keras network is rebuilt to take
    edgefer's own."""
    return card.input.stated and Form.KERAS not in card.variants


def refuse_network(name: str) -> None:
    """InputError if a source of images is the file or SavedModel folder of a network."""
    path = Path(name)
    if (path.suffix.lower() in NETWORK_FILES and os.path.isfile(path)) or is_saved_model(path):
        raise InputError(
            f"{printable(name)} is a network, not something to find faces in: `edgefer import {printable(name)}` makes a bundle of it."
        )


def is_saved_model(folder: Path) -> bool:
    """Whether it is a folder that TensorFlow wrote."""
    return os.path.isfile(folder / "saved_model.pb") and not os.path.lexists(folder / CARD)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its path and its card.

    >>> bundle = Bundle.open("fer-nano")
    >>> bundle.card.input.shape, len(bundle.card.labels), bundle.has("int8")
    ((48, 48, 1), 7, True)
    """

    path: Path
    card: ModelCard

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Open a bundle by its folder, or a shipped one by its name, checking its card, that each file is a regular one of the size in the card, and the hash of
        each .tflite. Raises BundleError with one sentence.

        Other files' hashes are checked when they are read: a device never reads the host's networks. A damaged file never
        reaches a TFLite runtime, whose C++ code may crash on it; a malicious one may have a matching hash.
        """
        path = Path(path)
        card_file = path / CARD
        mode = mode_of(path, error=BundleError)
        if stat.S_ISREG(mode) and path.suffix.lower() in IMAGES_IN:
            raise BundleError(f"{path} is no bundle, but data: give it with --data.")
        if stat.S_ISREG(mode):
            raise BundleError(
                f"There is no bundle at {path}, only a file: `edgefer import {path}` makes a bundle of a network."
            )
        if not mode and str(path) in shipped_networks():
            return cls.open(shipped_networks()[str(path)])
        if not stat.S_ISDIR(mode):
            raise BundleError(
                f"There is no bundle at {path}: name a directory that `edgefer train` or `convert` wrote, or one of "
                f"{', '.join(shipped_bundles())}."
            )
        if not mode_of(card_file, error=BundleError):
            hint = " (its training has not finished: `edgefer train --resume`)" if is_begun(path) else ""
            hint = f", but a network: `edgefer import {path}` makes a bundle of it" if is_saved_model(path) else hint
            raise BundleError(f"{path} is not a bundle: it has no {CARD}{hint}.")
        card = parse_card(read_regular(card_file, MAX_CARD, error=BundleError), str(card_file))
        bundle = cls(path, card)
        for variant in card.variants:
            if bundle.file(variant).suffix == ".tflite":
                bundle.read(variant)
            else:
                bundle.check_size(variant)
        return bundle

    @property
    def hash(self) -> str:
        """The sha256 of card.json. The card holds the hash of each file, so this one covers them all."""
        return hashlib.sha256(read_regular(self.path / CARD, MAX_CARD, error=BundleError)).hexdigest()

    def __repr__(self) -> str:
        forms = ", ".join(variant for variant in self.card.variants if variant != PARITY)
        return f"<edgefer.Bundle {self.card.name}: {forms}; {self.path}>"

    def to_dict(self) -> dict:
        """Plain values: its path, hash and card."""
        return {"path": str(self.path), "sha256": self.hash, "card": self.card.to_dict()}

    def _repr_html_(self) -> str:
        """Its card, for notebooks."""
        return self.card._repr_html_()

    def has(self, variant: str) -> bool:
        """Whether it holds this form of its network ("int8", "float32", "keras", ...), or "parity", the stored answers."""
        return variant in self.card.variants

    def file(self, variant: str) -> Path:
        """The path of a variant's file; BundleError when the bundle has none."""
        if variant not in self.card.variants:
            have = ", ".join(self.card.variants) or "nothing"
            what = "parity vectors" if variant == PARITY else f"{variant} network"
            if variant == Form.KERAS:
                raise BundleError(
                    f"{self.path} holds no Keras network (it has {have}), which this needs: "
                    f"{self._where_keras_is()}. This one can {USES[self.card.task]}."
                )
            if not self._can_make(variant):
                raise BundleError(
                    f"{self.path} holds no {what} (it has {have}), and no Keras network to make one from: {self._where_keras_is()}."
                )
            edgetpu = variant == Form.INT8_EDGETPU
            command = "edgefer convert --edgetpu" if edgetpu else f"edgefer convert {self.path}"
            where = " on an x86-64 Linux host" if edgetpu else ""
            raise BundleError(f"{self.path} holds no {what} (it has {have}): run `{command}`{where} first.")
        name = self.card.variants[variant].file
        if name != FILES.get(variant):
            raise BundleError(f"{self.path / CARD}: the {variant} file must be {FILES.get(variant)!r}, not {name!r}.")
        return self.path / name

    def _can_make(self, variant: str) -> bool:
        """Whether a conversion may add this form: from the Keras network, or int8 from an imported .tflite."""
        imported = self.has(Form.FLOAT32) and imported_as_tflite(self.card)
        return self.has(Form.KERAS) or (imported and variant not in (Form.FLOAT16, Form.MEDIAPIPE, PARITY))

    def _where_keras_is(self) -> str:
        """Which bundle to use instead if this one holds no Keras network."""
        if not is_shipped(self):
            return "name the bundle that was trained, or import the network's .keras or .h5 file"
        if self.card.task != "read":
            return f"it ships converted, so name one that you trained, by `edgefer train --recipe {self.path.name}`"
        return f"it ships converted, so name {', '.join(with_keras())}, or one that you trained"

    def read(self, variant: str) -> bytes:
        """The bytes of a variant's file, checked against the card's hash."""
        self.check_size(variant)
        file = self.file(variant)
        content = read_regular(file, MAX_NETWORK, error=BundleError)
        if hashlib.sha256(content).hexdigest() != self.card.variants[variant].sha256:
            raise BundleError(f"{file} is not the file its card describes (sha256 differs): copy the bundle again.")
        return content

    def check_size(self, variant: str) -> None:
        """BundleError unless a variant's file exists, is a regular file, and has the size in the card."""
        file, stated = self.file(variant), self.card.variants[variant].bytes
        if not os.path.lexists(file):
            raise BundleError(f"{file} is missing: copy the bundle again, all of it.")
        size = regular_size(file, MAX_NETWORK, error=BundleError)
        if size != stated:
            raise BundleError(
                f"{file} is not the file its card describes ({size:,} bytes, not {stated:,}): copy the bundle again."
            )

    def best_tflite(self) -> str:
        """The TFLite variant for devices: the first existing one of TFLITE_VARIANTS."""
        for variant in TFLITE_VARIANTS:
            if self.has(variant):
                return variant
        raise BundleError(f"{self.path} holds no TFLite network: run `edgefer convert {self.path} --int8` first.")


def write_bundle(path: Path, card: ModelCard, files: Mapping[str, bytes], report: Mapping[str, bytes] = {}) -> Bundle:
    """Write a bundle of `files` (variant -> content) and `report` (name -> content) at `path`.

    The card's `variants` are made from `files`. A new directory appears atomically; in an existing run directory (of a
    training) the card is written last and makes it a bundle. EdgeferError, with the file's name, if writing fails; then
    nothing is left behind.
    """
    card = card.model_copy(update={"variants": {name: _describe(name, content) for name, content in files.items()}})
    contents = {FILES[name]: content for name, content in files.items()}
    contents |= {f"report/{name}": content for name, content in report.items()}
    contents[CARD] = card.model_dump_json(indent=2).encode() + b"\n"
    with staging_directory(path) as staging:
        for name, content in contents.items():
            write_file(staging / name, content, shown=path / name)
        with naming(path):
            if not path.exists():
                staging.chmod(0o755)
                staging.rename(path)
            else:
                if report:
                    (path / "report").mkdir(exist_ok=True)
                for name in sorted(contents, key=lambda name: (name == CARD, not name.startswith("report/"))):
                    (staging / name).replace(path / name)
    return Bundle(path, card)


def _describe(variant: str, content: bytes) -> Variant:
    return Variant(
        file=FILES[variant],
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, 9, mtime=0)),
    )


def new_directory(parent: Path, stem: str) -> Path:
    """The first free `parent/stem-<n>`, n from 1. Not created."""
    number = 1
    while (path := parent / f"{stem}-{number}").exists():
        number += 1
    return path


def newest_bundle(runs: Path = Path("runs"), *, reads: bool = False, trained: bool = False) -> Path | None:
    """The newest finished bundle under `runs`, if there is one. reads: skip face-detection networks. trained: skip those
    without a Keras network, and converted ones."""
    cards = sorted(filter(Path.is_file, runs.glob(f"*/{CARD}")), key=lambda card: -card.stat().st_mtime)
    return next((card.parent for card in cards if _is_wanted(card, reads, trained)), None)


def _is_wanted(card_file: Path, reads: bool, trained: bool) -> bool:
    """Whether it is the card of such a network; also True for an unreadable one, which opening the bundle will report."""
    if not (reads or trained):
        return True
    try:
        card = parse_card(read_regular(card_file, MAX_CARD, error=BundleError), str(card_file))
    except BundleError:
        return True
    as_trained = Form.KERAS in card.variants and Form.INT8 not in card.variants and card.lineage is None
    return (card.task == "read" or not reads) and (as_trained or not trained)


FACE_NETWORKS = ("face-finder", "face-refiner")  # the shipped face-detection networks


def shipped_bundles() -> dict[str, Path]:
    """The shipped bundles that read faces, by name."""
    return {name: path for name, path in shipped_networks().items() if name not in FACE_NETWORKS}


def with_keras() -> list[str]:
    """The names of those with a Keras network, which can be fine-tuned and converted."""
    return [name for name, path in shipped_bundles().items() if (path / FILES[Form.KERAS]).exists()]


def shipped_networks() -> dict[str, Path]:
    """All shipped bundles, including face-detection networks, by name."""
    return {card.parent.name: card.parent for card in sorted((Path(__file__).parent / "models").glob(f"*/{CARD}"))}


def path_or_shipped(named: Path, shipped: Mapping[str, Path]) -> Path:
    """The folder of a named bundle: the path if it exists, else the one of `shipped` with this name."""
    return named if os.path.exists(named) else shipped.get(str(named), named)


def open_named(named: Path) -> Bundle:
    """The bundle in this folder, or the shipped one of this name. BundleError if there is none or it is damaged."""
    return Bundle.open(path_or_shipped(named, shipped_networks()))


def remake(bundle: Bundle) -> str:
    """Advice for a bundle with a wrong or incomplete file, which its user can follow."""
    if is_shipped(bundle):
        return "install edgefer again"
    if bundle.card.lineage is not None or bundle.has(Form.KERAS):
        return "convert the trained bundle again"
    return "import the network's file again"


def made_from(bundle: Bundle, suffix: str) -> Path:
    """The path for something made from a bundle: beside it, or for a shipped one under runs/ in the current folder."""
    path = bundle.path if bundle.path.name.strip(".") else with_name_of_its_own(bundle.path)
    parent = Path("runs") if is_shipped(bundle) else path.parent
    return parent / f"{path.name}-{suffix}"


def is_shipped(bundle: Bundle) -> bool:
    """Whether the bundle is in the installed package, where nothing may be written."""
    return bundle.path.resolve() in [path.resolve() for path in shipped_networks().values()]
