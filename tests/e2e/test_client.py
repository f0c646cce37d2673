"""The client's behavior while its server is killed or restarted, and the `rowcast call` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.client import Client, PredictionReply
from support import access, models, servers
from support.clients import KINDS
from support.commands import rowcast
from support.servers import Server
from support.waiting import eventually

SUM = models.number_columns(2)
ROW = '{"x0": 1.5, "x1": 2}'
THREADS = 4
CALLS = 240


@pytest.fixture
def home(tmp_path: Path) -> Path:
    registry = FolderRegistry(tmp_path / "home" / "models")
    models.publish(registry, "sum", models.sum_graph(2), SUM, models.REGRESSION, "values")
    return tmp_path / "home"


def recorded(client: Client, ids: set[str]) -> Counter[str]:
    """Wait until the history contains all of `ids`, then return the number of entries for each ID."""

    def count() -> Counter[str] | None:
        counts = Counter(entry.id for entry in client.history(page=1000))
        return counts if ids <= counts.keys() else None

    return eventually(count) or Counter()


def assert_recorded_once(client: Client, predictions: list[PredictionReply], kills: int) -> None:
    """Check that each prediction that the client received is in the history exactly once.

    Each kill can leave one extra entry per thread, because a process can be killed after it records a prediction but
    before it replies.
    """
    counts = recorded(client, {prediction.id for prediction in predictions})
    assert [prediction.prediction for prediction in predictions] == [
        float(number) for number in range(len(predictions))
    ]
    assert [counts[prediction.id] for prediction in predictions] == [1] * len(predictions)
    assert len({prediction.id for prediction in predictions}) == len(predictions)
    assert sum(counts.values()) - len(predictions) <= kills * THREADS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_call_is_answered_exactly_once_while_server_processes_are_killed(home: Path, kind: str) -> None:
    kills = 3
    with servers.running(home, "--workers", "2") as server, Client(server.address, timeout=60, retries=30) as client:
        answered: list[PredictionReply] = []

        def ready_pids() -> list[int]:
            return [process.pid for process in client.health().processes if process.state == "ready"]

        def send(part: int) -> list[PredictionReply]:
            with KINDS[kind](server.address, timeout=60, retries=30) as own:
                return [predict(own, number, answered) for number in range(part, CALLS, THREADS)]

        with ThreadPoolExecutor(THREADS) as threads:
            parts = [threads.submit(send, part) for part in range(THREADS)]
            for round_ in range(1, kills + 1):
                eventually(lambda limit=round_ * CALLS // 5: len(answered) >= limit, 30)  # type: ignore[misc]
                os.kill(eventually(ready_pids)[0], signal.SIGKILL)
            results = [part.result() for part in parts]

        assert_recorded_once(client, in_order(results), kills)


def test_every_call_is_answered_exactly_once_while_the_server_restarts(home: Path) -> None:
    server = servers.start(home)
    answered: list[PredictionReply] = []
    with Client(server.address, timeout=60, retries=30) as client, ThreadPoolExecutor(THREADS) as threads:

        def send(part: int) -> list[PredictionReply]:  # all threads share the client
            return [predict(client, number, answered) for number in range(part, CALLS, THREADS)]

        parts = [threads.submit(send, part) for part in range(THREADS)]
        for round_, end in enumerate((Server.stop, Server.kill), 1):
            eventually(lambda limit=round_ * CALLS // 4: len(answered) >= limit, 30)  # type: ignore[misc]
            end(server)
            server = servers.start(home, "--port", str(server.port), name=f"life-{round_}")
        results = [part.result() for part in parts]
        assert_recorded_once(client, in_order(results), 1)
    server.stop()


def predict(client: Any, number: int, answered: list[PredictionReply]) -> PredictionReply:
    prediction: PredictionReply = client.predict({"x0": number, "x1": 0})
    answered.append(prediction)
    return prediction


def in_order(parts: list[list[PredictionReply]]) -> list[PredictionReply]:
    return sorted((item for part in parts for item in part), key=lambda item: float(item.prediction))


def call(server: Server | str, *words: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `rowcast call` with the server's URL in the environment."""
    address = server if isinstance(server, str) else server.address
    return rowcast("call", *words, cwd=Path(), settings={"ROWCAST_URL": address, **settings}, given=stdin.encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("call")
    registry = FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), SUM, models.REGRESSION, "values")
    access.add(home, "boss", "predict")
    with servers.running(home) as running:
        yield running


@pytest.mark.parametrize("words", [["sum", ROW], [ROW], ["-", ROW], ["sum@1", ROW]])
def test_the_call_command_accepts_a_row_as_an_argument(server: Server, words: list[str]) -> None:
    done = call(server, *words, ROWCAST_API_KEY=access.secret("boss"))
    lines = dict(line.split("\t") for line in done.stdout.splitlines())

    assert (done.returncode, done.stderr) == (0, "")
    assert (lines["prediction"], lines["model"]) == ("3.5", "sum@1")
    assert len(lines["id"]) == 36


@pytest.mark.parametrize(
    "text", [f"[{ROW}, {ROW}]", f'{{"rows": [{ROW}, {ROW}]}}', f"{ROW}\n\n{ROW}\n", f"\n[\n{ROW},\n{ROW}\n]\n"]
)
@pytest.mark.parametrize("source", ["-", "@"])
def test_rows_can_be_read_from_a_file_or_a_pipe(server: Server, tmp_path: Path, text: str, source: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    word = "-" if source == "-" else f"@{tmp_path / 'rows.json'}"
    done = call(server, "sum", word, "--json", stdin=text, ROWCAST_API_KEY=access.secret("boss"))

    assert (done.returncode, done.stderr) == (0, "")
    assert [item["prediction"] for item in json.loads(done.stdout)["predictions"]] == [3.5, 3.5]


def test_predictions_for_a_list_of_rows_are_printed_as_a_table(server: Server) -> None:
    done = call(server, f"[{ROW}]", ROWCAST_API_KEY=access.secret("boss"))

    assert done.stdout.splitlines()[0].split("\t") == ["row", "prediction", "probability", "score", "warnings", "id"]
    assert done.stdout.splitlines()[1].split("\t")[:2] == ["0", "3.5"]


def test_every_problem_in_an_invalid_row_is_printed(server: Server) -> None:
    single = call(server, '{"x0": "many"}', ROWCAST_API_KEY=access.secret("boss"))
    batch = call(server, f'[{ROW}, {{"x0": 1}}]', ROWCAST_API_KEY=access.secret("boss"))
    as_json = call(server, '{"x0": 1}', "--json", ROWCAST_API_KEY=access.secret("boss"))

    assert (single.returncode, single.stdout) == (1, "")
    assert [line.split(":")[0] for line in single.stderr.splitlines()] == ["column 'x0'", "column 'x1'"]
    assert (batch.returncode, batch.stderr.startswith("row 1, column 'x1': ")) == (1, True)
    assert (as_json.returncode, json.loads(as_json.stdout)["errors"][0]["code"]) == (1, "missing")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sum@9", ROW], "'sum@9'"),
        (["sum@champion", ROW], "VERSION is a number"),
        (["none", ROW], "'none'"),
        (["sum"], "ROW must be JSON"),
        (["sum", "a", "b"], "Enclose the row in quotes"),
        (["[]"], "no rows to send"),
        (["[1]"], "object"),
        (["{"], "not valid JSON"),
        (['{"rows": 1}'], "'rows' must be a list"),
        (["@/no/such/file"], "cannot read /no/such/file"),
    ],
)
def test_an_error_is_printed_on_one_line(server: Server, words: list[str], message: str) -> None:
    done = call(server, *words, ROWCAST_API_KEY=access.secret("boss"))

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message.lower() in done.stderr.lower()


def test_a_missing_api_key_causes_an_error(server: Server) -> None:
    done = call(server, ROW)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "key" in done.stderr


def test_the_error_for_an_unreachable_server_contains_the_url_and_a_hint(tmp_path: Path) -> None:
    by_url = call("http://127.0.0.1:9", ROW)
    by_port = rowcast("call", ROW, "--home", tmp_path, cwd=tmp_path, settings={"ROWCAST_PORT": "9"})
    invalid = call("nonsense", ROW)

    for done in (by_url, by_port):
        assert (done.returncode, done.stdout) == (2, "")
        assert "http://127.0.0.1:9: connection refused; start a server with `rowcast serve`" in done.stderr
    assert (invalid.returncode, "invalid server URL" in invalid.stderr) == (2, True)
