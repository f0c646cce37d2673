"""Shared server state: reports, heartbeats, and the files of killed processes and servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rowcast.adapters.files import server_state
from rowcast.adapters.files.server_state import ServerFolder
from rowcast.errors import SettingsError
from rowcast.serving.fleet import LoadedModel
from support.waiting import eventually

PROCESS = """
import pathlib, sys, time
from rowcast.adapters.files.server_state import ServerFolder, SlotFile
{work}
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_report_is_visible_to_other_processes(tmp_path: Path) -> None:
    server = ServerFolder(tmp_path, 2)
    slot = server.slot(0)
    slot.report(
        state="ready", models=(LoadedModel("loans", 3, "digest", 0.5),), generation=7, asked=2, reload_error="none"
    )

    first, second = server.processes()

    assert (first.process, first.state, first.pid) == (0, "ready", os.getpid())
    assert (first.models[0].version, first.generation, first.asked, first.reload_error) == (3, 7, 2, "none")
    assert (second.process, second.state, second.pid) == (1, "starting", None)


def test_a_shorter_report_completely_replaces_a_longer_report(tmp_path: Path) -> None:
    server = ServerFolder(tmp_path, 1)
    slot = server.slot(0)
    slot.report(state="ready", reload_error="x" * 5000)
    slot.report(reload_error="")

    assert [(process.state, process.reload_error) for process in server.processes()] == [("ready", "")]


def test_a_process_that_misses_heartbeats_is_stale_until_its_next_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ServerFolder(tmp_path, 1)
    slot = server.slot(0)
    slot.report(state="ready")
    now = time.monotonic()
    monkeypatch.setattr(server_state.time, "monotonic", lambda: now + server_state.STALE_SECONDS + 1)

    assert [process.state for process in server.processes()] == ["stale"]
    slot.beat()
    assert [process.state for process in server.processes()] == ["ready"]


def test_a_killed_process_is_immediately_reported_as_dead_and_its_slot_can_be_claimed(tmp_path: Path) -> None:
    server = ServerFolder(tmp_path, 1)
    path = str(server.folder / "process-0")
    code = PROCESS.format(work=f"slot = SlotFile(pathlib.Path({path!r})); slot.report(state='ready')")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert [process.state for process in server.processes()] == ["ready"]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [process.state for process in server.processes()] == ["dead"]

    server.slot(0).report(state="ready")
    assert [(process.state, process.pid) for process in server.processes()] == [("ready", os.getpid())]


def test_a_new_server_deletes_only_the_folders_of_killed_servers(tmp_path: Path) -> None:
    code = PROCESS.format(work=f"server = ServerFolder(pathlib.Path({str(tmp_path)!r}), 1)")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        mine = ServerFolder(tmp_path, 1)
        assert len(list(tmp_path.glob("*-*"))) == 2
        process.kill()
    assert eventually(lambda: process.poll() is not None)

    other = ServerFolder(tmp_path, 1)
    assert {path.name for path in tmp_path.glob("*-*")} == {mine.folder.name, other.folder.name}
    mine.remove()
    other.remove()
    assert list(tmp_path.glob("*-*")) == []


def test_reload_requests_are_counted(tmp_path: Path) -> None:
    server = ServerFolder(tmp_path, 1)

    assert server.reload_requests() == 0
    assert [server.request_reload(), server.request_reload(), server.reload_requests()] == [
        1,
        2,
        2,
    ]


def test_the_record_of_the_served_versions_survives_a_restart(tmp_path: Path) -> None:
    first = ServerFolder(tmp_path, 1)
    first.record_served({"loans": 3})
    first.record_served({"iris": 1, "loans": 4})
    first.remove()
    assert (tmp_path / "good").stat().st_mode & 0o777 == 0o600

    assert ServerFolder(tmp_path, 1).last_served() == {"loans": 4, "iris": 1}
    (tmp_path / "good").write_bytes(b"{damaged")
    assert ServerFolder(tmp_path, 1).last_served() == {}


def test_a_folder_that_cannot_be_created_causes_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")

    with pytest.raises(SettingsError):
        ServerFolder(tmp_path / "run", 1)
