"""The workers of a server under a supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rowcast.serving.fleet import WorkerState
    from rowcast.settings import Settings


class Place(NamedTuple):
    """The number of a worker under a supervisor, and the state that it shares with the other workers."""

    state: WorkerState
    worker: int


def worker_state(settings: Settings) -> WorkerState:
    """Return the state that the workers of one server share; call this once per server."""
    from rowcast.adapters.files.worker_state import ServerFolder

    return ServerFolder(settings.run_folder, settings.workers)
