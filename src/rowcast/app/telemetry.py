"""What a server process reports about itself: counters, metrics, pushed metrics and tracing spans."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rowcast.adapters.telemetry.otel import Spans
    from rowcast.adapters.telemetry.pushgateway import Pusher
    from rowcast.serving.fleet import WorkerStatus
    from rowcast.settings import Settings

ALIVE = ("ready", "draining")


def tracer(settings: Settings) -> Spans | None:
    """Return what makes spans, if a collector is configured."""
    if settings.otel_endpoint is None:
        return None
    from rowcast.adapters.telemetry.otel import Spans

    return Spans(settings.otel_endpoint, settings.otel_ratio)


def push_target(settings: Settings) -> tuple[str, tuple[str, str] | None]:
    """Return the URL to which metrics are pushed, and the credentials."""
    from rowcast.adapters.telemetry.pushgateway import push_url

    name, password = settings.push_username, settings.push_password
    auth = (name, password.get_secret_value()) if name is not None and password is not None else None
    return push_url(settings.push_gateway or "", settings.push_job), auth


def pusher(
    settings: Settings, exposition: Callable[[], bytes], workers: Callable[[], list[WorkerStatus]], number: int
) -> Pusher | None:
    """Return what pushes metrics. Only the first live worker pushes, and the last one to end."""
    if settings.push_gateway is None:
        return None
    from rowcast.adapters.telemetry.pushgateway import Pusher

    def is_first_alive() -> bool:
        alive = [worker.worker for worker in workers() if worker.state in ALIVE]
        return alive[:1] in ([], [number])

    return Pusher(*push_target(settings), settings.push_seconds, exposition, is_first_alive)
