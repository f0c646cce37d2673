"""A batcher and a recorder, connected as in a server process; the journal is a parameter."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from rowcast.access.context import RequestContext
from rowcast.events import Listener
from rowcast.history.commit_waiter import CommitWaiter
from rowcast.history.ports import Journal
from rowcast.schema.sensitive import Redactor
from rowcast.serving.batcher import Batcher
from rowcast.serving.live_models import LiveModel
from rowcast.serving.recorder import Recorder
from rowcast.serving.requests import PendingRequest, Render
from rowcast.serving.rows import Row
from rowcast.serving.scorer import LocalScorer


class Serving:
    """Scores rows, records them in a journal and returns each reply through a future."""

    def __init__(
        self,
        journal: Journal,
        listen: Listener = lambda event: None,
        *,
        max_waiting: int = 10_000,
        redactor: Redactor | None = None,
        commits: CommitWaiter | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.recorder = Recorder(journal, listen, redactor=redactor, commits=commits, now=now)
        self.batcher = Batcher(LocalScorer(), self.recorder, max_waiting=max_waiting)
        self.queue = self.batcher.queue

    def predict(
        self,
        model: LiveModel,
        row: Row,
        request_id: str = "r",
        *,
        deadline: float = math.inf,
        render: Render | None = None,
    ) -> asyncio.Future[Any]:
        """Submit one row and return a future for its reply."""
        return self._submit(model, (row,), request_id, deadline, is_single=True, render=render)

    def predict_all(
        self, model: LiveModel, rows: Sequence[Row], request_id: str = "r", *, deadline: float = math.inf
    ) -> asyncio.Future[Any]:
        """Submit the rows of one request and return a future for their replies."""
        return self._submit(model, rows, request_id, deadline, is_single=False)

    def _submit(
        self,
        model: LiveModel,
        rows: Sequence[Row],
        request_id: str,
        deadline: float,
        *,
        is_single: bool,
        render: Render | None = None,
    ) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        context = RequestContext("test", request_id, deadline=deadline)
        self.batcher.submit(PendingRequest(model, rows, context, answer, is_single, render))
        return answer
