"""What the doctor asks of parts that a server would use: each says why it is not well, or nothing."""

from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import closing
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
    """Why the store could not be written now; asks without making or changing it."""
    from rowcast.app.indexer import store

    path = store(settings).path
    if not path.exists():
        return ""
    try:
        uri = f"file:{path}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error)
    return ""


def repeats_failure(settings: Settings) -> str:
    """What is wrong with the replies that repeated requests get."""
    path = settings.repeats_file
    if not path.exists():
        return ""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=SECONDS)) as connection:
            (found,) = connection.execute("PRAGMA quick_check").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if found == "ok" else str(found)


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
