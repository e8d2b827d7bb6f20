"""The device side: sources, the loop and its outputs."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from edgefer import drawn
from edgefer.commands.run import _no_face
from edgefer.devices import loop
from edgefer.devices.faces.detectors import HaarDetector
from edgefer.devices.outputs.overlay import draw
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.session import Session
from edgefer.devices.sources.cameras import open_camera, open_source
from edgefer.errors import IncompleteError, SourceError
from edgefer.interpreter import Classifier
from edgefer.options import ReaderOptions
from edgefer.records import Face, Frame


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Twenty frames of drawn faces over ten seconds, so that many expressions occur, as an MP4."""
    file = tmp_path_factory.mktemp("video") / "faces.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 2, (480, 360))
    for frame, _ in drawn.scene(seconds=10, fps=2):
        writer.write(frame.image_bgr)
    writer.release()
    return file


def test_video_frames_are_read_in_order(video):
    with open_source(str(video)) as source:
        assert source.fps == 2 and not source.live
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(20))
    assert frames[-1].time_s == pytest.approx(9.5)
    assert frames[0].image_bgr.shape == (360, 480, 3)


def test_images_are_read_in_name_order_and_a_bad_one_is_named(tmp_path):
    for name in ("b", "a"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 30, 3), ord(name), np.uint8))
    with open_source(str(tmp_path)) as source:
        assert [int(frame.image_bgr[0, 0, 0]) for frame in source] == [ord("a"), ord("b")]
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    with open_source(str(tmp_path)) as source, pytest.raises(IncompleteError, match=r"c\.jpg is not an image"):
        list(source)


def test_a_video_without_frames_is_an_error_not_an_empty_result(tmp_path, video):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(SourceError, match=r"cut\.mp4"), open_source(str(cut)) as source:
        list(source)


def test_run_writes_one_json_line_per_frame_and_the_whole_video(edgefer, converted, video, tmp_path):
    saved = tmp_path / "out.mp4"
    done = edgefer("run", converted.path, "--source", video, "--headless", "--json", "--save", saved)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == list(range(20))
    assert lines[3]["time_s"] == pytest.approx(1.5)
    truths = drawn.scene_truths(seconds=10, fps=2)
    right = total = 0
    for line, truth in zip(lines, truths, strict=True):
        assert len(line["faces"]) == len(truth)
        for face in line["faces"]:
            assert set(face) - {"unsure"} == {"id", "box_xyxy", "label", "score", "scores"}
            assert face["label"] == "unsure" or face["score"] == face["scores"][face["label"]]
            assert list(face["scores"]) == list(drawn.EXPRESSIONS)
            middle = (face["box_xyxy"][0] + face["box_xyxy"][2]) / 2
            (there,) = (t for t in truth if t.box_xyxy[0] < middle < t.box_xyxy[2])
            right += face["label"] == there.label
            total += 1
    assert right / total > 0.85
    assert "20 frames" in done.stderr and "detect" in done.stderr and f"Saved {saved}" in done.stderr
    with open_source(str(saved)) as source:
        annotated = list(source)
    assert len(annotated) == 20
    assert not list(tmp_path.glob(".partial*"))


def test_run_on_an_image_saves_an_image(edgefer, converted, tmp_path):
    frame, _ = next(drawn.scene())
    cv2.imwrite(str(tmp_path / "in.png"), frame.image_bgr)
    edgefer("run", converted.path, "--source", tmp_path / "in.png", "--headless", "--save", tmp_path / "out.png")
    annotated = cv2.imread(str(tmp_path / "out.png"))
    assert annotated.shape == frame.image_bgr.shape
    assert (annotated != frame.image_bgr).any(axis=2).sum() > 500


def test_no_face_is_reported_and_is_not_an_error(edgefer, converted, tmp_path):
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 300, 3), 120, np.uint8))
    done = edgefer("run", converted.path, "--source", tmp_path / "wall.png", "--json")
    line = json.loads(done.stdout)
    assert line.pop("detector").startswith(("own (face-finder ", "yunet ("))
    assert line.pop("network").startswith("demo ")
    assert line == {"frame": 0, "time_s": 0.0, "source": "wall.png", "faces": []}
    assert "No face was found: faces must look at the camera and fill at least a tenth of the image's" in done.stderr
    assert "no display for a window: running without one" in done.stderr


def test_why_no_face_was_found_follows_from_the_options():
    assert "measure at least 400 pixels (--min-face)" in _no_face(ReaderOptions(min_face=400))
    assert "a tenth of the region's longer side" in _no_face(ReaderOptions(roi=(0, 0, 9, 9)))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_cleanly_and_finishes_its_files(converted, tmp_path, ending):
    saved, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    command = [sys.executable, "-c", "from edgefer.cli import main; main()", "run", str(converted.path)]
    command += ["--source", "builtin", "--headless", "--json", "--save", str(saved)]
    command += ["--csv", str(table)]
    # Under nohup these tests ignore SIGHUP, and so would the processes they start.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    lines = [process.stdout.readline() for _ in range(5)]
    began = time.monotonic()
    os.kill(process.pid, ending)
    lines += process.stdout.readlines()  # not communicate(), which loses what readline has buffered
    stderr = process.stderr.read()
    process.wait(timeout=10)
    assert time.monotonic() - began < 2
    assert process.returncode == 0 and "frames/s" in stderr and "Traceback" not in stderr
    with open_source(str(saved)) as source:
        assert 5 <= len(list(source)) < 120
    last = json.loads(lines[-1])
    rows = list(csv.DictReader(table.open()))
    assert table.read_text().endswith("\n") and int(rows[-1]["frame"]) == last["frame"]


def test_stages_account_for_the_whole_time(converted):
    with open_source("builtin") as source:
        summary = loop.run(source, Session(Classifier.load(converted), HaarDetector()), [], frames=10, overlap=False)
    assert summary.frames == summary.frames_with_faces == 10 and summary.faces == 20
    assert sum(summary.stage_ms().values()) / 100 == pytest.approx(summary.seconds, rel=0.05)
    assert set(summary.stage_ms()) == set(loop.STAGES)
    assert sum(summary.labels.values()) == 20


def test_sinks_are_closed_when_the_loop_fails(converted):
    class Broken(Sink):
        ended = False

        def write(self, frame):
            raise SourceError("full")

        def close(self):
            self.ended = True

    sink = Broken()
    with open_source("builtin") as source, pytest.raises(SourceError):
        loop.run(source, Session(Classifier.load(converted), HaarDetector()), [sink])
    assert sink.ended


def test_overlay_draws_within_the_frame_and_leaves_the_original():
    image = np.zeros((120, 160, 3), np.uint8)
    scores = dict.fromkeys(drawn.EXPRESSIONS, 0.05) | {"happy": 0.7}
    corner = [Face(box_xyxy=box, scores=scores) for box in ((-20, -10, 60, 70), (120, 80, 200, 160))]
    drawn_on = draw(image, corner)
    assert not image.any() and drawn_on.any()
    assert draw(image, []).any() == np.False_


@pytest.mark.camera
def test_a_real_camera_gives_frames():
    with open_camera(0) as source:
        frames = [frame for frame, _ in zip(source, range(5), strict=False)]
    assert isinstance(frames[4], Frame) and frames[4].image_bgr.any()
