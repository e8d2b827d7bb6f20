"""Statistics of a run: its figures, and the same figures in Prometheus format."""

import threading
import time
import urllib.request
from types import SimpleNamespace

import pytest

from edgefer.devices.board import health
from edgefer.devices.outputs import stats as module
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.sources.state import SourceState, SourceStatus
from edgefer.errors import SourceError


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.s)
    return now


def test_statistics_of_a_run(clock, make_frame):
    sink = Sink()
    sink.name, sink.dropped, sink.errors, sink.trouble = "MQTT broker:1883", 3, 1, "does not answer"
    stats = RunStats(skipped=lambda: 7)
    stats.sinks = [sink]
    assert stats.read().state == "starting"
    for number in range(40):
        clock.s += 0.1
        stats.add(make_frame(number, "happy", ("unsure", "dark")), {"detect": 0.010 if number else 0.9})
    now = stats.read()
    assert (now.state, now.frames, now.faces, now.labels) == ("running", 40, 80, {"happy": 40, "unsure": 40})
    assert now.fps == pytest.approx(10, abs=0.5) and now.stages_ms["detect"] == pytest.approx(10)
    assert now.skipped == 7 and now.memory_mb > 10 and now.uptime_s == pytest.approx(4)
    assert now.to_json()["sinks"] == (
        {"name": "MQTT broker:1883", "dropped": 3, "errors": 1, "trouble": "does not answer"},
    )
    clock.s += 2.5
    assert stats.read().state == "lost" and stats.read().age_s == pytest.approx(2.5)
    clock.s += 1
    assert stats.read().fps == 0


def test_a_frame_rate_of_any_size_is_reported(clock, make_frame):
    stats = RunStats()
    for number in range(5000):
        clock.s += 0.001
        stats.add(make_frame(number), {})
    assert stats.read().fps == pytest.approx(1000, rel=0.01)


def test_the_history_is_five_minutes_of_mean_faces(clock, make_frame):
    stats = RunStats()
    for second in range(400):
        labels = [("happy",), ("happy", "sad")][second % 2] if second >= 390 else ()
        stats.add(make_frame(second, *labels), {})
        clock.s += 1
    history = stats.history()
    assert len(history) <= 150 and history[0]["ago_s"] <= 300 and history[0]["faces"] == {}
    assert history[-1] == {"ago_s": 2, "faces": {"happy": 1.0, "sad": 0.5}}
    clock.s += 301
    assert stats.history() == []


def test_prometheus_can_scrape_the_statistics(make_frame):
    prometheus = pytest.importorskip("edgefer.devices.outputs.prometheus", reason="prometheus-client is not installed")
    sink = Sink()
    sink.name, sink.dropped = "out.csv", 2
    stats = RunStats()
    stats.sinks = [sink]
    lost = SourceState(name="1", state=SourceStatus.LOST, trouble="Camera 1 stopped giving images.")
    stats.sources = lambda: (SourceState(name="0"), lost)
    metrics = prometheus.Metrics(
        stats, "127.0.0.1", 0, labels=("happy", "sad", "unsure"), about={"network": "fer-small"}
    )
    for seconds in (0.002, 0.02, 9.0):
        stats.add(make_frame(0, "happy", "happy"), {"detect": seconds})
    with pytest.raises(SourceError, match="in use"):
        prometheus.Metrics(stats, "127.0.0.1", metrics.port, labels=(), about={})
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
        reported = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    metrics.close()
    expected = {
        'edgefer_info{network="fer-small"}': 1,
        "edgefer_frames_total": 3,
        "edgefer_frames_skipped_total": 0,
        'edgefer_faces_total{label="happy"}': 6,
        'edgefer_faces_total{label="sad"}': 0,
        'edgefer_stage_seconds_bucket{le="0.001",stage="detect"}': 0,
        'edgefer_stage_seconds_bucket{le="0.0025",stage="detect"}': 1,
        'edgefer_stage_seconds_bucket{le="2.5",stage="detect"}': 2,
        'edgefer_stage_seconds_bucket{le="+Inf",stage="detect"}': 3,
        'edgefer_stage_seconds_count{stage="detect"}': 3,
        'edgefer_sink_dropped_frames_total{sink="out.csv"}': 2,
        'edgefer_sink_errors_total{sink="out.csv"}': 0,
        'edgefer_sink_up{sink="out.csv"}': 1,
        'edgefer_source_up{source="0"}': 1,
        'edgefer_source_up{source="1"}': 0,
    }
    assert {name: float(reported[name]) for name in expected} == expected
    assert "process_resident_memory_bytes" in reported


def test_a_slow_sensor_does_not_hold_up_the_loop(make_frame, monkeypatch):
    asked, go = threading.Event(), threading.Event()
    monkeypatch.setattr(health, "cpu_temperature_c", lambda: asked.set() or go.wait(5) or 50.0)
    stats = RunStats()
    reader = threading.Thread(target=stats.read)
    reader.start()
    assert asked.wait(5)
    began = time.monotonic()
    stats.add(make_frame(0), {})
    assert time.monotonic() - began < 1
    go.set()
    reader.join(5)
