"""Actions on an expression: hold and pause, commands without a shell, snapshots, and blurred faces."""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefer.devices.outputs import actions
from edgefer.devices.outputs.actions import CommandOn, SnapshotOn, Timing, Trigger, parse_command, parse_on
from edgefer.devices.outputs.feeds import Feed
from edgefer.devices.outputs.overlay import View, draw, drawable, text_height
from edgefer.devices.outputs.video import VideoFile
from edgefer.errors import InputError, SourceError

LABELS = ("happy", "sad", "neutral")


def fired(make_frame, labels, timing, step_s=0.1):
    """The frames at which `happy` fires, of frames with these labels."""
    trigger = Trigger("happy", timing)
    frames = (make_frame(n, *([label] if label else []), time_s=n * step_s) for n, label in enumerate(labels))
    return [frame.index for frame in frames if trigger.fires(frame)]


def test_label_fires_after_its_hold_time_and_once_per_appearance(make_frame):
    once = Timing(hold_s=0.5, pause_s=0)
    assert fired(make_frame, ["happy"] * 40, once) == [5]
    assert fired(make_frame, ["happy", "sad"] * 20, once) == [], "a flicker does not fire"
    assert fired(make_frame, ["happy"] * 10 + ["sad"] * 3 + ["happy"] * 10, once) == [5, 18]
    assert fired(make_frame, ["happy"] * 10 + [""] * 3 + ["happy"] * 10, once) == [5, 18]
    assert fired(make_frame, ["happy"], Timing(hold_s=0, pause_s=0)) == [0]
    slow = Timing(hold_s=0, pause_s=2)
    assert fired(make_frame, ["happy", "sad"] * 25, slow) == [0, 20, 40]


def test_each_image_of_a_folder_replaces_the_one_before(make_frame):
    trigger, names = Trigger("happy", Timing(hold_s=0, pause_s=0)), ["happy", "sad", "happy", "sad", "happy"]
    frames = [replace(make_frame(n, label, time_s=n), source=f"{n}.jpg") for n, label in enumerate(names)]
    assert [frame.index for frame in frames if trigger.fires(frame)] == [0, 2, 4]


def test_each_still_image_counts_as_a_new_appearance(make_frame):
    trigger = Trigger("happy", Timing(stills=True))
    frames = [make_frame(n, label, time_s=n) for n, label in enumerate(["happy", "happy", "sad", "happy"])]
    assert [frame.index for frame in frames if trigger.fires(frame)] == [0, 1, 3]


def test_all_snapshots_of_a_file_are_saved_even_to_a_slow_disk(make_frame, monkeypatch, tmp_path):
    write = actions.write_image
    monkeypatch.setattr(actions, "write_image", lambda *given: (time.sleep(0.02), write(*given)))
    sink = SnapshotOn("happy", tmp_path / "out", Timing(stills=True))
    feed = Feed(sink, wait=sink.every_frame)  # as the command does for a file
    for number in range(40):
        feed.write(make_frame(number, "happy"))
    feed.close()
    assert sink.saved == 40 and feed.dropped == 0


def test_a_source_is_not_paused_by_one_that_is_further_ahead_in_its_own_time(make_frame):
    """As a camera beside a video, which is read as fast as it can be."""
    trigger = Trigger("happy", Timing(hold_s=0, pause_s=5))
    film = [make_frame(n, label, time_s=600 + n) for n, label in enumerate(("happy", "sad"))]
    camera = [replace(make_frame(n, "happy", time_s=60 + n), stream=1) for n in range(3)]
    assert [frame.time_s for frame in (*film, *camera) if trigger.fires(frame)] == [600, 60]


def test_pause_is_measured_by_each_source_s_own_clock(make_frame):
    trigger = Trigger("happy", Timing(hold_s=0, pause_s=2))
    happy = {0: (5, 100), 1: (6, 50, 102)}  # frames; the first source is a recording whose clock begins at 10 hours
    both = [
        replace(make_frame(n, *["happy"] * (n in happy[k]), time_s=began_s + n / 10), stream=k, source=str(k))
        for n in range(120)
        for k, began_s in ((0, 36000), (1, 0))
    ]
    assert [(frame.stream, frame.index) for frame in both if trigger.fires(frame)] == [(0, 5), (1, 50), (0, 100)]


def test_a_stream_that_ends_or_is_unplugged_does_not_hold_up_the_others(make_frame):
    trigger = Trigger("happy", Timing(hold_s=0.5, pause_s=0))
    both = [replace(make_frame(n, "happy"), stream=k, source=str(k)) for n in range(100) for k in (0, 1)]
    assert [(frame.stream, frame.index) for frame in both if trigger.fires(frame)] == [(0, 5)], "one appearance"
    labels = ["sad"] * 120 + ["happy"] * 20 + ["sad"] * 20 + ["happy"] * 20
    alone = [replace(make_frame(n, label), stream=1, source="1") for n, label in enumerate(labels, 100)]
    assert [frame.index for frame in alone if trigger.fires(frame)] == [225, 265]


def test_command_gets_its_data_only_through_environment_variables(make_frame, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEFER_TOKEN", "secret")
    monkeypatch.setenv("EDGEFER_MQTT_PASSWORD", "secret")
    out = tmp_path / "out"
    label = "$(touch hacked); `id`\n"
    program = "import os, sys, json; json.dump([sys.argv[1:], {k: v for k, v in os.environ.items() if 'EDGEFER' in k}], open(sys.argv[1], 'w'))"
    sink = CommandOn(label, [sys.executable, "-c", program, str(out), "; rm -rf /"], Timing(hold_s=0, pause_s=0))
    sink.write(make_frame(3, label))
    deadline = time.monotonic() + 20
    while not (out.exists() and out.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.1)
    arguments, environment = json.loads(out.read_text())
    assert arguments == [str(out), "; rm -rf /"] and not list(tmp_path.glob("hacked"))
    assert environment["EDGEFER_LABEL"] == "$(touch hacked); `id`\\n" and environment["EDGEFER_SCORE"] == "0.8000"
    assert environment["EDGEFER_ID"] == "1" and environment["EDGEFER_TIME_S"] == "0.300"
    assert not {"EDGEFER_TOKEN", "EDGEFER_MQTT_PASSWORD"} & set(environment)


def until(condition, sink, frame):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        sink.write(frame)
        time.sleep(0.02)


def test_failed_or_hung_command_is_logged_and_killed_with_its_children(make_frame, monkeypatch, tmp_path):
    log = []
    sink = CommandOn("happy", ["false"], Timing(hold_s=0, pause_s=0), log=log.append)
    sink.write(make_frame(0, "happy"))
    until(lambda: sink.trouble, sink, make_frame(1))
    assert log == ["--on happy: false ended with exit code 1."] and sink.errors == 1
    monkeypatch.setattr(actions, "COMMAND_S", 0.1)
    log.clear()
    sink = CommandOn("happy", ["sleep", "60"], Timing(hold_s=0, pause_s=0), log=log.append)
    began = time.monotonic()
    for number in range(20):  # more than may run at a time
        sink.write(make_frame(number, *(["happy"] if number % 2 else [])))
    assert time.monotonic() - began < 2
    until(lambda: not sink._running, sink, make_frame(30))
    assert sorted(set(log)) == [
        "--on happy: sleep is still running 4 times, so it was not started again.",
        "--on happy: sleep took longer than 0 s and was killed.",
    ]
    script = ["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/partial; mv {tmp_path}/partial {tmp_path}/child; wait"]
    sink = CommandOn("happy", script, Timing(hold_s=0, pause_s=0), log=log.append)
    monkeypatch.setattr(actions, "COMMAND_S", 60)
    sink.write(make_frame(40, "happy"))
    until((tmp_path / "child").exists, sink, make_frame(41))
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    assert child.exists()
    monkeypatch.setattr(actions, "COMMAND_S", 0.1)
    until(
        lambda: not child.exists() or child.read_text().split()[2] == "Z", sink, make_frame(42)
    )  # ended, if not reaped
    gone = CommandOn("happy", ["/none/program"], Timing(hold_s=0, pause_s=0), log=log.append)
    gone.write(make_frame(0, "happy"))
    assert "cannot be run: No such file" in gone.trouble


def test_invalid_actions_are_refused_at_the_start(tmp_path):
    assert parse_on("happy=say 'hello you' --loud", "--on", LABELS) == ("happy", "say 'hello you' --loud")
    assert parse_on("unsure=x", "--on", LABELS) == ("unsure", "x")
    assert parse_on("(unsure)=x", "--on", ("unsure", "happy")) == ("(unsure)", "x")
    for option, form in {"--on": "LABEL=COMMAND", "--snapshot-on": "LABEL=FOLDER"}.items():
        with pytest.raises(InputError, match=f"{option} 'happy' must be {form}, such as {option} happy="):
            parse_on("happy", option, LABELS)
    for wrong in ("happy", "happy=", "=x", "joy=x"):
        with pytest.raises(InputError, match=r"LABEL=|no such label\. Choose happy, sad, neutral, unsure"):
            parse_on(wrong, "--on", LABELS)
    assert parse_command("true 'a b'") == ["true", "a b"]
    (tmp_path / "play.sh").touch(mode=0o644)
    with pytest.raises(InputError, match=r"play\.sh is not a program yet: run `chmod \+x` on it"):
        parse_command(f"{tmp_path}/play.sh loud")
    for wrong in ("no-such-program x", "true 'a", " "):
        with pytest.raises(InputError, match=r"no program|cannot be read"):
            parse_command(wrong)


def test_snapshot_folder_is_created(tmp_path):
    SnapshotOn("happy", tmp_path / "new", Timing())
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").touch()
    for place in ("none/deeper", "file", "a\0b", "n" * 300):
        with pytest.raises(SourceError, match=r"The folder .* cannot be made .*: name another one"):
            SnapshotOn("happy", tmp_path / place, Timing())


def test_snapshots_are_complete_images_with_safe_names(make_frame, tmp_path):
    label = "../../happy"
    sink = SnapshotOn(label, tmp_path, Timing(hold_s=0, pause_s=0))
    for number in range(6):
        sink.write(make_frame(number, *([label] if number in (1, 2, 4) else [])))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2 and all(cv2.imread(str(file)).shape == (48, 64, 3) for file in files)
    assert all(file.suffix == ".jpg" and "_happy-" in file.name for file in files) and "2 images" in sink.kept()


def test_blurred_faces_are_pixelated_in_every_output(make_frame, tmp_path):
    frame = make_frame(0, "happy", size=(320, 240))
    rng = np.random.default_rng(0)
    frame.image_bgr[:] = rng.integers(0, 255, frame.image_bgr.shape, np.uint8)
    view, before = View(blur_faces=True), frame.image_bgr.copy()
    left, top, right, bottom = frame.faces[0].box_xyxy
    inside = view.plain(frame)[top:bottom, left:right]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= 36
    assert (view.annotated(frame) == draw(view.plain(frame), frame.faces)).all()
    assert (frame.image_bgr == before).all(), "the network's image is left alone"
    sink = VideoFile(tmp_path / "out.png", 10, view=view)
    sink.write(frame)
    sink.close()
    assert (cv2.imread(str(tmp_path / "out.png")) == view.annotated(frame)).all()


@pytest.mark.parametrize(
    ("size", "smallest", "largest"), [((320, 240), 10, 12), ((1280, 720), 12, 16), ((3840, 2160), 36, 50)]
)
def test_text_size_follows_the_image_size(make_frame, size, smallest, largest):
    frame = make_frame(0, "happy", size=size)
    assert smallest <= text_height(frame.image_bgr) <= largest
    shown = View().annotated(frame)
    changed = np.flatnonzero((shown != frame.image_bgr).any(axis=(1, 2)))
    assert len(changed) > 3 * text_height(frame.image_bgr), "title, box and named bars"


def test_faces_at_every_edge_can_be_drawn(make_frame):
    from dataclasses import replace

    frame = make_frame(0, "happy", size=(100, 80))
    for box in (
        (-20, -20, 30, 30),
        (80, 60, 130, 110),
        (0, 0, 100, 80),
        (99, 79, 100, 80),
        (-50, -50, -10, -10),
        (0, 0, 0, 0),
        (-9, 10, 9**5, 20),
    ):
        faces = tuple(replace(face, box_xyxy=box) for face in frame.faces)
        for view in (View(), View(blur_faces=True)):
            assert view.annotated(replace(frame, faces=faces)).shape == (80, 100, 3)


def test_labels_are_reduced_to_drawable_characters():
    assert drawable("fröhlich") == "frohlich" and drawable("sad\x1b[31m") == "sad\\x1b[31m" and drawable("喜") == "?"
    assert os.linesep not in drawable("a\nb")
