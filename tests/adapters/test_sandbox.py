"""The sandbox: limits on child processes, and the errors reported when a limit is exceeded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rowcast.adapters.sandbox import SandboxLimits, SandboxResult, run_sandboxed, run_trial
from rowcast.registry.ports import Reference
from support.waiting import eventually

LIMITS = SandboxLimits(model_mb=1, memory_mb=512, seconds=20.0)
LIMITED = "from rowcast.adapters.sandbox import limit_this_process; limit_this_process(200, 20.0)\n"


def run(program: str, limits: SandboxLimits = LIMITS) -> SandboxResult:
    return run_sandboxed([sys.executable, "-c", program], limits, os.environ)


def test_the_output_of_a_successful_process_is_returned() -> None:
    assert run("print('hello')") == SandboxResult("", b"hello\n")


def test_the_error_reported_for_a_failed_process_is_its_last_line_of_output() -> None:
    result = run("import sys; print('one', file=sys.stderr); sys.exit('error: two')")

    assert result == SandboxResult("two")


@pytest.mark.parametrize(
    ("program", "limits"),
    [
        ("import time; time.sleep(60)", SandboxLimits(1, 512, 0.2)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", LIMITS),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", LIMITS),
        (LIMITED + "b'x' * 400_000_000", LIMITS),
    ],
    ids=["time", "CPU time", "killed", "memory"],
)
def test_a_process_that_exceeds_a_limit_fails_with_an_error(program: str, limits: SandboxLimits) -> None:
    assert run(program, limits).error


def test_a_sandboxed_process_exits_when_its_parent_is_killed(tmp_path: Path) -> None:
    report = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    # The process ID is reported first, because a limited process cannot write files.
    child = report + LIMITED + "time.sleep(60)"
    parent = (
        "import os, sys; from rowcast.adapters.sandbox import *\n"
        f"run_sandboxed([sys.executable, '-c', {child!r}], SandboxLimits(1, 512, 60.0), os.environ)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    pid = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))

    process.kill()
    process.wait()

    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_a_missing_or_oversized_model_is_not_loaded(tmp_path: Path) -> None:
    def trial() -> str:
        return run_trial([sys.executable, "-c", "raise SystemExit(0)"], tmp_path, Reference("m", 1), LIMITS, os.environ)

    assert "model.onnx" in trial()
    (tmp_path / "model.onnx").write_bytes(bytes(2 * 1024 * 1024))
    assert "max_model_mb" in trial()
    (tmp_path / "model.onnx").write_bytes(b"small")
    assert trial() == ""
