"""The log scan: a test session with a planted leak fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support import logs

TESTS = Path(__file__).resolve().parents[1]
SENDS = """
import httpx
from support import logs

def test_a_passing_test_sends_a_row(tmp_path):
    answer = lambda request: httpx.Response(200)
    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://rowcast.test") as client:
        row = {"income": 73519.25, "name": "Ottilie Hablützel"}
        client.post("/predict", json=row, headers={"x-api-key": "sesame-open-up"})
    with logs.open_log(tmp_path / "server.log") as log:
        log.write(%r.encode())
    (tmp_path / "server.log").unlink()
"""


def session(folder: Path, logged: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a single test that sends a row and writes `logged` to a server log."""
    (folder / "test_planted.py").write_text(SENDS % logged)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "support.logs", "-p", "no:cacheprovider", *options, str(folder)],
        cwd=folder,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )


LEAKS = ("income was 73519.25", "refused Ottilie Hablützel", '{"key": "sesame-open-up"}', "Authorization: Basic eA==")


def test_a_session_with_planted_leaks_fails_and_shows_each_leak(tmp_path: Path) -> None:
    finished = session(tmp_path, "\n".join(['{"event": "ready"}', *LEAKS, ""]))

    assert "1 passed" in finished.stdout
    assert "5 log lines scanned, 4 with leaks" in finished.stdout
    assert [leak for leak in LEAKS if leak not in finished.stdout] == []
    assert finished.returncode == 1


def test_a_session_with_a_leak_in_a_worker_process_fails(tmp_path: Path) -> None:
    finished = session(tmp_path, '{"key": "sesame-open-up"}\n', "-p", "xdist", "-n", "1")

    assert "1 log lines scanned, 1 with leaks" in finished.stdout
    assert finished.returncode == 1


def test_a_session_without_leaks_passes(tmp_path: Path) -> None:
    finished = session(tmp_path, '{"event": "head", "seq": 7351925, "timestamp": "2026-11-21T14:36:54.735192Z"}\n')

    assert "1 log lines scanned, 0 with leaks" in finished.stdout
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize(
    "line",
    [
        f"the value {logs.CANARY_NUMBER} is odd",
        "918,273,645",
        logs.CANARY.upper(),
        "Bearer abc",
        '{"authorization": "x"}',
        "rk_a1b2c3_SGVsbG8",
    ],
)
def test_canaries_and_keys_are_detected_in_any_format(line: str) -> None:
    assert logs.leaks(line)


def test_column_and_tensor_names_are_not_reported_as_leaks() -> None:
    split = {"dataframe_split": {"columns": ["a_name_of_a_column"], "data": [["a value of that column"]]}}
    tensors = {"inputs": [{"name": "a_name_of_a_tensor", "shape": [1], "datatype": "BYTES", "data": ["a value in it"]}]}
    for body in (split, tensors, {"outputs": [{"name": "a_name_of_an_output"}]}, {"name": "a person", "sum": 1}):
        logs.remember(httpx.Request("POST", "http://x/"), json.dumps(body).encode())

    names = ("a_name_of_a_column", "a_name_of_a_tensor", "a_name_of_an_output")
    assert [logs.leaks(name) for name in names] == [[], [], []]
    assert logs.leaks("a value of that column, a value in it") == ["a value of that column", "a value in it"]
