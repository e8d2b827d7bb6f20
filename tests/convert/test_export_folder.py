"""An export's folder: listed with hashes, checked by `edgefer verify`, and never overwriting the user's own files."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from edgefer.bundle import EXPORTED
from edgefer.checks import Status
from edgefer.convert.c.project import export_c
from edgefer.convert.exported import check_export, check_folder, write_folder
from edgefer.errors import EdgeferError, InputError


def test_file_list_holds_hashes_and_the_proof(project, nano):
    listed = json.loads((project / EXPORTED).read_text())
    assert listed["bundle_sha256"] == nano.bundle.hash and listed["passed"]
    assert {file.name for file in project.iterdir()} == {*listed["files"], EXPORTED}


def test_only_an_empty_folder_or_an_earlier_export_is_overwritten(project, tmp_path):
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    check_folder(project)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        check_folder(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        check_folder(tmp_path / "mine.txt")


def test_repeated_export_keeps_files_that_the_user_added_or_changed(nano, project, tmp_path):
    """A file added for a board, as the README advises, and changes to an exported file."""
    shutil.copytree(project, tmp_path / "c")
    (tmp_path / "c" / "platform_mine.c").write_text("mine")
    (tmp_path / "link").symlink_to("c")
    for out in (tmp_path / "c", tmp_path / "link"):
        export_c(nano, out)
        assert (out / "platform_mine.c").read_text() == "mine" and out.resolve() == tmp_path / "c"
    assert [check.status for check in check_export(tmp_path / "c")] == [Status.PASS]
    (tmp_path / "c" / "platform_host.c").write_text("mine")
    with pytest.raises(InputError, match=r"platform_host\.c was changed after it was exported"):
        export_c(nano, tmp_path / "c")
    assert (tmp_path / "c" / "platform_host.c").read_text() == "mine"
    assert {file.name for file in tmp_path.iterdir()} == {"c", "link"}


def test_user_file_with_the_name_of_an_exported_file_is_not_overwritten(nano, project, tmp_path):
    """As when a folder of C becomes a page, or a newer edgefer writes an additional file."""
    shutil.copytree(project, tmp_path / "c")
    (tmp_path / "c" / "page.js").write_text("mine")
    before = {file.name: file.read_bytes() for file in (tmp_path / "c").iterdir()}
    with pytest.raises(InputError, match=r"page\.js is a file of yours"):
        write_folder(tmp_path / "c", "web", nano.bundle, {"page.js": b"theirs", "README.md": b""}, [])
    assert {file.name: file.read_bytes() for file in (tmp_path / "c").iterdir()} == before
    (tmp_path / "c" / "page.js").unlink()
    write_folder(tmp_path / "c", "web", nano.bundle, {"page.js": b"theirs", "README.md": b""}, [])
    assert {file.name for file in (tmp_path / "c").iterdir()} == {"page.js", "README.md", EXPORTED}


def test_leftovers_of_a_killed_export_are_removed_by_the_next(nano, tmp_path):
    for left in (tmp_path / ".c.staging-killed", tmp_path / "c" / ".c.staging-killed"):
        left.mkdir()
        (left / "network.c").write_text("half")
        write_folder(tmp_path / "c", "c", nano.bundle, {"network.c": b"whole"}, [])
        assert not left.exists() and (tmp_path / "c" / "network.c").read_bytes() == b"whole"


def test_export_into_the_current_folder_works(nano, tmp_path, monkeypatch):
    """The folder is not replaced while the shell is in it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        export_c(nano, Path("."))
        assert Path("network.c").is_file() and Path.cwd().is_dir()
    assert {file.name for file in tmp_path.iterdir()} == {"here"}


def test_verify_detects_a_changed_byte_in_every_file_of_an_export(edgefer, project, tmp_path):
    shutil.copytree(project, tmp_path / "c")
    assert "pass: 1 of 1" in edgefer("verify", tmp_path / "c").stdout
    for name in json.loads((project / EXPORTED).read_text())["files"]:
        content = bytearray((project / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "c" / name).write_bytes(content)
        (check,) = check_export(tmp_path / "c")
        assert check.status is Status.FAIL and check.examples == (name,)
        shutil.copy(project / name, tmp_path / "c" / name)
    (tmp_path / "c" / "network.c").unlink()
    done = edgefer("verify", tmp_path / "c", "--json", expect=1)
    assert json.loads(done.stdout)["checks"][0]["examples"] == ["network.c"]
    assert edgefer("verify", tmp_path / "c", "--runtime", "litert", expect=2).stderr.count("\n") == 1


@pytest.mark.parametrize("listed", ["[]", "{", '{"files": {"../mine": ""}}', '{"files": 3}', '{"files": {}}'])
def test_an_untrusted_file_list_touches_nothing_outside_its_folder(nano, tmp_path, listed):
    if listed.startswith('{"f'):
        facts = {"edgefer": "", "target": "", "bundle": "", "bundle_sha256": ""}
        listed = json.dumps(facts | json.loads(listed))
    (tmp_path / "mine").write_text("")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / EXPORTED).write_text(listed)
    with pytest.raises(InputError):
        export_c(nano, tmp_path / "c")
    with pytest.raises(InputError):  # with nothing to check, it does not pass
        check_export(tmp_path / "c")
    assert (tmp_path / "mine").exists()


def test_a_full_disk_names_the_file_that_was_to_be_written(nano, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        EdgeferError, match=f"^{re.escape(str(tmp_path / 'c' / 'network.c'))} could not be written: No space"
    ):
        write_folder(tmp_path / "c", "c", nano.bundle, {"network.c": b"int x;"}, [])
    assert not any(tmp_path.iterdir())
