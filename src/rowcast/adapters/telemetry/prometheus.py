"""Renders the metrics of all server processes in the text format of Prometheus, during a scrape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rowcast.adapters.files.shared_counters import sums
from rowcast.adapters.telemetry.metrics import BOUNDS, LATEST, PLAIN, PREDICTIONS, REDIS_AWAY, REQUESTS, STATES, Metrics
from rowcast.adapters.telemetry.old_names import old_names
from rowcast.serving.fleet import Labels, ProcessStatus
from rowcast.serving.ports import QueueStatus


def exposition(metrics: Metrics, processes: Sequence[ProcessStatus]) -> bytes:
    """Return the response to a scrape."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(_collect(metrics, processes)))
    return generate_latest(registry)


def _collect(metrics: Metrics, processes: Sequence[ProcessStatus]) -> Iterator[Metric]:
    """Yield all metrics."""
    totals = sums(metrics.counts)
    slowest = _slowest(processes)
    yield from _counters(totals)
    yield from _gauges(metrics, processes, slowest)
    if metrics.queue_status is not None:
        yield from _queue_gauges(metrics.queue_status())
    if metrics.old_names:
        requests = {labels[1:]: cells for labels, cells in totals.items() if labels[0] == REQUESTS}
        rows = sum(cells[0] for labels, cells in totals.items() if labels[0] == PREDICTIONS)
        latest = max(tuple(cells) for labels, cells in metrics.counts.each() if labels[0] == LATEST)
        yield from old_names(requests, BOUNDS, rows, latest[1], max(slowest.values(), default=0.0))


def _gauges(
    metrics: Metrics, processes: Sequence[ProcessStatus], slowest: Mapping[tuple[str, str], float]
) -> Iterator[Metric]:
    seconds = GaugeMetricFamily(
        "rowcast_model_load_seconds",
        "Time to load and check a served model, in the slowest server process.",
        labels=["model", "version"],
    )
    for labels, duration in sorted(slowest.items()):
        seconds.add_metric(labels, duration)
    yield seconds
    yield GaugeMetricFamily(
        "rowcast_models_loaded",
        "Models that at least one server process serves.",
        value=len({name for name, _ in slowest}),
    )
    states = GaugeMetricFamily("rowcast_server_processes", "Server processes, by state.", labels=["state"])
    for state in STATES:
        states.add_metric([state], sum(process.state == state for process in processes))
    yield states
    yield GaugeMetricFamily(
        "rowcast_queue_rows",
        "Rows waiting to be scored, summed over all server processes.",
        value=sum(process.waiting for process in processes),
    )
    yield GaugeMetricFamily(
        "rowcast_queue_age_seconds",
        "Waiting time of the oldest row in the queue.",
        value=max((process.waiting_seconds for process in processes), default=0.0),
    )
    yield GaugeMetricFamily(
        "rowcast_journal_segments",
        "Journal segments that have not been stored completely; one per server process is normal.",
        value=float(metrics.backlog()),
    )


def _queue_gauges(status: QueueStatus) -> Iterator[Metric]:
    yield GaugeMetricFamily("rowcast_queue_messages", "Unanswered messages to workers.", value=status.messages)
    yield GaugeMetricFamily(
        "rowcast_queue_message_age_seconds", "Age of the oldest message that no worker has taken.", value=status.seconds
    )
    yield GaugeMetricFamily("rowcast_queue_workers", "Live workers of the queue.", value=len(status.workers))


class _Snapshot(Collector):
    """The metrics of one scrape, for the client library."""

    def __init__(self, metrics: Iterator[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> list[Metric]:
        return self._metrics


def _counters(totals: Mapping[Labels, list[float]]) -> Iterator[Metric]:
    request_labels = ["route", "method", "status"]
    requests = CounterMetricFamily("rowcast_requests", "HTTP requests answered.", labels=request_labels)
    durations = HistogramMetricFamily(
        "rowcast_request_duration_seconds",
        "Time from receiving a request's headers to the reply.",
        labels=request_labels,
    )
    away = GaugeMetricFamily(
        "rowcast_redis_away", "Server processes that are not using Redis, because a call failed.", labels=["use"]
    )
    plain = {family: CounterMetricFamily(name, text, labels=labels) for family, (name, text, labels) in PLAIN.items()}
    for (family, *labels), cells in totals.items():
        if family == REQUESTS:
            cumulative = list(accumulate(cells[:-1]))
            requests.add_metric(labels, cumulative[-1])
            durations.add_metric(labels, list(zip(BOUNDS, cumulative, strict=True)), cells[-1])
        elif family in plain:
            plain[family].add_metric(labels, cells[0])
        elif family == REDIS_AWAY:
            away.add_metric(labels, cells[0])
    yield from (requests, durations, *plain.values(), away)


def _slowest(processes: Sequence[ProcessStatus]) -> dict[tuple[str, str], float]:
    """Return the longest load time of each model version, in seconds."""
    slowest: dict[tuple[str, str], float] = {}
    for loaded in (loaded for process in processes for loaded in process.models):
        key = loaded.model, str(loaded.version)
        slowest[key] = max(loaded.seconds, slowest.get(key, 0.0))
    return slowest
