"""Metrics pushed to a Prometheus Pushgateway: by a thread of its own, never in a request.

Of several workers the first that lives pushes, for all of them; the last one to end pushes once more. A gateway that is
down or hangs costs a line in the log when that begins and when it is over.
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

log = structlog.get_logger("rowcast.push")


def push_url(gateway: str, job: str) -> str:
    """Where to post: an address with a path is used as it is, any other gets the path of this job."""
    if urlsplit(gateway).path.strip("/"):
        return gateway
    return f"{gateway.rstrip('/')}/metrics/job/{quote(job, safe='')}"


def failure(url: str, auth: tuple[str, str] | None, content: bytes) -> str:
    """Post once; why it failed, or nothing."""
    try:
        reply = httpx.post(
            url, content=content, auth=auth, headers={"content-type": CONTENT_TYPE}, timeout=TIMEOUT_SECONDS
        )
    except httpx.HTTPError as error:
        return f"it does not answer ({type(error).__name__})"
    if reply.is_success:
        return ""
    return f"it answers {reply.status_code}" + (": check name and password" if reply.status_code in (401, 403) else "")


class Pusher:
    """Pushes every few seconds while `mine` says that it is this process's turn."""

    def __init__(
        self,
        url: str,
        auth: tuple[str, str] | None,
        seconds: float,
        exposition: Callable[[], bytes],
        mine: Callable[[], bool],
    ) -> None:
        self._url = url
        self._auth = auth
        self._seconds = seconds
        self._exposition = exposition
        self._mine = mine
        self._ending = threading.Event()
        self._fails = False
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Push what was counted last; a gateway that hangs is not waited for longer than one push may take."""
        self._ending.set()
        with contextlib.suppress(RuntimeError):  # never begun
            self._thread.join(TIMEOUT_SECONDS)

    def _run(self) -> None:
        while not self._ending.wait(self._seconds):
            self._push()
        self._push()

    def _push(self) -> None:
        if not self._mine():
            return
        reason = failure(self._url, self._auth, self._exposition())
        if reason and not self._fails:
            log.warning("metrics cannot be pushed", gateway=urlsplit(self._url).netloc, reason=reason)
        elif self._fails and not reason:
            log.info("metrics are pushed again", gateway=urlsplit(self._url).netloc)
        self._fails = bool(reason)
