"""The lifecycle of a server process."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from rowcast.errors import SettingsError
from rowcast.runtime import lifecycle
from rowcast.runtime.lifecycle import Application, Closing, IndexerChild, Lifecycle, Reporting
from rowcast.serving.health import Health
from support import apps
from support.waiting import eventually_async


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """Restore the garbage collector settings that a lifecycle changes for the whole process."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class NotedPart:
    """A part that records each start and stop."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self._name = name
        self._notes = notes

    async def start(self) -> None:
        self._notes.append(f"start {self._name}")

    async def stop(self) -> None:
        self._notes.append(f"stop {self._name}")


def as_app(lifespan: Any) -> Any:
    return lambda scope, receive, send: lifespan(receive, send)


async def test_parts_start_in_order_and_stop_in_reverse_order() -> None:
    notes: list[str] = []
    health = Health()
    parts = [NotedPart("a", notes), NotedPart("b", notes), Closing(lambda: notes.append("close"))]
    life = Lifecycle(health, parts, lambda: notes.append("drain"))

    async with apps.lifespan(as_app(life)):
        assert health.is_ready
        assert notes == ["start a", "start b"]

    assert not health.is_ready
    assert notes[2:] == ["drain", "close", "stop b", "stop a"]


async def test_a_draining_process_is_not_ready() -> None:
    health, drained = Health(), list[bool]()
    life = Lifecycle(health, [], lambda: drained.append(health.is_ready))
    health.is_ready = True

    life.drain()

    assert drained == [False]


async def test_stopping_a_reporter_does_not_block_the_event_loop() -> None:
    loop_thread, stopped = asyncio.get_running_loop(), list[object]()
    reporting = Reporting(lambda: None, lambda: stopped.append(asyncio._get_running_loop()))

    await reporting.start()
    await reporting.stop()

    assert stopped == [None]
    assert loop_thread.is_running()


async def test_an_app_is_built_when_its_lifespan_starts() -> None:
    built: list[str] = []

    def build() -> Any:
        built.append("app")
        return as_app(Lifecycle(Health(), [], lambda: None))

    app = Application(build)
    assert built == []
    async with apps.lifespan(app):
        assert built == ["app"]


async def test_the_server_receives_the_reason_why_an_app_cannot_be_built() -> None:
    def build() -> Any:
        raise SettingsError("no model to serve")

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    await Application(build)({"type": "lifespan"}, receive, send)

    assert sent == [{"type": "lifespan.startup.failed", "message": "no model to serve"}]


async def test_a_request_before_the_lifespan_starts_raises_an_error() -> None:
    with pytest.raises(RuntimeError, match="lifespan"):
        await Application(lambda: None)({"type": "http"}, None, None)  # type: ignore[arg-type,return-value]


WAIT = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]


async def test_the_indexer_runs_until_its_server_stops(capfd: pytest.CaptureFixture[str]) -> None:
    child = IndexerChild(WAIT, os.environ, lambda: False)
    await child.start()

    async def is_up() -> bool:
        return "up" in capfd.readouterr().out

    await eventually_async(is_up)
    await asyncio.wait_for(child.stop(), 10)


async def test_no_indexer_is_started_while_another_server_runs_an_indexer() -> None:
    asked: list[bool] = []
    child = IndexerChild(["/does/not/exist"], {}, lambda: asked.append(True) or True)
    await child.start()

    async def has_looked() -> bool:
        return bool(asked)

    with capture_logs() as logs:
        await eventually_async(has_looked)
        await child.stop()

    assert logs == []


async def test_starting_the_indexer_is_retried_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CHECK_SECONDS", 0.01)
    child = IndexerChild(["/does/not/exist"], {}, lambda: False)
    with capture_logs() as logs:
        await child.start()

        async def is_tried_twice() -> bool:
            return [line["event"] for line in logs][:2] == ["cannot start the indexer"] * 2

        await eventually_async(is_tried_twice)
        await child.stop()
