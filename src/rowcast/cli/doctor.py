"""`rowcast doctor`: what is configured, reachable, loaded and wrong. Looks, and changes nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
from pydantic import SecretStr

import rowcast
from rowcast import settings
from rowcast.app import health_checks as checks
from rowcast.app import indexer as app_history
from rowcast.app import models as app_models
from rowcast.app import server as app_server
from rowcast.cli import output
from rowcast.errors import RowcastError
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.settings import MEBIBYTE, Settings

FINE, ILL = 0, 1
FILES_BESIDE_CONNECTIONS = 512
LEAST_FILES = 1024
EARLIEST = 1_767_225_600
"""2026 began then: no clock that is right shows less."""
CLOCK_SLACK = 120
"""Seconds that the newest entry of history may lie ahead."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One finding. `fix` says what to do where something is wrong."""

    part: str
    ok: bool
    says: str
    fix: str = ""


class Wrong(Exception):
    """Something is wrong, and this is what to do; never leaves this module."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


Check = Callable[[], str]


def examine(*, as_json: bool, **given: Any) -> int:
    """Print every part of this installation; 1 where something is wrong."""
    found = list(_look(given))
    fine = all(part.ok for part in found)
    if as_json:
        output.print_json({"ok": fine, "parts": found})
    else:
        rows = [
            ["ok" if part.ok else "WRONG", part.part, "; ".join(filter(None, (part.says, part.fix)))] for part in found
        ]
        output.print_table(["", "part", "says"], rows, wide=["says"])
    return FINE if fine else ILL


def _look(given: dict[str, Any]) -> Iterator[Part]:
    yield Part("rowcast", True, f"{rowcast.__version__} on Python {platform.python_version()}")
    try:
        found = settings.load(**given)
        sources = settings.origins(**given)
    except RowcastError as error:
        yield Part("settings", False, error.message, "mend it where it is set; docs/reference/settings.md lists all")
        return
    yield Part("settings", True, f"home {found.home.absolute()}")
    for name, source in sources.items():
        yield Part(f"setting {name}", True, f"{_shown(getattr(found, name))}, from {source}")
    for name, check, fix in _checks(found):
        yield _checked(name, check, fix)
    yield _checked("open files", lambda: _files(found, chosen="max_connections" in sources), "")


def _checked(name: str, check: Check, fix: str) -> Part:
    try:
        return Part(name, True, check())
    except Wrong as wrong:
        return Part(name, False, wrong.message, wrong.fix)
    except RowcastError as error:
        return Part(name, False, error.message, fix)
    except Exception as error:  # whatever breaks a check is a finding, and the other checks go on
        return Part(name, False, f"cannot be looked at: {type(error).__name__}: {' '.join(str(error).split())}", fix)


def _shown(value: Any) -> str:
    """A setting as it may be shown: secrets are not, nor what stands before an @ in an address."""
    if isinstance(value, SecretStr):
        return "(hidden)"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return re.sub(r"//[^@/]*@", "//(hidden)@", str(value).lower() if isinstance(value, bool) else str(value))


def _checks(found: Settings) -> Iterator[tuple[str, Check, str]]:
    """Name, check, and what to do where the check itself does not know."""
    yield "clock", lambda: _clock(found), "look at the store below first"
    yield (
        "registry",
        lambda: _registry(found),
        "restore the folder from a copy, or say where it is with ROWCAST_REGISTRY",
    )
    try:
        names = list(app_models.registry(found).models())
    except (RowcastError, OSError):  # said by the check above
        names = []
    for name in names:
        fix = "train or publish it again, or restore its folder from a copy"
        yield f"model {name}", partial(_model, found, name), fix
    yield "default model", lambda: _default(found), "name models that have a champion in `models`"
    yield "store", lambda: _store(found), "restore the file from a copy, or say where it is with ROWCAST_STORE"
    yield "journal", lambda: _journal(found), "let the user of the server own this folder"
    yield "disk", lambda: _disk(found), "let the user of the server own this folder"
    yield "server", lambda: _server(found), "start the server again"
    yield (
        "keys",
        lambda: _keys(found),
        "restore the file from a copy, or make keys anew with `rowcast keys create NAME`",
    )
    yield "repeats", lambda: _repeats(found), "delete it while no server runs"
    yield "cache", lambda: _cache(found), ""
    yield "push", lambda: _push(found), "mend push_gateway"
    yield "otel", lambda: _otel(found), "mend otel_endpoint"


def _clock(found: Settings) -> str:
    now = time.time()
    stated = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < EARLIEST:
        raise Wrong(f"it is {stated} here, which is long ago", "set the clock; `timedatectl set-ntp true` keeps it")
    newest = None
    with contextlib.suppress(RowcastError):  # said by the check of the store
        newest = app_history.newest_moment(found)
    if newest is not None and newest / 1e6 > now + CLOCK_SLACK:
        ahead = f"history's newest entry is of {output.moment(newest)}, and it is {stated} here"
        raise Wrong(ahead, "set the clock; ids and times of new entries would lie before old ones")
    return stated


def _registry(found: Settings) -> str:
    names = list(app_models.registry(found).models())
    if not names:
        raise Wrong(f"no model in {found.registry_folder}", "train one with `rowcast train`")
    return f"{output.counted(len(names), 'model')} in {found.registry_folder}"


def _model(found: Settings, name: str) -> str:
    registry = app_models.registry(found)
    if "champion" not in registry.aliases(name):
        return "has no champion, so it is not served"
    model = app_models.live_model(found, name)
    bundle.verify(registry.folder(Reference(model.name, model.version)))
    return f"{model.name}@{model.version} loads, its files are unchanged and its golden rows hold"


def _default(found: Settings) -> str:
    served = [reference.name for reference in app_models.served(found)]
    default = found.default_model or (served[0] if found.models or len(served) == 1 else None)
    if default is None:
        return "none: POST /predict needs one; name it with default_model" if served else "none, for there is no model"
    if default not in served:
        listed = ", ".join(served) or "none"
        raise Wrong(f"{default!r} is not among the models served: {listed}", "set default_model to one of them")
    return default


def _store(found: Settings) -> str:
    counted = output.counted(app_history.store(found).count(), "entry", "entries")
    reason = checks.store_failure(found)
    if reason:
        raise Wrong(
            f"{found.store_url} cannot be written: {reason}", "end what holds it, or let the server's user own the file"
        )
    return f"{counted} in {found.store_url}"


def _journal(found: Settings) -> str:
    folder = found.journal_folder
    if not folder.exists():
        return f"{folder} will be made by the first server"
    spool = app_history.history(found).spool
    damaged = spool.damaged()
    if damaged:
        raise Wrong(
            f"{output.counted(len(damaged), 'journal')} damaged in {folder}: {', '.join(damaged)}",
            "see what is missing with `rowcast history verify`, then keep these files elsewhere",
        )
    working = app_history.indexer_is_running(found)
    if not working and checks.running_servers(found):
        raise Wrong(
            f"a server runs, but nothing moves {folder} into the store", "look into the server's log, restart it"
        )
    waiting = output.counted(spool.backlog(), "journal")
    return f"{waiting} not yet stored to the end in {folder}; {'an' if working else 'no'} indexer is at work"


def _disk(found: Settings) -> str:
    free = {}
    for wanted in (found.journal_folder.absolute(), app_history.store_folder(found)):
        folder = next(path for path in [wanted, *wanted.parents] if path.exists())
        if not os.access(folder, os.W_OK):
            raise Wrong(f"{folder} cannot be written", "let the user of the server own this folder")
        disk = os.statvfs(folder)
        free[folder] = disk.f_bavail * disk.f_frsize // MEBIBYTE
    folder, least = min(free.items(), key=lambda item: item[1])
    if least < found.min_free_mb:
        raise Wrong(
            f"{least} MiB are free at {folder}, less than min_free_mb={found.min_free_mb}: predictions are refused",
            "make room, or move ROWCAST_HOME",
        )
    return f"{least} MiB free at {folder}; predictions are refused below {found.min_free_mb}"


def _server(found: Settings) -> str:
    running = checks.running_servers(found)
    said = []
    for workers in running.values():
        for worker in workers:
            who = f"worker {worker.worker} (process {worker.pid})"
            if worker.state in ("stale", "dead"):
                fix = f"look at process {worker.pid} and restart the server" if worker.pid else "restart the server"
                raise Wrong(f"worker {worker.worker} is {worker.state}", fix)
            if worker.reload_error:
                raise Wrong(
                    f"{who} could not follow the registry: {worker.reload_error}",
                    "publish a good version, then POST /models/reload",
                )
            serves = ", ".join(f"{model.model}@{model.version}" for model in worker.models) or "nothing yet"
            said.append(f"{who} is {worker.state} and serves {serves}")
    return "; ".join(said) or "none is running from this home"


def _keys(found: Settings) -> str:
    kept = app_server.keys(found).all()
    now = time.time()
    states = [key.state(now) for key in kept]
    active = states.count("active")
    good = active + (found.api_key is not None)
    others = [f"{states.count(state)} {state}" for state in ("expired", "revoked") if state in states]
    counted = ", ".join([f"{active} active", *others, *(["1 from the setting api_key"] if found.api_key else [])])
    if not found.listens_locally and not good and not found.insecure:
        raise Wrong(
            f"{counted}, and {found.host} is open to other machines",
            "make a key with `rowcast keys create NAME`, or listen on 127.0.0.1",
        )
    if kept and not good:
        raise Wrong(f"{counted}: nobody can ask", "make a key with `rowcast keys create NAME`")
    if not good:
        where = "from this machine" if found.listens_locally else f"that can reach {found.host}"
        return f"none: whoever asks {where} may"
    return counted


def _repeats(found: Settings) -> str:
    reason = checks.repeats_failure(found)
    if reason:
        raise Wrong(f"{found.repeats_file} cannot be used: {reason}", "delete it while no server runs")
    return str(found.repeats_file) if found.repeats_file.exists() else "none kept yet"


def _cache(found: Settings) -> str:
    if not found.cache:
        return "off"
    return f"on, {found.cache_entries} outcomes a worker for {found.cache_seconds:g} s"


def _push(found: Settings) -> str:
    if found.push_gateway is None:
        return "off"
    reason = checks.push_failure(found)
    if reason:
        raise Wrong(reason, "start it, or mend push_gateway, push_username and push_password")
    return f"{found.push_gateway} answers; metrics go there every {found.push_seconds:g} s"


def _otel(found: Settings) -> str:
    if found.otel_endpoint is None:
        return "off"
    reason = checks.otel_failure(found)
    if reason:
        fix = "install it, or leave otel_endpoint out" if "installed" in reason else "start it, or mend otel_endpoint"
        raise Wrong(reason, fix)
    return f"{found.otel_endpoint} takes spans, of {found.otel_ratio:.0%} of requests"


def _files(found: Settings, *, chosen: bool) -> str:
    """Fewer than the default asks for will do, unless that many connections were wanted."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = found.max_connections + FILES_BESIDE_CONNECTIONS
    enough = hard == resource.RLIM_INFINITY or hard >= wanted
    if not enough and (chosen or hard < LEAST_FILES):
        raise Wrong(
            f"a process may open {hard} files, and max_connections={found.max_connections} needs {wanted}",
            "raise it (`ulimit -Hn`, LimitNOFILE= of systemd), or lower max_connections",
        )
    if not enough:
        return f"{hard} allowed: there is room for {hard - FILES_BESIDE_CONNECTIONS} connections at once"
    return f"{'any number' if hard == resource.RLIM_INFINITY else hard} allowed, {wanted} needed"
