"""Pictures with faces and without, as a teacher sees them and as people have marked them, kept once they are taught."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgefer.errors import DataError
from edgefer.images import decode_image
from edgefer.train.data.archives import DAMAGE
from edgefer.train.faces.teacher import TaughtFace, Teacher

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm"}
BOXES = "boxes.json"
MAX_SIDE = 256  # pixels kept of a picture: larger ones are shrunk
MAX_BYTES = 32 << 20  # of a picture's file, and of boxes.json
VERSION = 3  # of what is kept

Track = Callable[[Iterable, int, str], Iterable]


@dataclass(frozen=True)
class Source:
    """The pictures of one archive or folder: gray uint8 [h, w] each, and what is known of their faces.

    taught: float32 [n, 17]: picture, x0, y0, x1, y1, five points' x and y, score, roll in degrees (NaN: not measured).
    marked: float32 [n, 5]: picture, x0, y0, x1, y1, as people have marked faces; `has_marks` where boxes.json was there.
    """

    name: str
    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    taught: np.ndarray
    marked: np.ndarray
    has_marks: bool


def read_scenes(folder: Path, cache: Path, teacher_file: Path, track: Track) -> list[Source]:
    """Every archive (.zip) and every folder in `folder`; each is taught once and then read from `cache`."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name one that holds archives or folders of images.")
    entries = sorted(e for e in folder.iterdir() if e.is_dir() or e.suffix.lower() == ".zip")
    entries = [entry for entry in entries if not entry.name.startswith(".")]
    if not entries:
        raise DataError(f"{folder} holds no archives (.zip) and no folders of images.")
    cache.mkdir(parents=True, exist_ok=True)
    return [_source(entry, cache, teacher_file, track) for entry in entries]


def _source(entry: Path, cache: Path, teacher_file: Path, track: Track) -> Source:
    with closing(open_entry(entry)) as files:
        names = [name for name in files.names() if Path(name).suffix.lower() in PICTURES]
        if not names:
            raise DataError(f"{entry} holds no images: remove it, or put some there.")
        key = hashlib.sha256(repr((VERSION, files.stamp(), teacher_file.stat().st_size)).encode()).hexdigest()[:12]
        kept = cache / f"{entry.stem}-{key}.npz"
        if source := _load(entry.stem, kept):
            return source
        _teach(entry.stem, files, names, Teacher(teacher_file), track, kept)
    source = _load(entry.stem, kept)
    assert source is not None, "it was written just now"
    return source


def _teach(name: str, files, names: list[str], teacher: Teacher, track: Track, kept: Path) -> None:
    marks = _marks(files)
    images: list = []
    taught, marked, shown = [], [], []
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
        shown.append(file)
    partial = kept.with_suffix(".partial.npz")
    np.savez(
        partial,
        names=np.array(shown),
        shapes=np.array([image.shape for image in images], np.int32),
        pixels=np.concatenate([image.ravel() for image in images]),
        taught=np.array(taught, np.float32).reshape(-1, 17),
        marked=np.array(marked, np.float32).reshape(-1, 5),
        has_marks=np.array(bool(marks)),
    )
    os.replace(partial, kept)


def _row(picture: int, face: TaughtFace) -> list[float]:
    return [picture, *face.box, *face.points.ravel(), face.score, face.roll_deg]


def _load(name: str, kept: Path) -> Source | None:
    """What was taught before; None where nothing was, or the file is damaged."""
    try:
        with np.load(kept) as arrays:
            shapes, pixels = arrays["shapes"], arrays["pixels"]
            ends = np.cumsum(shapes.prod(axis=1))
            images = tuple(
                pixels[end - h * w : end].reshape(h, w)
                for end, (h, w) in zip(ends.tolist(), shapes.tolist(), strict=True)
            )
            names = tuple(arrays["names"].tolist())
            return Source(name, names, images, arrays["taught"], arrays["marked"], bool(arrays["has_marks"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _marks(files) -> dict[str, list]:
    if BOXES not in files.names():
        return {}
    try:
        marks = json.loads(files.read(BOXES))
        for boxes in marks.values():
            if any(len(box) < 4 or not all(np.isfinite(float(edge)) for edge in box[-4:]) for box in boxes):
                raise ValueError("a box without four numbers")
            if any(not (float(box[-4]) < float(box[-2]) and float(box[-3]) < float(box[-1])) for box in boxes):
                raise ValueError("a box whose right or lower edge is not beyond the other")
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{BOXES} is not {{file: [[class, x0, y0, x1, y1]]}}: {error}.") from None
    return marks


def _is_inside(box: list, shape: tuple[int, ...]) -> bool:
    """Whether any of a box lies in a picture of that shape."""
    x0, y0, x1, y1 = map(float, box[-4:])
    return x0 < shape[1] and y0 < shape[0] and x1 > 0 and y1 > 0


def open_entry(entry: Path) -> "_Archive | _Folder":
    """The files of an archive or a folder."""
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
        file = self.path / name
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file} has more than {MAX_BYTES >> 20} MB: remove it.")
        return file.read_bytes()

    def close(self) -> None:
        pass
