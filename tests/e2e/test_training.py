"""Training runs that are interrupted, killed, resumed, shared between processes or configured in a file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import termios
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from rowcast.registry import bundle
from support import redis
from support.commands import rowcast
from support.servers import ROWCAST, environment
from support.waiting import eventually

TRIALS = 7
MANY = "5000"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "loans.csv"
    rowcast("example", "loans", "--out", path, "--rows", "900", cwd=path.parent)
    return path


def options(table: Path, *more: str) -> list[str]:
    return ["train", str(table), "--target", "loan_status", "--candidates", "logistic,boosting", "--json", *more]


def train(cwd: Path, table: Path, *more: str) -> dict[str, Any]:
    finished = rowcast(*options(table, "--trials", str(TRIALS), *more), cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def trials(journal: Path) -> list[FrozenTrial]:
    """Return the trials of the only study in a journal."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    (study,) = optuna.get_all_study_names(storage)
    frozen: list[FrozenTrial] = optuna.load_study(study_name=study, storage=storage).trials
    return frozen


def slots(journal: Path) -> Counter[int]:
    """Return the number of finished trials in each slot."""
    finished = (trial for trial in trials(journal) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED))
    return Counter(trial.user_attrs["slot"] for trial in finished)


@contextlib.contextmanager
def started(cwd: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in the background; kill it at the end of the block if it is still running."""
    process = subprocess.Popen(
        [*ROWCAST, *arguments],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def undisturbed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of an uninterrupted training run without a journal."""
    return train(tmp_path_factory.mktemp("plain"), table)


def test_a_killed_search_can_be_resumed_with_the_same_result(
    tmp_path: Path, table: Path, undisturbed: dict[str, Any]
) -> None:
    journal = tmp_path / "trials.log"
    first = options(table, "--trials", str(TRIALS), "--storage", str(journal))
    with started(tmp_path, *first) as process:
        eventually(lambda: journal.exists() and process.poll() is None and '"values":[' in journal.read_text(), 60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
    before = {trial.number for trial in trials(journal)}
    assert not list((tmp_path / ".rowcast" / "models").glob("loans/[0-9]*"))

    result = train(tmp_path, table, "--storage", "trials.log")

    assert slots(journal) == Counter(range(TRIALS))
    assert before <= {trial.number for trial in trials(journal)}
    assert [trial.state for trial in trials(journal)].count(TrialState.RUNNING) == 0
    assert result["digest"] == undisturbed["digest"]


def test_a_completed_search_can_be_repeated_without_new_trials(
    tmp_path: Path, table: Path, undisturbed: dict[str, Any]
) -> None:
    first = train(tmp_path, table, "--storage", "trials.log")
    known = trials(tmp_path / "trials.log")

    again = train(tmp_path, table, "--storage", "trials.log", "--jobs", "1", "--name", "again")

    assert len(trials(tmp_path / "trials.log")) == len(known) == TRIALS
    assert first["digest"] == again["digest"] == undisturbed["digest"]
    assert sum(candidate["trials"] for candidate in again["candidates"]) == TRIALS
    assert [candidate["score"] for candidate in again["candidates"]] == [
        candidate["score"] for candidate in first["candidates"]
    ]


def train_together(folder: Path, table: Path, storage: str) -> list[dict[str, Any]]:
    """Return the results of two processes that share one search."""
    shared = options(table, "--trials", "12", "--storage", storage)
    with started(folder, *shared, "--home", "one") as one, started(folder, *shared, "--home", "two") as two:
        outputs = [process.communicate(timeout=120) for process in (one, two)]
        assert [process.returncode for process in (one, two)] == [0, 0], outputs
    return [json.loads(output) for output, _ in outputs]


def test_two_processes_share_one_trial_budget(tmp_path: Path, table: Path) -> None:
    results = train_together(tmp_path, table, "trials.log")

    finished = trials(tmp_path / "trials.log")
    assert slots(tmp_path / "trials.log") == Counter(range(12))
    assert len({trial.user_attrs["by"] for trial in finished if "by" in trial.user_attrs}) == 2
    best = max(trial.value or 0.0 for trial in finished if trial.state == TrialState.COMPLETE)
    last = max(results, key=lambda result: sum(candidate["trials"] for candidate in result["candidates"]))
    assert max(candidate["score"] for candidate in last["candidates"] if candidate["trials"]) == pytest.approx(best)


def test_trials_can_be_stored_in_redis_and_shared(tmp_path: Path, table: Path, undisturbed: dict[str, Any]) -> None:
    with redis.running(tmp_path) as address:
        first = train(tmp_path, table, "--storage", address)
        again = train(tmp_path, table, "--storage", address)
        train_together(tmp_path, table, address)
        whole = train(tmp_path, table, "--storage", address, "--trials", "12")

    assert first["digest"] == again["digest"] == undisturbed["digest"]
    assert sum(candidate["trials"] for candidate in whole["candidates"]) == 12
    failed = rowcast(*options(table, "--storage", address.replace("//", "//:secret@")), cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.startswith(f"error: cannot store trials in {address}: ")
    assert "secret" not in failed.stderr


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("loans.csv", "does not contain trials; choose another file"),
        ("no/where.log", "cannot store trials in no/where.log: No such file or directory"),
        ("mysql://host/db", "option 'storage': expected a file or a URL that starts with redis://"),
        ("redis://host:port", "option 'storage': invalid Redis URL"),
    ],
)
def test_an_invalid_trial_storage_is_reported(tmp_path: Path, table: Path, storage: str, message: str) -> None:
    content = table.read_bytes()
    (tmp_path / "loans.csv").write_bytes(content)

    finished = rowcast(*options(table, "--storage", storage), cwd=tmp_path)

    assert (finished.returncode, finished.stderr.count("\n")) == (2, 1)
    assert message in finished.stderr
    assert (tmp_path / "loans.csv").read_bytes() == content


class Terminal:
    """A command that runs in its own terminal."""

    def __init__(self, cwd: Path, arguments: list[str], settings: Mapping[str, str]) -> None:
        self._screen, terminal = os.openpty()
        termios.tcsetwinsize(terminal, (40, 110))
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *ROWCAST, *arguments],
            cwd=cwd,
            env=environment(**settings),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        self.shown = ""

    def until(self, pattern: str) -> str:
        """Read until the pattern appears and return all output so far; fail if the command exits first."""
        while not re.search(pattern, self.shown):
            assert self._read(), self.shown
        return self.shown

    def press(self, key: bytes) -> None:
        os.write(self._screen, key)

    def end(self) -> int:
        """Read the remaining output and return the exit code."""
        while self._read():
            pass
        os.close(self._screen)
        return self._process.wait(30)

    def _read(self) -> bool:
        try:
            piece = os.read(self._screen, 65536)
        except OSError:  # Linux reports the end of terminal output as an error
            return False
        self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", piece.decode(errors="replace"))
        return bool(piece)


CTRL_C = b"\x03"


def test_the_terminal_shows_progress_and_ctrl_c_publishes_the_best_model_so_far(tmp_path: Path, table: Path) -> None:
    arguments = [word for word in options(table, "--trials", MANY) if word != "--json"]
    terminal = Terminal(tmp_path, arguments, {"TERM": "xterm", "LC_ALL": "C.UTF-8"})

    drawn = terminal.until(rf"trial ([4-9]|\d\d+) of {MANY}")
    terminal.press(CTRL_C)
    status = terminal.end()

    assert re.search(rf"tune .*(boosting|logistic), trial \d+ of {MANY}, best 0\.\d{{4}}, about \d+ s left", drawn)
    assert status == 0, terminal.shown
    assert "interrupted; keeping the best model so far" in terminal.shown
    assert re.search(r"published loans@1 in \d+\.\d s", terminal.shown)
    assert "loans@1 is the challenger: the search was interrupted" in terminal.shown
    assert "to promote it: rowcast models promote loans@1" in terminal.shown
    bundle.verify(tmp_path / ".rowcast" / "models" / "loans" / "1")


def test_nothing_is_published_if_ctrl_c_is_pressed_before_the_first_trial(tmp_path: Path, table: Path) -> None:
    terminal = Terminal(tmp_path, options(table, "--trials", MANY), {"TERM": "xterm", "LC_ALL": "C.UTF-8"})

    terminal.until("reading the table")
    terminal.press(CTRL_C)

    assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
    assert not (tmp_path / ".rowcast").exists()


def test_options_can_be_set_in_a_config_file(tmp_path: Path, table: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "train.yaml").write_text(
        f"""
table: {os.path.relpath(table, tmp_path / "below")}
target: loan_status
name: from-a-file
positive: Approved
exclude: [dependents, purpose]
candidates: [logistic]
cost: {{false_positive: 5, false_negative: 1}}
trials: 2
storage: trials.log
onnx_out: graph.onnx
home: kept
json: true
""",
        encoding="utf-8",
    )

    finished = rowcast("train", "--config", "below/train.yaml", "--name", "typed", cwd=tmp_path)

    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    folder = tmp_path / "below" / "kept" / "models" / "typed" / "1"
    manifest = bundle.verify(folder)
    assert (result["model"], Path(result["path"])) == ("typed", folder)
    assert {"dependents", "purpose"}.isdisjoint(manifest.schema.names())
    assert manifest.training.options["cost"] == {"false_positive": 5.0, "false_negative": 1.0}
    assert slots(tmp_path / "below" / "trials.log") == Counter(range(2))
    assert (tmp_path / result["onnx"]).read_bytes() == (folder / bundle.MODEL).read_bytes()


@pytest.mark.parametrize("place", ["no/where.onnx", "folder", "loans.csv"])
def test_an_invalid_path_for_the_graph_is_reported_before_training(tmp_path: Path, table: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loans.csv").write_bytes(table.read_bytes())

    finished = rowcast(*options(tmp_path / "loans.csv", "--trials", MANY, "--onnx-out", place), cwd=tmp_path)

    assert (finished.returncode, finished.stderr.count("\n")) == (2, 1)
    assert place in finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "loans.csv"]
    assert (tmp_path / "loans.csv").read_bytes() == table.read_bytes()
