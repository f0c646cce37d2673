"""A server process: it reports its state and serves the registry's current models."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.files.server_state import ServerFolder
from rowcast.errors import RegistryError, RowcastError
from rowcast.registry.ports import ImportResult, Reference
from rowcast.runtime.server_process import LiveParts, ServerProcess, StartingPoint
from rowcast.serving.batcher import QueueState
from rowcast.serving.deployment import Deployment
from rowcast.serving.live_models import LiveModel
from rowcast.serving.reload import RegistryFollower, ServedVersions
from support import models
from support.waiting import eventually_async


@dataclass
class World:
    """A registry and a server process that serves its models."""

    folder: Path
    imports: list[ImportResult] = field(default_factory=list)
    on_change: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.registry = FolderRegistry(self.folder / "models")
        self.publish()
        self.state = ServerFolder(self.folder / "run", 1)
        follower = RegistryFollower(
            self.registry,
            (),
            models.loader(self.registry),
            lambda event: None,
            trial=lambda reference: None,
            served_versions=ServedVersions(dict, lambda versions: None),
            unloaded=self.state.unloaded_models,
        )
        result = follower.load_all()
        self.deployment: Deployment[LiveModel] = Deployment(result.models)
        point = StartingPoint(self.registry.generation(), 0, result)
        self.process = ServerProcess(
            self.state,
            self.state.slot(0),
            LiveParts(self.deployment, follower, point),
            generation=self.registry.generation,
            import_models=lambda: self.imports,
            queue=lambda: QueueState(3, 1.5),
            on_change=self._changed,
        )

    def _changed(self) -> None:
        self.on_change()  # looked up at each call, because tests replace `on_change`

    def publish(self) -> Reference:
        schema = models.number_columns(2)
        return models.publish(self.registry, "sum", models.sum_graph(2), schema, models.REGRESSION, "values")

    async def serves(self, version: int) -> None:
        async def is_served() -> bool:
            return self.deployment.get("sum").version == version

        await eventually_async(is_served)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@contextlib.asynccontextmanager
async def started(world: World) -> AsyncIterator[ServerProcess]:
    await world.process.start()
    try:
        yield world.process
    finally:
        await world.process.stop()


async def test_a_server_process_reports_its_models_and_its_queue(world: World) -> None:
    assert world.process.processes()[0].state == "starting"

    async with started(world) as process:
        (status,) = process.processes()

        assert (status.state, status.waiting, status.waiting_seconds) == ("ready", 3, 1.5)
        assert [(model.model, model.version) for model in status.models] == [("sum", 1)]
        process.drain()
        assert process.processes()[0].state == "draining"
    assert world.state.processes()[0].state == "dead"


async def test_a_server_process_serves_a_new_version_and_announces_the_change(world: World) -> None:
    versions: list[int] = []
    world.on_change = lambda: versions.append(world.deployment.get("sum").version)

    async with started(world):
        world.publish()
        await world.serves(2)

    assert versions == [2]


@pytest.mark.parametrize("error", [RegistryError("the registry is locked"), OSError("the disk is full")])
async def test_a_failed_reload_is_reported_and_later_versions_are_served(world: World, error: Exception) -> None:
    errors = [error]

    def fail_once() -> None:
        if errors:
            raise errors.pop()

    world.on_change = fail_once

    async def is_reported() -> bool:
        return bool(world.process.processes()[0].reload_error)

    async def is_recovered() -> bool:
        return not errors and not await is_reported()

    async with started(world):
        world.publish()
        await eventually_async(is_reported, every=0.001)
        await eventually_async(is_recovered)
        world.publish()
        await world.serves(3)


async def test_a_reload_waits_until_the_process_serves_the_current_models(world: World) -> None:
    async with started(world) as process:
        world.publish()
        result = await process.reload()

        assert result.status == "ok"
        assert world.deployment.get("sum").version == 2
        world.imports = [ImportResult("a.onnx", error="not a graph")]
        assert (await process.reload()).status == "failed"


async def test_the_only_model_can_be_unloaded_and_loaded_again(world: World) -> None:
    async with started(world) as process:
        await process.set_unloaded("sum", unloaded=True)
        assert world.deployment.models() == []
        assert await process.unloaded_models() == {"sum"}
        with pytest.raises(RowcastError):
            world.deployment.get(None)

        await process.set_unloaded("sum", unloaded=False)
        assert world.deployment.get(None).version == 1
