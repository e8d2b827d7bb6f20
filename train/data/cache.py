"""The cache of parsed data sets, in the user's cache folder: the second load takes a second.

The cache is never needed: what is damaged, or cannot be written, is read from its source.
"""

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgefer.files import user_cache
from edgefer.train.data.dataset import Dataset, Split

FORMAT = 3  # of the files; those of another format are not found
STALE_S = 24 * 3600  # age of a partial file whose process must have been killed
MAX_BYTES = 8 << 30  # of a folder's files, but for those that were used within STALE_S: one training may need more
ARRAYS = ("images", "labels", "ids")


def cache_folder() -> Path:
    """The folder of parsed data sets, in the user's cache."""
    return user_cache() / "datasets"


def cache_file(cache: Path | None, fingerprint: list) -> Path | None:
    """The file under `cache` for data of this fingerprint; None without a cache."""
    key = hashlib.sha256(json.dumps([FORMAT, *fingerprint]).encode()).hexdigest()[:24]
    return cache / f"{key}.npz" if cache else None


def cached(file: Path | None, read: Callable[[], Dataset]) -> Dataset:
    """The data set in `file`, or what `read` returns, which is then stored there."""
    dataset = _load_dataset(file) if file else None
    if dataset is None:
        dataset = read()
        if file:
            _store_dataset(file, dataset)
    return dataset


def load_arrays(file: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz; None where there is none, or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    with suppress(OSError):
        os.utime(file)  # when it was last used, for _clean
    return arrays


def store_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz whole or not at all; nothing is raised where it cannot be written."""
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _clean(file.parent)
        with partial.open("wb") as out:
            np.savez(out, **arrays)
        partial.replace(file)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _load_dataset(file: Path) -> Dataset | None:
    arrays = load_arrays(file)
    try:
        if arrays is None:
            return None
        about = json.loads(str(arrays["about"]))
        return Dataset(
            name=about["name"],
            labels=tuple(about["labels"]),
            splits={name: Split(**{part: arrays[f"{name}.{part}"] for part in ARRAYS}) for name in about["splits"]},
            skipped=tuple(about["skipped"]),
        )
    except (ValueError, KeyError):
        return None


def _store_dataset(file: Path, dataset: Dataset) -> None:
    about = {
        "name": dataset.name,
        "labels": dataset.labels,
        "splits": list(dataset.splits),
        "skipped": dataset.skipped,
    }
    arrays = {f"{name}.{part}": getattr(split, part) for name, split in dataset.splits.items() for part in ARRAYS}
    store_arrays(file, {"about": np.array(json.dumps(about)), **arrays})


def _clean(folder: Path) -> None:
    """Remove the partial files of killed processes, and the files beyond MAX_BYTES that were not used for longest."""
    found = []
    for file in (*folder.glob("*.partial"), *folder.glob("*.npz")):
        with suppress(OSError):  # another process has removed it
            found.append((file.stat().st_mtime, file.stat().st_size, file))
    total = 0
    for used, size, file in sorted(found, reverse=True):
        total += size
        if time.time() - used > STALE_S and (file.suffix == ".partial" or total > MAX_BYTES):
            with suppress(OSError):
                file.unlink()
