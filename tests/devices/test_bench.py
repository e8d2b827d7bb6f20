"""The benchmark: its figures for known laps, and a whole run on a network of 2 kB."""

import json

import cv2
import numpy as np
import pytest

from edgefer.bundle import write_bundle
from edgefer.card import InputSpec, ModelCard, Provenance
from edgefer.devices import bench, loop
from edgefer.devices.board.selftest import network_content
from edgefer.devices.faces.detectors import Detector, HaarDetector
from edgefer.devices.outputs import stats
from edgefer.devices.reader import Reader
from edgefer.errors import InputError, SourceError
from edgefer.interpreter import Classifier
from edgefer.options import ReaderOptions
from edgefer.records import Detection


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A bundle with the doctor's test network: nothing needs training, and the loop is the real one."""
    card = ModelCard(
        name="tiny", labels=("a", "b"), input=InputSpec(height=16, width=16),
        provenance=Provenance(data="none", split_sizes={}, recipe={}, seed=0, epoch=0, versions={}),
    )  # fmt: skip
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny", card, {"int8": network_content()})


def test_percentiles_leave_out_the_warm_up(monkeypatch, make_frame):
    now = [100.0]
    monkeypatch.setattr(stats.time, "monotonic", lambda: now[0])
    run = stats.RunStats(keep_laps=True)
    for frame in range(102):
        now[0] += 7.0 if frame < 2 else 0.5
        laps = {stage: 9.0 if frame < 2 else (frame - 1) / 1000 + n for n, stage in enumerate(loop.STAGES)}
        run.add(make_frame(frame), laps)
    laps = run.laps(loop.STAGES, skip=2)
    assert laps.shape == (100, len(loop.STAGES))
    capture = bench._times(laps[:, 0])
    assert (capture.median_ms, capture.p95_ms, capture.p99_ms) == pytest.approx((50.5, 95.05, 99.01), rel=1e-4)
    assert bench._times(laps[:, 4]).median_ms == pytest.approx(4050.5, rel=1e-4)
    assert bench._times(laps[1:, 0]).p99_ms is None and bench._times(laps[:20, 0]).p95_ms is not None
    assert bench._times(laps[:19, 0]).p95_ms is None, "19 frames do not show the time of one frame in 20"
    assert run.apart(skip=2).tolist() == [0.5] * 100, "the time between frames does not depend on the stages"


def reader(bundle, detector):
    return Reader(Classifier.load(bundle), lambda name: detector, ReaderOptions(threads=1))


class SlowDetector(Detector):
    """A detector that takes a known time and finds one face."""

    name = "haar"

    def find(self, image_bgr, near=None):
        bench.time.sleep(0.02)
        return [Detection(box_xyxy=(10, 10, 60, 60))]


def test_time_is_attributed_to_the_stage_that_took_it(tiny, tmp_path):
    image = tmp_path / "one.png"
    cv2.imwrite(str(image), np.full((120, 160, 3), 128, np.uint8))
    result = bench.run_bench(reader(tiny, SlowDetector()), where=str(image), minutes=0.6 / 60, warm_up=25)
    assert 20 <= result.stages["detect"].median_ms < 40
    assert all(result.stages[stage].median_ms < 10 for stage in ("capture", "crop", "classify", "output"))
    assert result.stages[bench.ALL_STAGES].median_ms >= result.stages["detect"].median_ms
    assert 0.4 < result.seconds < 3, "the requested time, without the warm-up"
    assert result.fps == pytest.approx(result.frames / result.seconds)
    assert result.faces_per_frame == 1 and result.frame == "160x120" and result.threads == 1
    assert 20 < result.peak_memory_mb < 10_000


def test_built_in_video_is_measured_with_the_real_detector(tiny):
    result = bench.run_bench(reader(tiny, HaarDetector(width=240)), minutes=0.5 / 60, warm_up=2)
    assert result.frames >= 1 and result.frame == "480x360" and result.faces_per_frame > 1
    assert json.loads(json.dumps(result.to_json()))["stages"]["all stages"]["median_ms"] > 0
    text = bench.to_markdown(result)
    rows = [line for line in text.splitlines() if line]
    assert all(line.startswith("|") and line.endswith("|") for line in rows), "or GitHub renders no table"
    for name in (*loop.STAGES, bench.ALL_STAGES):
        assert any(line.startswith(f"| {name} |") for line in rows)
    assert "litert 2.1" in text and "haar, 240 px" in text and "1 thread |" in text


def test_live_source_is_refused(tiny):
    with pytest.raises(InputError, match="sets its own pace"):
        bench.run_bench(reader(tiny, HaarDetector()), where="rtsp://127.0.0.1/none")


def test_faces_per_frame_are_those_of_the_measured_frames(tiny, tmp_path):
    image = tmp_path / "a|b.png"
    cv2.imwrite(str(image), np.full((120, 160, 3), 128, np.uint8))
    slow = SlowDetector()
    find, calls = slow.find, []

    def find_after_warm_up(image_bgr):
        calls.append(1)
        return find(image_bgr) if len(calls) > 10 else []

    slow.find = find_after_warm_up
    result = bench.run_bench(reader(tiny, slow), where=str(image), minutes=0.1 / 60, warm_up=10)
    assert result.faces_per_frame == 1, "there are none in the warm-up"
    assert all(line.count("|") in (3, 5) for line in bench.to_markdown(result).splitlines() if line), (
        "the file name is escaped"
    )


def test_cpu_limit_of_a_container_is_shown_with_the_cores(tiny, monkeypatch):
    monkeypatch.setattr(bench.health, "core_limit", lambda: 0.5)
    monkeypatch.setattr(bench.health, "cores", lambda: 1)
    text = bench.to_markdown(bench.run_bench(reader(tiny, HaarDetector(width=240)), minutes=0.1 / 60, warm_up=1))
    assert ", 1 core, limited to 0.5 by a cgroup |" in text


def test_incompletely_written_video_is_an_error(tmp_path, monkeypatch):
    count = bench._count
    monkeypatch.setattr(bench, "_count", lambda video: count(video) - 1)
    with pytest.raises(SourceError, match=f"Cannot write a video to {tmp_path}: make room"):
        bench.drawn_video(tmp_path / "faces.avi")
    monkeypatch.undo()
    (tmp_path / "faces.avi").write_bytes(b"RIFF")
    assert bench._count(tmp_path / "faces.avi") == 0


def test_damaged_video_is_an_error(tiny, tmp_path):
    video = bench.drawn_video(tmp_path / "faces.avi")
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"bench repeats its source, but .* is damaged"):
        bench.run_bench(reader(tiny, HaarDetector(width=240)), where=str(video), minutes=1)
