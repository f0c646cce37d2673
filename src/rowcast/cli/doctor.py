"""`rowcast doctor`: check an installation's settings, models, history, servers and services.

The checks change nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from pydantic import SecretStr

import rowcast
from rowcast import settings
from rowcast.app import access, health_checks, history, indexer, jobs, models
from rowcast.cli import output
from rowcast.errors import RowcastError
from rowcast.history.ports import Position
from rowcast.history.records import to_time
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.runtime.connections import SPARE_FILES, affordable_connections
from rowcast.setting_values import hide_credentials
from rowcast.settings import MEBIBYTE, Settings

OK, PROBLEM = 0, 1
MIN_FILES = 1024
EARLIEST = 1_767_225_600
"""The start of 2026 in Unix time. A clock that shows an earlier time is wrong, because Rowcast did not exist then."""
ADVANCE_SECONDS = 3.0
CLOCK_TOLERANCE = 120
"""The newest history entry may be up to this many seconds ahead of the clock."""


class CheckResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one check. `fix` describes how to solve the problem."""

    part: str
    ok: bool
    says: str
    fix: str = ""


class CheckFailed(Exception):
    """Raised by a check to report a problem and its fix."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


Check = Callable[[], str]
"""Checks one part and returns a description of it; raises an exception if there is a problem."""


def run(*, as_json: bool, **options: Any) -> int:
    """Print the result of every check; return 1 if there is a problem."""
    parts = list(_check_all(options))
    all_ok = all(part.ok for part in parts)
    if as_json:
        output.print_json({"ok": all_ok, "parts": parts})
    else:
        rows = [
            ["ok" if part.ok else "PROBLEM", part.part, "; ".join(filter(None, (part.says, part.fix)))]
            for part in parts
        ]
        output.print_table(["", "part", "result"], rows, wide=["result"])
    return OK if all_ok else PROBLEM


def _check_all(options: dict[str, Any]) -> Iterator[CheckResult]:
    yield CheckResult("rowcast", True, f"{rowcast.__version__} on Python {platform.python_version()}")
    try:
        loaded = settings.load(**options)
        sources = settings.origins(**options)
    except RowcastError as error:
        yield CheckResult(
            "settings", False, error.message, "correct the setting; docs/reference/settings.md lists all settings"
        )
        return
    yield CheckResult("settings", True, f"home {loaded.home.absolute()}")
    for name, source in sources.items():
        yield CheckResult(f"setting {name}", True, f"{_format_setting(getattr(loaded, name))}, from {source}")
    for name, check, fix in _checks(loaded):
        yield _perform(name, check, fix)
    has_limit = "max_connections" in sources
    yield _perform("open files", lambda: _check_open_files(loaded, is_explicit=has_limit), "")


def _perform(name: str, check: Check, fix: str) -> CheckResult:
    try:
        return CheckResult(name, True, check())
    except CheckFailed as failure:
        return CheckResult(name, False, failure.message, failure.fix)
    except RowcastError as error:
        return CheckResult(name, False, error.message, fix)
    except Exception as error:  # an unexpected error must not prevent the other checks from running
        return CheckResult(
            name, False, f"the check failed: {type(error).__name__}: {' '.join(str(error).split())}", fix
        )


def _format_setting(value: Any) -> str:
    """Return a setting's value as text, without secrets and without the credentials in URLs."""
    if isinstance(value, SecretStr):
        return "(hidden)"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return hide_credentials(str(value).lower() if isinstance(value, bool) else str(value))


def _checks(loaded: Settings) -> Iterator[tuple[str, Check, str]]:
    """Yield the name of each check, the check itself, and the default fix for its problems."""
    yield "clock", lambda: _check_clock(loaded), "fix the problem with the store first"
    yield (
        "registry",
        lambda: _check_registry(loaded),
        "restore the folder from a backup, or set ROWCAST_REGISTRY to its location",
    )
    try:
        names = list(models.registry(loaded).models())
    except (RowcastError, OSError):  # the registry check reports this error
        names = []
    for name in names:
        fix = "train or import the model again, or restore its folder from a backup"
        yield f"model {name}", partial(_check_model, loaded, name), fix
    yield (
        "default model",
        lambda: _check_default(loaded),
        "make sure that the setting `models` lists only published models",
    )
    yield "store", lambda: _check_store(loaded), _fix_store(loaded)
    yield "journal", lambda: _check_journal(loaded), "correct the setting `journal` or the permissions of the folder"
    yield "privacy", lambda: _check_privacy(loaded), "give the server's user access to the folder"
    yield "disk", lambda: _check_disk(loaded), "give the server's user access to the folder"
    yield "server", lambda: _check_server(loaded), "restart the server"
    yield (
        "keys",
        lambda: _check_keys(loaded),
        _fix_store(loaded)
        if loaded.has_postgresql_store
        else "restore the file from a backup, or delete it and create new keys with `rowcast keys create NAME`",
    )
    yield "repeats", lambda: _check_repeats(loaded), _fix_repeats(loaded)
    yield "jobs", lambda: jobs.check_jobs(loaded), "correct the setting `files` or the permissions of the folder"
    redis = "start Redis, or correct the setting `{}`"
    yield "cache", lambda: _check_cache(loaded), redis.format("cache")
    yield "quotas", lambda: _check_quotas(loaded), redis.format("quotas")
    yield "ray", lambda: _check_ray(loaded), "correct the setting `ray_address`"
    yield "queue", lambda: _check_queue(loaded), redis.format("queue")
    yield "push", lambda: _check_push(loaded), "correct the setting `push_gateway`"
    yield "otel", lambda: _check_otel(loaded), "correct the setting `otel_endpoint`"


def _check_clock(loaded: Settings) -> str:
    now = time.time()
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < EARLIEST:
        raise CheckFailed(
            f"the clock shows {shown}, which is before the first release of Rowcast",
            "correct the clock, for example with NTP",
        )
    newest = None
    with contextlib.suppress(RowcastError):  # the store check reports this error
        newest = history.newest_entry_time(loaded)
    if newest is not None and newest / 1e6 > now + CLOCK_TOLERANCE:
        raise CheckFailed(
            f"the newest entry in the history is from {output.moment(to_time(newest))}, but the clock shows {shown}",
            "correct the clock; otherwise, new entries will be sorted before old entries",
        )
    return shown


def _check_registry(loaded: Settings) -> str:
    names = list(models.registry(loaded).models())
    if not names:
        raise CheckFailed(f"no models in {loaded.registry_folder}", "train a model with `rowcast train`")
    return f"{output.counted(len(names), 'model')} in {loaded.registry_folder}"


def _check_model(loaded: Settings, name: str) -> str:
    registry = models.registry(loaded)
    if "champion" not in registry.aliases(name):
        return f"not served, because it has no champion; promote a version with `rowcast models promote {name}@VERSION`"
    model = models.live_model(loaded, name)
    bundle.verify(registry.folder(Reference(model.name, model.version)))
    return f"{model.name}@{model.version} can be loaded; its files are unchanged and its golden rows pass"


def _check_default(loaded: Settings) -> str:
    names = [reference.name for reference in models.served(loaded)]
    default = models.default_model(loaded, names)
    if default is None:
        return "none; POST /predict needs the setting default_model" if names else "none, because there are no models"
    if default not in names:
        raise CheckFailed(
            f"{default!r} is not served; served models: {', '.join(names) or 'none'}",
            "set default_model to a served model",
        )
    return default


def _check_store(loaded: Settings) -> str:
    entries = output.counted(history.store(loaded).count(), "entry", "entries")
    reason = health_checks.store_failure(loaded)
    if reason:
        is_file = loaded.store_url.startswith("sqlite:")
        lock = "stop the process that has locked the file, or give the server's user write access to it"
        raise CheckFailed(reason, lock if is_file else _fix_store(loaded))
    problem = history.retention_problem(loaded)
    if problem:
        raise CheckFailed(problem, "check the clock of this machine")
    return f"{entries} in {hide_credentials(loaded.store_url)}"


def _fix_store(loaded: Settings) -> str:
    if loaded.store_url.startswith("sqlite:"):
        return "restore the file from a backup, or correct the setting `store`"
    return "start the database and give the database user write access, or correct the setting `store`"


def _fix_repeats(loaded: Settings) -> str:
    return _fix_store(loaded) if loaded.has_postgresql_store else "stop all servers and delete the file"


def _check_journal(loaded: Settings) -> str:
    folder = loaded.journal_folder
    if not folder.exists():
        return f"{folder} does not exist yet; a server creates it at startup"
    journals = history.history(loaded).journals
    damaged = journals.damaged()
    if damaged:
        raise CheckFailed(
            f"{output.counted(len(damaged), 'damaged journal')} in {folder}: {', '.join(damaged)}",
            "find the missing entries with `rowcast history verify`, then move the damaged files out of the folder",
        )
    is_indexed = indexer.indexer_is_running(loaded)
    if not is_indexed and health_checks.running_servers(loaded):
        raise CheckFailed(
            f"a server is running, but no indexer is moving the journals in {folder} into the store",
            "check the server's log and restart the server",
        )
    if is_indexed and not _advances(journals.last_seqs(), lambda writer: history.store(loaded).position(writer)):
        raise CheckFailed(
            f"a process has locked {folder / 'indexer.lock'}, but is not moving entries into the store",
            f"find the process with `fuser {folder / 'indexer.lock'}` and end it",
        )
    backlog = output.counted(journals.backlog(), "journal")
    return f"{backlog} with unstored entries in {folder}; the indexer is {'running' if is_indexed else 'not running'}"


def _advances(recorded: Mapping[str, int], position: Callable[[str], Position | None]) -> bool:
    """Return whether the indexer is storing the recorded entries; wait up to `ADVANCE_SECONDS` for progress."""

    def stored() -> dict[str, int]:
        positions = {writer: position(writer) for writer in recorded}
        return {writer: found.seq if found else -1 for writer, found in positions.items()}

    first, end = stored(), time.monotonic() + ADVANCE_SECONDS
    current = first
    while any(current[writer] < seq for writer, seq in recorded.items()):
        if current != first:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
        current = stored()
    return True


def _check_privacy(loaded: Settings) -> str:
    """Check that other users of the machine cannot read the home folder and cannot hold its locks.

    A group can have access to a registry outside the home folder, because models can be shared.
    """
    folders = [folder for folder in (loaded.home, loaded.journal_folder, loaded.registry_folder) if folder.exists()]
    for folder in folders:
        readers = _readers(folder)
        if readers == "other users" or (readers and folder != loaded.registry_folder):
            raise CheckFailed(f"{readers} can read {folder}", f"run `chmod -R go= {folder}`")
    return f"other users cannot read {loaded.home}"


def _readers(folder: Path) -> str:
    """Return which other users can read a folder, or an empty string if only its owner can."""
    path = [each.stat() for each in (folder, *folder.absolute().parents)]
    group = path[0].st_gid
    for readers, bits in (
        ("other users", [each.st_mode & 0o007 for each in path]),
        # If a folder belongs to another group, the members of this group access it as other users.
        ("the members of its group", [(each.st_mode >> (3 if each.st_gid == group else 0)) & 0o007 for each in path]),
    ):
        if bits[0] & 0o004 and all(bit & 0o001 for bit in bits):
            return readers
    return ""


def _check_disk(loaded: Settings) -> str:
    free = {}
    locations = [loaded.journal_folder.absolute(), history.store(loaded).disk_folder]
    for location in (location for location in locations if location is not None):
        folder = next(path for path in [location, *location.parents] if path.exists())
        if not os.access(folder, os.W_OK):
            raise CheckFailed(f"cannot write to {folder}", "give the server's user write access to the folder")
        disk = os.statvfs(folder)
        free[folder] = disk.f_bavail * disk.f_frsize // MEBIBYTE
    folder, least = min(free.items(), key=lambda item: item[1])
    if least < loaded.min_free_mb:
        raise CheckFailed(
            f"{least} MiB free at {folder}, less than min_free_mb={loaded.min_free_mb}; predictions are refused",
            "free disk space, or move ROWCAST_HOME to a larger disk",
        )
    return f"{least} MiB free at {folder}; predictions are refused if less than {loaded.min_free_mb} MiB is free"


def _check_server(loaded: Settings) -> str:
    states = []
    for processes in health_checks.running_servers(loaded).values():
        for process in processes:
            name = f"server process {process.process} (pid {process.pid})"
            if process.state in ("stale", "dead"):
                fix = f"inspect pid {process.pid} and restart the server" if process.pid else "restart the server"
                raise CheckFailed(f"server process {process.process} is {process.state}", fix)
            if process.reload_error:
                raise CheckFailed(
                    f"{name} cannot load a new model version: {process.reload_error}",
                    "publish a valid version, then send POST /models/reload",
                )
            serves = ", ".join(f"{model.model}@{model.version}" for model in process.models) or "no models yet"
            states.append(f"{name} is {process.state} and serves {serves}")
    return "; ".join(states) or "no server is using this home folder"


def _check_keys(loaded: Settings) -> str:
    keys = access.keys(loaded).all()
    now = time.time()
    states = [key.state(now) for key in keys]
    active = states.count("active")
    valid = active + (loaded.api_key is not None)
    inactive = [f"{states.count(state)} {state}" for state in ("expired", "revoked") if state in states]
    from_setting = ["1 from the setting api_key"] if loaded.api_key else []
    summary = ", ".join([f"{active} active", *inactive, *from_setting])
    create = "create a key with `rowcast keys create NAME`"
    if not loaded.listens_locally and not valid and not loaded.insecure:
        raise CheckFailed(
            f"{summary}, but host {loaded.host} accepts connections from other machines",
            f"{create}, or listen on 127.0.0.1",
        )
    if keys and not valid:
        raise CheckFailed(f"{summary}; every request is rejected", create)
    if not valid:
        clients = "from this machine" if loaded.listens_locally else f"that reaches {loaded.host}"
        return f"none; every request {clients} is allowed"
    return summary


def _check_repeats(loaded: Settings) -> str:
    reason = health_checks.repeats_failure(loaded)
    if reason:
        raise CheckFailed(reason, _fix_repeats(loaded))
    if loaded.has_postgresql_store:
        return f"in {hide_credentials(loaded.store_url)}"
    return str(loaded.repeats_file) if loaded.repeats_file.exists() else "no replies stored yet"


def _check_cache(loaded: Settings) -> str:
    if loaded.cache == "off":
        return "off"
    lifetime = f"scores expire after {loaded.cache_seconds:g} s"
    if loaded.cache == "memory":
        return f"on; up to {loaded.cache_entries} scores in each server process; {lifetime}"
    return f"{health_checks.redis_state(loaded, 'cache', loaded.cache)}; {lifetime}"


def _check_quotas(loaded: Settings) -> str:
    if loaded.quotas is None:
        return "each server process enforces an equal share of every quota"
    return health_checks.redis_state(loaded, "quotas", loaded.quotas)


def _check_ray(loaded: Settings) -> str:
    version = health_checks.ray_version()
    if version is None and loaded.ray_address is None:
        return "not installed; only `--engine ray` needs it"
    if version is None:
        raise CheckFailed("ray_address is set, but rowcast[ray] is not installed", "install the package")
    if loaded.ray_address is None:
        return f"{version}; `--engine ray` starts a cluster on this machine"
    reason = health_checks.ray_failure(loaded.ray_address)
    if reason:
        raise CheckFailed(reason, "start the cluster, or correct ray_address")
    return f"{version}; {loaded.ray_address} responds"


def _check_queue(loaded: Settings) -> str:
    if loaded.queue is None:
        return "off; each server process scores its own rows"
    return health_checks.queue_state(loaded, loaded.queue)


def _check_push(loaded: Settings) -> str:
    if loaded.push_gateway is None:
        return "off"
    reason = health_checks.push_failure(loaded)
    if reason:
        raise CheckFailed(reason, "start the Pushgateway, or correct push_gateway, push_username or push_password")
    return f"{loaded.push_gateway} responds; metrics are pushed every {loaded.push_seconds:g} s"


def _check_otel(loaded: Settings) -> str:
    if loaded.otel_endpoint is None:
        return "off"
    reason = health_checks.otel_failure(loaded)
    if reason:
        is_missing = "installed" in reason
        fix = (
            "install the package, or unset otel_endpoint"
            if is_missing
            else "start the collector, or correct otel_endpoint"
        )
        raise CheckFailed(reason, fix)
    return f"{loaded.otel_endpoint} accepts spans; {loaded.otel_ratio:.0%} of requests are traced"


def _check_open_files(loaded: Settings, *, is_explicit: bool) -> str:
    """Compare the limit on open files with max_connections.

    A limit that is too low for the default max_connections is a problem only if it is below MIN_FILES.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = loaded.max_connections + SPARE_FILES
    is_enough = hard == resource.RLIM_INFINITY or hard >= needed
    if not is_enough and (is_explicit or hard < MIN_FILES):
        raise CheckFailed(
            f"a process can open {hard} files, but max_connections={loaded.max_connections} requires {needed}",
            "raise the limit (`ulimit -Hn`, or LimitNOFILE= in systemd), or lower max_connections",
        )
    if not is_enough:
        return f"limit {hard}; enough for {affordable_connections(hard)} concurrent connections"
    return f"{'unlimited' if hard == resource.RLIM_INFINITY else f'limit {hard}'}, {needed} needed"
