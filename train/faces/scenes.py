"""Pictures with faces and without: annotated by a teacher and by people, and cached once the teacher has run."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

import cv2
import numpy as np

from edgefer.errors import DataError
from edgefer.files import MAX_NETWORK, read_member, read_regular
from edgefer.images import SUFFIXES, decode_image
from edgefer.train.data.archives import DAMAGE
from edgefer.train.data.cache import load_arrays, store_arrays
from edgefer.train.data.folders import files_below
from edgefer.train.faces.teacher import TaughtFace, Teacher

BOXES = "boxes.json"
MAX_SIDE = 256  # pixels; larger images are shrunk to it
MAX_BYTES = 32 << 20  # of an image file, and of boxes.json
MAX_EDGE = 1e6  # pixels; a coordinate beyond it is no position in an image
VERSION = 4  # of the cached files

Track = Callable[[Iterable, int, str], Iterable]


@dataclass(frozen=True)
class Source:
    """The images of one archive or folder, and their annotated faces.

    images: gray uint8 [h, w] each. taught: the teacher's faces, float32 [n, 17]: image index, x0, y0, x1, y1, five
    points' x and y, score, roll in degrees (NaN: not measured). marked: people's boxes, float32 [n, 5]: image index,
    x0, y0, x1, y1. has_marks: whether a boxes.json lists any image.
    """

    name: str
    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    taught: np.ndarray
    marked: np.ndarray
    has_marks: bool


def read_scenes(folder: Path, cache: Path, teacher_file: Path, track: Track) -> list[Source]:
    """Every archive (.zip) and every folder in `folder`; the teacher runs once on each, later calls read `cache`.

    DataError for what cannot be read, with its name.
    """
    found = entries(folder)
    if not teacher_file.is_file():
        raise DataError(f"There is no {teacher_file}: put YuNet's .onnx back there, which is the teacher of this data.")
    teacher_hash = hashlib.sha256(read_regular(teacher_file, MAX_NETWORK, error=DataError)).hexdigest()
    return [_source(name, entry, cache, teacher_file, teacher_hash, track) for name, entry in found.items()]


def entries(folder: Path) -> dict[str, Path]:
    """The archives and folders in `folder`, by name without .zip. DataError where there are none, or two of a name."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not there or not a folder: name, or put back, one that holds archives or folders of images."
        )
    named: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        is_folder = entry.is_dir()
        if _is_hidden(entry.name) or not (is_folder or entry.suffix.lower() == ".zip"):
            continue
        first = named.setdefault(entry.name if is_folder else entry.stem, entry)
        if first != entry:
            raise DataError(
                f"{folder} holds both {first.name} and {entry.name}, which would be one source: remove or rename one of them."
            )
    if not named:
        raise DataError(f"{folder} holds no archives (.zip) and no folders of images.")
    return named


def _is_hidden(name: str) -> bool:
    """Whether a path within the data is hidden, or in something hidden, such as macOS's __MACOSX/._a.jpg."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePath(name).parts)


def _is_boxes(name: str) -> bool:
    return PurePath(name).name == BOXES


def _is_used(name: str) -> bool:
    """Whether a file is an image or a boxes.json, by its path within the source."""
    return (name.lower().endswith(SUFFIXES) or _is_boxes(name)) and not _is_hidden(name)


def _source(name: str, entry: Path, cache: Path, teacher_file: Path, teacher_hash: str, track: Track) -> Source:
    with closing(open_entry(entry)) as files:
        images = [file for file in files.names() if not _is_boxes(file)]
        if not images:
            raise DataError(f"{entry} holds no images: remove it, or put some there.")
        key = hashlib.sha256(repr((VERSION, files.stamp(), teacher_hash)).encode()).hexdigest()[:12]
        cached = cache / f"{name}-{key}.npz"
        source = _load(name, cached)
        if source is None:
            source = _annotate(name, files, images, Teacher(teacher_file), track)
            _store(cached, source)
    return source


def _annotate(name: str, files: "_Files", names: list[str], teacher: Teacher, track: Track) -> Source:
    marks = _marks(name, files, names)
    images: list[np.ndarray] = []
    taught: list[list[float]] = []
    marked: list[list[float]] = []
    for file in track(names, len(names), f"Teaching {name}"):
        try:
            image = decode_image(files.read(file))
        except ValueError as error:
            raise DataError(f"{file} of {name} {error}. Repair or remove it.") from None
        boxes = marks.get(file, [])
        if any(not _is_inside(box, image.shape) for box in boxes):
            raise DataError(f"{BOXES} of {name} marks a face outside of {file}: remove that box.")
        given = image.shape[1::-1]
        image = shrunk(image)
        ratios = np.tile(np.array(image.shape[1::-1]) / given, 2)  # per axis: the size was rounded
        taught += [_row(len(images), face) for face in teacher.faces(image)]
        marked += [[len(images), *(box * ratios)] for box in boxes]
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    return Source(
        name,
        tuple(names),
        tuple(images),
        np.array(taught, np.float32).reshape(-1, 17),
        np.array(marked, np.float32).reshape(-1, 5),
        bool(marks),
    )


def shrunk(image: np.ndarray) -> np.ndarray:
    """An image with a longer side of at most MAX_SIDE, by area."""
    height, width = image.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _row(image_index: int, face: TaughtFace) -> list[float]:
    return [image_index, *face.box, *face.points.ravel(), face.score, face.roll_deg]


def _store(file: Path, source: Source) -> None:
    store_arrays(
        file,
        {
            "names": np.array(source.names),
            "shapes": np.array([image.shape for image in source.images], np.int32),
            "pixels": np.concatenate([image.ravel() for image in source.images]),
            "taught": source.taught,
            "marked": source.marked,
            "has_marks": np.array(source.has_marks),
        },
    )


def _load(name: str, file: Path) -> Source | None:
    """None where nothing is cached, or the file is damaged."""
    if (arrays := load_arrays(file)) is None:
        return None
    try:
        shapes, pixels = arrays["shapes"], arrays["pixels"]
        ends = np.cumsum(shapes.prod(axis=1))
        images = tuple(
            pixels[end - h * w : end].reshape(h, w) for end, (h, w) in zip(ends.tolist(), shapes.tolist(), strict=True)
        )
        names = tuple(arrays["names"].tolist())
        return Source(name, names, images, arrays["taught"], arrays["marked"], bool(arrays["has_marks"]))
    except (ValueError, KeyError):
        return None


def _marks(name: str, files: "_Files", images: list[str]) -> dict[str, list[np.ndarray]]:
    """The boxes of each image that people marked, x0, y0, x1, y1 each, from every boxes.json; {} where there is none."""
    marks: dict[str, list[np.ndarray]] = {}
    for file in files.names():
        if _is_boxes(file):
            inside = file.removesuffix(BOXES)
            beside = {image.removeprefix(inside): image for image in images if image.startswith(inside)}
            marks |= _listed(f"{file} of {name}", files.read(file), beside)
    return marks


def _listed(where: str, content: bytes, images: dict[str, str]) -> dict[str, list[np.ndarray]]:
    """The boxes of the images that a boxes.json lists. images: path from there -> path within the source."""
    try:
        marks = {file: [_edges(box, file) for box in boxes] for file, boxes in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DataError(f"{where} is not {{file: [[class, x0, y0, x1, y1]]}}: {error}.") from None
    if missing := sorted(set(marks) - set(images)):
        like = f", such as {next(iter(images))!r}" if images else ""
        raise DataError(
            f"{where} names {len(missing):,} images that are not there, such as {missing[0]!r:.80}: write paths from its folder{like}, "
            "and remove what has no image."
        )
    return {images[file]: boxes for file, boxes in marks.items()}


def _edges(box: list, file: str) -> np.ndarray:
    """The last four numbers of an annotated box of an image, float64 [4]. ValueError for anything else."""
    edges = box[-4:]
    if len(edges) < 4 or not all(isinstance(edge, int | float) and abs(edge) < MAX_EDGE for edge in edges):
        raise ValueError(f"{box!r:.80} of {file} is a box without four numbers in pixels")
    x0, y0, x1, y1 = edges
    if min(x1 - x0, y1 - y0) < 1:
        raise ValueError(
            f"{box} of {file} is a box whose right or lower edge is not beyond the other by a pixel or more"
        )
    return np.array(edges, float)


def _is_inside(box: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a box overlaps an image of that shape."""
    x0, y0, x1, y1 = box
    return bool(x0 < shape[1] and y0 < shape[0] and x1 > 0 and y1 > 0)


class _Files(Protocol):
    """The images and boxes.json of an archive or a folder, by their paths within it. stamp: changes when they do."""

    def names(self) -> list[str]: ...
    def stamp(self) -> list: ...
    def read(self, name: str) -> bytes: ...
    def close(self) -> None: ...


def open_entry(entry: Path) -> _Files:
    """The files of a .zip archive or a folder."""
    return _Archive(entry) if entry.is_file() else _Folder(entry)


class _Archive:
    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise DataError(f"{path} is not a .zip that can be read: {error}.") from None

    def names(self) -> list[str]:
        return sorted({name for name in self._zip.namelist() if _is_used(name)})

    def stamp(self) -> list:
        return [[name, (one := self._zip.getinfo(name)).file_size, one.CRC] for name in self.names()]

    def read(self, name: str) -> bytes:
        try:
            return read_member(self._zip, name, MAX_BYTES)
        except DAMAGE as error:
            raise DataError(f"{name} in {self.path} cannot be unpacked: {error}.") from None
        except ValueError as error:
            raise DataError(f"{name} in {self.path} {error}: remove it, or pack it again.") from None

    def close(self) -> None:
        self._zip.close()


class _Folder:
    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        found = (file for file in sorted(files_below(self.path)[0]) if file.is_file())
        return [name for file in found if _is_used(name := str(file.relative_to(self.path)))]

    def stamp(self) -> list:
        status = ((name, (self.path / name).stat()) for name in self.names())
        return [[name, one.st_size, one.st_mtime_ns] for name, one in status]

    def read(self, name: str) -> bytes:
        return read_regular(self.path / name, MAX_BYTES, error=DataError)

    def close(self) -> None:
        pass
