"""A slow, hung or dead sink, seen from the loop."""

import contextlib
import os
import re
import threading
import time
from dataclasses import replace
from queue import SimpleQueue

import numpy as np
import pytest

from edgefer.devices import loop
from edgefer.devices.outputs import feeds, video
from edgefer.devices.outputs.feeds import Feed
from edgefer.devices.outputs.lines import JsonLines
from edgefer.devices.outputs.sink import Sink


class Slow(Sink):
    """Takes nothing until `go` is set."""

    name = "slow"

    def __init__(self, every_frame=False):
        self.every_frame, self.seen, self.ended = every_frame, [], False
        self.go, self.taking = threading.Event(), threading.Event()

    def write(self, frame):
        self.taking.set()
        assert self.go.wait(20)
        self.seen.append(frame.index)

    def close(self):
        self.ended = True


class Dead(Sink):
    name = "out.csv"
    every_frame = True

    def __init__(self, error):
        self.error, self.ended = error, False

    def write(self, frame):
        raise self.error

    def close(self):
        self.ended = True


def test_slow_live_sink_gets_the_newest_frames_and_does_not_block(make_frame):
    sink = Slow()
    feed = Feed(sink, depth=3)
    feed.write(make_frame(0))
    assert sink.taking.wait(5)
    began = time.monotonic()
    for number in range(1, 100):
        feed.write(make_frame(number))
    assert time.monotonic() - began < 1
    sink.go.set()
    feed.close()
    assert sink.seen == [0, 97, 98, 99] and sink.ended
    assert feed.dropped == 96


def test_file_output_of_a_file_source_gets_every_frame(make_frame):
    sink, logged = Slow(every_frame=True), []
    feed = Feed(sink, wait=True, log=logged.append, depth=3)
    writer = threading.Thread(target=lambda: [feed.write(make_frame(number)) for number in range(50)])
    writer.start()
    assert sink.taking.wait(5)
    writer.join(0.1)
    assert writer.is_alive(), "it waits for room"
    sink.go.set()
    writer.join(5)
    feed.close()
    assert sink.seen == list(range(50)) and feed.dropped == 0 and not logged


def test_a_stop_is_not_held_up_by_a_sink_that_hangs(make_frame):
    sink, stop, logged = Slow(every_frame=True), threading.Event(), []
    feed = Feed(sink, wait=True, stop=stop, log=logged.append, depth=2)
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    for number in range(6):
        feed.write(make_frame(number))
    assert time.monotonic() - began < 5
    sink.go.set()
    feed.close()
    assert sink.seen == [0, 1, 2], "without a gap"
    assert logged == ["slow was too slow: 3 frames were dropped."]


def dropping(sink, log, frames, make_frame):
    """A feed whose queue was full after the second of `frames` frames of a camera, and the sink hanging at the first."""
    feed = Feed(sink, log=log, depth=1)
    feed.write(make_frame(0))
    assert sink.taking.wait(5)
    for number in range(1, frames):
        feed.write(make_frame(number))
    return feed


def test_file_output_of_a_camera_logs_dropped_frames_at_once_then_rarely_and_at_the_end(make_frame, monkeypatch):
    sink, logged = Slow(every_frame=True), SimpleQueue()
    feed = dropping(sink, logged.put, 4, make_frame)
    assert logged.get(timeout=5) == "slow is too slow or hangs: 1 frame was dropped so far."
    monkeypatch.setattr(feeds, "REPORT_S", 0.0)
    feed.write(make_frame(4))
    assert logged.get(timeout=5) == "slow is too slow or hangs: 3 frames were dropped so far."
    sink.go.set()
    feed.close()
    assert logged.get(timeout=5) == "slow was too slow: 3 frames were dropped." and logged.empty()


def test_output_that_hangs_to_the_end_reports_how_many_frames_were_dropped(make_frame, monkeypatch):
    monkeypatch.setattr(feeds, "CLOSE_S", 0.1)
    sink, logged = Slow(every_frame=True), []
    dropping(sink, logged.append, 5, make_frame).close()
    assert [line for line in logged if "so far" not in line] == [
        "slow was too slow: 3 frames were dropped.",
        "slow: its last results could not be written: they are lost.",
    ]
    sink.go.set()


@pytest.mark.parametrize("hangs", [False, True])
def test_broker_may_drop_frames_without_a_message_unless_it_hangs(make_frame, monkeypatch, hangs):
    monkeypatch.setattr(feeds, "HUNG_S", 0.0 if hangs else 60.0)
    sink, logged = Slow(), SimpleQueue()
    sink.close_s = 0.1 if hangs else 5.0
    feed = dropping(sink, logged.put, 4, make_frame)
    if hangs:
        assert "hangs: 1 frame was dropped so far" in logged.get(timeout=5)
    else:
        sink.go.set()
    feed.close()
    assert logged.empty() is not hangs
    sink.go.set()


def test_message_about_dropped_frames_does_not_block_the_loop(make_frame):
    sink, read = Slow(every_frame=True), threading.Event()  # stderr may be the pipe that is full
    feed = dropping(sink, lambda text: read.wait(20), 4, make_frame)
    assert feed.dropped == 2
    read.set()
    sink.go.set()
    feed.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, os.strerror(28)), "the disk is full"),
        (ValueError("odd\n number."), "odd number"),
        (KeyError(), "KeyError"),
    ],
)
def test_a_failed_sink_is_reported_once_and_the_run_continues(make_frame, error, reason):
    sink, logged = Dead(error), []
    feed = Feed(sink, wait=True, log=logged.append, depth=1)
    for number in range(20):
        feed.write(make_frame(number))
    feed.close()
    assert logged == [f"out.csv has ended: {reason}. Other outputs continue."]
    assert feed.trouble == reason and feed.errors == 1 and sink.ended


def test_hung_sink_is_abandoned_at_the_end(make_frame, monkeypatch):
    monkeypatch.setattr(feeds, "CLOSE_S", 0.1)
    sink, logged = Slow(every_frame=True), []
    feed = Feed(sink, log=logged.append)
    feed.write(make_frame(0))
    began = time.monotonic()
    feed.close()
    assert time.monotonic() - began < 2 and logged == ["slow: its last results could not be written: they are lost."]
    assert "last results" in feed.trouble, "so that the exit code reflects it"
    sink.go.set()


def test_run_waits_while_a_long_video_is_finished(make_frame, monkeypatch, tmp_path):
    monkeypatch.setattr(feeds, "CLOSE_S", 1.0)
    monkeypatch.setattr(video, "FINISH_BYTES_S", 1e5)
    logged, sink = [], video.VideoFile(tmp_path / "out.avi", 10)
    feed = Feed(sink, wait=True, log=logged.append)
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)  # so that the file grows
    finish = sink._finish
    sink._finish = lambda encoder: (finish(encoder), time.sleep(1.5))
    for number in range(20):
        feed.write(replace(make_frame(number), image_bgr=noise))
    feed.close()
    assert (tmp_path / "out.avi").exists() and not feed.error
    (line,) = logged
    assert re.search(r"out\.avi is being finished, which may take \d+ s more: Ctrl-C would lose it\.", line)


def test_run_ends_when_its_output_pipe_is_closed(make_frame):
    read, write = os.pipe()
    os.close(read)
    logged = []
    with contextlib.suppress(BrokenPipeError), os.fdopen(write, "w") as out:
        feed = Feed(JsonLines(out), log=logged.append)
        feed.write(make_frame(0))
        feed.close()
        assert feed.closed and isinstance(feed.error, BrokenPipeError) and not logged
        assert loop._ended([feed]) and not loop._ended([feed, Dead(ValueError())]) and not loop._ended([])
