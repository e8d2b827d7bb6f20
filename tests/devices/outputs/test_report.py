"""`edgefer report`: from a CSV of a run, possibly untrusted, to one HTML page."""

import re
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from edgefer.devices.outputs import recorded, rows
from edgefer.devices.outputs.csvfile import COLUMNS, Csv
from edgefer.devices.outputs.recorded import read_report
from edgefer.devices.outputs.report import to_html
from edgefer.errors import InputError

LABELS = ("happy", "sad", "neutral")
HEADER = ",".join((*COLUMNS, *LABELS)) + "\n"


@pytest.fixture
def saved(make_frame, tmp_path):
    """The CSV of two runs: six seconds happy, then four sad; and a short one."""
    file = tmp_path / "run.csv"
    for lengths in ((60, 40), (5, 0)):
        sink = Csv(file, LABELS)
        for number in range(sum(lengths)):
            sink.write(make_frame(number, "happy" if number < lengths[0] else "sad"))
        sink.close()
    return file


def test_report_has_shares_moments_and_runs(saved):
    found = read_report(saved)
    first, second = found.runs
    assert first.labels == {"happy": 60, "sad": 40} and second.labels == {"happy": 5}
    assert [(one.label, round(one.seconds, 1)) for one in sorted(first.moments, key=lambda one: one.start_s)] == [
        ("happy", 5.9), ("sad", 3.9),
    ]  # fmt: skip
    assert first.moments[0].mean_score == pytest.approx(0.8) and not found.bad
    assert [*first.lanes[1].stretches()] == [(0, 60, "happy"), (60, 100, "sad")] and first.faces == {1: 100}
    page = to_html(found, "run.csv")
    assert "60.0%" in page and "105 faces read, counting each frame" in page and page.count("<svg") == 2


@pytest.fixture
def write_runs(tmp_path):
    """Write a CSV of several runs, each a list of spans: (first frame, last frame, the face's id), ten frames per second.
    slowness: seconds by the clock per second of the source."""

    def write(*runs, slowness=1):
        began, lines = datetime(2026, 11, 27, 10), []
        for spans in runs:
            for number, face in sorted((n, face) for first, last, face in spans for n in range(first, last + 1)):
                clock = began + timedelta(seconds=number * slowness / 10)
                lines.append(f"{clock},{number},{number / 10},{face},0,0,9,9,happy,0.8,,0,0.8,0.1,0.1\n")
            began = clock + timedelta(seconds=5)
        (tmp_path / "run.csv").write_text(HEADER + "".join(lines))
        return tmp_path / "run.csv"

    write.file = tmp_path / "run.csv"
    return write


def test_a_restart_within_seconds_is_another_run_even_if_its_first_face_comes_late(write_runs):
    file = write_runs([(10, 50, 1)], [(300, 330, 1)])
    assert [run.rows for run in read_report(file).runs] == [41, 31]


def test_a_restart_whose_first_face_comes_soon_is_another_run_by_the_clock(write_runs):
    assert [run.rows for run in read_report(write_runs([(10, 50, 1)], [(70, 90, 1)])).runs] == [41, 21]
    file = write_runs([(10, 50, 1), (70, 90, 1)])
    assert [run.rows for run in read_report(file).runs] == [62], "a slow disk cost the rows in between"
    file.write_text(file.read_text().replace("2026-11-27", "someday"))
    assert [run.rows for run in read_report(file).runs] == [62]


@pytest.mark.parametrize("slowness", [1, 60, 1000])
def test_a_run_without_a_face_for_long_is_one_run_however_slowly_it_is_read(write_runs, slowness):
    file = write_runs([(10, 50, 1), (300, 330, 2), (50000, 50030, 3)], slowness=slowness)
    assert [run.rows for run in read_report(file).runs] == [103]


def test_a_length_is_rounded(make_frame, tmp_path):
    sink = Csv(tmp_path / "run.csv", LABELS)
    for number in range(40):
        sink.write(make_frame(number, "happy"))
    sink.close()
    page = to_html(read_report(tmp_path / "run.csv"), "run.csv")
    assert "0:04 long" in page and ">0:00<" in page and ">0:02<" in page and ">0:04<" in page  # 3.9 s


def test_each_face_has_a_lane_whichever_is_larger_and_its_bars_touch(make_frame, tmp_path):
    sink = Csv(tmp_path / "run.csv", LABELS)
    for number in range(50, 350):
        frame = make_frame(number, "happy" if number < 200 else "neutral", "sad")
        sink.write(replace(frame, faces=frame.faces[:: -1 if number % 2 else 1]))
    sink.close()
    (run,) = read_report(tmp_path / "run.csv").runs
    assert {face: [*lane.stretches()] for face, lane in run.lanes.items()} == {
        1: [(0, 120, "happy"), (120, 240, "neutral")], 2: [(0, 240, "sad")],
    }  # fmt: skip
    page = to_html(read_report(tmp_path / "run.csv"), "run.csv")
    bars = re.findall(r'<rect x="(\d+)" y="0" width="(\d+)" height="\d+" fill="#\w+"><title>(\w+)', page)
    assert [label for *_, label in bars] == ["happy", "neutral"] and sum(map(int, bars[0][:2])) == int(bars[1][0])
    assert ">face 1<" in page and ">face 2<" in page and "not drawn" not in page
    assert ">0:05<" in page and ">0:20<" in page and ">0:35<" in page, "times of the video, as in the table"


def test_a_face_that_left_and_came_back_has_a_gap_and_missed_frames_have_none(write_runs):
    (run,) = read_report(write_runs([(0, 99, 1), (150, 199, 1), (0, 199, 2)])).runs
    assert [*run.lanes[1].stretches()] == [(0, 100, "happy"), (150, 200, "happy")]
    lines = write_runs([(0, 199, 1)]).read_text().splitlines(keepends=True)
    write_runs.file.write_text(lines[0] + "".join(lines[1::7]))  # a live camera drops frames
    (run,) = read_report(write_runs.file).runs
    assert [*run.lanes[1].stretches()] == [(0, run.bins, "happy")]


def test_of_many_faces_those_seen_most_are_drawn_and_the_rest_are_counted(write_runs):
    file = write_runs([(0, 99 + (face % 2), face) for face in range(1, 31)])
    (run,) = read_report(file).runs
    assert list(run.lanes) == list(range(1, 24, 2)) and len(run.lanes) == rows.MAX_LANES
    assert "18 faces seen in fewer frames are not drawn" in to_html(read_report(file), "run.csv")


def test_the_longest_moment_comes_first(make_frame, tmp_path):
    sink = Csv(tmp_path / "run.csv", LABELS)
    for number in range(100):
        sink.write(make_frame(number, "happy" if number < 20 else "sad" if number < 70 else "neutral"))
    sink.close()
    page = to_html(read_report(tmp_path / "run.csv"), "run.csv")
    assert re.findall(r'<td class="n">(\d\.\d)</td>', page) == ["4.9", "2.9", "1.9"]


def test_label_named_unsure_is_counted_apart_from_unsure_faces(make_frame, tmp_path):
    sink = Csv(tmp_path / "run.csv", ("unsure", "sad"))
    for number in range(60):
        label = "unsure" if number < 40 else ("unsure", "dark")
        sink.write(make_frame(number, label, known=("unsure", "sad")))
    sink.close()
    found = read_report(tmp_path / "run.csv")
    assert found.runs[0].labels == {"unsure": 40, "(unsure)": 20}
    assert [one.label for one in found.runs[0].moments] == ["unsure"], "an unsure face is no moment"
    assert "(unsure)" in to_html(found, "run.csv")


def test_run_without_a_sure_face_has_no_empty_table(make_frame, tmp_path):
    sink = Csv(tmp_path / "run.csv", LABELS)
    for number in range(20):
        sink.write(make_frame(number, ("sad", "dark"), known=LABELS))
    sink.close()
    page = to_html(read_report(tmp_path / "run.csv"), "run.csv")
    assert "<p>none: no face" in page and '<th class="n">at</th>' not in page


def test_one_photo_has_shares_and_no_timeline(make_frame, tmp_path):
    sink = Csv(tmp_path / "photo.csv", LABELS)
    sink.write(make_frame(0, "happy", "sad"))
    sink.close()
    page = to_html(read_report(tmp_path / "photo.csv"), "photo.csv")
    assert "one image, read at" in page and "50.0%" in page
    assert "<svg" not in page and "Longest" not in page and "0:00" not in page


def test_two_sources_of_one_run_are_two_timelines(make_frame, tmp_path):
    sink = Csv(tmp_path / "run.csv", LABELS)
    for number in range(30):
        for source, label in (("desk", "happy"), ("door", "sad")):
            sink.write(replace(make_frame(number, label), source=source))
    sink.close()
    desk, door = read_report(tmp_path / "run.csv").runs
    assert desk.labels == {"happy": 30} and door.labels == {"sad": 30}
    assert [(one.label, round(one.seconds, 1)) for one in desk.moments + door.moments] == [("happy", 2.9), ("sad", 2.9)]
    page = to_html(read_report(tmp_path / "run.csv"), "run.csv")
    assert page.count("<svg") == 2 and "<h2>desk, read at" in page and "<h2>door, read at" in page


def test_a_folder_of_images_has_shares_of_all_and_no_timeline(make_frame, tmp_path):
    sink = Csv(tmp_path / "run.csv", LABELS)
    for number, label in enumerate(("happy", "sad", "sad", "sad")):
        sink.write(replace(make_frame(number, label), source=f"{number}.jpg"))
    sink.close()
    (images,) = read_report(tmp_path / "run.csv").runs
    assert images.labels == {"happy": 1, "sad": 3} and images.images == 4
    page = to_html(read_report(tmp_path / "run.csv"), "run.csv")
    assert "<h2>4 images, read at" in page and "<svg" not in page and "Longest" not in page


def test_a_time_lapse_is_one_run_with_moments_though_its_rows_are_far_apart(tmp_path):
    rows = [f"2026-11-27T10:0{n},{n},{60 * n},2,0,0,9,9,happy,0.8,,0,0.8,0.1,0.1\n" for n in (0, 1, 2, 4, 5)]
    (tmp_path / "run.csv").write_text(HEADER + "".join(rows))
    (run,) = read_report(tmp_path / "run.csv").runs
    assert sorted(moment.seconds for moment in run.moments) == [60, 120]


def test_the_command_writes_the_page_beside_the_file(edgefer, saved):
    done = edgefer("report", saved)
    assert f"Wrote {saved.with_suffix('.html')}" in done.stdout and saved.with_suffix(".html").read_text().startswith(
        "<!doctype"
    )
    other = saved.with_name("other.csv")
    other.write_text(saved.read_text())
    assert edgefer("report", saved, other).stdout.count("Wrote ") == 2
    assert "2 files are named" in edgefer("report", saved, other, "--out", "x.html", expect=2).stderr
    assert "not a CSV that `edgefer run --csv` wrote" in edgefer("report", saved.with_suffix(".html"), expect=2).stderr
    assert "There is no file" in edgefer("report", "none.csv", expect=2).stderr
    assert "There is no folder" in edgefer("report", saved, "--out", "/none/x.html", expect=2).stderr
    rotated = saved.rename(saved.with_name("run.csv-20261128"))  # as logrotate names it
    edgefer("report", rotated)
    assert rotated.with_name("run.csv-20261128.html").is_file()


def test_an_earlier_page_is_replaced_and_no_other_file(edgefer, saved):
    page = saved.with_suffix(".html")
    edgefer("report", saved)
    first = page.read_text()
    with saved.open("a") as opened:  # one more run
        opened.write("2026-11-27T10:00:00.000Z,0,0.0,1,0,0,9,9,sad,0.8,,0,0.1,0.8,0.1\n")
    edgefer("report", saved)
    assert page.read_text() != first
    for content in ("", "my own notes"):
        page.write_text(content)
        assert "not a page of edgefer" in edgefer("report", saved, expect=2).stderr
        assert "not a page of edgefer" in edgefer("report", saved, "--out", page, expect=2).stderr
        asked = ("verify", "fer-nano", "--data", "builtin", "--report", page)
        assert "not a page of edgefer" in edgefer(*asked, expect=2).stderr
        assert page.read_text() == content
    notes = page.with_name("notes.json")
    notes.write_text("[]")
    asked = ("verify", "fer-nano", "--data", "builtin", "--report", notes.with_suffix(".html"))
    assert "notes.json is there already and is not a certificate" in edgefer(*asked, expect=2).stderr
    assert notes.read_text() == "[]"


def test_untrusted_labels_are_plain_text_on_the_page(make_frame, tmp_path):
    label = "<script>alert(1)</script>\x1b[31m"
    sink = Csv(tmp_path / "run.csv", ("=cmd|' /C calc'!A0", label))
    frame = make_frame(0)
    from edgefer.records import Face

    face = Face(box_xyxy=(0, 0, 9, 9), scores={"=cmd|' /C calc'!A0": 0.2, label: 0.8}, id=1)
    for number in range(3):
        sink.write(type(frame)(index=number, time_s=number / 2, image_bgr=frame.image_bgr, faces=(face,)))
    sink.close()
    page = to_html(read_report(tmp_path / "run.csv"), "<b>")
    assert "<script" not in page and "\x1b" not in page and "&lt;script&gt;" in page and "<b>" not in page


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("t,x,0.1,1,0,0,9,9,happy,0.5,\n", "invalid literal"),
        ("t,0,nan,1,0,0,9,9,happy,0.5,\n", "time_s nan"),
        ("t,0,1e400,1,0,0,9,9,happy,0.5,\n", "time_s inf"),
        ("t,0,1e308,1,0,0,9,9,happy,0.5,\n", "time_s 1e+308"),
        ("t,0,-1e308,1,0,0,9,9,happy,0.5,\n", "time_s -1e+308"),
        ("t,0,0.1,1,0,0,9,9,happy,7,\n", "score 7"),
        ("t,0\n", "no column"),
        ("\n", "no column"),
    ],
)
def test_bad_rows_are_counted_and_named(saved, row, reason):
    saved.write_text(saved.read_text() + row)
    found = read_report(saved)
    assert found.bad == 1 and reason in found.bad_reason and "line 107" in found.bad_reason
    assert "1 rows could not be read" in to_html(found, "run.csv")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a CSV that"),
        (HEADER.encode(), "no face was found"),
        (HEADER.encode() + b"x\n", "line 2"),
        (b"\xff\xfe\x00", "not a CSV that"),
        (b"time,frame\n", "not a CSV that"),
        (b'"' * 300_000, "not a CSV that|cannot be read"),
        (b"a" * 300_000, "not a CSV that|cannot be read"),
    ],
)
def test_file_that_is_not_a_run_csv_is_refused(tmp_path, content, reason):
    (tmp_path / "run.csv").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_report(tmp_path / "run.csv")


def test_very_long_file_takes_bounded_memory(tmp_path):
    """Ten thousand runs, faces and labels."""
    lines = (f"t,0,{n % 7},{n},0,0,9,9,label{n},0.5,\n" for n in range(30_000))
    (tmp_path / "run.csv").write_text(HEADER + "".join(lines))
    found = read_report(tmp_path / "run.csv")
    assert len(found.runs) == recorded.MAX_RUNS and found.earlier > 4000
    assert len(re.findall("<svg", to_html(found, "x"))) == recorded.MAX_RUNS


@pytest.mark.parametrize("out", ["run.csv", "link.html"])
def test_the_page_is_never_written_over_the_csv(saved, edgefer, out):
    file = saved.rename(saved.with_name("run.csv"))
    saved.with_name("link.html").symlink_to("run.csv")
    before = file.read_bytes()
    assert "is the CSV itself" in edgefer("report", "run.csv", "--out", out, cwd=file.parent, expect=2).stderr
    assert file.read_bytes() == before
