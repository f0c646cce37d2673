"""Configures logging: Rowcast and its libraries log to standard error in the same format."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import Processor

    from rowcast.settings import Settings

VERBOSE_LIBRARIES = ("httpx", "httpcore", "uvicorn", "opentelemetry", "urllib3", "asyncio")
"""Libraries whose `info` lines are not logged: these lines do not help operators, and some contain addresses."""


class LogStream:
    """A stream that discards what cannot be written, for example because the terminal is closed or the disk is full.

    A server must not fail because a log line cannot be written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, or discard it."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or discard what cannot be written."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_logging(settings: Settings) -> None:
    """Log JSON lines, or text on a terminal; include library logs, warnings and uncaught exceptions."""
    import logging

    import structlog

    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared, formatting = log_processors(as_text=as_text)
    level = getattr(logging, settings.log_level.upper())
    stream = cast("TextIO", LogStream(sys.stderr))
    structlog.configure(
        processors=[*shared, *formatting],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *formatting],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    _log_uncaught_exceptions()


def log_processors(*, as_text: bool) -> tuple[list[Processor], list[Processor]]:
    """Return the processors that add fields to every line, and the processors that format the line."""
    import structlog

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks never show local variables, which can contain rows and keys.
    if as_text:
        return shared, [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return shared, [structlog.processors.ExceptionRenderer(transformer), structlog.processors.JSONRenderer()]


def _log_uncaught_exceptions() -> None:
    import threading

    import structlog

    log = structlog.get_logger("rowcast")

    def log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("uncaught exception", exc_info=(kind, error, trace))

    def log_thread_exception(failure: Any) -> None:
        if failure.exc_type is not SystemExit:
            log_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)

    sys.excepthook = log_exception
    threading.excepthook = log_thread_exception
