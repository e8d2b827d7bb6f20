"""The command `edgefer run`: bundles and sources as arguments, several sources, damaged files, --config."""

import csv
import inspect
import json

import cv2
import numpy as np
import pytest
from typer.main import get_command

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.cli import app
from edgefer.commands.export import web
from edgefer.commands.page_rules import device_of
from edgefer.commands.run_flags import FaceFlags, RuntimeFlags, reader_options, sort_inputs
from edgefer.errors import InputError
from edgefer.options import ReaderOptions

FRAMES = [frame.image_bgr for frame, _ in drawn.scene(seconds=2, fps=5)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with photo.jpg and two videos of ten frames."""
    cv2.imwrite(str(tmp_path / "photo.jpg"), FRAMES[0])
    for name in ("one.avi", "other.avi"):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*"MJPG"), 5, (480, 360))
        for image in FRAMES:
            writer.write(image)
        writer.release()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_reader_and_exported_page_have_the_same_defaults():
    plain, typed = ReaderOptions(), reader_options(FaceFlags(), RuntimeFlags())
    assert typed == plain
    rules = device_of(Bundle.open(shipped_bundles()["fer-nano"]).card).rules
    assert (rules["smooth"], rules["reject"]) == (plain.smooth, plain.reject)
    page = inspect.signature(web).parameters
    assert (page["smooth"].default, page["reject"].default) == (plain.smooth, plain.reject)


def test_arguments_are_sorted_into_bundle_and_sources(here):
    shipped = shipped_bundles()["fer-nano"]
    (here / "run").mkdir()
    (here / "run" / "card.json").write_text("{}")
    (here / "images").mkdir()
    for inputs, bundle, sources in (
        (["photo.jpg"], None, ["photo.jpg"]),
        (["fer-nano"], "fer-nano", []),
        (["fer-nano", "photo.jpg"], "fer-nano", ["photo.jpg"]),
        (["photo.jpg", "fer-nano"], "fer-nano", ["photo.jpg"]),
        ([str(shipped), "0", "csi:1"], str(shipped), ["0", "csi:1"]),
        (["run", "images"], "run", ["images"]),
        (["rtsp://host/a", "builtin"], None, ["rtsp://host/a", "builtin"]),
    ):
        named, found = sort_inputs(inputs, None)
        assert (named and str(named), found) == (bundle, sources)
    with pytest.raises(InputError, match="are bundles: name one"):
        sort_inputs(["fer-nano", "fer-small"], None)
    with pytest.raises(InputError, match=r"no bundle, file or folder fer-smal: .*fer-small"):
        sort_inputs(["fer-smal"], None)
    with pytest.raises(InputError) as caught:
        sort_inputs(["me:my own@host/a"], None)
    assert "own" not in str(caught.value)


def test_a_photo_gives_a_readable_line_for_each_face(edgefer, here):
    done = edgefer("run", "ferplus-small", "photo.jpg", "--headless")
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(line.startswith("photo.jpg: ") and "pixels at" in line for line in lines)


def test_several_sources_are_named_in_every_output(edgefer, here):
    done = edgefer(
        "run", "fer-nano", "one.avi", "--source", "other.avi", "--headless", "--json", "--csv", "out.csv", "--smooth", "off"
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for name in ("one.avi", "other.avi"):
        assert [line["frame"] for line in lines if line["source"] == name] == list(range(10))
    ours, others = ([line["faces"] for line in lines if line["source"] == name] for name in ("one.avi", "other.avi"))
    assert ours == others, "each has its own tracks"
    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    assert {line["network"] for line in lines} == {f"fer-nano {bundle.hash[:12]}"} and "time" not in lines[0]
    rows = list(csv.DictReader((here / "out.csv").open()))
    assert {row["source"] for row in rows} == {"one.avi", "other.avi"}
    refused = edgefer("run", "fer-nano", "one.avi", "other.avi", "--save", "out.mp4", expect=2)
    assert "--save takes one source" in refused.stderr


def test_a_damaged_video_exits_1_after_its_frames(edgefer, here):
    content = (here / "one.avi").read_bytes()
    (here / "cut.avi").write_bytes(content[: len(content) // 2])
    done = edgefer("run", "fer-nano", "cut.avi", "--headless", "--json", expect=1)
    assert 0 < len(done.stdout.splitlines()) < 10
    assert "of 10 frames could be read" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_unreadable_sources_do_not_end_the_others(edgefer, here):
    (here / "broken.mp4").write_bytes(b"no video")
    (here / "broken.jpg").write_bytes(b"no image")
    (here / "empty").mkdir()
    bad = {
        "missing.mp4": "no file or folder",
        "broken.mp4": "not a video",
        "broken.jpg": "not an image",
        "empty": "holds no images",
    }
    done = edgefer(
        "run", "fer-nano", "one.avi", *bad, "other.avi", "--headless", "--json", "--csv", "out.csv", expect=1
    )
    frames = [json.loads(line)["source"] for line in done.stdout.splitlines()]
    assert sorted(frames) == ["one.avi"] * 10 + ["other.avi"] * 10
    *logged, last = done.stderr.splitlines()
    for name, reason in bad.items():
        assert name in last and reason in last
    at_once = [line for line in logged if line.endswith("The other sources are read.")]
    assert len(at_once) >= 3, "all but the image, which may be read last"
    assert "Traceback" not in done.stderr
    assert {row["source"] for row in csv.DictReader((here / "out.csv").open())} == {"one.avi", "other.avi"}
    edgefer("run", "fer-nano", *bad, "--headless", expect=2)


def test_bad_images_of_a_folder_are_counted_and_named(edgefer, here):
    (here / "bad.jpg").write_bytes(b"no image")
    failed = edgefer("run", "fer-nano", here, "--headless", "--json", expect=1)
    assert [json.loads(line)["source"] for line in failed.stdout.splitlines()] == ["photo.jpg"]
    assert "bad.jpg" in failed.stderr.splitlines()[-1] and "--skip-bad" in failed.stderr
    done = edgefer("run", "fer-nano", here, "--headless", "--skip-bad", "--json")
    assert [json.loads(line)["source"] for line in done.stdout.splitlines()] == ["photo.jpg"]
    assert "Skipped 3 files:" in done.stderr and "bad.jpg: " in done.stderr
    (here / "few").mkdir()
    (here / "few" / "notes.txt").touch()
    (here / "few" / "photo.jpg").write_bytes((here / "photo.jpg").read_bytes())
    assert "Skipped 1 file:\n" in edgefer("run", "fer-nano", here / "few", "--headless").stderr


def test_options_come_from_a_config_file_and_the_command_line_wins(edgefer, here):
    (here / "run.toml").write_text('source = ["one.avi"]\nframes = 3\nheadless = true\njson = true\nmin_face = 10\n')
    done = edgefer("run", "fer-nano", "--config", "run.toml", "--frames", "2")
    assert len(done.stdout.splitlines()) == 2
    for text, message in (
        ("smoth = 1", "'smoth', which is not an option of run: did you mean smooth?"),
        ("[run]", "has a section [run]: write its options without"),
        ("zzz = 1", "choose allow-cpu-fallback, blur-faces,"),
        ("min-face = 1\nmin_face = 2", "gives min_face a second time"),
        ("frames = [1]", "frames takes one text or number, not a list"),
        ("finder = {path = 'x'}", "finder takes one text or number, not a table"),
        ("[finder]", "finder takes one text or number, not a table"),
        ("refiner = ['x']", "refiner takes one text or number, not a list"),
        ("save = true", "save takes one text or number, not true"),
        ("source = [{}]", "source takes texts or numbers, not a table"),
        ("source = [[]]", "source takes texts or numbers, not a list"),
        ("headless = 1", "headless takes true or false"),
        ("detector_file = ''", "detector_file is given an empty text"),
        ("= 1", "is not TOML"),
        ('smooth = "very"', "very"),
        ("on = {happy = 1}", "not a table"),
        ('no-check = "perhaps"', "no-check takes true or false"),
    ):
        (here / "run.toml").write_text(text)
        refused = edgefer("run", "fer-nano", "builtin", "--config", "run.toml", expect=2)
        assert message in refused.stderr and "Traceback" not in refused.stderr


def test_a_typed_source_or_bundle_replaces_those_of_the_file(here, tmp_path):
    config = tmp_path / "run.toml"
    command = get_command(app).commands["run"]

    def read(*typed):
        given = command.make_context("run", ["--config", str(config), *typed]).params
        names = ("inputs", "bundle", "camera", "source")
        return {
            name: [*map(str, [*given[name]] if name != "bundle" else [given[name]])] for name in names if given[name]
        }

    config.write_text('bundle = "fer-nano"\ncamera = [0]\nsource = ["builtin"]\n')
    assert read() == {"bundle": ["fer-nano"], "camera": ["0"], "source": ["builtin"]}
    assert read("one.avi") == {"inputs": ["one.avi"], "bundle": ["fer-nano"]}
    assert read("--camera", "1") == {"camera": ["1"], "bundle": ["fer-nano"]}
    assert read("fer-small") == {"inputs": ["fer-small"], "camera": ["0"], "source": ["builtin"]}
    assert read("--bundle", "fer-small") == {"bundle": ["fer-small"], "camera": ["0"], "source": ["builtin"]}


@pytest.mark.parametrize(
    ("text", "checked"), [("check = false", False), ("no-check = true", False), ("no-check = false", True)]
)
def test_negated_option_in_a_config_file_is_understood(tmp_path, text, checked):
    (tmp_path / "run.toml").write_text(text)
    command = get_command(app).commands["run"]
    assert command.make_context("run", ["--config", str(tmp_path / "run.toml")]).params["check"] is checked


def test_a_run_without_images_does_not_mention_faces():
    from types import SimpleNamespace

    from edgefer.commands import run
    from edgefer.devices.outputs.stats import RunStats

    logged = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgefer.console.log", logged.append)
        run._log_what_was_seen(RunStats(), SimpleNamespace(name="7", left_out=[], unchecked=""), ReaderOptions())
    assert logged == ["Nothing was read: 7 gave no image."]


def test_images_of_a_folder_are_not_stretched_in_a_video(edgefer, here):
    cv2.imwrite(str(here / "a.png"), FRAMES[0])
    cv2.imwrite(str(here / "b.png"), np.full((480, 120, 3), 255, np.uint8))
    for name in ("one.avi", "other.avi", "photo.jpg"):
        (here / name).unlink()
    edgefer("run", "fer-nano", here, "--headless", "--save", "out.avi")
    capture = cv2.VideoCapture("out.avi")
    capture.read()
    _, tall = capture.read()
    white = (tall.min(axis=2) > 128).any(axis=0).sum()
    assert tall.shape[:2] == (360, 480) and abs(white - 90) <= 4, "120x480 in 360 lines is 90 wide"


def test_config_files_of_notepad_and_numbers_of_thousands_of_digits(tmp_path):
    file, command = tmp_path / "run.toml", get_command(app).commands["run"]
    file.write_text("check = false", encoding="utf-8-sig")
    assert command.make_context("run", ["--config", str(file)]).params["check"] is False
    file.write_text(f"frames = {'9' * 5000}")
    with pytest.raises(InputError, match="is not TOML"):
        command.make_context("run", ["--config", str(file)])


def test_image_outside_of_the_region_is_left_out_and_named_at_the_end(edgefer, here):
    for name, width in (("a.png", 300), ("b.png", 90), ("c.png", 300)):
        (here / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(here / "images" / name), np.zeros((120, width, 3), np.uint8))
    done = edgefer("run", "fer-nano", "images", "--roi", "100,0,100x100", "--headless", "--json", expect=1)
    assert [json.loads(line)["source"] for line in done.stdout.splitlines()] == ["a.png", "c.png"]
    assert "b.png: The region 100,0,100x100 is outside" in done.stderr
