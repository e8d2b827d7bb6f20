"""The run's figures for Prometheus at /metrics. Needs prometheus-client, starlette and uvicorn (the extra `metrics`)."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgefer.devices.outputs.server import HttpServer, ServedSink
from edgefer.devices.outputs.stats import BUCKETS_S, RunStats
from edgefer.records import Frame
from edgefer.text import printable


class Metrics(ServedSink):
    """Serves /metrics at an address until it is closed; figures are computed on request, not in the loop.

    token: required unless on loopback. Raises SourceError when the address is in use.
    """

    def __init__(
        self,
        stats: RunStats,
        host: str,
        port: int,
        *,
        labels: Iterable[str],
        about: dict[str, str],
        token: str = "",
        log: Callable[[str], None] = lambda text: None,
    ):
        self._registry = CollectorRegistry()
        routes = [Route("/metrics", self._metrics)]
        self._server = HttpServer(routes, host, port, name="metrics", token=token, log=log)
        self._registry.register(StatsCollector(stats, tuple(labels), about, lambda: self._server.limit.guesses))
        ProcessCollector(registry=self._registry)
        self.name, self.port = self._server.name, self._server.port
        self.url = f"{self._server.address}/metrics"
        self._server.start()

    def _metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def write(self, frame: Frame) -> None:
        pass

    def close(self) -> None:
        self._server.close()


class StatsCollector(Collector):
    """A Prometheus collector over RunStats. labels: all possible ones, so that each has a figure from the start."""

    def __init__(
        self,
        stats: RunStats,
        labels: tuple[str, ...],
        about: dict[str, str],
        guesses: Callable[[], int] = lambda: 0,
    ):
        self._stats, self._labels, self._guesses = stats, labels, guesses
        self._about = {name: printable(value) for name, value in about.items()}

    def collect(self) -> Iterator[Metric]:
        now = self._stats.read()
        yield InfoMetricFamily("edgefer", "What runs here", value=self._about)
        yield CounterMetricFamily("edgefer_frames", "Frames read", value=now.frames)
        yield CounterMetricFamily("edgefer_frames_skipped", "Frames a live source gave too fast", value=now.skipped)
        faces = CounterMetricFamily("edgefer_faces", "Faces read, by label", labels=["label"])
        for label in self._labels:
            faces.add_metric([printable(label)], now.labels.get(label, 0))
        yield faces
        yield GaugeMetricFamily("edgefer_frames_per_second", "Frames read per second, recently", value=now.fps)
        yield GaugeMetricFamily("edgefer_frame_age_seconds", "Time since the last frame", value=now.age_s)
        if now.temperature_c is not None:
            yield GaugeMetricFamily("edgefer_cpu_temperature_celsius", "Hottest thermal zone", value=now.temperature_c)
        stages = HistogramMetricFamily("edgefer_stage_seconds", "Time a frame spent in a stage", labels=["stage"])
        for stage, (counts, total_s) in self._stats.histograms().items():
            stages.add_metric([stage], _cumulative(counts), total_s)
        yield stages
        giving = GaugeMetricFamily("edgefer_source_up", "1 unless a source is lost or has failed", labels=["source"])
        for source in now.sources:
            giving.add_metric([source.name], source.up)
        yield giving
        dropped = CounterMetricFamily("edgefer_sink_dropped_frames", "Frames a sink dropped", labels=["sink"])
        errors = CounterMetricFamily("edgefer_sink_errors", "How often a sink failed", labels=["sink"])
        up = GaugeMetricFamily("edgefer_sink_up", "1 while a sink works", labels=["sink"])
        for sink in now.sinks:
            dropped.add_metric([sink.name], sink.dropped)
            errors.add_metric([sink.name], sink.errors)
            up.add_metric([sink.name], not sink.trouble)
        yield from (dropped, errors, up)
        yield CounterMetricFamily("edgefer_wrong_tokens", "Wrong tokens received", value=self._guesses())


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    """(upper bound, cumulative count) of each bucket, for Prometheus' histograms."""
    bounds, seen = [*map(str, BUCKETS_S), "+Inf"], 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(bounds, counts, strict=True):
        seen += count
        buckets.append((bound, seen))
    return buckets
