"""Parts of videos, cut without encoding them again: their containers count frames that are not shown."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgefer.devices.sources.cameras import open_source
from edgefer.devices.sources.counts import frames_not_shown
from edgefer.errors import IncompleteError

FFMPEG = shutil.which("ffmpeg")
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
    command = [
        str(FFMPEG),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x240:rate=15:duration=4",
        "-c:v",
        "libx264",
    ]
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
    assert abs(len(read(open_source(str(file)))) - CUT[name][1]) <= 2
    if name == "segment 1.mp4":  # its index is at the end, without which no frame can be read
        return
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(IncompleteError, match="is damaged or truncated"):
        read(open_source(str(file)))


def test_a_segment_of_a_wmv_whose_length_counts_from_the_start_of_the_whole_is_whole(tmp_path):
    command = [
        str(FFMPEG),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x240:rate=15:duration=9",
        "-c:v",
        "wmv2",
    ]
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
