"""Pushes metrics to a Prometheus Pushgateway from a separate thread, so that no request waits for a push.

The first live server process pushes the metrics of all processes; the last live process pushes the metrics once more
when it stops. The thread logs one line when pushes start to fail, and one line when they succeed again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import httpx
import structlog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TIMEOUT_SECONDS = 5.0
MIN_TIMEOUT_SECONDS = 1.0

log = structlog.get_logger("rowcast.push")


def push_url(gateway: str, job: str) -> str:
    """Return the URL for pushes. A URL with a path is used unchanged; otherwise, the job's path is appended."""
    if urlsplit(gateway).path.strip("/"):
        return gateway
    return f"{gateway.rstrip('/')}/metrics/job/{quote(job, safe='')}"


def push_once(url: str, auth: tuple[str, str] | None, content: bytes, timeout: float = TIMEOUT_SECONDS) -> str:
    """Post the metrics once; return the reason for a failure, or an empty string."""
    try:
        reply = httpx.post(url, content=content, auth=auth, headers={"content-type": CONTENT_TYPE}, timeout=timeout)
    except httpx.HTTPError as error:
        return f"no response ({type(error).__name__})"
    if reply.is_success:
        return ""
    hint = "; check push_username and push_password" if reply.status_code in (401, 403) else ""
    return f"status {reply.status_code}{hint}"


class Pusher:
    """Pushes at a fixed interval while `is_responsible` returns True, so that only one of several processes pushes."""

    def __init__(
        self,
        url: str,
        auth: tuple[str, str] | None,
        seconds: float,
        exposition: Callable[[], bytes],
        is_responsible: Callable[[], bool],
    ) -> None:
        self._url = url
        self._auth = auth
        self._seconds = seconds
        self._timeout = min(TIMEOUT_SECONDS, max(MIN_TIMEOUT_SECONDS, seconds))  # a push ends before the next is due
        self._exposition = exposition
        self._is_responsible = is_responsible
        self._stopping = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Push once more and stop the thread; wait no longer than the timeout of one push."""
        self._stopping.set()
        with contextlib.suppress(RuntimeError):  # the thread was never started
            self._thread.join(self._timeout)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self._push()
        self._push()

    def _push(self) -> None:
        if not self._is_responsible():
            return
        reason = push_once(self._url, self._auth, self._exposition(), self._timeout)
        if reason and not self._is_failing:
            log.warning("cannot push metrics", gateway=urlsplit(self._url).netloc, reason=reason)
        elif self._is_failing and not reason:
            log.info("pushing metrics again", gateway=urlsplit(self._url).netloc)
        self._is_failing = bool(reason)
