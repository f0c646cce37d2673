"""The supervisor: it replaces dead server processes and stops all server processes at shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rowcast.runtime.supervisor import MAX_PAUSE_SECONDS, QUICK_DEATH_SECONDS, ProcessPost
from support.servers import is_running
from support.waiting import eventually

# A supervisor whose server processes handle no requests. Each of them creates a file named after its process ID.
SCRIPT = """
import os, select, signal, sys
from pathlib import Path
from rowcast.adapters.files.server_state import ServerFolder
from rowcast.runtime.supervisor import IndexerPlan, Supervisor

home, behaviour = Path(sys.argv[1]), sys.argv[2]
state = ServerFolder(home / "run", 2)

def work(number, life, is_first):
    if behaviour == "fail":
        return 3
    if behaviour == "crash":
        raise ZeroDivisionError
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    slot = state.slot(number)
    slot.report(state="ready")
    (home / "processes" / str(os.getpid())).touch()
    while not ended:
        slot.beat()
        if select.select([life], [], [], 0.02)[0]:
            return 0
    return 0

indexer = IndexerPlan(["/does/not/exist"], {}, lambda: False)
sys.exit(Supervisor(state, work, lambda: (home / "closed").touch(), indexer, drain_seconds=0.1).run())
"""


def start(home: Path, behaviour: str = "work") -> subprocess.Popen[bytes]:
    (home / "processes").mkdir()
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(home), behaviour], stderr=subprocess.DEVNULL)


def processes(home: Path) -> list[int]:
    """Return the process IDs of the running server processes."""
    return [pid for pid in [int(path.name) for path in (home / "processes").iterdir()] if is_running(pid)]


def two_processes(home: Path) -> list[int]:
    return eventually(lambda: processes(home) if len(processes(home)) == 2 else [])


def test_a_dead_server_process_is_replaced_and_a_signal_stops_all_server_processes(tmp_path: Path) -> None:
    supervisor = start(tmp_path)
    try:
        first, second = two_processes(tmp_path)

        os.kill(first, signal.SIGKILL)
        successors = eventually(lambda: set(processes(tmp_path)) - {first, second})
        assert second in processes(tmp_path)
        assert len(successors) == 1

        supervisor.terminate()
        assert supervisor.wait(20) == 0
        assert processes(tmp_path) == []
        assert (tmp_path / "closed").exists()
    finally:
        supervisor.kill()


def test_server_processes_exit_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    supervisor = start(tmp_path)
    two_processes(tmp_path)

    supervisor.kill()
    supervisor.wait(10)

    eventually(lambda: not processes(tmp_path))


@pytest.mark.parametrize(("behaviour", "status"), [("fail", 3), ("crash", 1)])
def test_the_server_exits_with_the_status_of_the_first_process_if_it_cannot_start(
    tmp_path: Path, behaviour: str, status: int
) -> None:
    supervisor = start(tmp_path, behaviour)

    assert supervisor.wait(20) == status


def test_the_supervisor_keeps_running_if_the_indexer_cannot_be_started(tmp_path: Path) -> None:
    supervisor = start(tmp_path)
    try:
        two_processes(tmp_path)
        os.kill(processes(tmp_path)[0], signal.SIGKILL)
        two_processes(tmp_path)

        assert supervisor.poll() is None
    finally:
        supervisor.terminate()
        supervisor.wait(20)


def test_only_a_process_that_repeatedly_dies_soon_after_its_start_is_restarted_with_a_delay() -> None:
    post = ProcessPost(0)

    def die(ready_at: float | None, now: float) -> float:
        post.ready_at = ready_at
        return post.pause_after_death(now)

    assert [die(None, 1), die(10, 10.5), die(20, 20.5)] == [0.0, 0.4, 0.8]
    assert die(30, 30 + QUICK_DEATH_SECONDS) == 0.0
    assert [die(40, 40.5), die(50, 50.5)] == [0.0, 0.4]


def test_the_delay_before_a_restart_is_limited() -> None:
    post = ProcessPost(0)

    assert [post.pause_after_death(0) for _ in range(100)][-1] == MAX_PAUSE_SECONDS
