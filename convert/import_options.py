"""The options of an import, as users give them and as the import needs them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgefer.bundle import new_directory
from edgefer.card import InputSpec, OutputSpec, check_labels
from edgefer.convert.contract import Stated, any_scale
from edgefer.errors import InputError
from edgefer.files import check_absent, check_writable, with_name_of_its_own
from edgefer.options import Color, FaceKind, Outputs, choice
from edgefer.progress import SILENT, Progress
from edgefer.train.data.cache import cache_folder
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.load import DataOptions, load_dataset
from edgefer.train.framing import Detect

Load = Callable[[InputSpec], Dataset]


@dataclass(frozen=True, kw_only=True)
class Request:
    """An import. stated: what the user states of the contract. load: loads labelled images for an input. faces: what the
    network reads. detectors: those whose boxes are compared with the images of `load`, for the card's crops.
    trust: run the code in a Keras file."""

    path: Path
    stated: Stated = field(default_factory=Stated)
    load: Load | None = None
    name: str = ""
    faces: str = "human"
    author: str = ""
    license: str = ""
    detectors: Mapping[str, Detect] = field(default_factory=dict)
    trust: bool = False
    progress: Progress = SILENT


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How a network is imported. The first four are read from the file, or measured, if not given.

    labels: a list, in the order of its answers; by default those in the file, or in the labels.txt beside it. scale: the
    range its input expects, "0..1", "0..255", "-1..1", "imagenet", "caffe", or (factor, offset), each a number or one per
    channel. color: "gray", "rgb" or "bgr". outputs: "logits" or "probabilities". faces: what it reads, "human", "cat" or
    "frame". trust: if a Keras file holds code (Lambda layers), let Keras run it with your permissions, files and network
    access; the result is a plain .tflite. name, author, license: for the card; by default the file's name, and a
    .tflite's metadata.
    """

    labels: Any = None
    scale: Any = None
    color: Color | None = None
    outputs: Outputs | None = None
    faces: FaceKind = FaceKind.HUMAN
    trust: bool = False
    name: str = ""
    author: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        labels = () if self.labels is None else self.labels
        if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
            raise InputError(
                f"labels {self.labels!r} is not a list of texts: give them in the network's order, such as ['angry', 'happy']."
            )
        if labels:
            check_labels(labels)
        for name, kind in (("color", Color), ("outputs", Outputs), ("faces", FaceKind)):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, choice(kind, value, name))

    def request(
        self,
        path: Path,
        *,
        load: Load | None = None,
        detectors: Mapping[str, Detect] = MappingProxyType({}),
        progress: Progress = SILENT,
    ) -> Request:
        """The request to import `path`; the others as in Request. InputError for an invalid scale."""
        stated = Stated(
            scale=any_scale(self.scale),
            color=self.color,
            output=OutputSpec.model_validate({"values": self.outputs.value}) if self.outputs else None,
            labels=tuple(self.labels) if self.labels else None,
        )
        return Request(
            path=path, stated=stated, load=load, detectors=detectors, progress=progress, faces=self.faces.value,
            trust=self.trust, name=self.name, author=self.author, license=self.license,
        )  # fmt: skip


def data_loader(path: str, options: DataOptions | None = None, progress: Progress = SILENT) -> Load:
    """A function that loads labelled images for a given input."""
    wanted = replace(options or DataOptions(), for_measuring=True)
    return lambda spec: load_dataset(path, spec, wanted, progress=progress, cache=cache_folder())


def target_folder(request: Request, out: Path | None) -> Path:
    """The new bundle's folder: `out`, or runs/<file's name>. InputError if it exists."""
    if out is None:
        folder = Path("runs") / with_name_of_its_own(request.path).stem
        folder = new_directory(folder.parent, folder.name) if folder.exists() else folder
        check_writable(folder)
        return folder
    check_writable(out)
    check_absent(out)
    return out
