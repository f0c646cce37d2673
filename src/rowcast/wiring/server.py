"""A server process: every part of it, from the door to the journal."""

from __future__ import annotations

import os
import secrets
import sys
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rowcast.errors import BundleError, SettingsError
from rowcast.ports import Reference, RegistryWriter
from rowcast.wiring import imports
from rowcast.wiring.history import history, indexer_command, store, store_folder
from rowcast.wiring.models import registry

if TYPE_CHECKING:
    from rowcast.adapters.board import Board
    from rowcast.adapters.keys import FileKeys
    from rowcast.domain.sensitive import Guard
    from rowcast.ports import Cache
    from rowcast.serving.deployment import Deployment
    from rowcast.settings import Settings
    from rowcast.web.access import Gate
    from rowcast.web.http import ASGIApp
    from rowcast.web.lifecycle import Application
    from rowcast.web.protocol import Connection


def keys(settings: Settings) -> FileKeys:
    """The API keys of this home."""
    from rowcast.adapters.keys import FileKeys

    return FileKeys(settings.keys_file)


def has_key(settings: Settings) -> bool:
    """Whether whoever connects will need a key."""
    return settings.api_key is not None or bool(keys(settings).all())


def gate(settings: Settings) -> Gate:
    """Who may come in."""
    from rowcast.domain.access import read_quota
    from rowcast.web.access import Gate, Rules

    rules = Rules(
        settings.api_key.get_secret_value() if settings.api_key else "",
        read_quota(settings.quota) if settings.quota else None,
        settings.workers,
        settings.open_metrics,
        settings.listens_locally,
        frozenset(settings.cors_origins),
    )
    return Gate(keys(settings), rules)


def protocol(settings: Settings) -> type[Connection]:
    """HTTP/1.1 with the settings' bounds."""
    from rowcast.web.protocol import Limits, protocol

    return protocol(
        Limits(
            max_connections=settings.max_connections,
            receive_seconds=settings.receive_seconds,
            idle_seconds=settings.idle_seconds,
        )
    )


def application(settings: Callable[[], Settings]) -> Application:
    """The server; nothing is read or opened before it starts."""
    from rowcast.web.lifecycle import Application

    return Application(lambda: server(settings()).app)


class Server(NamedTuple):
    """A server process before its first request."""

    app: ASGIApp
    deployment: Deployment
    drain: Callable[[], None]


class Place(NamedTuple):
    """A worker's place among the workers of one supervisor, which also keeps the indexer."""

    board: Board
    worker: int


def board(settings: Settings) -> Board:
    """What the workers of a server share; made once for each server."""
    from rowcast.adapters.board import Board

    return Board(settings.run_folder, settings.workers)


def server(settings: Settings, place: Place | None = None) -> Server:
    """Every part of a server process: models proven, journal open. Without a place it is a server of its own."""
    from rowcast.adapters.board import Board
    from rowcast.adapters.counts import OwnCounts, SharedCounts
    from rowcast.adapters.journal import FileJournal, FolderSpool
    from rowcast.adapters.onnx import open_graph
    from rowcast.adapters.prometheus import Metrics
    from rowcast.adapters.repeats import SqliteRepeats
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.following import Follower, LastGood
    from rowcast.serving.predictor import Predictor
    from rowcast.serving.stored import UntilStored
    from rowcast.web.api import NativeApi
    from rowcast.web.app import Health, cold_app
    from rowcast.web.edge import Edge
    from rowcast.web.http import Bounds
    from rowcast.web.lifecycle import Indexer, Lifecycle
    from rowcast.web.member import Member, log_drops
    from rowcast.web.protocols.mlflow import MLflow
    from rowcast.web.protocols.repository import Repository
    from rowcast.web.protocols.scoring import Scoring
    from rowcast.web.protocols.table import Dialect, doors
    from rowcast.web.protocols.tally import Tally
    from rowcast.web.protocols.v1 import KServe
    from rowcast.web.protocols.v2 import OpenInference
    from rowcast.web.repeats import Once
    from rowcast.web.watch import MEBIBYTE, Watch
    from rowcast.web.watched import Watched, hearing
    from rowcast.wiring import telemetry

    models = registry(settings)
    with ExitStack() as undo:
        shared = place.board if place else Board(settings.run_folder, 1)
        end = (lambda: None) if place else shared.remove
        undo.callback(end)
        slot = shared.slot(place.worker if place else 0)
        undo.callback(slot.close)
        spool = FolderSpool(settings.journal_folder)
        counts = SharedCounts(shared.folder, place.worker) if place else OwnCounts()
        take_up = partial(imports.take_up, settings)
        if place is None:  # else the supervisor's parent has done it
            log_drops(take_up())
        metrics = Metrics(counts, spool.backlog, shared.workers, old_names=settings.metrics_aliases)
        spans = telemetry.spans(settings)
        watched = settings.access_log or spans is not None
        listen = hearing(metrics.listen) if watched else metrics.listen
        follower = Follower(
            models,
            settings.models,
            open_graph,
            metrics.listen,
            trial=_trial(settings, models, shared),
            last_good=LastGood(shared.last_good, shared.keep_good),
            put_away=shared.put_away,
            meant=partial(imports.meant, settings),
        )
        generation, asked = models.generation(), shared.asked()
        followed = follower.begin()
        default = shared.settled_default(lambda: _default_model(settings, list(followed.models)))
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
            stored=UntilStored(store(settings).position) if settings.durability == "store" else None,
        )
        native = NativeApi(predictor, max_rows=settings.max_rows)
        watch = Watch(journal, predictor.hold, _free_bytes(settings), settings.min_free_mb * MEBIBYTE)
        health = Health({"history": _store_check(settings), "disk": watch.check})
        retake = partial(take_up, again=True)
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
            Once(SqliteRepeats(settings.repeats_file), settings.idempotency_seconds),
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
    from rowcast.adapters.memory import MemoryCache

    return MemoryCache(settings.cache_entries, settings.cache_seconds) if settings.cache else None


def _trial(settings: Settings, models: RegistryWriter, shared: Board) -> Callable[[Reference], None]:
    """Tries a version in a child process; what one worker found holds for all until something is asked anew."""
    from rowcast.adapters.trial import Limits, run_trial

    limits = Limits(settings.max_model_mb, settings.trial_memory_mb, settings.trial_seconds)

    def trial(reference: Reference) -> None:
        stamp = f"{models.generation()}.{shared.asked()}"
        with shared.trials() as found:
            if found.get("stamp") != stamp:
                found.clear()
                found["stamp"] = stamp
            key = str(reference)
            if key not in found:
                command = [sys.executable, "-m", "rowcast.trial"]
                found[key] = run_trial(command, models.folder(reference), reference, limits, settings.for_child())
            reason = found[key]
        if reason:
            raise BundleError(reason)

    return trial


def try_bundle(reference: Reference, folder: Path, memory_mb: int, seconds: float) -> None:
    """Load and prove a bundle in this process, which gets bounds and may die of it."""
    from rowcast.adapters.trial import limit_this_process

    limit_this_process(memory_mb, seconds)
    from rowcast.adapters.onnx import open_graph
    from rowcast.serving.deployment import load_folder

    load_folder(reference, folder, open_graph)


def _free_bytes(settings: Settings) -> Callable[[], int]:
    """Asks how many bytes are free where journals and store lie."""
    folders = (settings.journal_folder, store_folder(settings))

    def free() -> int:
        found = [os.statvfs(folder) for folder in folders if folder.exists()]
        return min((disk.f_bavail * disk.f_frsize for disk in found), default=0)

    return free


def _guard(settings: Settings) -> Guard | None:
    """What keeps sensitive columns out of history, when there are any."""
    from rowcast.adapters.secret import secret
    from rowcast.domain.sensitive import Guard

    if settings.sensitive == "keep":
        return None
    return Guard(settings.sensitive, secret(settings.history_key_file) if settings.sensitive == "hash" else b"")


def _store_check(settings: Settings) -> Callable[[], str | None]:
    from rowcast.errors import RowcastError

    def check() -> str | None:
        try:
            with closing(store(settings)) as kept:
                kept.check()
        except RowcastError as error:
            return error.message
        return None

    return check
