"""Logs: ours and those of the libraries, in one form on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import Processor

    from rowcast.settings import Settings

CHATTY = ("httpx", "httpcore", "uvicorn", "opentelemetry", "urllib3", "asyncio")
"""Libraries that tell at `info` what is no news here; some would tell addresses."""


def configure_logging(settings: Settings) -> None:
    """JSON lines, or text on a terminal: our lines, those of libraries, warnings, and what ends a thread or process."""
    import logging

    import structlog

    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    always, last = stages(as_text=as_text)
    level = getattr(logging, settings.log_level.upper())
    structlog.configure(
        processors=[*always, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*always, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    _log_what_nobody_caught()


def stages(*, as_text: bool) -> tuple[list[Processor], list[Processor]]:
    """What a line goes through: what every line gets, and how it is written."""
    import structlog

    always: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Never the values of local variables: they hold rows and keys.
    if as_text:
        return always, [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return always, [structlog.processors.ExceptionRenderer(transformer), structlog.processors.JSONRenderer()]


def _log_what_nobody_caught() -> None:
    import threading

    import structlog

    log = structlog.get_logger("rowcast")

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("nobody caught this", exc_info=(kind, error, trace))

    def in_thread(failed: Any) -> None:
        if failed.exc_type is not SystemExit:
            uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
