"""Bundles are written completely or not at all, and every fault is named."""

import json
import os
import re
import shutil
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from edgefer.bundle import (
    CARD,
    Bundle,
    is_shipped,
    new_directory,
    newest_bundle,
    remake,
    shipped_bundles,
    write_bundle,
    write_file,
)
from edgefer.card import parse_card
from edgefer.checks import Status
from edgefer.commands.inputs import report_folder
from edgefer.errors import BundleError, EdgeferError, InputError
from edgefer.lineage import check_origin
from edgefer.tflite.weights import check_weights


@pytest.fixture
def copy(converted, tmp_path):
    return shutil.copytree(converted.path, tmp_path / "copy")


def edit(bundle, **fields):
    card = json.loads((bundle / CARD).read_text()) | fields
    (bundle / CARD).write_text(json.dumps(card))


def test_a_converted_bundle_holds_what_its_card_says(converted):
    assert set(converted.card.variants) == {"keras", "float32", "int8", "parity"}
    for name, variant in converted.card.variants.items():
        assert len(converted.read(name)) == variant.bytes > variant.gzip_bytes * 0.9
    assert converted.best_tflite() == "int8"
    assert converted.card.provenance.steps[0] == "train"
    assert "/" not in converted.card.provenance.data


def test_every_fault_of_a_bundle_is_named(copy, tmp_path):
    good = (copy / CARD).read_text()

    def complaint():
        with pytest.raises(BundleError) as error:
            Bundle.open(copy).best_tflite()
        (copy / CARD).write_text(good)
        return str(error.value)

    edit(copy, schema_version=2)
    assert "schema_version: it should be 1 (got 2). If a newer edgefer wrote it, install that here." in complaint()
    edit(copy, labels=["sad", "sad"])
    assert "not unique" in complaint()
    edit(copy, labels=["sad", " "])
    assert "labels.1: only spaces (got ' ')" in complaint()
    edit(copy, input={"height": 48, "width": 48, "scale": 0})
    assert "input: scale is 0" in complaint()
    edit(copy, provenance=json.loads(good)["provenance"] | {"split_sizes": {"train": -1}})
    assert "provenance.split_sizes.train: it should be greater" in complaint()
    edit(copy, temperature=0)
    assert re.fullmatch(".*: temperature: .*\\)\\.", complaint())
    edit(copy, surprise=1)
    assert re.search("surprise: .* If a newer edgefer wrote it", complaint())
    edit(
        copy, variants=json.loads(good)["variants"] | {"int8": json.loads(good)["variants"]["int8"] | {"file": "../x"}}
    )
    assert "int8 file must be 'int8.tflite'" in complaint()
    (copy / CARD).write_text(good[:-40])
    assert re.search("Invalid JSON: EOF [^{]*. Copy the bundle again.$", complaint())
    (copy / CARD).write_bytes(b"\xff\x00")
    assert "not a valid model card" in complaint()

    content = bytearray((copy / "int8.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "int8.tflite").write_bytes(content)
    assert "not the file its card describes" in complaint()
    (copy / "int8.tflite").unlink()
    assert "is missing: copy the bundle again, all of it" in complaint()
    (copy / CARD).unlink()
    with pytest.raises(BundleError, match=r"has no card\.json"):
        Bundle.open(copy)
    with pytest.raises(BundleError, match="There is no bundle at"):
        Bundle.open(tmp_path / "none")
    (tmp_path / "x.tflite").write_bytes(b"")
    with pytest.raises(BundleError, match=r"only a file: `edgefer import .*x\.tflite` makes"):
        Bundle.open(tmp_path / "x.tflite")


def test_older_card_field_held_pictures_is_read(copy):
    card = json.loads((copy / CARD).read_text())
    held = card["provenance"].pop("held_images")
    edit(copy, provenance=card["provenance"] | {"held_pictures": held})
    assert held and Bundle.open(copy).card.provenance.held_images == held
    edit(copy, provenance=card["provenance"] | {"held_pictures": held, "held_images": held})
    with pytest.raises(BundleError, match=r"provenance\.held_pictures: there is no such field"):
        Bundle.open(copy)


def test_conversion_notes_among_the_steps_of_an_older_card_are_separated():
    card = json.loads((shipped_bundles()["ferplus-small"] / CARD).read_text())
    card["provenance"]["steps"] += card["provenance"].pop("conversion")
    provenance = parse_card(json.dumps(card).encode(), "older card").provenance
    assert provenance.steps == ("begin with the weights of pupil", "train, learning from wide-1, wide-2 too")
    assert [one.split()[0] for one in provenance.conversion] == [
        "int8",
        "int8",
        "int8",
        "kept",
        "temperature",
        "limits",
    ]
    assert provenance.everything == tuple(card["provenance"]["steps"])


def test_error_for_a_missing_form_suggests_convert_only_if_it_can_be_made(converted, tmp_path):
    imported = write_bundle(tmp_path / "imported", converted.card, {"float32": converted.read("float32")})
    with pytest.raises(
        BundleError, match="no Keras network to make one from: name the bundle that was trained, or import"
    ):
        imported.file("int8")
    trained = write_bundle(tmp_path / "trained", converted.card, {"keras": converted.read("keras")})
    with pytest.raises(
        BundleError, match=r"holds no int8 network \(it has keras\): run `edgefer convert .*trained` first"
    ):
        trained.file("int8")


def test_failed_write_leaves_nothing(converted, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(EdgeferError, match=r"int8\.tflite could not be written: No space left on device"):
        write_bundle(tmp_path / "new", converted.card, {"int8": converted.read("int8")})
    assert list(tmp_path.iterdir()) == []


def test_interrupted_between_two_files_a_bundle_stays_whole(converted, tmp_path, monkeypatch):
    """A form is added in place: the card comes last, so what it describes is there before and after."""
    old = write_bundle(tmp_path / "old", converted.card, {"int8": converted.read("int8")})
    forms = {name: converted.read(name) for name in ("int8", "float32")}
    replace, left = Path.replace, 0

    def stops(path, target):
        nonlocal left
        left -= Path(target).parent == old.path
        if left < 0 and Path(target).parent == old.path:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stops)
    for count in range(3):
        left = count
        with pytest.raises(KeyboardInterrupt):
            write_bundle(old.path, converted.card, forms)
        assert Bundle.open(old.path) == old and not list(tmp_path.glob(".*")), "nor is anything else left"
    left = 3
    assert Bundle.open(write_bundle(old.path, converted.card, forms).path).has("float32")


def test_new_directories_never_collide_and_the_newest_bundle_is_found(converted, tmp_path):
    runs = tmp_path / "runs"
    assert newest_bundle(runs) is None
    for _ in range(3):
        write_bundle(new_directory(runs, "net"), converted.card, {"int8": converted.read("int8")})
    (runs / "net-4").mkdir()
    assert sorted(path.name for path in runs.iterdir()) == ["net-1", "net-2", "net-3", "net-4"]
    write_bundle(
        runs / "trained", converted.card.model_copy(update={"lineage": None}), {"keras": converted.read("keras")}
    )
    os.utime(runs / "trained" / CARD, (1, 1))
    (runs / "net-4" / CARD).symlink_to("nowhere")
    newest = newest_bundle(runs)
    assert newest_bundle(runs, trained=True) == runs / "trained"
    assert newest and newest.name == "net-3"
    assert new_directory(runs, "net").name == "net-5"


def test_folder_without_permission_gives_a_clear_error():
    root = os.geteuid() == 0
    with TemporaryDirectory(dir="/tmp") as top:
        (closed := Path(top) / "closed").mkdir(mode=0o600)
        if root:  # which no permission stops
            Path(top).chmod(0o755)
            os.chown(closed, 65534, 65534)
            os.seteuid(65534)
        try:
            with pytest.raises(BundleError, match=r"closed/card\.json cannot be read: Permission denied"):
                Bundle.open(closed)
        finally:
            if root:
                os.seteuid(0)


def test_shipped_bundle_is_recognized_however_it_is_named(monkeypatch, tmp_path):
    folder = shipped_bundles()["fer-nano"]
    monkeypatch.chdir(folder.parent)
    (tmp_path / "link").symlink_to(folder)
    for named in (folder, "fer-nano", "../models/fer-nano", tmp_path / "link"):
        assert is_shipped(Bundle.open(named)) and remake(Bundle.open(named)) == "install edgefer again"


def test_two_threads_can_write_the_same_file_at_once(tmp_path):
    contents = [bytes([number]) * 300_000 for number in range(4)]
    threads = [
        threading.Thread(target=lambda content=content: [write_file(tmp_path / "a.json", content) for _ in range(20)])
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.json").read_bytes() in contents and [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_advice_depends_on_where_the_bundle_came_from(converted, tmp_path):
    assert remake(converted) == "convert the trained bundle again"
    (own,) = (check for check in check_weights(Bundle.open(shipped_bundles()["fer-nano"])))
    assert own.status is Status.NOT_CHECKED and not own.fix
    assert not check_origin(Bundle.open(shipped_bundles()["pets-small"])).fix, "its Keras network ships nowhere"
    card = converted.card.model_copy(update={"lineage": None})
    imported = write_bundle(tmp_path / "imported", card, {"int8": converted.read("int8")})
    assert remake(Bundle.open(imported.path)) == "import the network's file again"


def test_nothing_is_written_through_links_of_an_untrusted_bundle(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    report = tmp_path / "theirs" / "report"
    report.mkdir(parents=True)
    thread = threading.get_native_id()
    (report / f".parity.json.{thread}.partial").symlink_to(mine)
    with pytest.raises(EdgeferError, match="could not be written"):
        write_file(report / "parity.json", b"{}")
    write_file(report / "parity.json", b"{}")  # the link is gone
    os.mkfifo(report / f".other.json.{thread}.partial")
    with pytest.raises(EdgeferError, match="could not be written"):
        write_file(report / "other.json", b"{}")
    (report / "linked.json").symlink_to(mine)
    write_file(report / "linked.json", b"{}")
    assert mine.read_text() == "precious" and (report / "linked.json").read_bytes() == b"{}"


def test_report_folder_that_is_a_symlink_is_refused(tmp_path):
    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    theirs = Bundle(tmp_path, bundle.card)
    assert report_folder(theirs) == tmp_path / "report" and report_folder(bundle) == Path("report/fer-nano")
    (tmp_path / "report").symlink_to("/etc")
    with pytest.raises(InputError, match="nothing is written through it"):
        report_folder(theirs)
