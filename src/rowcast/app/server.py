"""A server process: every part of it, from the door to the journal."""

from __future__ import annotations

import os
import secrets
import sys
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from rowcast.app import imports
from rowcast.app.history import history, store
from rowcast.app.indexer import indexer_command
from rowcast.app.models import registry
from rowcast.errors import BundleError, SettingsError
from rowcast.registry.ports import Reference, RegistryWriter

if TYPE_CHECKING:
    from rowcast.adapters.files.keys import FileKeys
    from rowcast.adapters.files.worker_state import ServerFolder
    from rowcast.http.authentication import Gate
    from rowcast.http.routes import ASGIApp
    from rowcast.runtime.http_protocol import Connection
    from rowcast.runtime.lifecycle import Application
    from rowcast.schema.sensitive import Redactor
    from rowcast.serving.live_models import Deployment
    from rowcast.serving.ports import Cache
    from rowcast.settings import Settings


def keys(settings: Settings) -> FileKeys:
    """The API keys of this home."""
    from rowcast.adapters.files.keys import FileKeys

    return FileKeys(settings.keys_file)


def has_key(settings: Settings) -> bool:
    """Whether whoever connects will need a key."""
    return settings.api_key is not None or bool(keys(settings).all())


def gate(settings: Settings) -> Gate:
    """Who may come in."""
    from rowcast.access.quotas import parse_quota
    from rowcast.http.authentication import Gate, Rules

    rules = Rules(
        settings.api_key.get_secret_value() if settings.api_key else "",
        parse_quota(settings.quota) if settings.quota else None,
        settings.workers,
        settings.open_metrics,
        settings.listens_locally,
        frozenset(settings.cors_origins),
    )
    return Gate(keys(settings), rules)


def protocol(settings: Settings) -> type[Connection]:
    """HTTP/1.1 with the settings' bounds."""
    from rowcast.runtime.http_protocol import Limits, protocol

    return protocol(
        Limits(
            max_connections=settings.max_connections,
            receive_seconds=settings.receive_seconds,
            idle_seconds=settings.idle_seconds,
        )
    )


def application(settings: Callable[[], Settings]) -> Application:
    """The server; nothing is read or opened before it starts."""
    from rowcast.runtime.lifecycle import Application

    return Application(lambda: server(settings()).app)


class Server(NamedTuple):
    """A server process before its first request."""

    app: ASGIApp
    deployment: Deployment
    drain: Callable[[], None]


class Place(NamedTuple):
    """A worker's place among the workers of one supervisor, which also keeps the indexer."""

    board: ServerFolder
    worker: int


def board(settings: Settings) -> ServerFolder:
    """What the workers of a server share; made once for each server."""
    from rowcast.adapters.files.worker_state import ServerFolder

    return ServerFolder(settings.run_folder, settings.workers)


def server(settings: Settings, place: Place | None = None) -> Server:
    """Every part of a server process: models proven, journal open. Without a place it is a server of its own."""
    from rowcast.adapters.files.journal import FileJournal
    from rowcast.adapters.files.journal_reader import FolderJournalReader
    from rowcast.adapters.files.shared_counters import LocalCounters, SharedCounters
    from rowcast.adapters.files.worker_state import ServerFolder
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.adapters.sqlite.idempotency import SqliteIdempotencyStore
    from rowcast.adapters.telemetry.prometheus import Metrics
    from rowcast.app import telemetry
    from rowcast.history.commit_waiter import CommitWaiter
    from rowcast.http.cold_routes import Health, cold_app
    from rowcast.http.dialects.mlflow import MLflow
    from rowcast.http.dialects.native import NativeApi
    from rowcast.http.dialects.routing import Dialect, doors
    from rowcast.http.dialects.scoring import Scoring
    from rowcast.http.dialects.v1 import KServe
    from rowcast.http.dialects.v2 import OpenInference
    from rowcast.http.dialects.v2_repository import Repository
    from rowcast.http.dialects.v2_statistics import Tally
    from rowcast.http.edge import Edge
    from rowcast.http.idempotency import Once
    from rowcast.http.request_log import Watched, hearing
    from rowcast.http.routes import Bounds
    from rowcast.runtime.journal_monitor import MEBIBYTE, Watch
    from rowcast.runtime.lifecycle import Indexer, Lifecycle
    from rowcast.runtime.worker import Member, log_drops
    from rowcast.serving.batcher import Predictor
    from rowcast.serving.live_models import Deployment
    from rowcast.serving.reload import Follower, LastGood

    models = registry(settings)
    with ExitStack() as undo:
        shared = place.board if place else ServerFolder(settings.run_folder, 1)
        end = (lambda: None) if place else shared.remove
        undo.callback(end)
        slot = shared.slot(place.worker if place else 0)
        undo.callback(slot.close)
        journals = FolderJournalReader(settings.journal_folder)
        counts = SharedCounters(shared.folder, place.worker) if place else LocalCounters()
        take_up = partial(imports.import_models_folder, settings)
        if place is None:  # else the supervisor's parent has done it
            log_drops(take_up())
        metrics = Metrics(counts, journals.backlog, shared.workers, old_names=settings.metrics_aliases)
        spans = telemetry.spans(settings)
        watched = settings.access_log or spans is not None
        listen = hearing(metrics.listen) if watched else metrics.listen
        follower = Follower(
            models,
            settings.models,
            open_graph,
            metrics.listen,
            trial=_trial(settings, models, shared),
            last_good=LastGood(shared.last_served, shared.record_served),
            put_away=shared.unloaded_models,
            meant=partial(imports.preferred_model, settings),
        )
        generation, asked = models.generation(), shared.reload_requests()
        followed = follower.begin()
        default = shared.agree_default_model(lambda: _default_model(settings, list(followed.models)))
        deployment = Deployment(followed.models, default, followed.meant)
        journal = FileJournal(settings.journal_folder, lambda: uuid.uuid4().hex, settings.durability)
        undo.callback(journal.close)
        predictor = (telemetry.NotingPredictor if watched else Predictor)(
            deployment,
            journal,
            metrics.listen,
            max_waiting=settings.max_waiting_rows,
            cache=_cache(settings),
            guard=_guard(settings),
            stored=CommitWaiter(store(settings).position) if settings.durability == "store" else None,
        )
        native = NativeApi(predictor, max_rows=settings.max_rows)
        watch = Watch(journal, predictor.hold, _free_bytes(settings), settings.min_free_mb * MEBIBYTE)
        health = Health({"history": _store_check(settings), "disk": watch.check})
        retake = partial(take_up, retry_failed=True)
        member = Member(shared, slot, deployment, follower, models.generation, native.refresh, retake, predictor.queue)
        metrics.prepare = member.show_queue
        pusher = telemetry.pusher(settings, metrics, shared, place.worker if place else 0)
        scoring = Scoring(predictor, max_rows=settings.max_rows)
        repository = Repository(shared, member, follower, deployment)

        def ready() -> bool:
            return health.ready and bool(deployment.models())

        dialects: list[Dialect] = [
            OpenInference(scoring, ready, repository, Tally(counts)),
            MLflow(scoring, ready),
            KServe(scoring, ready),
        ]
        cold = cold_app(deployment, history(settings), health, member, metrics.exposition)
        indexer = None if place else Indexer(indexer_command(), settings.for_child(), settings.journal_folder)

        def begin() -> None:
            member.begin(generation, asked, followed)
            if pusher is not None:
                pusher.start()

        lifecycle = Lifecycle(
            health, journal, indexer, member, watch, begin, end, [part for part in (pusher, spans) if part]
        )
        edge = Edge(
            native.routes,
            cold,
            lifecycle,
            listen,
            gate(settings),
            Once(SqliteIdempotencyStore(settings.repeats_file), settings.idempotency_seconds),
            Bounds(settings.max_body_bytes, settings.max_wait_seconds),
            root_path=settings.root_path,
            request_id_prefix=secrets.token_hex(6),
            doors=doors(dialects),
        )
        undo.pop_all()
    app = edge if not watched else Watched(edge, access_log=settings.access_log, spans=spans)
    return Server(app, deployment, lifecycle.drain)


def _default_model(settings: Settings, names: list[str]) -> str | None:
    default = settings.default_model or (names[0] if settings.models or len(names) == 1 else None)
    if default is not None and default not in names:
        raise SettingsError(f"setting 'default_model' is {default!r}, which is not among the models served")
    return default


def _cache(settings: Settings) -> Cache | None:
    from rowcast.adapters.memory.cache import MemoryCache

    return MemoryCache(settings.cache_entries, settings.cache_seconds) if settings.cache else None


def _trial(settings: Settings, models: RegistryWriter, shared: ServerFolder) -> Callable[[Reference], None]:
    """Tries a version in a child process; what one worker found holds for all until something is asked anew."""
    from rowcast.adapters.sandbox import SandboxLimits, run_trial

    limits = SandboxLimits(settings.max_model_mb, settings.trial_memory_mb, settings.trial_seconds)

    def trial(reference: Reference) -> None:
        stamp = f"{models.generation()}.{shared.reload_requests()}"
        with shared.trial_results() as found:
            if found.get("stamp") != stamp:
                found.clear()
                found["stamp"] = stamp
            key = str(reference)
            if key not in found:
                command = [sys.executable, "-m", "rowcast.app.verify_bundle"]
                found[key] = run_trial(command, models.folder(reference), reference, limits, settings.for_child())
            reason = found[key]
        if reason:
            raise BundleError(reason)

    return trial


def _free_bytes(settings: Settings) -> Callable[[], int]:
    """Asks how many bytes are free where journals and store lie."""
    folders = [settings.journal_folder, *([disk] if (disk := store(settings).disk_folder) else [])]

    def free() -> int:
        found = [os.statvfs(folder) for folder in folders if folder.exists()]
        return min((disk.f_bavail * disk.f_frsize for disk in found), default=0)

    return free


def _guard(settings: Settings) -> Redactor | None:
    """What keeps sensitive columns out of history, when there are any."""
    from rowcast.adapters.files.secret import load_secret
    from rowcast.schema.sensitive import Redactor

    if settings.sensitive == "keep":
        return None
    return Redactor(settings.sensitive, load_secret(settings.history_key_file) if settings.sensitive == "hash" else b"")


def _store_check(settings: Settings) -> Callable[[], str | None]:
    from rowcast.errors import RowcastError

    def check() -> str | None:
        try:
            with store(settings) as opened:
                opened.check()
        except RowcastError as error:
            return error.message
        return None

    return check
