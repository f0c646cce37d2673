"""`rowcast doctor` reports every problem together with a fix, and never prints a secret."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rowcast import settings
from rowcast.adapters.files import server_state
from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader, indexer_lock
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.files.server_state import ServerFolder
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.cli import doctor
from rowcast.setting_aliases import ALIASES
from rowcast.setting_values import hide_credentials
from support import access, entries, models, rays, redis
from support.postgresql import PASSWORD as STORE_PASSWORD
from support.redis import RedisServer

Parts = dict[str, dict[str, Any]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one model; the environment contains no settings."""
    for name in [name for name in os.environ if name.startswith(settings.PREFIX) or name in ALIASES]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    registry = FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return home


class Doctor:
    """Runs the command and parses its JSON output."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._home = home
        self._capsys = capsys

    def run(self) -> tuple[int, Parts]:
        status = doctor.run(home=self._home, as_json=True)
        printed = json.loads(self._capsys.readouterr().out)
        assert printed["ok"] == (status == 0)
        return status, {part["part"]: part for part in printed["parts"]}

    def parts(self, *problems: str) -> Parts:
        """Run the command, assert that only these parts have problems and that each has a fix, and return all parts."""
        status, parts = self.run()
        assert [name for name, part in parts.items() if not part["ok"]] == list(problems), parts
        assert status == bool(problems)
        assert all(parts[name]["fix"] for name in problems)
        return parts


@pytest.fixture
def checkup(home: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(home, capsys)


def test_every_part_of_a_healthy_installation_is_reported(checkup: Doctor) -> None:
    parts = checkup.parts()

    assert [name for name in parts if not name.startswith("setting ")] == [
        "rowcast",
        "settings",
        "clock",
        "registry",
        "model sum",
        "default model",
        "store",
        "journal",
        "privacy",
        "disk",
        "server",
        "keys",
        "repeats",
        "jobs",
        "cache",
        "quotas",
        "ray",
        "queue",
        "push",
        "otel",
        "open files",
    ]


def test_the_checks_neither_create_nor_delete_files(checkup: Doctor, home: Path) -> None:
    before = sorted(home.rglob("*"))
    checkup.parts()

    assert sorted(home.rglob("*")) == before


def test_settings_are_listed_with_their_sources_but_without_secrets(
    checkup: Doctor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home.parent / "rowcast.toml").write_text("max_rows = 7\n")
    monkeypatch.setenv("ROWCAST_API_KEY", "sesame-open-up")
    monkeypatch.setenv("ENV", "production")
    parts = checkup.parts()

    assert parts["setting max_rows"]["says"] == "7, from rowcast.toml"
    assert parts["setting log_format"]["says"] == "json, from ENV"
    assert parts["setting api_key"]["says"] == "(hidden), from ROWCAST_API_KEY"
    assert parts["setting home"]["says"].endswith("from the command line")
    doctor.run(home=home, as_json=False)
    assert "sesame" not in capsys.readouterr().out


def test_invalid_settings_are_reported(checkup: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")

    assert "LOG_LEVEL" in checkup.parts("settings")["settings"]["says"]


def test_the_line_for_a_problem_ends_with_the_fix(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROWCAST_DEFAULT_MODEL", "nope")

    assert doctor.run(home=home, as_json=False) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM")]
    assert (
        line == "PROBLEM\tdefault model\t'nope' is not served; served models: sum; set default_model to a served model"
    )


def test_a_clock_behind_the_newest_entry_is_reported(
    checkup: Doctor, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(home / "history.db")
    store.record("w", entries.sealed("w", entries.drafts(0, 1)))
    store.close()
    assert checkup.parts()["store"]["says"].startswith("1 entry")
    monkeypatch.setattr(doctor, "EARLIEST", 0)
    monkeypatch.setattr(doctor.time, "time", lambda: 1_600_000_000.0)

    assert "newest entry" in checkup.parts("clock")["clock"]["says"]


def test_a_clock_that_shows_an_implausibly_early_date_is_reported(
    checkup: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.time, "time", lambda: 86_400.0)

    assert "1970-01-02" in checkup.parts("clock")["clock"]["says"]


def test_an_empty_registry_is_reported(checkup: Doctor, home: Path) -> None:
    (home / "models").rename(home / "elsewhere")

    assert "rowcast train" in checkup.parts("registry")["registry"]["fix"]


def test_a_changed_model_file_is_reported(checkup: Doctor, home: Path) -> None:
    with (home / "models" / "sum" / "1" / "model.onnx").open("ab") as file:
        file.write(b"\0")

    assert "model.onnx was changed" in checkup.parts("model sum")["model sum"]["says"]


def test_a_nonexistent_model_in_the_settings_is_reported(checkup: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_MODELS", "sum@9")

    assert "no version 9" in checkup.parts("default model")["default model"]["says"]


def test_a_store_that_is_not_a_database_is_reported(checkup: Doctor, home: Path) -> None:
    (home / "history.db").write_bytes(b"not a database" * 100)

    assert "restore" in checkup.parts("store")["store"]["fix"]


def test_a_locked_store_is_reported(checkup: Doctor, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(home / "history.db")
    store.check()
    monkeypatch.setattr("rowcast.app.health_checks.SECONDS", 0.1)
    holder = sqlite3.connect(home / "history.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert "locked" in checkup.parts("store")["store"]["says"]
    finally:
        holder.close()
        store.close()


def test_a_damaged_journal_is_reported(checkup: Doctor, home: Path) -> None:
    FileJournal(home / "journal", lambda: "a" * 32).close()
    (home / "journal" / f"{'b' * 32}-000000000000.damaged").write_bytes(b"?")

    assert "damaged" in checkup.parts("journal")["journal"]["says"]


def test_low_disk_space_is_reported(checkup: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_MIN_FREE_MB", str(10**9))

    assert "free disk space" in checkup.parts("disk")["disk"]["fix"]


def test_unhealthy_server_processes_are_reported(checkup: Doctor, home: Path) -> None:
    server_folder = ServerFolder(home / "run", 1)
    slot = server_folder.slot(0)
    slot.report(state="ready", reload_error="sum@2 is broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rowcast.app.indexer.indexer_is_running", lambda settings: True)
        assert "sum@2 is broken" in checkup.parts("server")["server"]["says"]
        slot.report(reload_error="")
        assert "is ready" in checkup.parts()["server"]["says"]
        now = time.monotonic()
        patch.setattr(server_state.time, "monotonic", lambda: now + 60)
        assert "stale" in checkup.parts("server")["server"]["says"]
    slot.close()
    assert "dead" in checkup.parts("server")["server"]["says"]
    server_folder.remove()


def test_a_server_without_an_indexer_is_reported(checkup: Doctor, home: Path) -> None:
    FileJournal(home / "journal", lambda: "a" * 32).close()
    server_folder = ServerFolder(home / "run", 1)
    server_folder.slot(0).report(state="ready")

    assert "no indexer" in checkup.parts("journal")["journal"]["says"]
    server_folder.remove()


def test_a_process_that_holds_the_indexer_lock_without_indexing_is_reported(checkup: Doctor, home: Path) -> None:
    journal = FileJournal(home / "journal", lambda: "a" * 32)
    journal.append(entries.drafts(0, 2))
    journal.close()

    with indexer_lock(home / "journal"):
        part = checkup.parts("journal")["journal"]

    assert "is not moving entries" in part["says"]
    assert "indexer.lock" in part["fix"]


def test_an_indexer_that_stores_entries_is_not_reported(checkup: Doctor, home: Path) -> None:
    journal = FileJournal(home / "journal", lambda: "a" * 32)
    journal.append(entries.drafts(0, 2))
    journal.close()

    with indexer_lock(home / "journal"), SqliteStore(home / "history.db") as store:
        FolderJournalReader(home / "journal").drain(store)
        assert "the indexer is running" in checkup.parts()["journal"]["says"]


@pytest.mark.parametrize(("mode", "readers"), [(0o755, "other users"), (0o750, "the members of its group")])
def test_a_home_that_others_can_read_is_reported(checkup: Doctor, home: Path, mode: int, readers: str) -> None:
    private = {path: path.stat().st_mode for path in home.parents if path.stat().st_mode & 0o011 != 0o011}
    for path, before in private.items():
        path.chmod(before | 0o011)
    try:
        home.chmod(mode)
        part = checkup.parts("privacy")["privacy"]
        assert (part["says"], part["fix"]) == (f"{readers} can read {home}", f"run `chmod -R go= {home}`")
        home.chmod(0o710)  # the group can enter the folder, but it cannot list it
        checkup.parts()
        home.chmod(0o700)
        checkup.parts()
    finally:
        for path, before in private.items():
            path.chmod(before)


def test_unusable_api_keys_are_reported(checkup: Doctor, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_HOST", "0.0.0.0")
    assert "0.0.0.0 accepts connections" in checkup.parts("keys")["keys"]["says"]
    access.add(home, "old", expires=2)
    assert "0 active, 1 expired" in checkup.parts("keys")["keys"]["says"]
    monkeypatch.setenv("ROWCAST_HOST", "127.0.0.1")
    assert "every request is rejected" in checkup.parts("keys")["keys"]["says"]
    access.add(home, "new")
    assert checkup.parts()["keys"]["says"] == "1 active, 1 expired"
    (home / "keys.json").write_text("{")
    checkup.parts("keys")


def test_a_damaged_idempotency_database_is_reported(checkup: Doctor, home: Path) -> None:
    (home / "repeats.db").write_bytes(b"not a database" * 100)

    assert "delete the file" in checkup.parts("repeats")["repeats"]["fix"]


def test_an_unreachable_push_gateway_or_collector_is_reported(checkup: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}"
        monkeypatch.setenv("PROM_PUSHGATEWAY", nowhere)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", nowhere)
        parts = checkup.parts("push", "otel")

    assert f"{nowhere}/metrics/job/loan_model" in parts["push"]["says"]
    assert f"{nowhere}/v1/traces" in parts["otel"]["says"]


def test_ray_is_checked_without_being_imported(checkup: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "starts a cluster" in checkup.parts()["ray"]["says"]
    with rays.answering(rays.SETTINGS) as address:
        for scheme in ("", "ray://"):
            monkeypatch.setenv("RAY_ADDRESS", f"{scheme}{address}")
            assert f"{scheme}{address} responds" in checkup.parts()["ray"]["says"]
    assert address in checkup.parts("ray")["ray"]["says"]
    monkeypatch.setenv("ROWCAST_RAY_ADDRESS", "host")
    assert "HOST:PORT" in checkup.parts("ray")["ray"]["says"]
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "rowcast[ray]" in checkup.parts("ray")["ray"]["says"]


def test_an_open_file_limit_below_max_connections_is_reported(checkup: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    assert "3584 concurrent connections" in checkup.parts()["open files"]["says"]
    monkeypatch.setenv("ROWCAST_MAX_CONNECTIONS", "20000")
    assert "ulimit" in checkup.parts("open files")["open files"]["fix"]


def test_an_unexpected_error_is_reported_as_a_problem(checkup: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: object) -> str:
        raise ZeroDivisionError("unexpected")

    monkeypatch.setattr(doctor.health_checks, "running_servers", fail)
    assert "ZeroDivisionError" in checkup.parts("server")["server"]["says"]


PASSWORD = "letmein-of-redis"


@pytest.mark.parametrize(("name", "variable"), [("cache", "REDIS_URL"), ("quotas", "ROWCAST_QUOTAS")])
def test_redis_is_checked(
    checkup: Doctor, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    monkeypatch.setenv(variable, redis_server.url)
    monkeypatch.setenv("ROWCAST_REDIS_TIMEOUT_MS", "10000")

    says = checkup.parts()[name]["says"]
    assert redis_server.url in says
    assert "responds; memory unlimited, policy noeviction" in says


@pytest.mark.parametrize("name", ["cache", "quotas"])
def test_a_redis_that_cannot_be_used_is_a_problem_and_the_password_is_not_shown(
    checkup: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with redis.serving(tmp_path, "--requirepass", "another") as server:
        monkeypatch.setenv(f"ROWCAST_{name.upper()}", server.url.replace("//", f"//:{PASSWORD}@"))
        wrong = checkup.parts(name)
    away = checkup.parts(name)

    assert "rejects the user name or password" in wrong[name]["says"]
    assert "Connect call failed" in away[name]["says"] or "refused" in away[name]["says"]
    assert not any(PASSWORD in str(parts) for parts in (wrong, away))
    assert wrong[f"setting {name}"]["says"].startswith("redis://(hidden)@127.0.0.1:")


def test_memory_limits_that_rowcast_cannot_set_in_redis_are_a_problem(
    checkup: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_MAXMEMORY", "64mb")
    monkeypatch.setenv("REDIS_POLICY", "allkeys-lru")
    monkeypatch.setenv("ROWCAST_REDIS_TIMEOUT_MS", "10000")
    with redis.serving(tmp_path, "--rename-command", "CONFIG", "") as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        says = checkup.parts("cache")["cache"]["says"]
    assert "does not allow Rowcast to set maxmemory 67108864, maxmemory-policy allkeys-lru" in says
    with redis.serving(tmp_path) as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        assert "a server sets maxmemory 67108864" in checkup.parts()["cache"]["says"]
        assert server.command("config", "get", "maxmemory").split() == ["maxmemory", "0"]


def test_a_redis_that_can_evict_quotas_is_reported(
    checkup: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROWCAST_REDIS_TIMEOUT_MS", "10000")
    with redis.serving(tmp_path, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru") as server:
        monkeypatch.setenv("ROWCAST_QUOTAS", server.url)

        assert "may evict" in checkup.parts()["quotas"]["says"]


def test_a_queue_without_workers_or_with_an_evicting_redis_is_a_problem(
    checkup: Doctor, tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROWCAST_REDIS_PREFIX", "doctor")
    monkeypatch.setenv("ROWCAST_QUEUE", redis_server.url)
    alone = checkup.parts("queue")
    with redis.serving(tmp_path, "--maxmemory-policy", "allkeys-lru") as server:
        monkeypatch.setenv("ROWCAST_QUEUE", server.url)
        evicts = checkup.parts("queue")

    assert not alone["queue"]["ok"]
    assert "no worker is live" in alone["queue"]["says"]
    assert not evicts["queue"]["ok"]
    assert "allkeys-lru" in evicts["queue"]["says"]


async def test_a_redis_that_is_slower_than_the_time_limit_is_a_problem(
    checkup: Doctor, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROWCAST_REDIS_TIMEOUT_MS", "100")
    async with redis.slow_proxy(redis_server.port) as proxy:
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{proxy.port}")
        proxy.seconds = 0.2
        parts = await asyncio.to_thread(checkup.parts, "cache")

    assert "ms to respond, more than redis_timeout_ms=100" in parts["cache"]["says"]


def test_a_postgresql_store_is_checked_and_its_password_is_never_shown(
    checkup: Doctor, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PostgresStore(database) as store:
        store.record("w", entries.sealed("w", entries.drafts(0, 2)))
    location = hide_credentials(database)

    monkeypatch.setenv("ROWCAST_STORE", database)
    parts = checkup.parts()
    assert parts["store"]["says"] == f"2 entries in {location}"
    assert parts["setting store"]["says"].startswith(location)
    assert STORE_PASSWORD not in str(parts)

    monkeypatch.setenv("ROWCAST_STORE", f"{database}-missing")
    parts = checkup.parts("store", "keys", "repeats", "jobs")
    assert parts["store"]["fix"].startswith("start the database")
    assert STORE_PASSWORD not in str(parts)


def test_a_damaged_job_database_or_an_unknown_file_store_is_reported(
    checkup: Doctor, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkup.parts()["jobs"]["says"].endswith("files")
    (home / "jobs.db").write_bytes(b"not a database" * 100)
    checkup.parts("jobs")
    (home / "jobs.db").unlink()
    monkeypatch.setenv("ROWCAST_FILES", "ftp://host/path")
    checkup.parts("jobs")
