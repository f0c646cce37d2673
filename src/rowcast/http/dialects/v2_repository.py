"""Models put away and taken out again, for all workers of this server (docs/decisions/0048)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec

from rowcast.adapters.files.worker_state import ServerFolder, WorkerStatus
from rowcast.errors import ModelNotFound
from rowcast.registry.ports import Reference
from rowcast.runtime.worker import Member
from rowcast.serving.live_models import Deployment
from rowcast.serving.reload import Follower


class Shelved(msgspec.Struct, frozen=True):
    """One version in the repository's index."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


class Repository:
    """What the registry has for this server, and what of it is served."""

    def __init__(self, board: ServerFolder, member: Member, follower: Follower, deployment: Deployment) -> None:
        self._board = board
        self._member = member
        self._follower = follower
        self._deployment = deployment

    async def index(self) -> list[Shelved]:
        """Every version that is served, or would be."""
        wanted, away = await asyncio.to_thread(lambda: (self._follower.wanted(), self._board.unloaded_models()))
        live = {Reference(model.name, model.version) for model in self._deployment.models()}
        found = []
        for reference in sorted({*wanted, *live}):
            if reference in live:
                found.append(Shelved(reference.name, str(reference.version), "READY"))
            else:
                reason = "unloaded" if reference.name in away else "not loaded"
                found.append(Shelved(reference.name, str(reference.version), "UNAVAILABLE", reason))
        return found

    async def change(self, name: str, *, loaded: bool) -> tuple[str, Sequence[WorkerStatus]]:
        """Let every worker serve the model from now on, or no longer; ModelNotFound when there is none."""
        wanted = {reference.name for reference in await asyncio.to_thread(self._follower.wanted)}
        if name not in wanted:
            raise ModelNotFound(
                f"there is no model {name[:80]!r} for this server; there are {', '.join(sorted(wanted))}"
            )
        await asyncio.to_thread(self._board.set_unloaded, name, unloaded=not loaded)
        done = await self._member.reload()
        return done.status, done.workers
