"""A server without sockets, files or child processes that supports V1, V2 and MLflow's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rowcast.access.keys import Key
from rowcast.http.dialects.mlflow import MLflowRoutes
from rowcast.http.dialects.scoring import DialectScoring
from rowcast.http.dialects.v1 import V1Routes
from rowcast.http.dialects.v2 import V2Routes
from rowcast.http.dialects.v2_repository import Repository
from rowcast.http.dialects.v2_statistics import ModelStatistics
from rowcast.registry.ports import Reference
from rowcast.serving.fleet import CounterCells, Labels, ProcessStatus, ReloadResult
from rowcast.serving.live_models import LiveModel
from support.fronts import Front


class OneCounters:
    """The counters of a server with a single process."""

    def __init__(self) -> None:
        self._cells: dict[Labels, list[float]] = {}

    def cells(self, labels: Labels, count: int) -> CounterCells:
        return self._cells.setdefault(labels, [0.0] * count)

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        return iter(self._cells.items())


class RecordingFleet:
    """Records the models that are unloaded; every operation returns `result`."""

    def __init__(self) -> None:
        self.unloaded: set[str] = set()
        self.result = ReloadResult("ok", [])

    def processes(self) -> Sequence[ProcessStatus]:
        return self.result.processes

    async def reload(self) -> ReloadResult:
        return self.result

    async def unloaded_models(self) -> frozenset[str]:
        return frozenset(self.unloaded)

    async def set_unloaded(self, model: str, *, unloaded: bool) -> ReloadResult:
        (self.unloaded.add if unloaded else self.unloaded.discard)(model)
        return self.result


class DialectFront(Front):
    """A `Front` that supports all dialects."""

    def __init__(
        self,
        *models: LiveModel,
        keys: Sequence[Key] = (),
        published: Sequence[Reference] = (),
        default: str | None = None,
    ) -> None:
        super().__init__(*models, keys=keys, default=default)
        self.is_ready = True
        self.fleet = RecordingFleet()
        scoring = DialectScoring(self.service)
        repository = Repository(lambda: published, self.fleet, self.deployment)
        self.v1 = V1Routes(scoring, lambda: self.is_ready)
        self.v2 = V2Routes(scoring, lambda: self.is_ready, repository, ModelStatistics(OneCounters()))
        self.mlflow = MLflowRoutes(scoring, lambda: self.is_ready)
        self.dialects += [self.v1, self.v2, self.mlflow]
