"""The state that a server's processes share, and the number that identifies each process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rowcast.serving.fleet import ServerState
    from rowcast.settings import Settings


class Place(NamedTuple):
    """A supervised server process's number, and the state that it shares with the other processes."""

    state: ServerState
    number: int


def server_state(settings: Settings) -> ServerState:
    """Return the state that the processes of one server share; call this once per server."""
    from rowcast.adapters.files.server_state import ServerFolder

    return ServerFolder(settings.run_folder, settings.workers)
