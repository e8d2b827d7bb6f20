"""parity.npz and other untrusted files of a bundle: bounded, regular, and consistent with the card, or a one-sentence error."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import fuzz
import numpy as np
import pytest

from edgefer import parity
from edgefer.bundle import CARD, Bundle, shipped_bundles, shipped_networks, write_bundle
from edgefer.checks import Status
from edgefer.errors import BundleError, InputError
from edgefer.files import read_member, read_regular
from edgefer.parity import check_pixels, verify
from edgefer.vectors import Vectors, make_vectors
from tests.tflite.networks import endless

SHIPPED = shipped_bundles()["fer-small"]


@pytest.fixture
def bundle(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "bundle")


def arrays() -> dict[str, np.ndarray]:
    with np.load(SHIPPED / "parity.npz") as stored:
        return {name: stored[name] for name in stored.files}


def put(bundle, content: bytes, **card) -> Bundle:
    """The bundle with that parity.npz, its hash and size rewritten, and those fields of the card."""
    (bundle / "parity.npz").write_bytes(content)
    fields = json.loads((bundle / CARD).read_text()) | card
    fields["variants"]["parity"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (bundle / CARD).write_text(json.dumps(fields))
    return Bundle.open(bundle)


def packed(**changed) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **(arrays() | changed))
    return out.getvalue()


def complaint(bundle, **changed) -> str:
    with pytest.raises(BundleError) as error:
        verify(put(bundle, packed(**changed)))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", shipped_networks())
def test_shipped_vectors_hold_what_new_ones_do(name):
    bundle = Bundle.open(shipped_networks()[name])
    with np.load(bundle.path / "parity.npz") as stored, np.load(io.BytesIO(make_vectors(bundle.card, {}))) as new:
        assert set(new.files) <= set(stored.files)


def test_array_of_a_wrong_type_shape_count_or_range_is_named(bundle):
    good = arrays()
    assert all(check.passed for check in verify(put(bundle, packed())))
    assert "boxes has the type <f8" in complaint(bundle, boxes=good["boxes"].astype(float))
    assert "frames has the type |i1" in complaint(bundle, frames=good["frames"].view(np.int8))
    assert "pixels has the shape ()" in complaint(bundle, pixels=np.uint8(7))
    assert "pixels has the shape (48, 48, 48)" in complaint(bundle, pixels=good["pixels"][..., 0])
    assert "temperature has the shape (1,)" in complaint(bundle, temperature=np.ones(1))
    assert "temperature is" in complaint(bundle, temperature=np.array(np.nan))
    assert "output is logits but its parity vectors were made with p" in complaint(
        bundle, output=np.array("probabilities")
    )
    assert "but its parity vectors were made with [0.0, 1.0, 2.0]" in complaint(bundle, limits=np.arange(3.0))
    assert "labels has the type <U4000" in complaint(bundle, labels=good["labels"].astype("U4000"))
    assert "there are 3 boxes for 4 frames" in complaint(bundle, boxes=good["boxes"][:3])
    assert "there are 47 answers of int8 for 48 images" in complaint(bundle, answers_int8=good["answers_int8"][1:])
    assert "answers_int8 has the shape (48, 6)" in complaint(bundle, answers_int8=good["answers_int8"][:, 1:])
    assert "frames has the shape (65, " in complaint(bundle, frames=np.zeros((65, 9, 9, 3), np.uint8))
    far = good["boxes"].copy()
    for edge, value in ((2, 2**62), (0, -(2**63)), (2, 30), (3, 100_000)):
        far[0] = good["boxes"][0]
        far[0, edge] = value
        assert "a box is empty or far outside" in complaint(bundle, boxes=far)
    assert "does not begin as an array of numbers" in complaint(bundle, boxes=np.array([{}] * 4))
    lying = {f"{name}.npy": fuzz.as_npy(repr(a.dtype.str), repr(a.shape), a.tobytes()) for name, a in good.items()}
    lying["pixels.npy"] = fuzz.as_npy("'|u1'", "(60, 48, 48, 1)", good["pixels"].tobytes())
    with pytest.raises(BundleError, match="which is not what its shape"):
        verify(put(bundle, fuzz._zip(lying, zipfile.ZIP_DEFLATED)))


def test_float_answers_must_be_finite(bundle):
    good = arrays()
    nan = np.full((48, 7), np.nan, np.float32)
    assert "an answer of float32 is not a finite number" in complaint(bundle, answers_float32=nan)
    assert good["answers_int8"].dtype == np.int8


def test_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(bundle):
    members = {
        f"{name}.npy": fuzz.as_npy(repr(a.dtype.str), repr(a.shape), a.tobytes()) for name, a in arrays().items()
    }
    members["frames.npy"] = fuzz.as_npy("'|u1'", "(60, 4000, 4000, 3)", b"")
    content = fuzz._zip(members, zipfile.ZIP_DEFLATED, zeros={"frames.npy": 300})
    assert len(content) < 3_000_000
    opened = put(bundle, content)
    began = time.monotonic()
    with pytest.raises(BundleError, match="frames is too large: 2,880,000,000 bytes"):
        Vectors.load(opened)
    assert time.monotonic() - began < 1


def test_huge_crop_from_a_card_and_a_box_is_refused(bundle):
    far = arrays()["boxes"].copy()
    far[0] = (-300, -300, 300, 300)
    opened = put(bundle, packed(boxes=far), crops={"haar": {"scale": 5, "dx": 0, "dy": 0, "faces": 1}})
    with pytest.raises(BundleError, match="leads to a crop of 3000 pixels, at most 2048"):
        Vectors.load(opened)


def test_every_crop_and_the_faces_are_checked_and_missing_ones_are_reported(bundle):
    kept = {
        name: array
        for name, array in arrays().items()
        if not name.startswith(("crops_", "levelled", "faces", "quanta_"))
    }
    out = io.BytesIO()
    np.savez_compressed(out, **kept)
    old = put(bundle, out.getvalue())
    assert [(check.subject, check.status) for check in check_pixels(old, Vectors.load(old))] == [
        ("pixels of haar's crop", "pass"), ("pixels of yunet's crop", "not checked"),
        ("pixels of own's crop", "not checked"), ("pixels of levelled heads", "not checked"),
        ("faces", "not checked"),
    ]  # fmt: skip
    content = make_vectors(old.card, {"int8": old.read("int8")})
    new = put(bundle, content)
    assert {check.status for check in verify(new)} == {"pass"} and len(verify(new)) == 6
    crops = json.loads((bundle / CARD).read_text())["crops"]
    crops["yunet"]["scale"] *= 1.1
    wrong = put(bundle, content, crops=crops)
    assert [check.subject for check in verify(wrong) if not check.passed] == ["pixels of yunet's crop"]
    with pytest.raises(BundleError, match="faces are cat but its parity vectors were made with human"):
        verify(put(bundle, content, faces="cat"))


def test_every_shipped_network_proves_levelled_heads():
    for path in shipped_bundles().values():
        stored = Vectors.load(Bundle.open(path))
        assert stored.levelled is not None and (stored.levelled != next(iter(stored.crops.values()))).any()


@pytest.mark.parametrize("name", ["card.json", "int8.tflite", "parity.npz", "model.keras"])
def test_a_bundle_of_anything_but_regular_files_is_refused_at_once(bundle, name):
    file = bundle / name
    began = time.monotonic()
    for kind, make in (
        ("a FIFO", lambda: os.mkfifo(file)),
        ("a device", lambda: file.symlink_to("/dev/zero")),
        ("a directory", file.mkdir),
    ):
        file.unlink()
        make()
        with pytest.raises(BundleError, match=f"is {kind}, not a regular file"):
            Bundle.open(bundle)
        if kind == "a directory":
            file.rmdir()
            file.touch()
    assert time.monotonic() - began < 2


def test_opening_a_bundle_checks_the_size_but_not_the_hash_of_the_keras_network(bundle):
    content = bytearray((bundle / "model.keras").read_bytes())
    content[1000] ^= 1
    (bundle / "model.keras").write_bytes(content)
    opened = Bundle.open(bundle)
    with pytest.raises(BundleError, match="sha256 differs"):
        opened.read("keras")
    (bundle / "model.keras").write_bytes(content[:-1])
    with pytest.raises(BundleError, match="bytes, not"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [(zipfile.ZIP_BZIP2, "another method than deflate"), (zipfile.ZIP_DEFLATED, "cannot|more than|CRC")],
)
def test_an_archive_that_unpacks_to_much_more_than_it_says_takes_no_memory(kind, problem):
    size, out = 20 << 20, io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        archive.writestr("a", bytes(size))
    lying = out.getvalue().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    tracemalloc.start()
    with zipfile.ZipFile(io.BytesIO(lying)) as archive, pytest.raises((ValueError, zipfile.BadZipFile), match=problem):
        read_member(archive, "a", 1 << 16)
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_a_small_file_is_read_without_the_memory_of_the_largest(tmp_path):
    """A board with 512 MB refuses 1 GB, the limit of a network, even where none of it is used."""
    (tmp_path / "file").write_bytes(b"12345")
    tracemalloc.start()
    assert read_regular(tmp_path / "file", 1 << 30) == b"12345"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_regular_file_is_read_and_a_large_one_is_not(tmp_path):
    file = tmp_path / "x\x1b[31m.tflite"
    file.write_bytes(b"12345")
    assert read_regular(file, 5) == b"12345"
    with pytest.raises(InputError, match=r"x\\x1b\[31m.tflite has 5 bytes, more than the 4"):
        read_regular(file, 4)
    with pytest.raises(InputError, match="No such file"):
        read_regular(tmp_path / "none", 5)
    with pytest.raises(InputError, match="is not a valid file name"):
        read_regular(tmp_path / "a\0b", 5)
    with pytest.raises(InputError, match="is a device"):
        read_regular(Path("/dev/null"), 5)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "x\x1b[31m"},
        {"labels": ["a", "b\x9b2J"]},
        {"labels": ["a", "b\u202e"]},
        {"labels": ["a", "b\n"]},
        {"author": "\x07"},
        {"license": "x\r"},
        {"crops": {"ha\x00ar": {}}},
    ],
)
def test_control_characters_in_a_card_are_refused(bundle, fields):
    card = json.loads((bundle / CARD).read_text()) | fields
    (bundle / CARD).write_text(json.dumps(card))
    with pytest.raises(BundleError, match="holds the control character '") as error:
        Bundle.open(bundle)
    assert str(error.value).isprintable()


def test_control_characters_in_the_provenance_are_refused_and_every_script_is_allowed(bundle):
    card = json.loads((bundle / CARD).read_text())
    card["provenance"]["recipe"] = {"deep": [{"a\x1b": 1}]}
    (bundle / CARD).write_text(json.dumps(card))
    with pytest.raises(BundleError, match="control character"):
        Bundle.open(bundle)
    card["provenance"]["recipe"] = {}
    card["labels"] = ["日本", "é", "بی\u200cتفاوت", "👩\u200d🦰", "=cmd|x", "-1", "@a"]
    (bundle / CARD).write_text(json.dumps(card))
    assert len(Bundle.open(bundle).card.labels) == 7


@pytest.mark.parametrize("count", [1, 3])
def test_network_that_never_answers_gives_an_error_in_bounded_time(tmp_path, count):
    """Its bytes are valid and every runtime loads it: only a time limit detects it. In a process, which must end too."""
    good, stored = arrays(), io.BytesIO()
    good["pixels"], answers = good["pixels"][:count], np.zeros((count, 7), np.float32)
    kept = {name: array for name, array in good.items() if not name.startswith(("answers", "quanta"))}
    np.savez_compressed(stored, **kept, answers_float32=answers)
    card, content = Bundle.open(SHIPPED).card, endless(48, 48, 7)
    made = write_bundle(tmp_path / "made", card, {"float32": content, "parity": stored.getvalue()})
    command = "import edgefer.interpreter as i; i.MAX_IMAGE_S = 1; from edgefer.cli import main; main()"
    for arguments in (["verify", made.path], ["run", made.path, "builtin", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", command, *map(str, arguments)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1, done.stderr
        assert f"edgefer: {made.path / 'float32.tflite'} has processed 0 of " in done.stderr.splitlines()[-1], (
            done.stderr
        )
        assert "made to hang" in done.stderr and "Traceback" not in done.stderr


def test_a_huge_int8_network_is_not_computed_in_numpy(monkeypatch):
    """The exact arithmetic is for networks of the size that edgefer makes; the row of a larger one says that the check was not made."""
    monkeypatch.setattr(parity, "MAX_EXACT_WORK", 10_000_000)
    bundle = Bundle.open(SHIPPED)
    (check,) = parity.check_exactly(bundle, Vectors.load(bundle))
    assert check.status is Status.NOT_CHECKED and re.search(
        r"[1-9][\d,]{9} operations per image are too many", check.detail
    )


@pytest.mark.parametrize(("name", "shape"), [("labels", (7,)), ("faces", ()), ("output", ())])
def test_invalid_code_points_in_text_give_a_clear_error(bundle, name, shape):
    """Numpy accepts any four bytes as a character."""
    text = np.full(shape, 0x7FFFFFFF, "<u4").view("<U1")
    with pytest.raises(BundleError, match=f"{name} holds a number that is not a character"):
        Vectors.load(put(bundle, packed(**{name: text})))
