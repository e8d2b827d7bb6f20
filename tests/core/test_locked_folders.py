"""What lies in a folder that this user may not search: it is not said to be missing, on any version of Python."""

import ctypes
import errno
import os
from pathlib import Path

import pytest

from edgefer.bundle import Bundle
from edgefer.commands import import_, lint
from edgefer.commands.run_flags import sort_inputs
from edgefer.devices.faces.pair import pair_bundles
from edgefer.devices.faces.yunet import YuNetDetector
from edgefer.devices.faces.yunet_lite import _Build
from edgefer.devices.outputs.files import check_folder
from edgefer.devices.outputs.recorded import read_report
from edgefer.devices.sources.cameras import open_source
from edgefer.devices.sources.captures import check_device
from edgefer.errors import InputError, SourceError
from edgefer.files import mode_of
from edgefer.options import DetectorFiles
from edgefer.train.data.rows import check_there
from edgefer.train.recipes import load_recipe

VERSION_3 = 0x20080522  # of the structures of capget(2)
OVERRIDES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root's rights to ignore those of files


@pytest.fixture
def locked(tmp_path):
    """A folder that may not be searched, also not by root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    obeying = (ctypes.c_uint32 * 6)(before[0] & ~OVERRIDES, *before[1:])
    folder = tmp_path / "locked"
    (folder / "inner").mkdir(parents=True)
    for name in ("a.mp4", "a.csv", "a.txt", "a.onnx", "a.toml", "a.tflite", "inner/card.json"):
        (folder / name).touch()
    folder.chmod(0)
    assert libc.capset(header, obeying) == 0
    try:
        yield folder
    finally:
        libc.capset(header, before)
        folder.chmod(0o755)


WAYS = {
    "source": lambda folder: open_source(str(folder / "a.mp4")),
    "argument": lambda folder: sort_inputs([str(folder / "a.mp4")], None),
    "camera": lambda folder: check_device(folder / "video0"),
    "csv": lambda folder: read_report(folder / "a.csv"),
    "output": lambda folder: check_folder(folder / "inner" / "out.csv", "write"),
    "bundle": lambda folder: Bundle.open(folder / "inner"),
    "pair": lambda folder: pair_bundles(DetectorFiles(finder=folder / "inner")),
    "yunet": lambda folder: YuNetDetector(folder / "a.onnx"),
    "yunet lite": lambda folder: _Build(folder / "a.onnx", folder, "litert"),
    "lint": lambda folder: lint._content(folder / "a.tflite", None),
    "labels": lambda folder: import_._labels(str(folder / "a.txt")),
    "recipe": lambda folder: load_recipe(str(folder / "a.toml")),
    "data": lambda folder: check_there(folder / "a.csv"),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_not_said_to_be_missing(locked, way):
    with pytest.raises(
        InputError, match=r"locked.* cannot be (read: Permission denied|written \(Permission denied\))"
    ) as caught:
        WAYS[way](locked)
    assert "no file" not in str(caught.value) and "There is no" not in str(caught.value)


def test_what_is_missing_elsewhere_has_no_mode(tmp_path):
    for name in ("missing", "a\0b", "x" * 5000):
        assert mode_of(tmp_path / name) == 0
    (tmp_path / "loop").symlink_to("loop")
    assert mode_of(tmp_path / "loop") == 0 and os.path.isdir(tmp_path) and mode_of(Path(tmp_path)) > 0


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN])
def test_what_is_on_a_failing_disk_or_network_drive_is_not_said_to_be_missing(tmp_path, monkeypatch, number):
    def fails(path, **options):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "stat", fails)
    with pytest.raises(SourceError, match=f"a.mp4 cannot be read: {os.strerror(number)}. Check its disk"):
        open_source(str(tmp_path / "a.mp4"))
