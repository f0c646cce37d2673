"""`rowcast doctor`: each part broken in turn is named, with what to do; nothing is printed that is secret."""

from __future__ import annotations

import json
import os
import resource
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from rowcast import settings
from rowcast.adapters.files import worker_state as boards
from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.files.worker_state import ServerFolder
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.cli import doctor
from support import access, entries, models

Found = dict[str, dict[str, Any]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one model, and an environment without settings."""
    for name in [name for name in os.environ if name.startswith(settings.PREFIX) or name in settings.ALIASES]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    registry = FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return home


class Doctor:
    """Asks the doctor, as the command does."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._home = home
        self._capsys = capsys

    def says(self) -> tuple[int, Found]:
        status = doctor.examine(home=self._home, as_json=True)
        printed = json.loads(self._capsys.readouterr().out)
        assert printed["ok"] == (status == 0)
        return status, {part["part"]: part for part in printed["parts"]}

    def finds(self, *wrong: str) -> Found:
        """The parts, of which these and no others are wrong, each with a fix."""
        status, found = self.says()
        assert [name for name, part in found.items() if not part["ok"]] == list(wrong), found
        assert status == bool(wrong)
        assert all(found[name]["fix"] for name in wrong)
        return found


@pytest.fixture
def ask(home: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(home, capsys)


def test_a_sound_installation_has_every_part(ask: Doctor) -> None:
    found = ask.finds()

    assert [name for name in found if not name.startswith("setting ")] == [
        "rowcast",
        "settings",
        "clock",
        "registry",
        "model sum",
        "default model",
        "store",
        "journal",
        "disk",
        "server",
        "keys",
        "repeats",
        "cache",
        "push",
        "otel",
        "open files",
    ]


def test_looking_makes_nothing(ask: Doctor, home: Path) -> None:
    before = sorted(home.rglob("*"))
    ask.finds()

    assert sorted(home.rglob("*")) == before


def test_settings_are_shown_with_their_source_and_secrets_are_not(
    ask: Doctor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home.parent / "rowcast.toml").write_text("max_rows = 7\n")
    monkeypatch.setenv("ROWCAST_API_KEY", "sesame-open-up")
    monkeypatch.setenv("ENV", "production")
    found = ask.finds()

    assert found["setting max_rows"]["says"] == "7, from rowcast.toml"
    assert found["setting log_format"]["says"] == "json, from ENV"
    assert found["setting api_key"]["says"] == "(hidden), from ROWCAST_API_KEY"
    assert found["setting home"]["says"].endswith("from the command line")
    doctor.examine(home=home, as_json=False)
    assert "sesame" not in capsys.readouterr().out


def test_settings_that_cannot_be_read(ask: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")

    assert "LOG_LEVEL" in ask.finds("settings")["settings"]["says"]


def test_a_line_that_is_wrong_ends_with_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROWCAST_DEFAULT_MODEL", "nope")

    assert doctor.examine(home=home, as_json=False) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG")]
    assert line == "WRONG\tdefault model\t'nope' is not among the models served: sum; set default_model to one of them"


def test_a_clock_that_is_behind_history(ask: Doctor, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SqliteStore(home / "history.db")
    kept.record("w", entries.sealed("w", entries.drafts(0, 1)))
    kept.close()
    assert ask.finds()["store"]["says"].startswith("1 entry")
    monkeypatch.setattr(doctor, "EARLIEST", 0)
    monkeypatch.setattr(doctor.time, "time", lambda: 1_600_000_000.0)

    assert "newest entry" in ask.finds("clock")["clock"]["says"]


def test_a_clock_of_long_ago(ask: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.time, "time", lambda: 86_400.0)

    assert "1970-01-02" in ask.finds("clock")["clock"]["says"]


def test_an_empty_registry(ask: Doctor, home: Path) -> None:
    (home / "models").rename(home / "elsewhere")

    assert "rowcast train" in ask.finds("registry")["registry"]["fix"]


def test_a_changed_model(ask: Doctor, home: Path) -> None:
    with (home / "models" / "sum" / "1" / "model.onnx").open("ab") as file:
        file.write(b"\0")

    assert "model.onnx was changed" in ask.finds("model sum")["model sum"]["says"]


def test_a_model_that_is_asked_for_and_missing(ask: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_MODELS", "sum@9")

    assert "no version 9" in ask.finds("default model")["default model"]["says"]


def test_a_store_that_is_no_database(ask: Doctor, home: Path) -> None:
    (home / "history.db").write_bytes(b"not a database, whatever it says" * 100)

    assert "restore" in ask.finds("store")["store"]["fix"]


def test_a_store_that_is_locked(ask: Doctor, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SqliteStore(home / "history.db")
    kept.check()
    monkeypatch.setattr("rowcast.app.health_checks.SECONDS", 0.1)
    holder = sqlite3.connect(home / "history.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert "locked" in ask.finds("store")["store"]["says"]
    finally:
        holder.close()
        kept.close()


def test_a_damaged_journal(ask: Doctor, home: Path) -> None:
    FileJournal(home / "journal", lambda: "a" * 32).close()
    (home / "journal" / f"{'b' * 32}-000000000000.damaged").write_bytes(b"?")

    assert "damaged" in ask.finds("journal")["journal"]["says"]


def test_a_full_disk(ask: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_MIN_FREE_MB", str(10**9))

    assert "make room" in ask.finds("disk")["disk"]["fix"]


def test_a_server_whose_worker_is_stuck_or_dead_or_behind(ask: Doctor, home: Path) -> None:
    board = ServerFolder(home / "run", 1)
    slot = board.slot(0)
    slot.report(state="ready", reload_error="sum@2 is broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rowcast.app.indexer.indexer_is_running", lambda found: True)
        assert "sum@2 is broken" in ask.finds("server")["server"]["says"]
        slot.report(reload_error="")
        assert "is ready" in ask.finds()["server"]["says"]
        now = time.monotonic()
        patch.setattr(boards.time, "monotonic", lambda: now + 60)
        assert "stale" in ask.finds("server")["server"]["says"]
    slot.close()
    assert "dead" in ask.finds("server")["server"]["says"]
    board.remove()


def test_a_server_without_an_indexer(ask: Doctor, home: Path) -> None:
    FileJournal(home / "journal", lambda: "a" * 32).close()
    board = ServerFolder(home / "run", 1)
    board.slot(0).report(state="ready")

    assert "into the store" in ask.finds("journal")["journal"]["says"]
    board.remove()


def test_keys_that_let_nobody_in(ask: Doctor, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_HOST", "0.0.0.0")
    assert "0.0.0.0 is open" in ask.finds("keys")["keys"]["says"]
    access.add(home, "old", expires=2)
    assert "0 active, 1 expired" in ask.finds("keys")["keys"]["says"]
    monkeypatch.setenv("ROWCAST_HOST", "127.0.0.1")
    assert "nobody can ask" in ask.finds("keys")["keys"]["says"]
    access.add(home, "new")
    assert ask.finds()["keys"]["says"] == "1 active, 1 expired"
    (home / "keys.json").write_text("{")
    ask.finds("keys")


def test_a_damaged_file_of_repeats(ask: Doctor, home: Path) -> None:
    (home / "repeats.db").write_bytes(b"nothing that SQLite wrote" * 100)

    assert "delete it" in ask.finds("repeats")["repeats"]["fix"]


def test_peers_that_do_not_answer(ask: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}"
        monkeypatch.setenv("PROM_PUSHGATEWAY", nowhere)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", nowhere)
        found = ask.finds("push", "otel")

    assert found["push"]["says"] == f"{nowhere}/metrics/job/loan_model does not answer (ConnectError)"
    assert found["otel"]["says"] == f"{nowhere}/v1/traces does not answer (ConnectError)"


def test_more_connections_than_files(ask: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    assert "3584 connections" in ask.finds()["open files"]["says"]
    monkeypatch.setenv("ROWCAST_MAX_CONNECTIONS", "20000")
    assert "ulimit" in ask.finds("open files")["open files"]["fix"]


def test_what_breaks_a_check_is_a_finding_and_no_traceback(ask: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(found: object) -> str:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(doctor.checks, "running_servers", fails)
    assert "ZeroDivisionError" in ask.finds("server")["server"]["says"]
