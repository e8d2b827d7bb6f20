"""Pictures in folders: <split>/<class>/picture, or one level of <class>/picture."""

from pathlib import Path

import cv2
import numpy as np

from edgefer.card import InputSpec
from edgefer.errors import DataError
from edgefer.preprocess import prepare
from edgefer.train.data.dataset import Dataset, Split, Track

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip


def fingerprint(path: Path) -> list:
    """What changes when a picture does."""
    files = [file for _, _, file in listing(path)[1]]  # the very files that are read: links are followed to folders
    return [[str(file.relative_to(path)), (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]


def listing(path: Path) -> tuple[tuple[str, ...], list[tuple[str, int, Path]]]:
    """The labels, and each picture's split, label and file; class folders are matched between splits by name, ignoring
    case, and sorted."""
    tops = _folders(path)
    split_tops = {SPLIT_NAMES[top.name.lower()]: top for top in tops if top.name.lower() in SPLIT_NAMES}
    stray = next((top.name for top in tops if top.name.lower() not in SPLIT_NAMES), None)
    if split_tops and stray:
        raise DataError(
            f"{path} mixes split folders with {stray!r}: keep either train/valid/test or classes at the top."
        )
    if split_tops and len(split_tops) < len(tops):
        twice = next(top.name for top in tops if top not in split_tops.values())
        raise DataError(f"{path} has two folders of one split, {twice!r} and another: put their pictures together.")
    if split_tops and "train" not in split_tops:
        raise DataError(f"{path} has no train folder: it has only {', '.join(sorted(split_tops))}.")
    split_tops = split_tops or {"train": path}

    labels = tuple(sorted(folder.name.lower() for folder in _folders(split_tops["train"])))
    if len(labels) < 2:
        raise DataError(
            f"{split_tops['train']} needs a folder of pictures for each of two classes or more; it has {len(labels)}."
        )
    if len(set(labels)) < len(labels):
        raise DataError(f"{split_tops['train']} has class folders that differ only in upper and lower case.")
    return labels, [(split, *entry) for split, top in split_tops.items() for entry in _list(top, labels)]


def class_folders(path: Path) -> list[str]:
    """The names of the training split's class folders, as they are written."""
    tops = _folders(path)
    training = [top for top in tops if SPLIT_NAMES.get(top.name.lower()) == "train"]
    return [folder.name for folder in (_folders(training[0]) if training else tops)]


def read(path: Path, spec: InputSpec, skip_bad: bool, track: Track) -> Dataset:
    """The folder as a Dataset."""
    labels, listed = listing(path)
    parts: dict[str, list] = {}
    skipped: list[str] = []
    for split, label, file in track(listed, len(listed), f"Reading {path.name}"):
        try:
            parts.setdefault(split, []).append((prepare(decode(file), spec), label, str(file.relative_to(path))))
        except ValueError as error:
            if not skip_bad:
                raise DataError(
                    f"{file} {error}. Mend or remove it, or leave such files out with --skip-bad."
                ) from None
            skipped.append(f"{file.relative_to(path)} {error}")
    splits = {
        name: Split(images=np.stack(images), labels=np.array(indices, np.int64), ids=np.array(ids))
        for name, (images, indices, ids) in ((name, zip(*rows, strict=True)) for name, rows in parts.items())
    }
    return Dataset(name=path.name, labels=labels, splits=splits, skipped=tuple(skipped))


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _list(top: Path, labels: tuple[str, ...]) -> list[tuple[int, Path]]:
    found = []
    for folder in _folders(top):
        if folder.name.lower() not in labels:
            raise DataError(f"{folder} is a class that the training split does not have ({', '.join(labels)}).")
        files = sorted(file for file in folder.rglob("*") if _is_picture(file.relative_to(folder)))
        if not files:
            raise DataError(f"The class folder {folder} holds no pictures: add some, or remove the folder.")
        found += [(labels.index(folder.name.lower()), file) for file in files]
    return found


def _is_picture(file: Path) -> bool:
    """By its name; nothing hidden, such as .ipynb_checkpoints/ or macOS's ._picture.jpg."""
    return file.suffix.lower() in PICTURES and not any(part.startswith(".") for part in file.parts)


def decode(file: Path) -> np.ndarray:
    """A picture file as uint8 BGR [h, w, 3], or gray [h, w]; ValueError says what is wrong with it."""
    content = np.fromfile(file, np.uint8)
    if not len(content):
        raise ValueError("is an empty file")
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error:  # of a size that OpenCV refuses, which a damaged header can claim
        image = None
    if image is None:
        raise ValueError("is not a picture OpenCV can read")
    # A grayscale JPEG decodes to three equal channels; converting those back would round, so take one as it is.
    return image[:, :, 0] if (image[:, :, :1] == image).all() else image
