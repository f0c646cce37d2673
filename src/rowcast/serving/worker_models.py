"""The models of a worker: the versions that aliases point at, and other versions that messages require."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from rowcast.errors import RowcastError
from rowcast.registry import bundle
from rowcast.registry.ports import Reference, RegistryReader
from rowcast.serving.deployment import Deployment
from rowcast.serving.interface import ModelInterface
from rowcast.serving.live_models import LiveModel
from rowcast.serving.reload import FollowResult, RegistryFollower

MAX_OTHERS: Final = 8
"""The maximum number of loaded versions that no alias points at."""
MAX_UNKNOWN: Final = 1000
POLL_SECONDS: Final = 0.25

log = structlog.get_logger("rowcast.worker")


class WorkerModels:
    """Follows the aliases in the registry, and loads other versions by their digests on demand."""

    def __init__(
        self,
        registry: RegistryReader,
        names: Sequence[str],
        follower: RegistryFollower[LiveModel],
        load: Callable[[Reference], LiveModel],
    ) -> None:
        self._registry = registry
        self._names = {name.partition("@")[0] for name in names}
        self._follower = follower
        self._load = load
        self._generation = registry.generation()
        self._result: FollowResult[LiveModel] = follower.load_all()
        self.deployment: Deployment[ModelInterface] = Deployment(self._result.models)
        """The models that the registry serves."""
        self._others: dict[str, LiveModel] = {}
        self._unknown: dict[str, int] = {}
        """Maps each digest that was not found to the registry generation in which it was looked up."""
        self._lookups: dict[str, asyncio.Task[LiveModel | None]] = {}
        self._poll: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the registry."""
        self._poll = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following the registry."""
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)

    def loaded(self) -> Sequence[LiveModel]:
        """Return all loaded models."""
        return [*self._result.models.values(), *self._others.values()]

    def problem(self) -> str | None:
        """Return why a published version cannot be used, or None."""
        return self._result.error or None

    async def find(self, digest: str) -> LiveModel | None:
        """Return the model with this digest; load it if the registry has it."""
        for model in self._result.models.values():
            if model.digest == digest:
                return model
        if digest in self._others:
            return self._others[digest]
        if self._unknown.get(digest) == self._generation:
            return None
        lookup = self._lookups.get(digest)
        if lookup is None:
            lookup = self._lookups[digest] = asyncio.create_task(self._look_up(digest))
            lookup.add_done_callback(lambda _: self._lookups.pop(digest, None))
        return await asyncio.shield(lookup)

    async def _look_up(self, digest: str) -> LiveModel | None:
        generation = self._generation
        model = await asyncio.to_thread(self._load_digest, digest)
        if model is None:
            _limit(self._unknown, MAX_UNKNOWN)
            self._unknown[digest] = generation
        else:
            _limit(self._others, MAX_OTHERS)
            self._others[digest] = model
        return model

    def _load_digest(self, digest: str) -> LiveModel | None:
        """Load the version with this digest from the registry; search each model's newest versions first."""
        for name, versions in self._registry.models().items():
            if self._names and name not in self._names:
                continue
            for version in reversed(versions):
                reference = Reference(name, version)
                try:
                    if bundle.read_manifest(self._registry.folder(reference)).digest == digest:
                        log.info("loading a version on demand", model=name, version=version)
                        return self._load(reference)
                except RowcastError as error:
                    log.warning("cannot load a version", model=name, version=version, reason=error.message)
        return None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                generation = await asyncio.to_thread(self._registry.generation)
                if generation != self._generation:
                    self._result = await asyncio.to_thread(self._follower.follow, self._result.models)
                    self._generation = generation
                    self.deployment.swap(self._result.models)
                    if self._result.error:
                        log.error("cannot use a new version", reason=self._result.error)
            except (RowcastError, OSError) as error:  # later changes must still be detected
                log.warning("cannot read the registry", reason=str(error))


def _limit(entries: dict[str, Any], most: int) -> None:
    """Remove the oldest entries to make room for a new entry."""
    while len(entries) >= most:
        del entries[next(iter(entries))]
