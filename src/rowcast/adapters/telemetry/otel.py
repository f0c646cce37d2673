"""Spans of requests for an OpenTelemetry collector, over OTLP/HTTP; needs rowcast[otel].

The library's own queue, batches and thread: what cannot be delivered is dropped, and no request waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import structlog

from rowcast.errors import SettingsError
from rowcast.version import VERSION

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as missing:
    raise SettingsError(
        f"setting 'otel_endpoint' needs the package {missing.name}: install rowcast[otel], or leave the setting out"
    ) from None

TRACES = "/v1/traces"
TIMEOUT_SECONDS = 5.0
EVERY_MILLISECONDS = 1000

log = structlog.get_logger("rowcast.otel")


def traces_url(endpoint: str) -> str:
    """Where spans go: the collector's address and the path that the protocol has for them."""
    address = endpoint.rstrip("/")
    return address if address.endswith(TRACES) else address + TRACES


class Span:
    """One request. `traceparent` names it to others."""

    def __init__(self, span: Any) -> None:
        self._span = span
        found = span.get_span_context()
        self.traceparent = b"00-%032x-%016x-%02x" % (found.trace_id, found.span_id, found.trace_flags)

    def end(self, method: str, route: str, status: int, asked: tuple[str, int, int]) -> None:
        """The request is over; `asked` is the model, its version and the number of rows."""
        if not self._span.is_recording():
            return
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        model, version, rows = asked
        if model:
            self._span.set_attributes({"rowcast.model": model, "rowcast.version": version, "rowcast.rows": rows})
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Spans:
    """Makes a span a request: of a share of those that begin here, and of those whose caller's trace is sampled."""

    def __init__(self, endpoint: str, ratio: float) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_Telling` says it once, not at every batch
        exporter = _Telling(OTLPSpanExporter(traces_url(endpoint), timeout=TIMEOUT_SECONDS))
        self._processor = BatchSpanProcessor(exporter, schedule_delay_millis=EVERY_MILLISECONDS)
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource({"service.name": "rowcast", "service.version": VERSION}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("rowcast", VERSION)
        self._read = TraceContextTextMapPropagator().extract

    def begin(self, method: str, traceparent: bytes, started: int) -> Span:
        """A span that goes on where the caller's ended; `started` in UTC nanoseconds."""
        context = self._read({"traceparent": traceparent.decode("latin-1")}) if traceparent else None
        span = self._tracer.start_span(
            method, context, SpanKind.SERVER, {"http.request.method": method}, start_time=started
        )
        return Span(span)

    def stop(self) -> None:
        """Deliver what is left, as long as that takes no longer than one delivery may."""
        last = threading.Thread(target=self._processor.shutdown, name="spans", daemon=True)
        last.start()
        last.join(TIMEOUT_SECONDS)


class _Telling(SpanExporter):  # type: ignore[misc]  # an extra: without types here
    """Says once that spans cannot be delivered, and once that they can again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._fails = False

    def export(self, spans: Sequence[Any]) -> Any:
        result = self._exporter.export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails != self._fails:
            self._fails = fails
            if fails:
                log.warning("spans cannot be delivered; they are dropped until the collector takes them")
            else:
                log.info("spans are delivered again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
