"""The telemetry of a server process: metrics, pushes to a Pushgateway, and tracing spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rowcast.adapters.telemetry.metrics import Metrics
    from rowcast.adapters.telemetry.otel import Spans
    from rowcast.adapters.telemetry.pushgateway import Pusher
    from rowcast.runtime.lifecycle import Part
    from rowcast.serving.fleet import Counters, ProcessStatus, ServerState
    from rowcast.settings import Settings

ALIVE = ("ready", "draining")


def metrics(settings: Settings, counters: Counters) -> Metrics:
    """Return the metrics of this process."""
    from rowcast.adapters.files.journal_reader import FolderJournalReader
    from rowcast.adapters.telemetry.metrics import Metrics

    backlog = FolderJournalReader(settings.journal_folder).backlog
    return Metrics(counters, backlog, old_names=settings.metrics_aliases)


def exposition(metrics: Metrics, processes: Callable[[], Sequence[ProcessStatus]]) -> Callable[[], bytes]:
    """Return a function that renders the metrics of all server processes in the Prometheus text format."""

    def render() -> bytes:
        from rowcast.adapters.telemetry import prometheus

        return prometheus.exposition(metrics, processes())

    return render


def tracer(settings: Settings) -> Spans | None:
    """Return the tracer, or None if no collector is configured."""
    if settings.otel_endpoint is None:
        return None
    from rowcast.adapters.telemetry.otel import Spans

    return Spans(settings.otel_endpoint, settings.otel_ratio)


def reporters(
    settings: Settings, spans: Spans | None, exposition: Callable[[], bytes], state: ServerState, number: int
) -> list[Part]:
    """Return the server parts that send metrics and spans to other services."""
    from rowcast.runtime.lifecycle import Reporting

    parts = [spans, _pusher(settings, exposition, state.processes, number)]
    return [Reporting(part.start, part.stop) for part in parts if part is not None]


def push_target(settings: Settings) -> tuple[str, tuple[str, str] | None]:
    """Return the URL for pushed metrics, and the user name and password, if any."""
    from rowcast.adapters.telemetry.pushgateway import push_url

    name, password = settings.push_username, settings.push_password
    auth = (name, password.get_secret_value()) if name is not None and password is not None else None
    return push_url(settings.push_gateway or "", settings.push_job), auth


def _pusher(
    settings: Settings, exposition: Callable[[], bytes], processes: Callable[[], list[ProcessStatus]], number: int
) -> Pusher | None:
    """Return the pusher. Only the first live server process pushes metrics; if none is live, every process does."""
    if settings.push_gateway is None:
        return None
    from rowcast.adapters.telemetry.pushgateway import Pusher

    def is_first_alive() -> bool:
        alive = [process.process for process in processes() if process.state in ALIVE]
        return alive[:1] in ([], [number])

    return Pusher(*push_target(settings), settings.push_seconds, exposition, is_first_alive)
