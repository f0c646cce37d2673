"""Reloads: new versions in the registry replace the live models; broken versions do not."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import BundleError, InvalidRows, ModelNotFound
from rowcast.events import Event, ModelLoaded, ReloadFinished
from rowcast.registry.ports import Reference
from rowcast.schema.encoding import RowLimits
from rowcast.serving.deployment import Deployment
from rowcast.serving.reload import RegistryFollower, ServedVersions
from support import models


@dataclass
class World:
    """A registry, simulated errors for broken versions, and a record of trials, served versions and events."""

    registry: FolderRegistry
    broken: dict[str, str] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    good: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def publish(self, name: str) -> Reference:
        return models.publish(
            self.registry, name, models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values"
        )

    def follower(self, *names: str) -> RegistryFollower:
        last_good = ServedVersions(lambda: self.good, self.good.update)
        return RegistryFollower(
            self.registry,
            names,
            models.loader(self.registry),
            self.events.append,
            trial=self._try,
            served_versions=last_good,
        )

    def _try(self, reference: Reference) -> None:
        self.tried.append(str(reference))
        if str(reference) in self.broken:
            raise BundleError(self.broken[str(reference)])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(FolderRegistry(tmp_path / "models"))


def served(models: object) -> dict[str, int]:
    assert isinstance(models, dict)
    return {name: model.version for name, model in models.items()}


def test_every_champion_is_served_and_a_new_champion_is_tested_before_it_is_served(world: World) -> None:
    for name in ("sum", "other"):
        world.publish(name)
    follower = world.follower()
    first = follower.load_all()
    world.publish("sum")
    second = follower.follow(first.models)

    assert (served(first.models), first.error) == ({"other": 1, "sum": 1}, "")
    assert (served(second.models), second.error) == ({"other": 1, "sum": 2}, "")
    assert second.models["other"] is first.models["other"]
    assert world.tried == ["sum@2"]
    assert world.good == {"sum": 2, "other": 1}
    assert [event.version for event in world.events if isinstance(event, ModelLoaded)] == [1, 1, 2]


def test_the_row_limits_apply_to_every_loaded_model(world: World) -> None:
    world.publish("sum")
    limits = RowLimits(text_characters=10, row_bytes=20)
    follower = RegistryFollower(
        world.registry,
        (),
        models.loader(world.registry),
        world.events.append,
        trial=world._try,
        served_versions=ServedVersions(dict, dict),
        limits=limits,
    )

    model = follower.load_all().models["sum"]

    model.encoder.read(b'{"x0":1,"x1":2}')
    with pytest.raises(InvalidRows):
        model.encoder.read(b'{"x0":1,"x1":2' + b" " * 1000 + b"}")


def test_a_broken_version_leaves_the_previous_version_live_and_does_not_delay_other_models(world: World) -> None:
    world.publish("sum")
    follower = world.follower()
    live = follower.load_all().models
    world.publish("sum")
    world.publish("late")
    world.broken["sum@2"] = "it is a bomb"

    found = follower.follow(live)

    assert served(found.models) == {"sum": 1, "late": 1}
    assert found.models["sum"] is live["sum"]
    assert found.error == "cannot serve sum@2 (version 1 stays live): it is a bomb"
    assert world.good["sum"] == 1
    assert [event.error for event in world.events if isinstance(event, ReloadFinished)] == [found.error]


def test_a_server_that_starts_with_a_broken_champion_serves_the_previous_version(world: World) -> None:
    world.publish("sum")
    world.follower().load_all()
    world.publish("sum")
    world.broken["sum@2"] = "it is a bomb"

    found = world.follower().load_all()

    assert served(found.models) == {"sum": 1}
    assert found.error == "cannot serve sum@2 (version 1 is served instead): it is a bomb"


def test_a_broken_version_that_is_named_explicitly_has_no_fallback(world: World) -> None:
    world.publish("sum")
    world.follower("sum@1").load_all()
    second = world.publish("sum")
    (world.registry.folder(second) / "model.onnx").write_bytes(b"changed")

    with pytest.raises(BundleError, match="was changed after it was written"):
        world.follower("sum@2").load_all()


def test_removed_models_are_unloaded_unless_all_models_are_missing(world: World, tmp_path: Path) -> None:
    for name in ("sum", "other"):
        world.publish(name)
    follower = world.follower()
    live = follower.load_all().models
    (tmp_path / "models" / "other").rename(tmp_path / "other")
    fewer = follower.follow(live)
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    none = follower.follow(fewer.models)

    assert (served(fewer.models), fewer.error) == ({"sum": 1}, "")
    assert none.models is fewer.models
    assert "the current models stay live" in none.error


def test_loading_models_fails_if_no_model_has_a_champion(world: World) -> None:
    with pytest.raises(ModelNotFound, match="rowcast train"):
        world.follower().load_all()


def test_the_error_for_models_without_a_champion_says_how_to_promote_a_version(world: World) -> None:
    world.registry.publish("sum", lambda folder: (folder / "file").write_text("x") and None, "challenger")

    with pytest.raises(ModelNotFound, match="rowcast models promote"):
        world.follower().load_all()


def test_the_default_model_is_the_only_model_or_the_configured_model(world: World) -> None:
    for name in ("sum", "other"):
        world.publish(name)
    live = dict(world.follower().load_all().models)
    free, chosen = Deployment(live), Deployment(live, "other")
    alone = {"sum": live["sum"]}
    free.swap(alone)
    chosen.swap(alone)

    assert free.get(None).name == "sum"
    free.swap(live, "other")
    assert free.get(None).name == "other"
    free.swap(alone, "other")
    assert free.get(None).name == "sum"
    with pytest.raises(ModelNotFound, match="unknown model 'other'; available models: sum"):
        chosen.get(None)


def test_several_versions_of_a_model_can_be_served_at_the_same_time(world: World) -> None:
    for _ in range(3):
        world.publish("sum")
    world.registry.point(Reference("sum", 2), "champion")
    world.registry.point(Reference("sum", 1), "older")
    follower = world.follower("sum", "sum@1", "sum@older", "sum@champion")
    first = follower.load_all()
    live = Deployment(first.models)

    assert served(first.models) == {"sum": 2, "sum@1": 1, "sum@older": 1, "sum@champion": 2}
    assert [model.version for model in live.models()] == [1, 2]
    assert len([event for event in world.events if isinstance(event, ModelLoaded)]) == 2
    assert (live.get(None).version, live.get("sum@2").version, live.get("sum@1").version) == (2, 2, 1)
    with pytest.raises(ModelNotFound, match="unknown model 'sum@3'"):
        live.get("sum@3")

    world.registry.point(Reference("sum", 3), "champion")
    then = follower.follow(live.live)
    live.swap(then.models)

    assert served(then.models) == {"sum": 3, "sum@1": 1, "sum@older": 1, "sum@champion": 3}
    assert then.models["sum@1"] is first.models["sum@1"]
    with pytest.raises(ModelNotFound, match="unknown model 'sum@2'"):
        live.get("sum@2")


def test_unloaded_models_are_published_but_not_served(world: World) -> None:
    for name in ("sum", "other"):
        world.publish(name)
    unloaded: set[str] = {"other"}
    follower = RegistryFollower(
        world.registry,
        (),
        models.loader(world.registry),
        world.events.append,
        trial=world._try,
        served_versions=ServedVersions(lambda: world.good, world.good.update),
        unloaded=lambda: unloaded,
        temporary_default=lambda: "sum",
    )

    first = follower.load_all()
    unloaded.clear()
    second = follower.follow(first.models)
    unloaded.add("sum")
    third = follower.follow(second.models)

    assert [served(result.models) for result in (first, second, third)] == [
        {"sum": 1},
        {"sum": 1, "other": 1},
        {"other": 1},
    ]
    assert {result.temporary_default for result in (first, second, third)} == {"sum"}
    assert sorted(map(str, follower.published())) == ["other@1", "sum@1"]
    assert world.good == {"sum": 1, "other": 1}


def test_the_time_to_load_each_model_is_reported(world: World) -> None:
    world.publish("sum")
    follower = world.follower()

    started = time.perf_counter()
    follower.load_all()

    (event,) = world.events
    assert isinstance(event, ModelLoaded)
    assert event.model == "sum"
    assert follower.load_seconds == {"sum": event.seconds}
    assert 0 < event.seconds <= time.perf_counter() - started


def test_a_reload_reports_every_error_on_one_line(world: World, tmp_path: Path) -> None:
    world.publish("sum")
    follower = world.follower()
    live = follower.load_all().models
    for name in ("sum", "new"):
        world.publish(name)
    world.broken |= {"sum@2": "it is a bomb", "new@1": "it is slow"}

    result = follower.follow(live)
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    gone = follower.follow(live)

    assert sorted(result.errors) == [
        "cannot serve new@1 (no other version is live): it is slow",
        "cannot serve sum@2 (version 1 stays live): it is a bomb",
    ]
    assert result.error == "; ".join(result.errors)
    assert (gone.temporary_default, served(gone.models)) == ("", {"sum": 1})
    assert gone.errors == ["the registry no longer has a model to serve; the current models stay live"]
    assert [event.error for event in world.events if isinstance(event, ReloadFinished)] == [result.error, gone.error]


def test_a_successful_reload_is_reported_without_an_error(world: World) -> None:
    world.publish("sum")
    follower = world.follower()

    follower.follow(follower.load_all().models)

    assert world.events[1:] == [ReloadFinished("")]


def test_a_new_champion_is_tried_before_a_restarted_server_serves_it(world: World) -> None:
    world.publish("sum")
    world.follower().load_all()
    assert world.tried == []
    world.publish("sum")

    found = world.follower("sum", "sum@champion").load_all()

    assert served(found.models) == {"sum": 2, "sum@champion": 2}
    assert found.models["sum"] is found.models["sum@champion"]
    assert (found.errors, found.temporary_default, world.tried) == ([], "", ["sum@2"])
    assert world.good == {"sum": 2, "sum@champion": 2}
