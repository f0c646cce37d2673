"""The serving parts of a server process: live models, journal, recorder, batcher and the prediction service."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from rowcast.app.health_checks import store_failure
from rowcast.app.imports import preferred_model, sandbox
from rowcast.app.models import default_model
from rowcast.errors import BundleError, RowcastError, SettingsError

if TYPE_CHECKING:
    from rowcast.adapters.files.journal import FileJournal
    from rowcast.events import Listener
    from rowcast.registry.ports import Reference, RegistryReader, RegistryWriter
    from rowcast.runtime.journal_monitor import JournalMonitor
    from rowcast.runtime.server_process import LiveParts
    from rowcast.schema.sensitive import Redactor
    from rowcast.serving.batcher import Batcher
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.fleet import ServerState
    from rowcast.serving.health import Health
    from rowcast.serving.interface import ModelInterface
    from rowcast.serving.ports import Cache
    from rowcast.serving.scorer import Scorer
    from rowcast.serving.service import PredictionService
    from rowcast.serving.worker_models import WorkerModels
    from rowcast.settings import Settings


class PredictionParts(NamedTuple):
    """The parts that score and record rows, from the request to the journal."""

    service: PredictionService
    batcher: Batcher
    journal: FileJournal


def live_parts(
    settings: Settings,
    registry: RegistryWriter,
    state: ServerState,
    listen: Listener,
    trial: Callable[[Reference], None] | None = None,
) -> LiveParts:
    """Load every model that this server serves. If there is a queue, only the workers load graphs."""
    from rowcast.runtime.server_process import LiveParts, StartingPoint
    from rowcast.schema.encoding import RowLimits
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.reload import RegistryFollower, ServedVersions

    follower = RegistryFollower(
        registry,
        settings.models,
        model_loader(settings, registry),
        listen,
        trial=trial or _trial(settings, registry, state),
        served_versions=ServedVersions(state.last_served, state.record_served),
        unloaded=state.unloaded_models,
        temporary_default=partial(preferred_model, settings),
        limits=RowLimits(settings.max_text_characters, settings.max_row_bytes),
    )
    # These numbers are read before the models are loaded, so that no change is missed.
    generation, requests = registry.generation(), state.reload_requests()
    result = follower.load_all()
    default = state.agree_default_model(lambda: _default_model(settings, result.models))
    deployment = Deployment(result.models, default, result.temporary_default)
    return LiveParts(deployment, follower, StartingPoint(generation, requests, result))


def model_loader(settings: Settings, registry: RegistryReader) -> Callable[[Reference], ModelInterface]:
    """Return a function that loads and verifies a version or, if there is a queue, only checks the bundle's files."""
    if settings.queue is not None:
        from rowcast.serving.remote_models import load_remote

        return lambda reference: load_remote(reference, registry)
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.serving.live_models import load

    return lambda reference: load(reference, registry, open_graph)


def worker_models(settings: Settings, registry: RegistryReader, listen: Listener) -> WorkerModels:
    """Load every model that a worker serves at startup. Each later version is first tested in a child process."""
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.serving.live_models import LiveModel, load
    from rowcast.serving.reload import RegistryFollower, ServedVersions
    from rowcast.serving.worker_models import WorkerModels

    child = sandbox(settings)

    def trial(reference: Reference) -> None:
        reason = child.trial_failure(registry.folder(reference), reference)
        if reason:
            raise BundleError(reason)

    def load_model(reference: Reference) -> LiveModel:
        return load(reference, registry, open_graph)

    def load_after_trial(reference: Reference) -> LiveModel:
        trial(reference)
        return load_model(reference)

    follower = RegistryFollower(
        registry,
        settings.models,
        load_model,
        listen,
        trial=trial,
        served_versions=ServedVersions(dict, lambda versions: None),
    )
    return WorkerModels(registry, settings.models, follower, load_after_trial)


def prediction_parts(
    settings: Settings,
    deployment: Deployment[ModelInterface],
    listen: Listener,
    scores: Cache | None = None,
    scorer: Scorer | None = None,
) -> PredictionParts:
    """Open the journal, and build the parts that score and record rows. By default, this process scores the rows."""
    from rowcast.adapters.files.journal import FileJournal
    from rowcast.app.history import store
    from rowcast.history.commit_waiter import CommitWaiter
    from rowcast.serving.batcher import Batcher
    from rowcast.serving.cache import ScoreCache
    from rowcast.serving.recorder import Recorder
    from rowcast.serving.scorer import LocalScorer
    from rowcast.serving.service import PredictionService

    cache = None if scores is None else ScoreCache(scores)
    journal = FileJournal(settings.journal_folder, lambda: uuid.uuid4().hex, settings.durability)
    recorder = Recorder(
        journal,
        listen,
        redactor=redactor(settings),
        commits=CommitWaiter(store(settings).position) if settings.durability == "store" else None,
        counts_cache_hits=cache is not None,
    )
    batcher = Batcher(scorer or LocalScorer(), recorder, max_waiting=settings.max_waiting_rows, cache=cache)
    service = PredictionService(deployment, batcher, recorder, max_rows=settings.max_rows, cache=cache)
    return PredictionParts(service, batcher, journal)


def journal_monitor(settings: Settings, parts: PredictionParts, health: Health) -> JournalMonitor:
    """Return the journal monitor; register the health checks for the store, the indexer and the free disk space."""
    from rowcast.app.history import signing_key, store
    from rowcast.history.heads import ChainHead
    from rowcast.history.signing import sign_head
    from rowcast.runtime.journal_monitor import MEBIBYTE, JournalMonitor

    refuse, least = parts.batcher.refuse, settings.min_free_mb * MEBIBYTE

    key = cache(partial(signing_key, settings))

    def sign(head: ChainHead) -> ChainHead:
        try:
            return sign_head(head, key())
        except SettingsError:
            return head  # the folder of the store is not available, which the check "history" reports

    position = store(settings).position
    monitor = JournalMonitor(parts.journal, refuse, _free_bytes(settings), least, sign=sign)

    def indexer_problem() -> str | None:
        try:
            return monitor.indexer_problem(position)
        except RowcastError:
            return None  # the check "history" reports the problem

    health.register("history", partial(store_failure, settings))
    health.register("indexer", indexer_problem)
    health.register("disk", monitor.disk_problem)
    return monitor


def _free_bytes(settings: Settings) -> Callable[[], int]:
    """Return a function that measures the free space on the journals' disk or the store's disk, whichever has less."""
    from rowcast.app.history import store

    store_disk = store(settings).disk_folder  # None if the store is on another machine
    folders = [settings.journal_folder] if store_disk is None else [settings.journal_folder, store_disk]

    def measure() -> int:
        disks = [os.statvfs(folder) for folder in folders if folder.exists()]
        return min((disk.f_bavail * disk.f_frsize for disk in disks), default=0)

    return measure


def _default_model(settings: Settings, names: Collection[str]) -> str | None:
    default = default_model(settings, names)
    if default is not None and default not in names:
        raise SettingsError(
            f"setting 'default_model' is {default!r}, which is not served; served models: {', '.join(names)}"
        )
    return default


def redactor(settings: Settings) -> Redactor | None:
    """Return a redactor that hashes or drops sensitive columns, or None if they are recorded unchanged."""
    if settings.sensitive == "keep":
        return None
    from rowcast.app.history import history_key
    from rowcast.schema.sensitive import Redactor

    return Redactor(settings.sensitive, history_key(settings) if settings.sensitive == "hash" else b"")


def _trial(settings: Settings, registry: RegistryWriter, state: ServerState) -> Callable[[Reference], None]:
    """Return a function that tests a version in a child process; server processes share the results until a reload."""
    child = sandbox(settings)

    def trial(reference: Reference) -> None:
        stamp = f"{registry.generation()}.{state.reload_requests()}"
        with state.trial_results() as results:
            if results.get("stamp") != stamp:
                results.clear()
                results["stamp"] = stamp
            key = str(reference)
            if key not in results:
                results[key] = child.trial_failure(registry.folder(reference), reference)
            reason = results[key]
        if reason:
            raise BundleError(reason)

    return trial
