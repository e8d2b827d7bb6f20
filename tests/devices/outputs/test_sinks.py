"""Output files: complete CSV rows, videos with correct timing, full disks."""

import csv
import errno
import io
import json
import os
import pickle
import re
import shutil
from copy import deepcopy
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgefer.devices.outputs import overlay
from edgefer.devices.outputs.csvfile import Csv
from edgefer.devices.outputs.lines import Changes, JsonLines
from edgefer.devices.outputs.recorded import read_report
from edgefer.devices.outputs.video import VideoFile
from edgefer.devices.outputs.window import Window
from edgefer.devices.sources.cameras import open_source
from edgefer.errors import EdgeferError, SourceError
from edgefer.records import Face, Frame

LABELS = ("happy", "sad", "neutral")


def rows(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def frames_of(file):
    video = cv2.VideoCapture(str(file))
    count = 0
    while video.read()[0]:
        count += 1
    return count


def test_a_csv_row_for_each_face(make_frame, tmp_path):
    sink = Csv(tmp_path / "out.csv", LABELS)
    for number, labels in enumerate([("happy", ("unsure", "dark")), (), ("sad",)]):
        sink.write(make_frame(number, *labels))
    sink.close()
    first, second, third = rows(tmp_path / "out.csv")
    assert (first["frame"], first["id"], first["label"], first["score"]) == ("0", "1", "happy", "0.8000")
    assert [first[edge] for edge in ("left", "top", "right", "bottom")] == ["0", "5", "16", "25"]
    assert (second["id"], second["label"], second["unsure"]) == ("2", "unsure", "dark")
    assert (third["frame"], third["sad"], third["neutral"]) == ("2", "0.8000", "0.1000")


def test_csv_is_appended_to_and_a_truncated_row_is_removed(make_frame, tmp_path):
    file = tmp_path / "out.csv"
    for number in range(2):
        sink = Csv(file, LABELS)
        sink.write(make_frame(number, "happy"))
        sink.close()
        with file.open("a") as cut:
            cut.write("2026-01-01T00:00")
        file.write_bytes(
            file.read_bytes().replace(b"neutral\n", b"neutral\r\n")
        )  # as a spreadsheet saves the first line
    Csv(file, LABELS).close()
    assert [row["frame"] for row in rows(file)] == ["0", "1"]
    with pytest.raises(SourceError, match="other columns"):
        Csv(file, ("happy", "sad"))
    assert len(rows(file)) == 2


@pytest.mark.parametrize("content", [b"no newline at all", b"time", b"time,frame,x\n", b"\xff\xfe" * 9000, b"\n"])
def test_csv_output_leaves_an_unrelated_file_unchanged(tmp_path, content):
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    if content == b"time":  # what a kill may leave of the first line
        Csv(file, LABELS).close()
        assert rows(file) == [] and file.read_bytes().endswith(b"neutral\n")
    else:
        with pytest.raises(SourceError, match="other columns"):
            Csv(file, LABELS)
        assert file.read_bytes() == content


@pytest.mark.parametrize("path", ["/dev/null", "/tmp"])
def test_path_that_is_not_a_file_is_refused(path):
    with pytest.raises(SourceError, match="name a file"):
        Csv(Path(path), LABELS)


def test_a_label_with_a_comma_is_one_column(make_frame, tmp_path):
    sink = Csv(tmp_path / "out.csv", ("happy", "sad", "so, so"))
    seen = make_frame(0, "happy")
    seen.faces[0].scores["so, so"] = 0.25
    sink.write(seen)
    sink.close()
    (row,) = rows(tmp_path / "out.csv")
    assert row["so, so"] == "0.2500" and None not in row


def test_label_named_like_a_column_gets_its_own_column(make_frame, tmp_path):
    labels = ("unsure", "time")
    sink = Csv(tmp_path / "out.csv", labels)
    face = Face(box_xyxy=(0, 0, 9, 9), scores={"unsure": 0.25, "time": 0.75}, unsure="low score", id=1)
    sink.write(replace(make_frame(0), faces=(face,)))
    sink.close()
    (row,) = rows(tmp_path / "out.csv")
    assert (row["unsure"], row["p_unsure"], row["p_time"]) == ("low score", "0.2500", "0.7500") and None not in row
    assert read_report(tmp_path / "out.csv").labels == labels


@pytest.mark.parametrize(
    "label",
    [
        "=cmd|' /C calc'!A0",
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        " =1",
        "sad\x1b[31m",
        "a\tb",
        "a\nb",
        "\u202esad",
        "a; =1",
        'a;"=1',
    ],
)
def test_cells_hold_no_formulas_or_control_characters(make_frame, tmp_path, label):
    labels = ("happy", label)
    sink = Csv(tmp_path / "out.csv", labels)
    face = Face(box_xyxy=(0, 0, 9, 9), scores={"happy": 0.2, label: 0.8}, unsure="", id=1)
    sink.write(replace(make_frame(0), faces=(face,)))
    sink.close()
    Csv(tmp_path / "out.csv", labels).close()  # it is the same file again
    text = (tmp_path / "out.csv").read_text()
    assert all(character.isprintable() for character in text.replace("\n", "")) and text.count("\n") == 2
    for line in csv.reader(io.StringIO(text)):
        assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in line), line
    assert not re.search(r';[\s"]*[=+@-]', text), "nor where a spreadsheet separates cells by semicolons"
    out, log = io.StringIO(), io.StringIO()
    for sink in (JsonLines(out), Changes(log)):
        sink.write(replace(make_frame(0), faces=(face,)))
    for text in (out.getvalue(), log.getvalue()):
        assert text[:-1].isprintable() and text[-1] == "\n"
    assert json.loads(out.getvalue())["faces"][0]["label"] == label


def test_two_runs_do_not_mix_in_one_csv(make_frame, tmp_path):
    first = Csv(tmp_path / "out.csv", LABELS)
    with pytest.raises(SourceError, match=r"Another edgefer run is writing to .*out\.csv: choose another name"):
        Csv(tmp_path / "out.csv", LABELS)
    first.write(make_frame(0, "happy"))
    first.close()
    Csv(tmp_path / "out.csv", LABELS).close()
    assert len(rows(tmp_path / "out.csv")) == 1


@pytest.mark.parametrize("rotate", [
    lambda file: file.rename(file.with_suffix(".csv.1")), lambda file: file.unlink(), lambda file: file.write_bytes(b""),
])  # fmt: skip
def test_csv_continues_with_a_header_after_a_log_rotation(make_frame, tmp_path, rotate):
    sink = Csv(tmp_path / "out.csv", LABELS)
    sink.write(make_frame(0, "happy"))
    rotate(tmp_path / "out.csv")
    sink.write(make_frame(1, "sad"))
    with pytest.raises(SourceError, match="Another edgefer run is writing"):
        Csv(tmp_path / "out.csv", LABELS)
    sink.close()
    Csv(tmp_path / "out.csv", LABELS).close()  # a restarted run continues it
    assert [row["label"] for row in rows(tmp_path / "out.csv")] == ["sad"] and sink.kept().startswith("1 row")


def test_a_frame_can_be_sent_to_another_process(make_frame):
    frame = make_frame(0, "happy", "sad")
    frame.once("drawn", list)
    for other in (pickle.loads(pickle.dumps(frame)), deepcopy(frame)):
        assert other.to_dict() == frame.to_dict() and np.array_equal(other.image_bgr, frame.image_bgr)
        assert other.once("drawn", lambda: "again") == "again"


def test_frame_converts_to_a_dict_of_its_fields(make_frame):
    converted = asdict(make_frame(3))
    assert set(converted) == {field.name for field in fields(Frame)} and converted["index"] == 3


def test_label_score_and_scores_agree_in_every_output(make_frame, tmp_path):
    from edgefer.devices.outputs.mqtt import state_of

    frame = make_frame(0, "sad", ("unsure", "low score"), score=0.41)
    sink = Csv(tmp_path / "out.csv", LABELS)
    sink.write(frame)
    sink.close()
    reported = frame.to_dict()["faces"]
    for row, face in zip(rows(tmp_path / "out.csv"), reported, strict=True):
        assert row["label"] == face["label"] and float(row["score"]) == face["score"] == max(face["scores"].values())
        assert {label: float(row[label]) for label in LABELS} == face["scores"] and row["unsure"] == face.get(
            "unsure", ""
        )
        top = max(face["scores"], key=face["scores"].get)
        assert face["label"] == ("unsure" if face.get("unsure") else top)
    published = state_of(frame, LABELS)
    assert [(one["label"], one["score"]) for one in published["faces"]] == [
        (one["label"], one["score"]) for one in reported
    ]
    assert (published["label"], published["score"]) == (reported[0]["label"], reported[0]["score"])


def test_csv_stays_valid_if_a_row_is_written_only_in_part(make_frame, tmp_path):
    sink = Csv(tmp_path / "out.csv", LABELS)
    sink.write(make_frame(0, "happy"))

    class Full:
        """The file on a disk with ten bytes left."""

        def __getattr__(self, name):
            return getattr(file, name)

        def write(self, data):
            return file.write(data[:10])

    file, sink._file = sink._file, Full()
    with pytest.raises(OSError) as caught:
        sink.write(make_frame(1, "happy"))
    assert caught.value.errno == errno.ENOSPC
    sink.close()
    assert [row["frame"] for row in rows(tmp_path / "out.csv")] == ["0"]
    assert (tmp_path / "out.csv").read_bytes().endswith(b"\n")


def test_video_is_finished_before_the_disk_is_full(make_frame, tmp_path, monkeypatch):
    free = iter([10**9] * 21 + [10**6] * 9)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=1 << 40, free=next(free)))
    sink = VideoFile(tmp_path / "out.avi", 10)
    with pytest.raises(EdgeferError, match="disk is full"):
        for number in range(100):
            sink.write(make_frame(number))
    sink.close()
    assert frames_of(tmp_path / "out.avi") == number == 20
    assert not list(tmp_path.glob(".edgefer*"))


def test_full_disk_is_reported_at_once_and_no_file_is_left(make_frame, tmp_path, monkeypatch):
    free = [10**6]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=1 << 40, free=free[0]))
    with pytest.raises(
        SourceError, match=r"out.mp4 cannot be written: the disk is full .less than 20 MB free.\. Make room"
    ):
        VideoFile(tmp_path / "out.mp4", 10)
    free[0] = 10**9
    sink = VideoFile(tmp_path / "out.mp4", 10)
    free[0] = 10**6
    with pytest.raises(EdgeferError, match="disk is full"):
        sink.write(make_frame(0))
    sink.close()
    assert not list(tmp_path.iterdir())


def test_csv_stops_before_the_disk_is_full(make_frame, tmp_path, monkeypatch):
    sink = Csv(tmp_path / "out.csv", LABELS)
    sink.write(make_frame(0, "happy"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=1 << 40, free=10**6))
    with pytest.raises(EdgeferError, match="less than 20 MB free"):
        sink.write(make_frame(1, "happy"))
    sink.close()
    assert [row["frame"] for row in rows(tmp_path / "out.csv")] == ["0"]


def test_video_name_may_contain_a_colon(make_frame, tmp_path, monkeypatch):
    """FFmpeg would take the part before the colon for a protocol."""
    monkeypatch.chdir(tmp_path)
    sink = VideoFile(Path("10:30.mp4"), 10)
    for number in range(3):
        sink.write(make_frame(number))
    sink.close()
    with open_source("10:30.mp4") as source:
        assert len(list(source)) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["10:30.mp4"]


def test_video_that_could_not_be_finished_is_removed(make_frame, tmp_path):
    sink = VideoFile(tmp_path / "out.avi", 10)
    for number in range(5):
        sink.write(make_frame(number))
    sink.partial.file.unlink()
    sink.partial.file.write_bytes(b"truncated by a full disk")
    with pytest.raises(EdgeferError, match="could not be finished"):
        sink.close()
    assert not list(tmp_path.iterdir())


def test_live_video_plays_at_real_speed(make_frame, tmp_path):
    """A 10 frames/s camera is read at 5, then at 20 frames/s, then unplugged for a minute; in a file, that pause is real."""
    moments = [*np.arange(0, 2, 0.2), *np.arange(2, 4, 0.05), 64.0]
    for live, seconds in ((True, (4.5, 5.5)), (False, (63.5, 64.5))):
        file = tmp_path / f"{live}.avi"
        sink = VideoFile(file, 10, live=live)
        for number, time_s in enumerate(moments):
            sink.write(make_frame(number, time_s=float(time_s)))
        sink.close()
        assert seconds[0] <= frames_of(file) / 10 <= seconds[1]


def test_unwritable_folder_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SourceError, match="may not write"):
        VideoFile(tmp_path / "out.mp4", 10)
    with pytest.raises(SourceError, match="no folder"):
        Csv(tmp_path / "none" / "out.csv", LABELS)


def test_annotated_image_is_drawn_once_and_only_on_demand(make_frame, monkeypatch):
    drawn = []
    monkeypatch.setattr(overlay, "draw", lambda image, faces: drawn.append(faces) or image)
    seen = make_frame(0, "happy")
    assert not drawn
    assert overlay.View().annotated(seen) is overlay.View().annotated(seen) and drawn == [seen.faces]


def test_lines_for_programs_and_for_people(make_frame):
    out, log = io.StringIO(), io.StringIO()
    for number, labels in enumerate([(), ("happy",), ("happy",), ("sad", ("unsure", "dark"))]):
        JsonLines(out).write(make_frame(number, *labels))
    assert [len(json.loads(line)["faces"]) for line in out.getvalue().splitlines()] == [0, 1, 1, 2]
    changes = Changes(log)
    for number, labels in enumerate([(), ("happy",), ("happy",), ("sad", ("unsure", "dark"))]):
        changes.write(make_frame(number, *labels))
    assert log.getvalue().splitlines() == [
        "    0.00 s  no face",
        "    0.10 s  happy 80%",
        "    0.30 s  sad 80%, unsure (dark)",
    ]


def test_json_lines_can_hold_the_network_and_the_time_of_day(make_frame):
    out = io.StringIO()
    JsonLines(out, network="fer-small 19458d2a38b6", clock=True).write(make_frame(0, "happy"))
    line = json.loads(out.getvalue())
    assert line["network"] == "fer-small 19458d2a38b6" and [*line][:1] == ["time"] and [*line][-1:] == ["faces"]
    assert abs(datetime.fromisoformat(line["time"]) - datetime.now(UTC)) < timedelta(seconds=60)


def test_unavailable_display_is_detected(monkeypatch, tmp_path):
    monkeypatch.setenv("DISPLAY", ":4077")
    assert not Window.possible()
    (tmp_path / "cv2.py").write_text("namedWindow = waitKey = print")
    monkeypatch.chdir(tmp_path)
    assert not Window.possible(), "a file in the current folder is not OpenCV"


def test_rows_of_a_csv_that_has_been_removed_are_not_said_to_be_kept(tmp_path, make_frame):
    sink = Csv(tmp_path / "out.csv", ("happy", "sad"))
    sink.write(make_frame(0, "happy"))
    assert sink.kept() == "1 row of this run is in it" and "1 row of this run" in sink.summary()
    (tmp_path / "out.csv").unlink()
    sink.close()
    assert sink.kept() == sink.summary() == ""
