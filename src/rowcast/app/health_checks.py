"""What the doctor asks of parts that a server would use: each says why it is not well, or nothing."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rowcast.adapters.files.worker_state import WorkerStatus
    from rowcast.settings import Settings

SECONDS = 5.0


def running_servers(settings: Settings) -> dict[str, list[WorkerStatus]]:
    """The servers that run from this home, each with its workers."""
    from rowcast.adapters.files.worker_state import running_servers as find_servers

    return find_servers(settings.run_folder)


def store_failure(settings: Settings) -> str:
    """Return why the store cannot be written now, or nothing. Creates and changes nothing."""
    from rowcast.app.history import store
    from rowcast.errors import RowcastError

    try:
        store(settings).check()
    except RowcastError as error:
        return error.message
    return ""


def repeats_failure(settings: Settings) -> str:
    """Return why the idempotency store cannot be used, or nothing."""
    from rowcast.adapters.sqlite.idempotency import SqliteIdempotencyStore
    from rowcast.errors import RowcastError

    try:
        SqliteIdempotencyStore(settings.repeats_file).check()
    except RowcastError as error:
        return error.message
    return ""


def push_failure(settings: Settings) -> str:
    """Why nothing can be pushed; asks without pushing."""
    import httpx

    from rowcast.app.telemetry import push_target

    url, auth = push_target(settings)
    try:
        status = httpx.get(url, auth=auth, timeout=SECONDS).status_code
    except httpx.HTTPError as error:
        return f"{url} does not answer ({type(error).__name__})"
    # Most answer 405 to a question: whoever says so is there.
    return f"{url} answers {status}" if status in (401, 403, 407) or status >= 500 else ""


def otel_failure(settings: Settings) -> str:
    """Why no span can be delivered; delivers none."""
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        return "rowcast[otel] is not installed"
    import httpx

    from rowcast.adapters.telemetry.otel import traces_url

    url = traces_url(settings.otel_endpoint or "")
    try:
        reply = httpx.post(url, content=b"", headers={"content-type": "application/x-protobuf"}, timeout=SECONDS)
    except httpx.HTTPError as error:
        return f"{url} does not answer ({type(error).__name__})"
    return "" if reply.is_success else f"{url} answers {reply.status_code}"
