"""Video and image files: damaged, of variable frame rate, with unusual names, of mixed sizes, unreadable."""

import functools
import itertools
import os
import struct
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgefer.devices.sources import playback
from edgefer.devices.sources.cameras import open_source
from edgefer.devices.sources.containers import examine
from edgefer.devices.sources.files import Drawn, next_time
from edgefer.devices.sources.playback import MergedSources, Playback, PlayedSource
from edgefer.errors import ImageError, IncompleteError, InputError, MissingDependency, SourceError
from edgefer.options import Rotation
from edgefer.records import Frame
from tests.devices.sources.videos import FFMPEG, of_pattern, write_video

NOT_UTF8 = os.fsdecode(b"f\xfclm")


def read(source) -> list:
    with source as opened:
        return list(opened)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mp4v"), ("a.avi", "MJPG")])
def test_video_with_a_damaged_middle_is_reported_as_incomplete(tmp_path, name, codec):
    whole = write_video(tmp_path / name, codec=codec)
    assert len(read(open_source(str(whole)))) == 60
    content = bytearray(whole.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = os.urandom(third)
    damaged = tmp_path / f"damaged-{name}"
    damaged.write_bytes(content)
    frames = []
    with (
        pytest.raises(IncompleteError, match=r"is damaged or truncated: (\d+) of 60 frames"),
        open_source(str(damaged)) as source,
    ):
        for frame in source:
            frames.append(frame)
    assert 0 < len(frames) < 60 and IncompleteError("").exit_code == 1


def test_truncated_video_is_reported_as_incomplete(tmp_path):
    whole = write_video(tmp_path / "a.avi", codec="MJPG")
    content = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    with pytest.raises(IncompleteError, match="of 60 frames"):
        read(open_source(str(tmp_path / "cut.avi")))


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg to make other containers")
@pytest.mark.parametrize("suffix", ["mkv", "webm", "ts"])
@pytest.mark.parametrize("damage", ["overwritten", "taken out"])
def test_damaged_middle_is_detected_in_containers_without_a_frame_count(tmp_path, suffix, damage):
    whole = tmp_path / f"a.{suffix}"
    made = [*of_pattern("testsrc2=size=96x64:rate=10:duration=6"), "-b:v", "300k"]
    codec = "libvpx" if suffix == "webm" else "mpeg4"
    subprocess.run([*made, "-c:v", codec, str(whole)], check=True)
    assert len(read(open_source(str(whole)))) == 60
    content = whole.read_bytes()
    third = len(content) // 3 + 7
    middle = np.random.default_rng(0).bytes(third) if damage == "overwritten" else b""
    (tmp_path / f"damaged.{suffix}").write_bytes(content[:third] + middle + content[2 * third :])
    with pytest.raises(IncompleteError, match=r"is damaged or truncated: (\d+) of 60 frames"):
        read(open_source(str(tmp_path / f"damaged.{suffix}")))


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg to make a video of variable rate")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_times_come_from_the_container_and_a_variable_rate_is_not_damage(tmp_path, suffix):
    """Twenty frames at 20 a second, then ten at 5: index / fps is wrong by more than a second at the end."""
    file = tmp_path / f"vfr.{suffix}"
    select = "setpts='if(lt(N,20),N/20,1+(N-20)/5)/TB'"
    command = [*of_pattern("testsrc=size=96x64:rate=20:duration=1.5"), "-vf", select]
    subprocess.run([*command, "-fps_mode", "vfr", "-c:v", "mpeg4", str(file)], check=True)
    times_s = [frame.time_s for frame in read(open_source(str(file)))]
    assert len(times_s) == 30
    expected = [n / 20 for n in range(20)] + [1 + n / 5 for n in range(10)]
    assert times_s == pytest.approx(expected, abs=0.06)


def test_missing_or_wrong_timestamp_is_replaced_by_one_frame_step():
    assert next_time(1.5, 1.0, 10) == 1.5
    for stamp_s in (0.0, 1.0, 0.9, float("nan"), float("inf"), 1e9):
        assert next_time(stamp_s, 1.0, 10) == pytest.approx(1.1)


def test_non_utf8_file_names_are_read(tmp_path):
    video = write_video(tmp_path / "a.mp4", 5).rename(tmp_path / f"{NOT_UTF8}.mp4")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 30, 3), 7, np.uint8))
    image = (tmp_path / "a.png").rename(tmp_path / f"{NOT_UTF8}.png")
    assert len(read(open_source(str(video)))) == 5
    (frame,) = read(open_source(str(image)))
    assert frame.image_bgr.max() == 7
    frame.source.encode()  # it may be shown and written anywhere


def test_detector_file_may_have_a_non_utf8_name(tmp_path):
    from edgefer.devices.faces.yunet import YuNetDetector

    file = tmp_path / f"{NOT_UTF8}.onnx"
    file.write_bytes(b"no network")
    with pytest.raises(SourceError, match="is not a YuNet") as caught:
        YuNetDetector(file)
    str(caught.value).encode()


def png_header(width: int, height: int) -> bytes:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)
    return head + bytes(64)


@pytest.fixture
def folder(tmp_path):
    for number, size in enumerate([(20, 30), (40, 30)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((*size, 3), number, np.uint8))
    (tmp_path / "0bomb.png").write_bytes(png_header(60_000, 60_000))
    (tmp_path / "0half.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_unreadable_images_of_a_folder_are_named_after_the_others_unless_skip_bad_is_set(folder):
    frames = []
    with (
        pytest.raises(IncompleteError, match=r"0bomb\.png .*--skip-bad\. 2 images were not read"),
        open_source(str(folder)) as source,
    ):
        frames.extend(source)
    assert [frame.source for frame in frames] == ["0.png", "1.png"]
    source = open_source(str(folder), skip_bad=True)
    frames = read(source)
    assert [frame.source for frame in frames] == ["0.png", "1.png"]
    assert [frame.image_bgr.shape[:2] for frame in frames] == [(20, 30), (40, 30)]
    named = [line.split(":")[0] for line in source.left_out]
    assert sorted(named) == ["0bomb.png", "0half.jpg", "notes.txt"]
    read(source)
    assert len(source.left_out) == 3, "reading again, as with --loop, does not list them twice"


def test_a_folder_of_nothing_but_unreadable_images_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(SourceError, match="none of 1 images could be read"):
        read(open_source(str(tmp_path), skip_bad=True))


def test_pipe_is_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SourceError, match=r"pipe\.mp4 is a pipe: save the video to a file"):
        open_source(str(tmp_path / "pipe.mp4"))


def test_loop_continues_frame_numbers_and_times(tmp_path):
    video = write_video(tmp_path / "a.mp4", 4, fps=10)
    with PlayedSource(open_source(str(video)), Playback(loop=True)) as source:
        frames = [frame for frame, _ in zip(source, range(10), strict=False)]
    assert source.total is None
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time_s for frame in frames] == pytest.approx([n / 10 for n in range(10)])


def test_a_loop_goes_on_after_what_cannot_be_read_and_names_it_once(folder):
    logged: list[str] = []
    with PlayedSource(open_source(str(folder)), Playback(loop=True), log=logged.append) as source:
        frames = list(itertools.islice(source, 7))
    assert [frame.source for frame in frames] == [*["0.png", "1.png"] * 3, "0.png"]
    assert [frame.index for frame in frames] == list(range(7))
    assert len(logged) == len(source.failed) == 1 and "0bomb.png" in logged[0] and "It is played again." in logged[0]
    (state,) = source.states
    assert state.state == "incomplete" and state.up and state.trouble == source.failed[0]


def test_a_loop_of_what_gives_no_frame_any_more_ends(folder):
    source = PlayedSource(open_source(str(folder)), Playback(loop=True))
    with pytest.raises(SourceError, match="none of 4 images could be read"), source:
        for frame in source:
            (folder / frame.source).unlink()


def test_realtime_playback_is_not_faster_than_the_recording(tmp_path):
    video = write_video(tmp_path / "a.mp4", 10, fps=20)
    began = time.monotonic()
    with PlayedSource(open_source(str(video)), Playback(realtime=True)) as source:
        last = list(source)[-1]
    assert time.monotonic() - began >= last.time_s > 0.4


def test_realtime_playback_of_what_is_read_more_slowly_than_it_plays_still_gives_frames(monkeypatch):
    monkeypatch.setattr(playback, "MAX_DROPPED_S", 0.1)
    source = Drawn()

    def slow():
        for index in range(40):
            time.sleep(0.02)
            yield Frame(index=index, time_s=index / 100, image_bgr=np.zeros((4, 4, 3), np.uint8))

    monkeypatch.setattr(Drawn, "__iter__", lambda self: slow())
    monkeypatch.setattr(source, "fps", 100.0)
    indices = [frame.index for frame in PlayedSource(source, Playback(realtime=True))]
    assert indices[0] == 0 and len(indices) >= 5 and max(np.diff(indices)) < 20, indices


@pytest.mark.parametrize(("read_s", "used_s", "dropped"), [(0.03, 0.0, False), (0.0, 0.1, True)])
def test_realtime_playback_drops_frames_only_where_that_gains_time(monkeypatch, read_s, used_s, dropped):
    """At 50 frames a second, by a clock that only the reading, the use and the waits of frames advance."""
    now = [0.0]
    monkeypatch.setattr(playback, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def pause(seconds):
        now[0] += seconds

    class Film(Drawn):
        fps = 50.0

        def __iter__(self):
            for index in range(200):
                pause(read_s)
                yield Frame(index=index, time_s=index / 50, image_bgr=np.zeros((2, 2, 3), np.uint8))

    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", pause)
    played = []
    for frame in PlayedSource(Film(), Playback(realtime=True), stop):
        played.append(frame.index)
        pause(used_s)
    assert (len(played) < 60) if dropped else played == list(range(200))
    assert played[-1] > 190, "what is late is caught up with"


def test_images_are_rotated(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    image[:5, :5] = 255  # top left
    cv2.imwrite(str(tmp_path / "a.png"), image)
    for rotation, size, corner in (("90", (30, 20), (0, -1)), ("180", (20, 30), (-1, -1)), ("270", (30, 20), (-1, 0))):
        ((turned,),) = [read(PlayedSource(open_source(str(tmp_path / "a.png")), Playback(rotate=Rotation(rotation))))]
        assert turned.image_bgr.shape[:2] == size and turned.image_bgr[corner].min() == 255


def test_several_sources_are_named_and_numbered(tmp_path):
    one, other = write_video(tmp_path / "one.mp4", 5), write_video(tmp_path / "other.mp4", 7)
    sources = [open_source(str(file)) for file in (one, other)]
    frames = read(MergedSources(sources))
    for stream, (file, count) in enumerate(((one, 5), (other, 7))):
        ours = [frame for frame in frames if frame.stream == stream]
        assert [frame.index for frame in ours] == list(range(count)) and {frame.source for frame in ours} == {str(file)}
    with pytest.raises(InputError, match="is named twice"):
        MergedSources([open_source(str(one)), open_source(str(one))])


def test_a_truncated_video_does_not_end_the_others(tmp_path):
    one, other = write_video(tmp_path / "one.avi", 20, "MJPG"), write_video(tmp_path / "other.avi", 60, "MJPG")
    one.write_bytes(one.read_bytes()[: one.stat().st_size // 2])
    frames = []
    with (
        pytest.raises(IncompleteError, match=r"one\.avi is damaged"),
        MergedSources([open_source(str(file)) for file in (one, other)]) as source,
    ):
        frames.extend(source)  # as fast as they come, so that their queue is empty at times
    assert [frame.index for frame in frames if frame.stream == 1] == list(range(60))
    logged: list[str] = []
    looped = [PlayedSource(open_source(str(file)), Playback(loop=True), log=logged.append) for file in (one, other)]
    with MergedSources(looped, log=logged.append) as source:  # both are played again
        for _ in itertools.takewhile(lambda frame: frame.stream == 1 or frame.index < 100, source):
            pass
        assert [state.state for state in source.states] == ["incomplete", "ok"]
    assert len(logged) == len(source.failed) == 1 and "one.avi is damaged" in logged[0]


class Broken(Drawn):
    """A source that fails when it is opened, or after a number of frames."""

    def __init__(self, name: str, error: Exception, frames: int | None):
        super().__init__()
        self.name, self._error, self._frames = name, error, frames

    def __enter__(self):
        if self._frames is None:
            raise self._error
        return self

    def __iter__(self):
        yield from itertools.islice(super().__iter__(), self._frames)
        raise self._error


@pytest.mark.parametrize("error", [SourceError("gone."), ImageError("gone."), MissingDependency("gone.")])
@pytest.mark.parametrize("frames", [None, 0, 2])
def test_a_source_that_cannot_be_read_does_not_end_the_others(error, frames):
    frames_read, logged = [], []
    merged = MergedSources([Broken("first", error, frames), Drawn(1), Broken("last", error, frames)], log=logged.append)
    for _ in range(2):  # bench repeats its source
        frames_read.clear()
        with pytest.raises(IncompleteError, match=r"^gone\. gone\.$"), merged as source:
            frames_read.extend(source)
    assert [frame.index for frame in frames_read if frame.stream == 1] == list(range(15))
    assert set(logged) <= {"gone. The other sources are read."} and (logged or frames is not None)
    states = [(state.name, state.state, state.trouble) for state in merged.states]
    assert states == [("first", "failed", "gone."), ("builtin", "ended", ""), ("last", "failed", "gone.")]


class Camera(Drawn):
    """A live source that opens when all of `together` are being opened."""

    live = True

    def __init__(self, name: str, together: threading.Barrier):
        super().__init__(0.1)
        self.name, self._together, self.closed = name, together, False

    def __enter__(self):
        self._together.wait(10)
        if self.name == "dead":
            raise SourceError("dead is no camera.")
        return self

    def __exit__(self, *exc):
        self._together.wait(10)
        self.closed = True


def test_cameras_are_opened_and_closed_at_once_since_each_dead_one_takes_seconds():
    together = threading.Barrier(3)
    cameras = [Camera(name, together) for name in ("a", "dead", "b")]
    with pytest.raises(IncompleteError, match=r"^dead is no camera\.$"), MergedSources(cameras) as source:
        assert {frame.source for frame in source} == {"a", "b"}
    assert all(camera.closed for camera in cameras)


@pytest.mark.parametrize("frames", [None, 0])
def test_sources_of_which_none_can_be_read_are_invalid_input(frames):
    logged: list[str] = []
    broken = [Broken(name, SourceError(f"{name} gone."), frames) for name in ("first", "second")]
    with pytest.raises(SourceError, match=r"(first|second) gone\. (first|second) gone\.$"):
        read(MergedSources(broken, log=logged.append))
    assert len(logged) <= 1, "of the last one, no other is left"


def test_frame_count_is_used_only_from_containers_that_store_it(tmp_path):
    assert (
        examine(write_video(tmp_path / "a.mp4", 2)).counts
        and examine(write_video(tmp_path / "a.avi", 2, "MJPG")).counts
    )
    (tmp_path / "a.webm").write_bytes(b"\x1aE\xdf\xa3 and so on")
    assert not examine(tmp_path / "a.webm").counts


MAKE = {  # ffmpeg's codec and container options for each suffix
    "ts": ["-c:v", "mpeg2video"],
    "m2ts": ["-c:v", "mpeg2video"],
    "flv": ["-c:v", "flv"],
    "mpg": ["-c:v", "mpeg2video"],
    "wmv": ["-c:v", "wmv2"],
    "mkv": ["-c:v", "mpeg4"],
    "live.webm": ["-c:v", "libvpx", "-live", "1"],
    "frag.mp4": ["-c:v", "mpeg4", "-g", "10", "-movflags", "frag_keyframe+empty_moov"],
}


def made_by_ffmpeg(folder: Path, suffix: str) -> Path:
    file = folder / f"whole.{suffix}"
    command = of_pattern("testsrc2=size=320x240:rate=15:duration=4")
    done = subprocess.run([*command, *MAKE[suffix], "-b:v", "400k", str(file)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"ffmpeg cannot make it: {done.stderr[-100:]}")
    return file


def with_damage(content: bytes, damage: str, packet: int) -> bytes:
    """packet: damage begins and ends at a multiple of it, so that no packet is cut."""
    at = [len(content) * tenths // 10 // packet * packet for tenths in range(11)]
    match damage:
        case "cut":
            return content[: at[4] + 6 * packet]  # within a frame
        case "zeros to its end":
            return content[: at[7]] + bytes(len(content) - at[7])
        case "middle missing":
            return content[: at[2]] + content[at[8] :]
        case _:
            return content[: at[4]] + bytes(at[6] - at[4]) + content[at[6] :]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """made_by_ffmpeg, which encodes each file once."""
    return functools.cache(functools.partial(made_by_ffmpeg, tmp_path_factory.mktemp("made")))


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg to make other containers")
@pytest.mark.parametrize("suffix", MAKE)
def test_whole_videos_are_read_to_their_end(made_once, suffix):
    source = open_source(str(made_once(suffix)))
    assert len(read(source)) == 60
    assert bool(source.unchecked) == (suffix in ("ts", "m2ts", "flv", "mpg", "live.webm"))


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg to make other containers")
@pytest.mark.parametrize("suffix", MAKE)
@pytest.mark.parametrize("damage", ["cut", "zeros to its end", "middle missing", "zeros in its middle"])
def test_damage_at_packet_boundaries_is_detected(made_once, tmp_path, suffix, damage):
    whole = made_once(suffix)
    damaged = tmp_path / f"damaged.{suffix}"
    damaged.write_bytes(with_damage(whole.read_bytes(), damage, 192 if suffix == "m2ts" else 188))
    with pytest.raises(IncompleteError, match="is damaged or truncated"):
        read(open_source(str(damaged)))


@pytest.mark.skipif(FFMPEG is None, reason="no ffmpeg to make other containers")
def test_joined_streams_are_not_reported_as_damaged(tmp_path):
    content = made_by_ffmpeg(tmp_path, "ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(content + content)
    source = open_source(str(tmp_path / "joined.ts"))
    assert len(read(source)) == 120 and "could not be checked" in source.unchecked


@pytest.mark.parametrize(
    "head", [b"G" * 400, b"FLV\1", b"OggS", b"\0\0\1\xba", b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0b\xcel"]
)
def test_random_container_content_is_examined_without_an_error(tmp_path, head):
    rng = np.random.default_rng(0)
    for size in (0, 1, 20, 100_000):
        (tmp_path / "a").write_bytes(head + rng.bytes(size))
        examine(tmp_path / "a")


def test_a_folder_of_folders_says_that_these_are_not_read(tmp_path):
    with pytest.raises(SourceError, match=r"holds no images \(.*\)\.$"):
        open_source(str(tmp_path))
    (tmp_path / "happy").mkdir()
    with pytest.raises(SourceError, match="Its subfolders are not read: name one of them"):
        open_source(str(tmp_path))


def test_one_frame_is_not_said_in_the_plural(tmp_path):
    ok, jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "image.mp4").write_bytes(jpeg)  # FFmpeg plays an image as a video
    with open_source(str(tmp_path / "image.mp4")) as source:
        assert ok and len(list(source)) == 1
    assert source.unchecked.endswith("1 frame was read.")
