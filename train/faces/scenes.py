"""Pictures with faces and without: annotated by a teacher and by people, and cached once the teacher has run."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

import cv2
import numpy as np

from edgefer.errors import DataError
from edgefer.files import read_regular
from edgefer.images import decode_image
from edgefer.train.data.archives import DAMAGE
from edgefer.train.data.cache import load_arrays, store_arrays
from edgefer.train.faces.teacher import TaughtFace, Teacher

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm"}
BOXES = "boxes.json"
MAX_SIDE = 256  # pixels; larger images are shrunk to it
MAX_BYTES = 32 << 20  # of an image file, and of boxes.json
VERSION = 3  # of the cached files

Track = Callable[[Iterable, int, str], Iterable]


@dataclass(frozen=True)
class Source:
    """The images of one archive or folder, and their annotated faces.

    images: gray uint8 [h, w] each. taught: the teacher's faces, float32 [n, 17]: image index, x0, y0, x1, y1, five
    points' x and y, score, roll in degrees (NaN: not measured). marked: people's boxes, float32 [n, 5]: image index,
    x0, y0, x1, y1. has_marks: whether there was a boxes.json.
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
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name one that holds archives or folders of images.")
    entries = sorted(e for e in folder.iterdir() if e.is_dir() or e.suffix.lower() == ".zip")
    entries = [entry for entry in entries if not _is_hidden(entry.name)]
    if not entries:
        raise DataError(f"{folder} holds no archives (.zip) and no folders of images.")
    return [_source(entry, cache, teacher_file, track) for entry in entries]


def _is_hidden(name: str) -> bool:
    """Whether a path within the data is hidden, or in something hidden, such as macOS's __MACOSX/._a.jpg."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePath(name).parts)


def _source(entry: Path, cache: Path, teacher_file: Path, track: Track) -> Source:
    with closing(open_entry(entry)) as files:
        names = [name for name in files.names() if Path(name).suffix.lower() in SUFFIXES and not _is_hidden(name)]
        if not names:
            raise DataError(f"{entry} holds no images: remove it, or put some there.")
        key = hashlib.sha256(repr((VERSION, files.stamp(), teacher_file.stat().st_size)).encode()).hexdigest()[:12]
        cached = cache / f"{entry.stem}-{key}.npz"
        source = _load(entry.stem, cached)
        if source is None:
            source = _annotate(entry.stem, files, names, Teacher(teacher_file), track)
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
            raise DataError(f"{file} of {name} {error}: remove it.") from None
        boxes = marks.get(file, [])
        if any(not _is_inside(box, image.shape) for box in boxes):
            raise DataError(f"{BOXES} of {name} marks a face outside of {file}: remove that box.")
        scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
        if scale < 1:
            size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        taught += [_row(len(images), face) for face in teacher.faces(image)]
        marked += [[len(images), *(float(edge) * scale for edge in box[-4:])] for box in boxes]
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    return Source(
        name,
        tuple(names),
        tuple(images),
        np.array(taught, np.float32).reshape(-1, 17),
        np.array(marked, np.float32).reshape(-1, 5),
        bool(marks),
    )


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


def _marks(name: str, files: "_Files", images: list[str]) -> dict[str, list]:
    """The boxes of each image that people marked, {} where there is no boxes.json."""
    if BOXES not in files.names():
        return {}
    try:
        marks = json.loads(files.read(BOXES))
        for boxes in marks.values():
            if any(len(box) < 4 or not all(np.isfinite(float(edge)) for edge in box[-4:]) for box in boxes):
                raise ValueError("a box without four numbers")
            if any(not (float(box[-4]) < float(box[-2]) and float(box[-3]) < float(box[-1])) for box in boxes):
                raise ValueError("a box whose right or lower edge is not beyond the other")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{BOXES} of {name} is not {{file: [[class, x0, y0, x1, y1]]}}: {error}.") from None
    if marks and not set(marks) & set(images):
        raise DataError(
            f"{BOXES} of {name} names no image that is there, such as {next(iter(marks))!r:.80}: write paths within {name}, "
            f"such as {images[0]!r}."
        )
    return marks


def _is_inside(box: list, shape: tuple[int, ...]) -> bool:
    """Whether a box overlaps an image of that shape."""
    x0, y0, x1, y1 = map(float, box[-4:])
    return x0 < shape[1] and y0 < shape[0] and x1 > 0 and y1 > 0


class _Files(Protocol):
    """The files of an archive or a folder, by their paths within it. stamp: changes when they do."""

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
        return sorted(one.filename for one in self._zip.infolist() if not one.is_dir())

    def stamp(self) -> list:
        return [[one.filename, one.file_size, one.CRC] for one in self._zip.infolist()]

    def read(self, name: str) -> bytes:
        if self._zip.getinfo(name).file_size > MAX_BYTES:
            raise DataError(f"{name} in {self.path} unpacks to more than {MAX_BYTES >> 20} MB: remove it.")
        try:
            return self._zip.read(name)
        except DAMAGE as error:
            raise DataError(f"{name} in {self.path} cannot be unpacked: {error}.") from None

    def close(self) -> None:
        self._zip.close()


class _Folder:
    def __init__(self, path: Path):
        self.path = path

    def _files(self) -> Iterator[Path]:
        return (file for file in sorted(self.path.rglob("*")) if file.is_file())

    def names(self) -> list[str]:
        return [str(file.relative_to(self.path)) for file in self._files()]

    def stamp(self) -> list:
        return [
            [str(file.relative_to(self.path)), file.stat().st_size, file.stat().st_mtime_ns] for file in self._files()
        ]

    def read(self, name: str) -> bytes:
        return read_regular(self.path / name, MAX_BYTES, error=DataError)

    def close(self) -> None:
        pass
