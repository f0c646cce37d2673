"""A client's stream of calls while its server dies and comes back; and `rowcast call` as it is typed."""

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
from rowcast.client import Client, Prediction
from support import access, models, servers
from support.clients import KINDS
from support.servers import ROWCAST, Server, environment, rowcast
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


def entries(client: Client, wanted: set[str]) -> Counter[str]:
    """How often each prediction is in history, once these are."""

    def found() -> Counter[str] | None:
        seen = Counter(entry.id for entry in client.history(page=1000))
        return seen if wanted <= seen.keys() else None

    return eventually(found) or Counter()


def assert_each_once(client: Client, answered: list[Prediction], kills: int) -> None:
    """Every answer is in history once. What is there besides was recorded by a process that died before it could
    answer: the call was answered by the next one, and nobody ever saw the other id."""
    found = entries(client, {one.id for one in answered})
    assert [one.prediction for one in answered] == [float(number) for number in range(len(answered))]
    assert [found[one.id] for one in answered] == [1] * len(answered)
    assert len({one.id for one in answered}) == len(answered)
    assert sum(found.values()) - len(answered) <= kills * THREADS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_call_is_answered_once_while_workers_are_killed(home: Path, kind: str) -> None:
    kills = 3
    with servers.running(home, "--workers", "2") as server, Client(server.address, timeout=60, retries=30) as client:
        answered: list[Prediction] = []

        def workers() -> list[int]:
            return [worker.pid for worker in client.health().workers if worker.state == "ready"]

        def ask(part: int) -> list[Prediction]:
            with KINDS[kind](server.address, timeout=60, retries=30) as own:
                return [_noted(own, number, answered) for number in range(part, CALLS, THREADS)]

        with ThreadPoolExecutor(THREADS) as threads:
            parts = [threads.submit(ask, part) for part in range(THREADS)]
            for round_ in range(1, kills + 1):
                eventually(lambda limit=round_ * CALLS // 5: len(answered) >= limit, 30)  # type: ignore[misc]
                os.kill(eventually(workers)[0], signal.SIGKILL)
            done = [part.result() for part in parts]

        assert_each_once(client, _in_order(done), kills)


def test_every_call_is_answered_once_while_the_server_is_stopped_and_started(home: Path) -> None:
    server = servers.start(home)
    answered: list[Prediction] = []
    with Client(server.address, timeout=60, retries=30) as client, ThreadPoolExecutor(THREADS) as threads:

        def ask(part: int) -> list[Prediction]:  # one client for all threads
            return [_noted(client, number, answered) for number in range(part, CALLS, THREADS)]

        parts = [threads.submit(ask, part) for part in range(THREADS)]
        for round_, end in enumerate((Server.stop, Server.kill), 1):
            eventually(lambda limit=round_ * CALLS // 4: len(answered) >= limit, 30)  # type: ignore[misc]
            end(server)
            server = servers.start(home, "--port", str(server.port), name=f"life-{round_}")
        done = [part.result() for part in parts]
        assert_each_once(client, _in_order(done), 1)
    server.stop()


def _noted(client: Any, number: int, answered: list[Prediction]) -> Prediction:
    found: Prediction = client.predict({"x0": number, "x1": 0})
    answered.append(found)
    return found


def _in_order(parts: list[list[Prediction]]) -> list[Prediction]:
    return sorted((one for part in parts for one in part), key=lambda one: float(one.prediction))


def call(server: Server | str, *words: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """`rowcast call`, with its address in the environment."""
    address = server if isinstance(server, str) else server.address
    return subprocess.run(
        [*ROWCAST, "call", *words],
        env=environment(ROWCAST_URL=address, **settings),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = tmp_path_factory.mktemp("call")
    registry = FolderRegistry(made / "models")
    models.publish(registry, "sum", models.sum_graph(2), SUM, models.REGRESSION, "values")
    access.add(made, "boss", "predict")
    with servers.running(made) as running:
        yield running


@pytest.mark.parametrize("words", [["sum", ROW], [ROW], ["-", ROW], ["sum@1", ROW]])
def test_a_row_that_was_typed_is_answered(server: Server, words: list[str]) -> None:
    done = call(server, *words, ROWCAST_API_KEY=access.secret("boss"))
    lines = dict(line.split("\t") for line in done.stdout.splitlines())

    assert (done.returncode, done.stderr) == (0, "")
    assert (lines["prediction"], lines["model"]) == ("3.5", "sum@1")
    assert len(lines["id"]) == 36


@pytest.mark.parametrize(
    "text", [f"[{ROW}, {ROW}]", f'{{"rows": [{ROW}, {ROW}]}}', f"{ROW}\n\n{ROW}\n", f"\n[\n{ROW},\n{ROW}\n]\n"]
)
@pytest.mark.parametrize("way", ["-", "@"])
def test_many_rows_come_from_a_file_or_a_pipe(server: Server, tmp_path: Path, text: str, way: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    word = "-" if way == "-" else f"@{tmp_path / 'rows.json'}"
    done = call(server, "sum", word, "--json", stdin=text, ROWCAST_API_KEY=access.secret("boss"))

    assert (done.returncode, done.stderr) == (0, "")
    assert [one["prediction"] for one in json.loads(done.stdout)["predictions"]] == [3.5, 3.5]


def test_many_rows_are_a_table(server: Server) -> None:
    done = call(server, f"[{ROW}]", ROWCAST_API_KEY=access.secret("boss"))

    assert done.stdout.splitlines()[0].split("\t") == ["row", "prediction", "probability", "score", "warnings", "id"]
    assert done.stdout.splitlines()[1].split("\t")[:2] == ["0", "3.5"]


def test_a_row_that_does_not_fit_is_told_column_by_column(server: Server) -> None:
    one = call(server, '{"x0": "many"}', ROWCAST_API_KEY=access.secret("boss"))
    many = call(server, f'[{ROW}, {{"x0": 1}}]', ROWCAST_API_KEY=access.secret("boss"))
    told = call(server, '{"x0": 1}', "--json", ROWCAST_API_KEY=access.secret("boss"))

    assert (one.returncode, one.stdout) == (1, "")
    assert [line.split(":")[0] for line in one.stderr.splitlines()] == ["x0", "x1"]
    assert (many.returncode, many.stderr.startswith("row 1: x1: is required")) == (1, True)
    assert (told.returncode, json.loads(told.stdout)["errors"][0]["code"]) == (1, "missing")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sum@9", ROW], "'sum@9'"),
        (["sum@champion", ROW], "its version is a number"),
        (["none", ROW], "'none'"),
        (["sum"], "must be JSON"),
        (["sum", "a", "b"], "quote the row"),
        (["[]"], "no rows"),
        (["[1]"], "object"),
        (["{"], "not JSON"),
        (['{"rows": 1}'], "must be a list"),
        (["@/no/such/file"], "/no/such/file cannot be read"),
    ],
)
def test_a_mistake_is_one_line(server: Server, words: list[str], says: str) -> None:
    done = call(server, *words, ROWCAST_API_KEY=access.secret("boss"))

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says.lower() in done.stderr.lower()


def test_without_a_key_one_is_told_that_it_is_needed(server: Server) -> None:
    done = call(server, ROW)

    assert (done.returncode, "a key is needed" in done.stderr) == (2, True)


def test_nobody_there_names_the_address_and_what_to_do(tmp_path: Path) -> None:
    there = call("http://127.0.0.1:9", ROW)
    home = rowcast("call", ROW, "--home", tmp_path, cwd=tmp_path, settings={"ROWCAST_PORT": "9"})
    wrong = call("nonsense", ROW)

    for done in (there, home):
        assert (done.returncode, done.stdout) == (2, "")
        assert "http://127.0.0.1:9: connection refused; start one with `rowcast serve`" in done.stderr
    assert (wrong.returncode, "looks like http://" in wrong.stderr) == (2, True)
