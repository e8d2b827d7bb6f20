"""Images in folders: <split>/<class>/image, or <class>/image."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgefer.errors import DataError, ImageError
from edgefer.images import gray_where_equal, is_image_file, problem_of, read_image
from edgefer.text import counted, printable
from edgefer.train.data.layouts import find_root, folders_in, is_split
from edgefer.train.data.rows import SPLITS, Row, Rows, parse_names, utf8

SHOWN = 5


@dataclass(frozen=True)
class Listing:
    """The images of a folder. labels: in order; files: (split, label, file) of each image; class_folders: their names
    as in the training split; notes: sentences on what is ignored."""

    labels: tuple[str, ...]
    files: list[tuple[str, str, Path]]
    class_folders: tuple[str, ...]
    notes: tuple[str, ...]


def open_folder(path: Path, names: str = "") -> Rows:
    """The images of a folder as rows, in the order of their files. names: see `parse_names`, for numbered folders."""
    listing = list_images(path, names)
    stamps = [[name_in(path, file), *_size_and_mtime(file)] for _, _, file in listing.files]
    return Rows(
        name=printable(utf8(path.resolve().name)),
        classes=lambda found: listing.labels,
        total=len(listing.files),
        stream=_read(path, listing),
        fingerprint=[names, *stamps],
        notes=listing.notes,
    )


def _size_and_mtime(file: Path) -> tuple[int, int]:
    """Zeros for a dangling link, which is read as a bad image."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _read(path: Path, listing: Listing) -> Iterator[Row]:
    for split, label, file in listing.files:
        name = name_in(path, file)
        try:
            yield Row(id=name, split=split, label=label, image=gray_where_equal(read_image(file)))
        except ImageError as error:
            yield Row(id=name, problem=f"{name} {problem_of(error, file)}")


def name_in(path: Path, file: Path) -> str:
    """A file's path within the data."""
    return str(file.relative_to(path))


def list_images(path: Path, names: str = "") -> Listing:
    """The images in a folder. Class folders are matched between splits by name, ignoring case, and sorted: by number
    where all are numbers. DataError for a layout that cannot be read."""
    root = find_root(path)
    tops, notes = _split_folders(root)
    training = folders_in(tops["train"])
    renamed = parse_names(names)
    label_of = {_key(folder): renamed.get(_key(folder), _key(folder)) for folder in training}
    if renamed and (unnamed := [key for key in label_of if key not in renamed and key not in renamed.values()]):
        raise DataError(f"--names says nothing of the class folder {unnamed[0]!r}: name it, or remove the folder.")
    if len(training) < 2:
        raise DataError(
            f"{tops['train']} needs a folder of images for each of two classes or more; it has {len(training)}."
        )
    if len(label_of) < len(training):
        raise DataError(f"{tops['train']} has class folders that differ only in upper and lower case.")
    keys = sorted(label_of, key=lambda key: (0, int(key), "") if key.isdecimal() else (1, 0, key))
    if keys[0].isdecimal() and not renamed:
        notes.append(
            f"The classes are called {keys[0]} to {keys[-1]}: name them with --names {keys[0]}=NAME,{keys[1]}=NAME,..."
        )
    files: list[tuple[str, str, Path]] = []
    parents = dict.fromkeys((root, *tops.values()))  # here only folders are read
    ignored = [name_in(path, file) for folder in parents for file in sorted(folder.iterdir()) if _is_stray_image(file)]
    for split, top in tops.items():
        for folder in folders_in(top):
            if _key(folder) not in label_of:
                raise DataError(
                    f"{folder} is a class that the training split does not have ({', '.join(label_of)}): rename or remove it."
                )
            images, others = _images_in(folder)
            if not images:
                raise DataError(f"The class folder {folder} holds no images: add some, or remove the folder.")
            files += [(split, label_of[_key(folder)], file) for file in images]
            ignored += [name_in(path, file) for file in others]
    if ignored:
        more = f" and {len(ignored) - SHOWN:,} more" if len(ignored) > SHOWN else ""
        notes.append(
            f"{counted(len(ignored), 'file is', 'files are')} not read as images: {', '.join(ignored[:SHOWN])}{more}"
        )
    labels = tuple(dict.fromkeys(label_of[key] for key in keys))
    return Listing(labels, files, tuple(_class_name(folder) for folder in training), tuple(notes))


def _key(folder: Path) -> str:
    return _class_name(folder).lower()


def _class_name(folder: Path) -> str:
    # In archives made on macOS, accents are characters of their own.
    return unicodedata.normalize("NFC", utf8(folder.name))


def _images_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images, and the files that are not read as images: by their suffix, or since they are hidden or in a hidden
    folder, such as .ipynb_checkpoints/ or macOS's ._picture.jpg. Links to folders are not followed, and count among
    those."""
    files, links = files_below(folder)
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    images = sorted(file for file in visible if is_image_file(file))
    return images, sorted({*files, *links}.difference(images))


def files_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files in a folder and its subfolders, and the links to folders, which are not followed. DataError for a
    folder that may not be read: its files would be missing without a message."""

    def refuse(error: OSError) -> None:
        raise DataError(f"The folder {error.filename} cannot be read ({error.strerror}): allow it, or move it away.")

    files: list[Path] = []
    links: list[Path] = []
    for top, folders, names in os.walk(folder, onerror=refuse):
        files += [Path(top, name) for name in names]
        links += [Path(top, name) for name in folders if os.path.islink(os.path.join(top, name))]
    return files, links


def _is_stray_image(file: Path) -> bool:
    return not file.is_dir() and not file.name.startswith(".") and is_image_file(file)


def _split_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split, {"train": root} where there are no split folders; and notes."""
    inner = folders_in(root)
    splits = {SPLITS[folder.name.lower()]: folder for folder in inner if is_split(folder)}
    if not splits:
        return {"train": root}, []
    notes = []
    strays = [folder for folder in inner if not is_split(folder)]
    for stray in strays:
        if not any(is_split(folder) for folder in folders_in(stray)):
            raise DataError(
                f"{root} mixes split folders with {stray.name!r}: keep either train/valid/test or classes at the top."
            )
        if _contents(stray) != {name: sizes for name, sizes in _contents(root).items() if name in _contents(stray)}:
            raise DataError(
                f"{root} has split folders, and other ones in {stray.name}/: name the one to read, {stray}, or move it away."
            )
        notes.append(f"{stray.name}/ is a copy of the split folders beside it, and is not read")
    if len(splits) + len(strays) < len(inner):
        twice = next(folder.name for folder in inner if is_split(folder) and folder not in splits.values())
        raise DataError(f"{root} has two folders of one split, {twice!r} and another: put their images together.")
    if "train" not in splits:
        raise DataError(f"{root} has no train folder: it has only {', '.join(sorted(splits))}.")
    return splits, notes


def _contents(root: Path) -> dict[str, list[tuple[str, int]]]:
    """Names and sizes of the files in each split folder."""
    return {
        top.name.lower(): sorted(
            (str(file.relative_to(top)), file.stat().st_size) for file in top.rglob("*") if file.is_file()
        )
        for top in folders_in(root)
        if is_split(top)
    }
