"""Finds the split and class folders in a downloaded folder, and refuses the layouts of public sets that have none."""

import re
from pathlib import Path

from edgefer.errors import DataError
from edgefer.images import is_image_file
from edgefer.train.data.rows import SPLITS

MAX_DEPTH = 4
JAFFE = re.compile(r"[A-Z]{2}\.(AN|DI|FE|HA|NE|SA|SU)\d?\.\d+\.\w+")


def folders_in(path: Path) -> list[Path]:
    """The folders in `path` that are neither hidden nor __MACOSX, sorted."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__MACOSX")))


def is_split(folder: Path) -> bool:
    return folder.name.lower() in SPLITS


def find_root(path: Path) -> Path:
    """The folder that holds the split or class folders: `path`, or one below it where each holds nothing but the next.

    DataError for a known layout without class folders.
    """
    root = path
    for _ in range(MAX_DEPTH):
        inner = folders_in(root)
        if len(inner) != 1 or is_split(inner[0]) or not folders_in(inner[0]):
            break
        root = inner[0]
    refuse_known(root)
    return root


def refuse_known(root: Path) -> None:
    """DataError, with what to do, for the layouts of public sets that are not folders of classes."""
    sort_it = f"sort the faces into {root}/train/<class>/ and {root}/test/<class>/"
    inner = folders_in(root)
    names = {folder.name.lower() for folder in inner}
    below = {folder.name.lower() for top in inner if is_split(top) for folder in folders_in(top)}
    if {"images", "labels"} in (names, below) or (root / "data.yaml").is_file():
        raise DataError(
            f"{root} is in YOLO's layout, a set for detection (images/ beside labels/ with boxes), and edgefer learns from faces in "
            f"a folder per class: export it for classification (folder structure), or cut the boxes out and {sort_it}."
        )
    if list(root.glob("_annotations.coco.json")) or list(root.glob("*/_annotations.coco.json")):
        raise DataError(
            f"{root} is in COCO's layout, a set for detection: export it for classification (folder structure), or cut the boxes "
            f"out and {sort_it}."
        )
    if "emolabel" in names or list(root.glob("list_pa*ition_label.txt")):
        raise DataError(
            f"{root} is in RAF-DB's original layout (labels in EmoLabel/list_patition_label.txt): {sort_it} by that list, and train "
            "with --names 1=surprise,2=fear,3=disgust,4=happy,5=sad,6=angry,7=neutral."
        )
    if inner:
        return
    files = [file for file in sorted(root.iterdir()) if file.is_file() and not file.name.startswith(".")]
    images = [file for file in files if is_image_file(file)]
    if images and all(JAFFE.fullmatch(file.name) for file in images):
        raise DataError(
            f"{root} is in JAFFE's layout (the expression is in the name, as in {images[0].name}): sort the files into "
            f"{root}/<class>/ by AN, DI, FE, HA, NE, SA and SU, and keep each person together with --group-by '/([A-Z]{{2}})[.]'."
        )
    if images:
        raise DataError(f"{root} holds {len(images):,} images and no folder per class: sort them into {root}/<class>/.")
    if tables := [file.name for file in files if file.name.endswith((".csv", ".csv.gz", ".zip", ".tar.gz"))]:
        raise DataError(f"{root} holds no folder per class, but {tables[0]}: name that file, {root / tables[0]}.")
