"""Parsed data sets, kept in the user's cache so that the second load takes a second."""

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from edgefer.train.data.dataset import Dataset, Split

FORM = 2  # of the files: others are not found again
STALE_S = 24 * 3600  # a file that was begun so long ago is of a process that was killed


def cache_folder() -> Path:
    """Where parsed data sets are kept: edgefer/ in the user's cache (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefer" / "datasets"


def cache_file(cache: Path | None, fingerprint: list) -> Path | None:
    """The file under `cache` for data of this fingerprint; None without a cache."""
    key = hashlib.sha256(json.dumps([FORM, *fingerprint]).encode()).hexdigest()[:24]
    return cache / f"{key}.npz" if cache else None


def cached(stored: Path | None, read: Callable[[], Dataset]) -> Dataset:
    dataset = _from_cache(stored)
    if dataset is None:
        dataset = read()
        _to_cache(stored, dataset)
    return dataset


def _from_cache(stored: Path | None) -> Dataset | None:
    if stored is None or not stored.is_file():
        return None
    try:
        with np.load(stored, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            splits = {
                name: Split(**{part: arrays[f"{name}.{part}"] for part in ("images", "labels", "ids")})
                for name in about["splits"]
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # a damaged cache is read again from the source
    return Dataset(
        name=about["name"],
        labels=tuple(about["labels"]),
        splits=splits,
        skipped=tuple(about["skipped"]),
        notes=tuple(about["notes"]),
    )


def _to_cache(stored: Path | None, dataset: Dataset) -> None:
    if stored is None:
        return
    about = {
        "name": dataset.name,
        "labels": dataset.labels,
        "splits": list(dataset.splits),
        "skipped": dataset.skipped,
        "notes": dataset.notes,
    }
    arrays = {
        f"{name}.{part}": getattr(split, part)
        for name, split in dataset.splits.items()
        for part in ("images", "labels", "ids")
    }
    partial = stored.with_suffix(f".{os.getpid()}.partial")
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        _clean(stored.parent)
        with partial.open("wb") as out:
            np.savez(out, about=np.array(json.dumps(about)), **arrays)
        partial.replace(stored)
    except OSError:
        partial.unlink(missing_ok=True)  # no room or no right to cache: the next load parses again


def _clean(folder: Path) -> None:
    """Remove what killed processes left half written."""
    for file in folder.glob("*.partial"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > STALE_S:
                file.unlink()
