"""Directories that a process locks while it writes into them."""

import errno
import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from edgefer.bundle import Bundle, shipped_bundles, write_bundle
from edgefer.scratch import locked_directory, remove_abandoned


def test_locked_directory_is_kept_and_an_abandoned_one_is_removed(tmp_path):
    (held, handle), (abandoned, other) = (locked_directory(tmp_path, "work-") for _ in range(2))
    os.close(other)
    (tmp_path / "work-link").symlink_to(held)
    remove_abandoned(tmp_path, "work-")
    assert held.is_dir() and not abandoned.exists()
    os.close(handle)


@pytest.mark.parametrize("locked_by", ["nobody", "the other"])
def test_directory_that_is_removed_before_it_is_locked_is_created_again(tmp_path, monkeypatch, locked_by):
    """Another process opens and locks it first, and removes it while this one waits for the lock."""
    make, lock, made = tempfile.mkdtemp, fcntl.flock, []

    def mkdtemp(**options):
        made.append(make(**options))
        if len(made) == 1 and locked_by == "nobody":
            remove_abandoned(tmp_path, "work-")
        return made[-1]

    def flock(handle, operation):
        lock(handle, operation)
        if len(made) == 1 and locked_by == "the other":
            Path(made[0]).rmdir()

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    monkeypatch.setattr(fcntl, "flock", flock)
    folder, handle = locked_directory(tmp_path, "work-")
    assert len(made) == 2 and str(folder) == made[1] and folder.is_dir()
    os.close(handle)


def test_bundle_can_be_written_on_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    source = Bundle.open(shipped_bundles()["fer-nano"])
    write_bundle(tmp_path / "bundle", source.card, {"int8": source.read("int8")})
    assert [one.name for one in tmp_path.iterdir()] == ["bundle"]
