"""A folder that an export wrote: whole or absent, with a list of what is in it, and never over anything else."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgefer import __version__
from edgefer.bundle import Bundle, write_file
from edgefer.checks import Check, to_json
from edgefer.errors import InputError

LIST = "export.json"
FACTS = ("edgefer", "target", "bundle", "bundle_sha256", "files")


def check_folder(out: Path) -> None:
    """InputError unless an export may be written at `out`: nothing is there, or only an earlier export."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file: name a directory for the export, new or empty.")
    if any(out.iterdir()) and not (out / LIST).is_file():
        raise InputError(f"{out} holds other files and no earlier export: name a new or empty directory.")


def write_folder(out: Path, target: str, bundle: Bundle, files: Mapping[str, bytes], checks: Sequence[Check]) -> None:
    """Write the files and export.json, which says whose bundle they are of, their hashes and what was proven."""
    check_folder(out)
    facts = {
        "edgefer": __version__,
        "target": target,
        "bundle": bundle.card.name,
        "bundle_sha256": bundle.hash,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, content in files.items():
            write_file(staging / name, content)
        write_file(staging / LIST, json.dumps(to_json(checks, **facts), indent=2).encode() + b"\n")
        staging.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)  # an earlier export, or empty
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def record(out: Path, checks: Sequence[Check]) -> None:
    """Put everything that was proven of an export into its export.json."""
    listed = json.loads((out / LIST).read_text())
    kept = {name: listed[name] for name in FACTS}
    write_file(out / LIST, json.dumps(to_json(checks, **kept), indent=2).encode() + b"\n")
