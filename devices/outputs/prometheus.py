"""What Prometheus may scrape: /metrics of the run's vitals. Needs prometheus-client (the extra `metrics`)."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edgefer.devices.outputs.sinks import Result, Sink
from edgefer.devices.outputs.stats import BUCKETS_S, Vitals, in_url
from edgefer.errors import SourceError


class Metrics(Sink):
    """Serves /metrics at an address until it is closed; every figure is made when it is asked for, none in the loop.

    Raises SourceError when the address is taken. `port` is the one that was given, or a free one for 0.
    """

    def __init__(self, vitals: Vitals, host: str, port: int, labels: Iterable[str], about: dict[str, str]):
        registry = CollectorRegistry()
        registry.register(VitalsCollector(vitals, tuple(labels), about))
        ProcessCollector(registry=registry)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise SourceError(f"Metrics cannot be served at {host}:{port}: {error.strerror or error}.") from None
        self.port = self._server.server_port
        self.name = f"metrics {host}:{self.port}"
        self.url = f"http://{in_url(host)}:{self.port}/metrics"

    def write(self, result: Result) -> None:
        pass

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class VitalsCollector(Collector):
    """A Prometheus collector over Vitals. labels: all there can be, so that each has a figure from the start."""

    def __init__(self, vitals: Vitals, labels: tuple[str, ...], about: dict[str, str]):
        self._vitals, self._labels, self._about = vitals, labels, about

    def collect(self) -> Iterator[Metric]:
        now = self._vitals.read()
        yield InfoMetricFamily("edgefer", "What runs here", value=self._about)
        yield CounterMetricFamily("edgefer_frames", "Frames read", value=now.frames)
        yield CounterMetricFamily("edgefer_frames_skipped", "Frames a live source gave too fast", value=now.skipped)
        faces = CounterMetricFamily("edgefer_faces", "Faces read, by label", labels=["label"])
        for label in self._labels:
            faces.add_metric([label], now.labels.get(label, 0))
        yield faces
        yield GaugeMetricFamily("edgefer_frames_per_second", "Frames read a second, lately", value=now.fps)
        yield GaugeMetricFamily("edgefer_frame_age_seconds", "Time since the last frame", value=now.age_s)
        if now.temperature_c is not None:
            yield GaugeMetricFamily("edgefer_cpu_temperature_celsius", "Hottest thermal zone", value=now.temperature_c)
        stages = HistogramMetricFamily("edgefer_stage_seconds", "Time a frame spent in a stage", labels=["stage"])
        for stage, (counts, total_s) in self._vitals.histograms().items():
            stages.add_metric([stage], _cumulative(counts), total_s)
        yield stages
        dropped = CounterMetricFamily("edgefer_sink_dropped_frames", "Frames a sink left out", labels=["sink"])
        errors = CounterMetricFamily("edgefer_sink_errors", "How often a sink failed", labels=["sink"])
        up = GaugeMetricFamily("edgefer_sink_up", "1 while a sink takes what it is given", labels=["sink"])
        for sink in now.sinks:
            dropped.add_metric([sink.name], sink.dropped)
            errors.add_metric([sink.name], sink.errors)
            up.add_metric([sink.name], not sink.trouble)
        yield from (dropped, errors, up)


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    """(upper bound, times up to it) for each bucket, as Prometheus has histograms."""
    bounds, seen = [*map(str, BUCKETS_S), "+Inf"], 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(bounds, counts, strict=True):
        seen += count
        buckets.append((bound, seen))
    return buckets
