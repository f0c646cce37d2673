"""The model repository of the Open Inference Protocol: list, load and unload models (docs/decisions/0048)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from rowcast.errors import ModelNotFound
from rowcast.registry.ports import Reference
from rowcast.serving.deployment import Deployment
from rowcast.serving.fleet import Fleet, ReloadResult

if TYPE_CHECKING:
    from rowcast.serving.interface import ModelInterface


class RepositoryEntry(msgspec.Struct, frozen=True):
    """One version in the repository index."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


class Repository:
    """The versions that this server can serve. `published` reads them from the registry and may block."""

    def __init__(
        self, published: Callable[[], Sequence[Reference]], fleet: Fleet, deployment: Deployment[ModelInterface]
    ) -> None:
        self._published = published
        self._fleet = fleet
        self._deployment = deployment

    async def index(self) -> list[RepositoryEntry]:
        """Return every version that is served or could be loaded."""
        published = await asyncio.to_thread(self._published)
        unloaded = await self._fleet.unloaded_models()
        live = {Reference(model.name, model.version) for model in self._deployment.models()}
        entries = []
        for reference in sorted({*published, *live}):
            name, version = reference.name, str(reference.version)
            if reference in live:
                entries.append(RepositoryEntry(name, version, "READY"))
            else:
                reason = "unloaded" if name in unloaded else "not loaded"
                entries.append(RepositoryEntry(name, version, "UNAVAILABLE", reason))
        return entries

    async def set_loaded(self, name: str, *, loaded: bool) -> ReloadResult:
        """Load or unload the model in every server process."""
        names = {reference.name for reference in await asyncio.to_thread(self._published)}
        if name not in names:
            raise ModelNotFound(f"unknown model {name[:80]!r}; available models: {', '.join(sorted(names))}")
        return await self._fleet.set_unloaded(name, unloaded=not loaded)
