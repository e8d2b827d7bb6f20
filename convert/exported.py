"""A folder written by an export: its files with hashes, and its bundle. Other files are never overwritten."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgefer import __version__
from edgefer.bundle import EXPORTED, Bundle, staging_directory, write_file
from edgefer.checks import Check, status_if, to_json
from edgefer.errors import InputError
from edgefer.files import MAX_JSON, MAX_NETWORK, check_writable, read_regular
from edgefer.text import printable


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The contents of an export.json; `files`: sha256 by name."""

    edgefer: str
    target: str
    bundle: str
    bundle_sha256: str
    files: dict[str, str]


def is_export(folder: Path) -> bool:
    return (folder / EXPORTED).is_file()


def read_list(folder: Path) -> Listed:
    """The folder's export.json; InputError if it is invalid. It is untrusted: names must be of files in this folder."""
    content = read_regular(folder / EXPORTED, MAX_JSON)
    try:
        listed = TypeAdapter(Listed).validate_json(content)
    except ValidationError:
        raise InputError(
            f"{folder / EXPORTED} is not the list of an export: export again into a new directory."
        ) from None
    if not listed.files:
        raise InputError(
            f"{folder / EXPORTED} lists no files, so nothing can be checked: export again into a new directory."
        )
    if odd := next((name for name in listed.files if name in (".", "..") or Path(name).name != name), None):
        raise InputError(f"{folder / EXPORTED} lists {printable(odd)!r}, which is not a file of this folder.")
    return listed


def changed_files(folder: Path) -> list[str]:
    """The listed files that were changed after the export, or are missing."""
    return [name for name, digest in read_list(folder).files.items() if _digest(folder / name) != digest]


def check_export(folder: Path) -> list[Check]:
    """Whether an exported folder is intact: one row, with the files that are not."""
    listed, changed = read_list(folder), changed_files(folder)
    wrong = f"{len(changed)} of {len(listed.files)} files are not as they were exported"
    source = (
        f"export {printable(listed.target)} of {printable(listed.bundle)}, bundle {printable(listed.bundle_sha256)}"
    )
    shown = tuple(printable(name) for name in changed)
    return [
        Check(
            subject="files",
            status=status_if(not changed),
            detail=f"{wrong} ({source})",
            fix="export it again" if changed else "",
            examples=shown,
        )
    ]


def check_folder(out: Path) -> None:
    """InputError unless `out` is free, empty, or an earlier export without changes. Files that a user has added stay."""
    if out.exists() or out.is_symlink():
        if not out.is_dir():
            raise InputError(f"{out} is a file: name a directory for the export, new or empty.")
        if not is_export(out) and any(out.iterdir()):
            raise InputError(f"{out} holds other files and no earlier export: name a new or empty directory.")
        changed = [name for name in changed_files(out) if (out / name).exists()] if is_export(out) else []
        if changed:
            raise InputError(
                f"{out / changed[0]} was changed after it was exported: name another directory, or move the file away."
            )
    check_writable(out / EXPORTED, "directory")


def write_folder(out: Path, target: str, bundle: Bundle, files: Mapping[str, bytes], checks: Sequence[Check]) -> None:
    """Write the files and export.json, which holds the bundle, their hashes and the checks. A new folder appears
    atomically; in an earlier export, export.json is replaced last."""
    check_folder(out)
    named, out = out, out.resolve()
    before = set(read_list(out).files) if is_export(out) else set()
    if mine := next((name for name in sorted(files) if name not in before and (out / name).exists()), None):
        raise InputError(f"{out / mine} is a file of yours, and this export has one of the same name: move yours away.")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    facts = {
        "edgefer": __version__,
        "target": target,
        "bundle": bundle.card.name,
        "bundle_sha256": bundle.hash,
        "files": digests,
    }
    written = {**files, EXPORTED: _list_of(facts, checks)}
    place = out if out.exists() else out.parent  # these may be on different disks
    with staging_directory(place / out.name) as staging:
        for name, content in written.items():
            write_file(staging / name, content, shown=named / name)
        staging.chmod(0o755)
        if not out.exists():
            staging.rename(out)
            return
        for name in written:  # one by one: the folder may be the current directory of a shell or a server
            os.replace(staging / name, out / name)
        for name in before - set(files):
            (out / name).unlink(missing_ok=True)


def record(out: Path, checks: Sequence[Check]) -> None:
    """Write all checks of an export into its export.json."""
    listed = read_list(out)
    write_file(out / EXPORTED, _list_of(vars(listed), checks))


def _list_of(facts: Mapping[str, object], checks: Sequence[Check]) -> bytes:
    return json.dumps(to_json(checks, **facts), indent=2).encode() + b"\n"


def _digest(file: Path) -> str:
    """The file's sha256; "" if it is not a regular file."""
    if not file.is_file():
        return ""
    return hashlib.sha256(read_regular(file, MAX_NETWORK)).hexdigest()
