"""Videos: H.264 with each available encoder, times, sizes, names, full disks, two runs at once."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from brokers import wait_for
from conftest import CHROMIUM

from edgefer.devices.outputs import encoders, video
from edgefer.devices.outputs.encoders import CvEncoder, FfmpegEncoder, PyavEncoder
from edgefer.devices.outputs.feeds import Feed
from edgefer.devices.outputs.video import VideoFile, fitted
from edgefer.errors import SourceError

FFMPEG = pytest.mark.skipif(not FfmpegEncoder.here(), reason="no ffmpeg with H.264 here")
PYAV = pytest.mark.skipif(find_spec("av") is None, reason="PyAV (the extra `video`) is not installed")
KINDS = [
    pytest.param(PyavEncoder, "h264", marks=PYAV),
    pytest.param(FfmpegEncoder, "h264", marks=FFMPEG),
    pytest.param(CvEncoder, "mpeg4"),
]


def probe(file):
    """The video stream and the time of each frame, by ffprobe."""
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,pix_fmt,width,height:frame=pts_time"]
    result = subprocess.run([*command, "-of", "json", str(file)], check=True, capture_output=True, text=True).stdout
    found = json.loads(result)
    return found["streams"][0], [float(one["pts_time"]) for one in found["frames"]]


def written(file, kind, monkeypatch, make_frame, times, size=(64, 48)):
    monkeypatch.setattr(video, "h264_encoder", lambda: None if kind is CvEncoder else kind)
    sink = VideoFile(file, 10)
    for number, time_s in enumerate(times):
        sink.write(make_frame(number, "happy", time_s=time_s, size=size))
    sink.close()
    return sink


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="no ffprobe to look with")
@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_each_encoder_writes_its_codec_and_keeps_frame_times(tmp_path, monkeypatch, make_frame, kind, codec):
    times = [*np.arange(0, 2, 0.1), *np.arange(3, 5, 0.1)]  # with a gap of one second
    sink = written(tmp_path / "out.mp4", kind, monkeypatch, make_frame, times, size=(65, 49))
    stream, seen = probe(tmp_path / "out.mp4")
    assert stream["codec_name"] == codec and seen[-1] == pytest.approx(4.9, abs=0.15)
    assert bool(sink.notice) == (codec != "h264")
    if codec == "h264":
        assert stream["pix_fmt"] == "yuv420p" and (stream["width"], stream["height"]) == (66, 50)
    else:
        assert "browsers do not play" in sink.notice and "edgefer[video]" in sink.notice
    if kind is PyavEncoder:
        assert seen == pytest.approx(times, abs=0.001), "each frame at its own time"


@pytest.mark.chromium
@pytest.mark.parametrize(("kind", "codec"), KINDS[:2])
def test_browser_plays_the_video(tmp_path, monkeypatch, make_frame, kind, codec):
    written(tmp_path / "out.mp4", kind, monkeypatch, make_frame, np.arange(0, 2, 0.1))
    (tmp_path / "page.html").write_text(
        "<video src=out.mp4 muted autoplay onloadeddata='document.title=\"plays \"+videoWidth' onerror='document.title=\"no\"'></video>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={tmp_path}/profile", f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert "<title>plays 64" in done.stdout


@pytest.mark.parametrize(("kind", "codec"), KINDS)
@pytest.mark.parametrize("name", ["10:30.mp4", "größe.mp4", "-x.mp4", "a b%d.mp4", b"nicht \xff utf8.mp4"])
def test_unusual_file_names_work_with_every_encoder(tmp_path, monkeypatch, make_frame, kind, codec, name):
    folder = tmp_path / os.fsdecode(b"f\xfe")
    folder.mkdir()
    file = folder / os.fsdecode(name)
    sink = written(file, kind, monkeypatch, make_frame, np.arange(0, 1, 0.1))
    assert [one.name for one in folder.iterdir()] == [file.name] and file.stat().st_size > 500
    assert sink.name.isprintable()


@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_full_disk_is_reported_and_no_partial_video_is_left(tmp_path, monkeypatch, make_frame, kind, codec):
    """In a process whose files are limited to 4 kB: like a full disk, which an encoder may not report."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))!r})
import numpy as np
from pathlib import Path
from edgefer.devices.outputs import encoders, video
from edgefer.devices.outputs.feeds import Feed
from edgefer.records import Frame
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
kind = encoders.{kind.__name__}
video.h264_encoder = lambda: None if kind is encoders.CvEncoder else kind
log = []
feed = Feed(video.VideoFile(Path({str(tmp_path / "out.mp4")!r}), 10), wait=True, log=log.append)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
noise = np.random.default_rng(0)
for number in range(200):
    feed.write(Frame(index=number, time_s=number / 10, image_bgr=noise.integers(0, 255, (240, 320, 3), np.uint8)))
feed.close()
print(*log, sep="\\n")
print(bool(feed.error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "True", done.stdout + done.stderr
    assert len(lines) == 2 and f"{tmp_path / 'out.mp4'} could not be written: " in lines[0], lines
    assert "Nothing of it is left." in lines[0] and "has ended" not in lines[0]
    assert not list(tmp_path.iterdir())


def test_an_avi_whose_end_did_not_fit_is_not_called_saved(tmp_path):
    """FFmpeg's AVI in OpenCV reports no failed write: a USB stick with FAT32 holds no file beyond 4 GB."""
    code = f"""
import resource, signal
import numpy as np
from pathlib import Path
from edgefer.devices.outputs.feeds import Feed
from edgefer.devices.outputs.video import VideoFile
from edgefer.records import Frame
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
feed = Feed(VideoFile(Path({str(tmp_path / "out.avi")!r}), 10), wait=True, log=print)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
noise = np.random.default_rng(0)
for number in range(20):
    feed.write(Frame(index=number, time_s=number / 10, image_bgr=noise.integers(0, 255, (240, 320, 3), np.uint8)))
feed.close()
assert feed.error
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "out.avi has ended: its end is missing, since the disk is full" in done.stdout
    assert "What was written before that is in it." in done.stdout and not done.stderr
    assert cv2.VideoCapture(str(tmp_path / "out.avi")).read()[0]


def test_log_says_how_many_frames_were_kept(tmp_path, monkeypatch, make_frame):
    from types import SimpleNamespace

    free = iter([10**9] * 6 + [10**6] * 99)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=1 << 40, free=next(free)))
    log = []
    feed = Feed(VideoFile(tmp_path / "out.avi", 10), wait=True, log=log.append)
    for number in range(20):
        feed.write(make_frame(number))
    feed.close()
    assert (
        len(log) == 1 and "out.avi has ended: the disk is full" in log[0] and "Its first 5 frames are in it." in log[0]
    )


def test_two_runs_cannot_write_the_same_file(tmp_path, make_frame):
    first = VideoFile(tmp_path / "out.avi", 10)
    with pytest.raises(SourceError, match="Another edgefer run is writing to"):
        VideoFile(tmp_path / "out.avi", 10)
    first.write(make_frame(0))
    first.close()
    with pytest.raises(SourceError, match="is there already"):
        VideoFile(tmp_path / "out.avi", 10)


def test_leftovers_of_a_killed_run_are_replaced(tmp_path, make_frame):
    code = f"from pathlib import Path; from edgefer.devices.outputs.video import VideoFile; VideoFile(Path({str(tmp_path / 'out.avi')!r}), 10); import os; os._exit(1)"
    subprocess.run([sys.executable, "-c", code])
    assert len(list(tmp_path.iterdir())) == 1
    sink = VideoFile(tmp_path / "out.avi", 10)
    sink.write(make_frame(0))
    sink.close()
    assert [one.name for one in tmp_path.iterdir()] == ["out.avi"]


def test_file_created_meanwhile_is_not_overwritten(tmp_path, make_frame):
    log = []
    feed = Feed(VideoFile(tmp_path / "out.avi", 10), wait=True, log=log.append)
    feed.write(make_frame(0))
    (tmp_path / "out.avi").write_bytes(b"another's")
    feed.close()
    assert (tmp_path / "out.avi").read_bytes() == b"another's" and "another program has made" in log[0]


def test_images_of_other_sizes_are_not_stretched():
    square = np.full((100, 100, 3), 255, np.uint8)
    wide = fitted(square, (200, 50))
    columns = np.flatnonzero(wide.max(axis=(0, 2)))
    assert wide.shape == (50, 200, 3) and len(columns) == 50 and columns[0] == 75
    assert fitted(square, (100, 100)) is square


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_no_frame_of_a_time_lapse_is_lost(tmp_path, monkeypatch, make_frame, kind, codec, suffix):
    monkeypatch.setattr(video, "h264_encoder", lambda: None if kind is CvEncoder else kind)
    sink = VideoFile(tmp_path / f"out{suffix}", 1 / 3600)
    for number in range(10):
        image = np.full((48, 64, 3), 25 * number, np.uint8)
        sink.write(replace(make_frame(number, time_s=3600 * number), image_bgr=image))
    sink.close()
    capture, grays = cv2.VideoCapture(str(sink.path)), set()
    while (read := capture.read())[0]:
        grays.add(round(read[1].mean() / 25))
    assert grays == set(range(10))


def test_best_available_encoder_is_chosen(monkeypatch):
    for kind in (PyavEncoder, FfmpegEncoder, encoders.CvH264Encoder):
        monkeypatch.setattr(kind, "here", staticmethod(lambda: False))
    assert encoders.h264_encoder() is None
    monkeypatch.setattr(FfmpegEncoder, "here", staticmethod(lambda: True))
    assert encoders.h264_encoder() is FfmpegEncoder
    assert cv2.__version__


def test_crashing_ffmpeg_gives_a_clear_error(tmp_path, monkeypatch, make_frame):
    program = tmp_path / "bin/ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'out.mp4: No space left on device' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert not FfmpegEncoder.here()
    monkeypatch.setattr(video, "h264_encoder", lambda: FfmpegEncoder)
    log = []
    feed = Feed(VideoFile(tmp_path / "out.mp4", 10), wait=True, log=log.append)
    for number in range(300):
        feed.write(make_frame(number, size=(320, 240)))
    feed.close()
    assert "out.mp4 could not be written: the disk is full. Nothing of it is left." in log[0]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_made_by_another_program_in_the_meantime_is_kept(tmp_path, monkeypatch, make_frame, links):
    def no_links(*paths):
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as on FAT

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    logged = []
    feed = Feed(VideoFile(tmp_path / "out.png", 10), wait=True, log=logged.append)
    feed.write(make_frame(0, "happy"))
    (tmp_path / "out.png").write_bytes(b"another's")
    feed.close()
    assert (tmp_path / "out.png").read_bytes() == b"another's" and [*tmp_path.iterdir()] == [tmp_path / "out.png"]
    assert "could not be written: another program has made a file" in logged[0] and "Nothing of it is left" in logged[0]


@FFMPEG
def test_video_is_kept_when_ffmpeg_gets_the_signal_that_ends_a_service(tmp_path, monkeypatch, make_frame):
    monkeypatch.setattr(video, "h264_encoder", lambda: FfmpegEncoder)
    sink, log = VideoFile(tmp_path / "out.mp4", 10), []
    feed = Feed(sink, wait=True, log=log.append)
    for number in range(20):
        feed.write(make_frame(number, size=(320, 240)))
    wait_for(lambda: sink._written == 20, 20)
    sink._encoder._process.send_signal(signal.SIGTERM)
    for number in range(20, 1000):  # it notices the signal at one of the next frames
        feed.write(make_frame(number, size=(320, 240)))
        time.sleep(0.01)
        if feed.error:
            break
    feed.close()
    assert "out.mp4 has ended: ffmpeg was ended by a signal. Its first " in log[0]
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) > 0
