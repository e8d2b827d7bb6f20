"""Output paths are checked first; a failed write names its file and leaves nothing; killed processes' leftovers are removed."""

import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgefer.bundle import Bundle, shipped_bundles, write_bundle
from edgefer.convert.exported import write_folder
from edgefer.convert.import_options import Request, target_folder
from edgefer.convert.start import ConvertRequest
from edgefer.convert.work import Plan
from edgefer.devices.outputs.files import check_folder, check_room
from edgefer.errors import EdgeferError, InputError, SourceError
from edgefer.files import beside, check_writable, write_file


def in_process(code: str, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=os.environ | environment
    )


def test_unwritable_output_path_is_refused_and_left_unchanged(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"")
    for bad in (file / "bundle", Path("/proc/edgefer/bundle"), Path("/sys/bundle"), tmp_path / "a\0b"):
        with pytest.raises(InputError, match=r"cannot be written .*choose another --out"):
            check_writable(bad)
    for parts in (("x" * 256,), ("new", "x" * 256), ("x" * 256, "new")):
        with pytest.raises(InputError, match=r"cannot be written \(File name too long\): choose another --out"):
            check_writable(tmp_path.joinpath(*parts))
    check_writable(tmp_path / "new" / "deep" / "bundle")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_the_longest_name_that_a_file_system_takes_can_be_written(tmp_path):
    """Its temporary name is longer, and would be refused after the work."""
    source, longest = Bundle.open(shipped_bundles()["fer-nano"]), tmp_path / ("é" * 127 + "x")
    check_writable(longest)
    write_bundle(longest, source.card, {"int8": source.read("int8")})
    write_file(longest.with_name("x" * 255), b"")
    write_folder(longest.with_name("y" * 255), "c", source, {"README.md": b""}, [])
    assert len(beside(longest, "unfinished").name) < 143  # the limit of eCryptfs
    assert sorted(len(os.fsencode(one.name)) for one in tmp_path.iterdir()) == [255, 255, 255]


@pytest.mark.parametrize("arguments", [("convert",), ("compare",), ("profiles",)])
def test_commands_refuse_an_unwritable_output_before_the_work(edgefer, trained, arguments):
    done = edgefer(*arguments, trained, "--out", "/proc/nothing/out", expect=2)
    assert "/proc/nothing/out cannot be written" in done.stderr and "Converting" not in done.stderr


def test_a_report_that_cannot_be_written_is_refused_before_the_work(edgefer, trained):
    done = edgefer("parity", trained, "--data", "builtin", "--report", "/proc/nothing", expect=2)
    assert "cannot be written" in done.stderr and "choose another --report" in done.stderr


@pytest.fixture
def small_disk():
    """No file may grow beyond 100,000 bytes in this process."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_error_names_the_file_and_leaves_nothing(small_disk, tmp_path):
    source = Bundle.open(shipped_bundles()["fer-nano"])
    files = {name: source.read(name) for name in source.card.variants}
    with pytest.raises(EdgeferError) as caught:
        write_bundle(tmp_path / "bundle", source.card, files)
    text = str(caught.value)
    assert str(tmp_path / "bundle" / "int8.tflite") in text and "staging" not in text and "partial" not in text
    with pytest.raises(EdgeferError, match=r"parity\.json could not be written"):
        write_file(tmp_path / "parity.json", bytes(200_000))
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_writer_are_removed_by_the_next(tmp_path):
    source = Bundle.open(shipped_bundles()["fer-nano"])
    (tmp_path / ".bundle.staging-killed").mkdir()
    (tmp_path / ".bundle.staging-killed" / "int8.tflite").write_bytes(b"half")
    (tmp_path / ".bundle.unfinished").mkdir()  # checkpoints, from which a conversion resumes
    write_bundle(tmp_path / "bundle", source.card, {"int8": source.read("int8")})
    assert sorted(one.name for one in tmp_path.iterdir()) == [".bundle.unfinished", "bundle"]


def test_hdf5_prints_no_errors_of_its_own(tmp_path):
    done = in_process(
        """
        import resource, signal
        from edgefer.train.backend import tensorflow
        from edgefer.train.networks import keras_bytes
        from edgefer.errors import EdgeferError
        tensorflow()
        import tf_keras
        model = tf_keras.Sequential([tf_keras.layers.Input((64,)), tf_keras.layers.Dense(2048), tf_keras.layers.Dense(512)])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            keras_bytes(model)
        except EdgeferError as error:
            print(error)
        """,
        TMPDIR=str(tmp_path),
    )
    assert "could not be written as a Keras file" in done.stdout and "HDF5" not in done.stderr, done.stderr


def test_temporary_files_of_a_killed_process_are_removed_by_the_next(tmp_path):
    code = """
        import os, signal, sys, tempfile
        from edgefer.scratch import use_own_directory
        use_own_directory()
        tempfile.mkstemp(prefix="__autograph_generated_file")
        if sys.argv[1:] or os.environ.get("KILLED"):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert in_process(code, TMPDIR=str(tmp_path), KILLED="1").returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert any(left.iterdir())
    assert in_process(code, TMPDIR=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_devices_are_never_replaced_by_files(tmp_path):
    """As root it would remove /dev/full for the whole system. A FIFO stands in for it here."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(EdgeferError, match="folder or a device"):
            write_file(tmp_path / name, b"content")
        with pytest.raises(InputError, match="it is a device"):
            check_writable(tmp_path / name)
        for verb in ("write", "save"):
            with pytest.raises(SourceError, match="folder or a device"):
                check_folder(tmp_path / name, verb)
        assert stat.S_ISFIFO((tmp_path / name).stat().st_mode)


@pytest.mark.parametrize("name", ["n" * 300, "a\0b"])
def test_invalid_file_name_gives_a_clear_error(tmp_path, name):
    for check in (check_writable, lambda path: check_folder(path, "write")):
        with pytest.raises(InputError, match="cannot be written"):
            check(tmp_path / name)


@pytest.mark.parametrize("out", ["file/net", "n" * 300, "/proc/net-of-mine"])
def test_import_checks_its_output_path_before_the_work(tmp_path, out):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        target_folder(Request(path=tmp_path / "absent.keras"), tmp_path / out)


def test_a_file_system_without_a_size_is_not_full():
    check_room(Path("/proc"))


@pytest.mark.parametrize("options", [{"max_drop": float("nan")}, {"max_drop": -5}, {"epochs": -1}, {"seed": -1}])
def test_invalid_numbers_are_refused_before_the_work(options):
    with pytest.raises(InputError, match="is not a number from 0 to"):
        Plan(**options)


def test_epochs_without_fine_tuning_are_refused():
    with pytest.raises(
        InputError, match="--epochs is for fine-tuning, which --slim, --prune, --qat or --max-drop ask for"
    ):
        Plan(epochs=4)
    assert Plan(epochs=4, max_drop=0.0).epochs == Plan(epochs=4, slim=0.5).epochs == 4


@pytest.mark.parametrize("option", ["author", "license"])
def test_control_characters_in_author_or_license_are_refused_before_the_work(option):
    with pytest.raises(InputError, match=rf"--{option} holds the control character '\\x1b'"):
        Plan(**{option: "Ada\x1b[31m"})


def test_user_without_a_home_only_goes_without_a_cache(monkeypatch):
    """Path.home() raises RuntimeError for one, as in a container."""
    from edgefer.devices.faces.yunet import cached_yunet
    from edgefer.train.data.cache import cache_folder, store_arrays

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert not cached_yunet().exists()
    monkeypatch.setattr(
        Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError())
    )  # tests may run as root
    store_arrays(cache_folder() / "kept.npz", {})


def test_a_link_to_nothing_is_refused_before_the_work(tmp_path):
    """A finished bundle could not be renamed to it."""
    link, source = tmp_path / "link", Bundle.open(shipped_bundles()["fer-nano"])
    link.symlink_to(tmp_path / "absent")
    with pytest.raises(InputError, match="is there already"):
        _ = ConvertRequest(bundle=source, out=link).target
    with pytest.raises(InputError, match="is there already"):
        target_folder(Request(path=tmp_path / "absent.keras"), link)
