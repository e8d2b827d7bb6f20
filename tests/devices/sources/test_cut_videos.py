"""Parts of videos, cut without encoding them again: their containers count frames that are not shown."""

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgefer.devices.sources.cameras import open_source
from edgefer.devices.sources.counts import frames_not_shown
from edgefer.errors import IncompleteError
from tests.devices.sources.videos import FFMPEG, of_pattern

pytestmark = pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg to make and cut videos")


def read(source) -> list:
    with source as opened:
        return list(opened)


CUT = {  # what ffmpeg does with a whole video without encoding it again, and the frames that remain
    "from the middle.mp4": (["-ss", "1", "-i", "WHOLE"], 45),
    "from the middle.mov": (["-ss", "1.5", "-i", "WHOLE"], 37),
    "a part.mp4": (["-ss", "1", "-i", "WHOLE", "-t", "2"], 30),
    "shown later.mp4": (["-itsoffset", "1", "-i", "WHOLE"], 60),
    "with empty chunks.avi": (["-ss", "2", "-i", "WHOLE"], 30),
    "segment 1.mp4": (["-i", "WHOLE", "-f", "segment", "-segment_time", "2"], 30),
    "segment 1.mkv": (["-i", "WHOLE", "-f", "segment", "-segment_time", "2"], 30),
    "segment 1.ts": (["-i", "WHOLE", "-f", "segment", "-segment_time", "2"], 30),
}


@pytest.fixture(scope="module")
def whole_h264(tmp_path_factory):
    """60 frames of H.264 in another order than they are shown in, a key frame every 2 s, the index at its beginning."""
    file = tmp_path_factory.mktemp("whole") / "whole.mp4"
    command = [*of_pattern("testsrc2=size=320x240:rate=15:duration=4"), "-c:v", "libx264"]
    done = subprocess.run(
        [*command, "-g", "30", "-bf", "2", "-movflags", "faststart", str(file)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"ffmpeg cannot make it: {done.stderr[-100:]}")
    return file


def cut_by_ffmpeg(whole: Path, folder: Path, name: str) -> Path:
    arguments, _ = CUT[name]
    words = [str(whole) if word == "WHOLE" else word for word in arguments]
    target = str(folder / name.replace("segment 1", "segment %d"))
    faststart = ["-movflags", "faststart"] if name.endswith((".mp4", ".mov")) and "segment" not in name else []
    subprocess.run([str(FFMPEG), "-v", "error", *words, "-c", "copy", *faststart, target], check=True)
    return folder / name


@pytest.mark.parametrize("name", CUT)
def test_videos_cut_without_encoding_are_whole_and_their_truncated_copies_are_not(whole_h264, tmp_path, name):
    file = cut_by_ffmpeg(whole_h264, tmp_path, name)
    with open_source(str(file)) as source:
        frames = list(source)
        assert abs(len(frames) - CUT[name][1]) <= 2
        assert source.total is None or abs(source.total - len(frames)) <= 2, "progress ends at 100%"
    if name == "segment 1.mp4":  # its index is at the end, without which no frame can be read
        return
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(IncompleteError, match="is damaged or truncated"):
        read(open_source(str(file)))


def test_a_segment_of_a_wmv_whose_length_counts_from_the_start_of_the_whole_is_whole(tmp_path):
    command = [*of_pattern("testsrc2=size=320x240:rate=15:duration=9"), "-c:v", "wmv2"]
    subprocess.run([*command, "-g", "15", "-f", "segment", "-segment_time", "3", str(tmp_path / "%d.wmv")], check=True)
    for number in range(3):
        source = open_source(str(tmp_path / f"{number}.wmv"))
        assert abs(len(read(source)) - 45) <= 2 and not source.unchecked
    content = (tmp_path / "2.wmv").read_bytes()
    (tmp_path / "2.wmv").write_bytes(content[: len(content) // 2])
    with pytest.raises(IncompleteError, match="is damaged or truncated"):
        read(source)


def test_a_video_whose_end_is_cut_off_by_its_edit_list_is_whole(whole_h264, tmp_path):
    content = bytearray(whole_h264.read_bytes())
    at = content.index(b"elst") + 12
    assert struct.unpack_from(">I", content, at) == (4000,)
    struct.pack_into(">I", content, at, 2000)  # milliseconds
    file = tmp_path / "a.mp4"
    file.write_bytes(content)
    assert abs(len(read(open_source(str(file)))) - 30) <= 1
    struct.pack_into(">I", content, at, 3000)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(IncompleteError, match=r"of 45 frames"):
        read(open_source(str(file)))


@pytest.mark.parametrize("name", ["whole.mp4", "with empty chunks.avi"])
def test_damaged_index_is_counted_without_an_error(whole_h264, tmp_path, name):
    file = cut_by_ffmpeg(whole_h264, tmp_path, name) if name in CUT else whole_h264
    content, rng = file.read_bytes(), np.random.default_rng(0)
    head = min(len(content), 4096)
    for _ in range(300):
        damaged = bytearray(content)
        for at in rng.integers(8, head, 20):
            damaged[at] = rng.integers(256)
        (tmp_path / "a").write_bytes(damaged)
        frames_not_shown(tmp_path / "a")


def mp4(edits: list[tuple[int, int]], runs: list[tuple[int, int]]) -> bytes:
    """An index of edits (duration, start) and runs (frames, duration of each), without a video, all times in milliseconds."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I4s", 8 + len(content), kind) + content

    def table(kind: bytes, rows: list[tuple[int, ...]], layout: str) -> bytes:
        return box(kind, struct.pack(">II", 0, len(rows)), *(struct.pack(layout, *row) for row in rows))

    header = struct.pack(">IIII", 0, 0, 0, 1000)
    media = (
        box(b"hdlr", bytes(8), b"vide"),
        box(b"mdhd", header),
        box(b"minf", box(b"stbl", table(b"stts", runs, ">II"))),
    )
    track = box(b"edts", table(b"elst", [(*one, 1 << 16) for one in edits], ">Iii")), box(b"mdia", *media)
    return box(b"ftyp", b"isom") + box(b"moov", box(b"mvhd", header), box(b"trak", *track))


@pytest.mark.parametrize(
    ("edits", "runs", "hidden"),
    [
        ([(1000, 500)], [(20, 100)], 10),
        ([(0, 500)], [(20, 100)], 5),  # to its end
        ([(400, -1), (1000, 0)], [(5, 100), (10, 200)], 7),  # after a pause; frames of two durations
        ([(300, 0), (300, 1000)], [(20, 100)], 14),
        ([(1000, 0)], [(3, 0), (5, 100), (0, 7)], 0),
        ([(1000, -500)], [(3, 0), (5, 100)], 0),
        ([(1000, 500)], [], 0),
        ([], [(20, 100)], 0),
    ],
)
def test_frames_outside_of_an_edit_list_are_counted(tmp_path, edits, runs, hidden):
    (tmp_path / "a.mp4").write_bytes(mp4(edits, runs))
    assert frames_not_shown(tmp_path / "a.mp4") == hidden


@pytest.mark.timeout(60)
def test_a_long_edit_list_of_a_long_video_is_counted_in_seconds(tmp_path):
    (tmp_path / "a.mp4").write_bytes(
        mp4([(1, at) for at in range(300_000)], [(1, 1 + at % 2) for at in range(300_000)])
    )
    assert frames_not_shown(tmp_path / "a.mp4") == 100_000
