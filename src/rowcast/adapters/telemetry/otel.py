"""Sends request spans to an OpenTelemetry collector over OTLP/HTTP; requires rowcast[otel].

The library queues, batches and sends spans in its own thread, and drops spans that it cannot deliver. Requests never
wait for the library.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import structlog

from rowcast.errors import SettingsError
from rowcast.http.request_log import LoggedRequest
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
        f"setting 'otel_endpoint' requires the package {missing.name}; install rowcast[otel] or remove the setting"
    ) from None

TRACES = "/v1/traces"
TIMEOUT_SECONDS = 5.0
EVERY_MILLISECONDS = 1000

log = structlog.get_logger("rowcast.otel")


def traces_url(endpoint: str) -> str:
    """Return the URL for spans: the collector's address followed by the protocol's path."""
    address = endpoint.rstrip("/")
    return address if address.endswith(TRACES) else address + TRACES


class OtelSpan:
    """The span of one request. `traceparent` is the value of the response's `traceparent` header."""

    def __init__(self, span: Any) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)

    def end(self, logged: LoggedRequest) -> None:
        """Record the result of the request in the span, and end the span."""
        if not self._span.is_recording():
            return
        self._span.update_name(f"{logged.method} {logged.route}")
        self._span.set_attributes({"http.route": logged.route, "http.response.status_code": logged.status})
        if logged.model:
            self._span.set_attributes(
                {"rowcast.model": logged.model, "rowcast.version": logged.version, "rowcast.rows": logged.rows}
            )
        if logged.status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Spans:
    """Creates spans for all requests in a sampled trace, and for a fraction of the requests without a trace."""

    def __init__(self, endpoint: str, ratio: float) -> None:
        # `_ReportingExporter` logs a failure once; the library would log it for every batch.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        exporter = _ReportingExporter(OTLPSpanExporter(traces_url(endpoint), timeout=TIMEOUT_SECONDS))
        self._processor = BatchSpanProcessor(exporter, schedule_delay_millis=EVERY_MILLISECONDS)
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource({"service.name": "rowcast", "service.version": VERSION}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("rowcast", VERSION)
        self._read = TraceContextTextMapPropagator().extract

    def begin(self, method: str, traceparent: bytes, started: int) -> OtelSpan:
        """Start a span that continues the caller's trace, if any; `started` is in nanoseconds since the Unix epoch."""
        context = self._read({"traceparent": traceparent.decode("latin-1")}) if traceparent else None
        span = self._tracer.start_span(
            method, context, SpanKind.SERVER, {"http.request.method": method}, start_time=started
        )
        return OtelSpan(span)

    def start(self) -> None:
        """Do nothing: the library starts its own thread."""

    def stop(self) -> None:
        """Deliver the remaining spans; wait no longer than the timeout of one delivery."""
        thread = threading.Thread(target=self._processor.shutdown, name="spans", daemon=True)
        thread.start()
        thread.join(TIMEOUT_SECONDS)


class _ReportingExporter(SpanExporter):  # type: ignore[misc]  # an optional dependency, untyped here
    """Logs once when delivery starts to fail, and once when it succeeds again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_failing = False

    def export(self, spans: Sequence[Any]) -> Any:
        result = self._exporter.export(spans)
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing != self._is_failing:
            self._is_failing = is_failing
            if is_failing:
                log.warning("cannot deliver spans; dropping them until the collector accepts them")
            else:
                log.info("delivering spans again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
