"""The composition root: settings in, working parts out. The one place that picks adapters; each is imported lazily."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from rowcast.errors import BundleError, HistoryError, ModelNotFound, SettingsError
from rowcast.ports import Reference, RegistryWriter

if TYPE_CHECKING:
    from rowcast.adapters.board import Board
    from rowcast.adapters.keys import FileKeys
    from rowcast.adapters.sqlite import SqliteStore
    from rowcast.batch import Job, Summary
    from rowcast.domain.selection import Selection
    from rowcast.domain.sensitive import Guard
    from rowcast.ports import Cache
    from rowcast.serving.deployment import Deployment, LiveModel
    from rowcast.serving.erasure import Erased
    from rowcast.serving.history import History
    from rowcast.settings import Settings
    from rowcast.tables import Table
    from rowcast.training.story import Event, Options, Result, TableCheck
    from rowcast.web.access import Gate
    from rowcast.web.edge import Edge
    from rowcast.web.lifecycle import Application
    from rowcast.web.protocol import Connection


def registry(settings: Settings) -> RegistryWriter:
    """The published models."""
    from rowcast.adapters.folder import FolderRegistry

    return FolderRegistry(settings.registry_folder)


def store(settings: Settings) -> SqliteStore:
    """History's store, by its URL's scheme."""
    from rowcast.adapters.sqlite import SqliteStore

    scheme, separator, path = settings.store_url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise SettingsError(f"setting 'store' is {settings.store_url!r}: it must be sqlite:///PATH")
    return SqliteStore(Path(path))


def store_folder(settings: Settings) -> Path:
    """The folder whose disk the store fills."""
    return store(settings).path.absolute().parent


def history(settings: Settings) -> History:
    """What was answered: the store, and the journals beside it."""
    from rowcast.adapters.journal import FolderSpool
    from rowcast.serving.history import History

    return History(store(settings), FolderSpool(settings.journal_folder))


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


def _cache(settings: Settings) -> Cache | None:
    from rowcast.adapters.memory import MemoryCache

    return MemoryCache(settings.cache_entries, settings.cache_seconds) if settings.cache else None


def live_model(settings: Settings, reference: str) -> LiveModel:
    """One published model, loaded and proven."""
    from rowcast.adapters.onnx import open_graph
    from rowcast.serving.deployment import load
    from rowcast.serving.selection import resolve

    models = registry(settings)
    return load(resolve(reference, models), models, open_graph)


def train(
    settings: Settings,
    data: Any,
    *,
    target: str | None = None,
    name: str | None = None,
    target_file: str | Path | None = None,
    onnx_out: str | Path | None = None,
    progress: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> Result:
    """Train on a file or on data in memory, and publish."""
    try:
        from rowcast.training.run import train as run
    except ModuleNotFoundError as missing:
        raise SettingsError(f"training needs {missing.name}; install rowcast[train]") from None
    from rowcast import bundle
    from rowcast.adapters.onnx import open_graph

    table, chosen = _training_data(data, target, name, target_file, options)
    models, now = registry(settings), datetime.now(UTC)
    if onnx_out is None:
        return run(table, chosen, open_graph=open_graph, registry=models, now=now, progress=progress)
    _spare([data, target_file], Path(onnx_out))
    with bundle.extracting(Path(onnx_out)) as extract:
        result = run(table, chosen, open_graph=open_graph, registry=models, now=now, progress=progress)
        extract(Path(result.path))
    return msgspec.structs.replace(result, onnx=str(onnx_out))


def _spare(read: Sequence[Any], written: Path) -> None:
    """SettingsError when the graph would be written over what it was learnt from."""
    for source in read:
        if isinstance(source, str | Path) and Path(source).resolve() == written.resolve():
            raise SettingsError(f"--onnx-out names {written}, which is the table; choose another file")


def check_table(
    data: Any, *, target: str | None = None, target_file: str | Path | None = None, **options: Any
) -> TableCheck:
    """The data check of a table, nothing trained."""
    from rowcast.training.problem import checked

    return checked(*_training_data(data, target, "check", target_file, options))


def _training_data(
    data: Any, target: str | None, name: str | None, target_file: str | Path | None, options: Mapping[str, Any]
) -> tuple[Table, Options]:
    """The table with its target, and the options of the training."""
    from rowcast import tables
    from rowcast.adapters.folder import check_name, name_from
    from rowcast.training import cost
    from rowcast.training.story import Options

    if target is None and target_file is None:
        raise SettingsError("say with --target which column to predict")
    is_file = isinstance(data, str | Path)
    chosen = check_name(name or name_from(Path(data).stem if is_file else target or "model"))
    table = tables.read(data) if is_file else tables.from_memory(data, chosen)
    if target_file is not None:
        table, target = tables.with_target(table, tables.read(target_file), target)
    if options.get("cost") is not None:
        options = {**options, "cost": cost.read(options["cost"])}
    return table, Options(target=str(target), name=chosen, **options)


def score_table(settings: Settings, reference: str, job: Job) -> Summary:
    """Score a table from disk to disk."""
    from rowcast import batch, bundle
    from rowcast.adapters.onnx import open_graph
    from rowcast.serving.selection import resolve

    models = registry(settings)
    resolved = resolve(reference, models)
    opened = bundle.open(models.folder(resolved))
    graphs = [open_graph(opened.model, opened.manifest.output.name) for _ in range(job.jobs)]
    return batch.score_file(resolved, opened.manifest, graphs, job)


def report(settings: Settings, reference: str) -> tuple[Reference, Path]:
    """The report of a published model; BundleError when it was packed without one."""
    from rowcast import bundle
    from rowcast.serving.selection import resolve

    models = registry(settings)
    resolved = resolve(reference, models)
    path = models.folder(resolved) / bundle.REPORT
    if not path.is_file():
        raise BundleError(f"{resolved} has no report; it was packed without one. Train it again to get one")
    return resolved, path


def model_by_digest(settings: Settings) -> Callable[[Reference, str], LiveModel]:
    """Loads the bundle that history names, and only that one."""
    from rowcast.adapters.onnx import open_graph
    from rowcast.serving.deployment import load

    models = registry(settings)

    def load_exactly(reference: Reference, digest: str) -> LiveModel:
        model = load(reference, models, open_graph)
        if model.digest != digest:
            raise ModelNotFound(f"{reference} is another model now: its digest is {model.digest}")
        return model

    return load_exactly


def application(settings: Callable[[], Settings]) -> Application:
    """The server; nothing is read or opened before it starts."""
    from rowcast.web.lifecycle import Application

    return Application(lambda: server(settings()).app)


def has_models(settings: Settings) -> bool:
    """Whether everything that is to be served is published."""
    from rowcast.serving.selection import served

    try:
        return bool(served(registry(settings), settings.models))
    except ModelNotFound:
        return False


def name_to_train(settings: Settings) -> str:
    """The name of the one model that is to be served; SettingsError when training one cannot be enough."""
    names = {name.partition("@")[0] for name in settings.models}
    if len(names) > 1:
        raise SettingsError(f"one table trains one model, and {', '.join(sorted(names))} are to be served")
    return names.pop()


class Server(NamedTuple):
    """A server process before its first request."""

    app: Edge
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
    from rowcast.web.edge import Bounds, Edge
    from rowcast.web.lifecycle import Indexer, Lifecycle
    from rowcast.web.member import Member
    from rowcast.web.repeats import Once
    from rowcast.web.watch import MEBIBYTE, Watch

    models = registry(settings)
    with ExitStack() as undo:
        shared = place.board if place else Board(settings.run_folder, 1)
        end = (lambda: None) if place else shared.remove
        undo.callback(end)
        slot = shared.slot(place.worker if place else 0)
        undo.callback(slot.close)
        spool = FolderSpool(settings.journal_folder)
        counts = SharedCounts(shared.folder, place.worker) if place else OwnCounts()
        metrics = Metrics(counts, spool.backlog, shared.workers)
        follower = Follower(
            models,
            settings.models,
            open_graph,
            metrics.listen,
            trial=_trial(settings, models, shared),
            last_good=LastGood(shared.last_good, shared.keep_good),
        )
        generation, asked = models.generation(), shared.asked()
        followed = follower.begin()
        default = shared.settled_default(lambda: _default_model(settings, list(followed.models)))
        deployment = Deployment(followed.models, default)
        journal = FileJournal(settings.journal_folder, lambda: uuid.uuid4().hex, settings.durability)
        undo.callback(journal.close)
        predictor = Predictor(
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
        member = Member(shared, slot, deployment, follower, models.generation, native.refresh)
        cold = cold_app(deployment, history(settings), health, member, metrics.exposition)
        indexer = None if place else Indexer(indexer_command(), settings.for_child(), settings.journal_folder)
        lifecycle = Lifecycle(
            health, journal, indexer, member, watch, lambda: member.begin(generation, asked, followed), end
        )
        edge = Edge(
            native.routes,
            cold,
            lifecycle,
            metrics.listen,
            gate(settings),
            Once(SqliteRepeats(settings.repeats_file), settings.idempotency_seconds),
            Bounds(settings.max_body_bytes, settings.max_wait_seconds),
            root_path=settings.root_path,
            request_id_prefix=secrets.token_hex(6),
        )
        undo.pop_all()
    return Server(edge, deployment, lifecycle.drain)


def _default_model(settings: Settings, names: list[str]) -> str | None:
    default = settings.default_model or (names[0] if settings.models or len(names) == 1 else None)
    if default is not None and default not in names:
        raise SettingsError(f"setting 'default_model' is {default!r}, which is not among the models served")
    return default


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


def indexer_command() -> list[str]:
    """How a server starts its indexer."""
    return [sys.executable, "-m", "rowcast.cli", "indexer"]


def index_history(settings: Settings, wait: Callable[[float], bool], report: Callable[[str], None]) -> bool:
    """Be the indexer of this history until `wait` ends it; False when another process is."""
    from rowcast.adapters.journal import FolderSpool, indexer_lock
    from rowcast.serving.erasure import Caretaker
    from rowcast.serving.history import index

    with indexer_lock(settings.journal_folder) as ours:
        if ours:
            kept, spool = store(settings), FolderSpool(settings.journal_folder)
            caretaker = Caretaker(kept, spool, _microseconds, settings.retention_days)
            # Answers that wait for the store wait for a whole round.
            every = 0.01 if settings.durability == "store" else 0.2
            index(spool, kept, wait, report, caretaker.turn, every)
            kept.close()
        return ours


def erase_history(settings: Settings, wanted: Selection, reason: str, wait: Callable[[], bool]) -> Erased:
    """Erase rows; while `wait` says so, wait for what still lies in journals."""
    from rowcast.adapters.journal import FolderSpool, indexer_lock
    from rowcast.serving.erasure import Eraser

    spool = FolderSpool(settings.journal_folder)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    with closing(store(settings)) as kept:
        eraser = Eraser(kept, spool, _microseconds)
        erased = eraser.erase(wanted, by, reason)
        while not eraser.is_done(erased.request) and wait():
            with indexer_lock(settings.journal_folder) as ours:
                if ours:  # no server runs
                    with suppress(HistoryError):  # damage is the business of verify
                        spool.drain(kept)
                    eraser.go_on()
        return eraser.result(erased.request)


def _microseconds() -> int:
    return time.time_ns() // 1000


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


def indexer_is_running(settings: Settings) -> bool:
    """Whether some process moves this journal folder into the store."""
    from rowcast.adapters.journal import indexer_lock

    with indexer_lock(settings.journal_folder) as free:
        return not free


def configure_logging(settings: Settings) -> None:
    """Structured logs on standard error: JSON lines, or text on a terminal."""
    import logging

    import structlog

    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    # Never the values of local variables: they hold rows and keys.
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if as_text
        else [
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.log_level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


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
