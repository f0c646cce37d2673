"""The command line: answers as JSON, mistakes as one line that says which, and evidence that shows tampering."""

from __future__ import annotations

import csv
import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

from rowcast import cli
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.schema.schema import Column, Schema
from rowcast.tables import examples
from support import models, servers
from support.servers import ROWCAST, environment, rowcast

ROWS = models.loan_rows(60)
SINGLES, BATCHED = ROWS[:25], ROWS[25:]


@pytest.fixture(scope="session")
def answers() -> dict[int, dict[str, Any]]:
    """Row number to the reply that the server gave; filled by `used`."""
    return {}


@pytest.fixture(scope="session")
def used(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path, answers: dict[int, dict[str, Any]]) -> Path:
    """A home with history: single rows, a batch, and a second model. Read it, or copy it."""
    home = models.with_models(tmp_path_factory.mktemp("used") / "home", loan_registry)
    schema = Schema((Column(name="x0", kind="number", example=1.0),))
    models.publish(FolderRegistry(home / "models"), "sum", models.sum_graph(1), schema, models.REGRESSION, "values")
    with servers.running(home, "--default-model", "loans") as server, server.client() as client:
        for number, row in enumerate(SINGLES):
            answers[number] = client.post("/predict", params={"entity": f"application {number}"}, json=row).json()
        batch = client.post("/models/loans/predict", json={"rows": BATCHED}).json()["predictions"]
        answers.update(enumerate(batch, len(SINGLES)))
        client.post("/models/sum/predict", json={"x0": 2.5}).raise_for_status()
    return home


@pytest.fixture
def copy(used: Path, tmp_path: Path) -> Path:
    return shutil.copytree(used, tmp_path / "copy")


def answer(*arguments: str | Path, cwd: Path, status: int = 0) -> Any:
    """What a command prints with --json."""
    finished = rowcast(*arguments, "--json", cwd=cwd)
    assert finished.returncode == status, finished.stderr
    return json.loads(finished.stdout)


# Answers.


def test_models_are_listed(used: Path) -> None:
    found = answer("models", "list", "--home", used, cwd=used)["models"]

    assert [(model["model"], model["version"], model["aliases"]) for model in found] == [
        ("loans", 1, ["champion"]),
        ("sum", 1, ["champion"]),
    ]
    assert {"task", "metric", "score", "target", "created", "digest"} <= found[0].keys()


def test_the_report_of_a_model_is_found_and_copied(used: Path, tmp_path: Path) -> None:
    found = answer("report", "loans", "--home", used, cwd=used)
    copied = answer("report", "loans@champion", "--out", tmp_path / "loans.html", "--home", used, cwd=used)

    assert (found["model"], found["version"]) == ("loans", 1)
    assert Path(found["path"]).name == "report.html"
    assert copied["path"] == str(tmp_path / "loans.html")
    assert Path(copied["path"]).read_bytes() == (used / found["path"]).read_bytes()


def test_a_report_that_is_not_there_is_one_clear_line(used: Path, tmp_path: Path) -> None:
    missing = rowcast("report", "sum", "--home", used, cwd=used)
    nowhere = rowcast("report", "loans", "--out", tmp_path / "no" / "x.html", "--home", used, cwd=used)

    assert (missing.returncode, nowhere.returncode) == (2, 2)
    assert missing.stderr == "error: sum@1 has no report; it was packed without one. Train it again to get one\n"
    assert nowhere.stderr.startswith("error: the report cannot be written to ")
    assert "Traceback" not in nowhere.stderr


def test_history_is_listed_newest_first_a_page_at_a_time(used: Path, answers: dict[int, dict[str, Any]]) -> None:
    first = answer("history", "list", "--limit", "20", "--model", "loans", "--home", used, cwd=used)
    second = answer(
        "history", "list", "--limit", "100", "--model", "loans", "--cursor", first["next"], "--home", used, cwd=used
    )

    listed = [entry["id"] for entry in first["predictions"] + second["predictions"]]
    assert listed == sorted(listed, reverse=True)
    assert set(listed) == {reply["id"] for reply in answers.values()}
    assert second["next"] is None
    oldest = second["predictions"][-1]
    assert (oldest["row"], oldest["entity"], oldest["source"]) == (SINGLES[0], "application 0", "native")
    assert oldest["prediction"] == answers[0]


def test_history_verifies_and_replays(used: Path) -> None:
    verdict = answer("verify", "--home", used, cwd=used)
    replay = answer("replay", "--home", used, cwd=used)
    one = answer("history", "replay", "--model", "sum", "--home", used, cwd=used)

    assert (verdict["entries"], verdict["broken"]) == (61, [])
    assert (replay["entries"], replay["equal"], replay["examples"]) == (61, 61, [])
    assert (one["entries"], one["equal"]) == (1, 1)


def test_the_doctor_finds_nothing_wrong(used: Path) -> None:
    found = answer("doctor", "--home", used, cwd=used)

    assert found["ok"]
    assert {"rowcast", "settings", "registry", "model loans", "model sum", "store", "journal"} <= {
        part["part"] for part in found["parts"]
    }


def test_the_doctor_says_what_is_wrong_and_exits_1(copy: Path, tmp_path: Path) -> None:
    with (copy / "models" / "loans" / "1" / "model.onnx").open("ab") as file:
        file.write(b"\0")

    found = answer("doctor", "--home", copy, cwd=tmp_path, status=1)

    assert not found["ok"]
    assert [part["part"] for part in found["parts"] if not part["ok"]] == ["model loans"]
    assert "model.onnx was changed" in next(part["says"] for part in found["parts"] if not part["ok"])


def test_training_prints_one_object(tmp_path: Path) -> None:
    examples.write_example("loans", tmp_path / "loans.csv", rows=600)

    found = answer(
        "train", "loans.csv", "--target", "loan_status", "--candidates", "logistic", "--trials", "1", cwd=tmp_path
    )

    assert (found["model"], found["version"], found["task"]) == ("loans", 1, "binary")
    assert {"path", "digest", "metric", "score", "findings", "seconds"} <= found.keys()
    assert {"accuracy", "f1", "roc_auc"} <= found["holdout"].keys()
    assert (found["parity"]["label_flips"], found["parity"]["max_abs_diff"] <= 1e-5) == (0, True)
    assert [set(kind) for kind in found["candidates"]] == [{"name", "score", "trials", "seconds"}]
    assert (Path(tmp_path, found["path"]) / "bundle.json").is_file()
    listed = answer("models", "list", cwd=tmp_path)["models"]
    assert [(model["model"], model["digest"]) for model in listed] == [("loans", found["digest"])]


def test_labels_may_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "X.csv").write_text("a,b,c\n" + "".join(f"{n % 9},{n % 7},{n % 5}\n" for n in range(300)))
    (tmp_path / "y.csv").write_text("approved\n" + "".join("yes.\n" if n % 9 > 4 else "no\n" for n in range(300)))
    options = ["--target-file", "y.csv", "--map", "yes.=yes", "--exclude", "b,c", "--trials", "1"]

    found = answer("train", "X.csv", *options, cwd=tmp_path)

    manifest = json.loads((Path(tmp_path, found["path"]) / "bundle.json").read_text())
    assert found["model"] == "x"
    assert manifest["training"]["target"] == "approved"
    assert manifest["decision"]["classes"] == ["no", "yes"]
    assert [column["name"] for column in manifest["schema"]["columns"]] == ["a"]


def test_a_table_can_be_checked_without_training(tmp_path: Path) -> None:
    lines = [f"{n},{n % 7},{'yes' if n % 7 > 3 else 'no'},x\n" for n in range(200)]
    (tmp_path / "t.csv").write_text("row,score,y,same\n" + "".join(lines))

    found = answer("check", "t.csv", "--target", "y", cwd=tmp_path)
    shown = rowcast("check", "t.csv", "--target", "y", cwd=tmp_path)

    assert (found["rows"], found["task"], found["classes"]) == (200, "binary", ["no", "yes"])
    assert [(column["name"], column["kind"]) for column in found["columns"]] == [
        ("row", ""),
        ("score", "integer"),
        ("same", ""),
    ]
    flags = {finding["code"]: finding.get("flag") for finding in found["findings"]}
    assert flags["id"] == "--keep row"
    assert flags["leak"] == "--exclude score"
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[0].split("\t") == ["column", "kind", "noticed", "so", "change it with"]
    assert "same\tleft out\tis 'x' in every row\tleft out\t--keep same" in shown.stdout.splitlines()
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_groups_weights_and_classes_are_chosen_on_the_command_line(tmp_path: Path) -> None:
    lines = [f"c{n // 4},{n % 7},{n % 3 + 1},{'yes' if n // 4 % 5 > 3 else 'no'}\n" for n in range(400)]
    (tmp_path / "t.csv").write_text("customer,score,worth,y\n" + "".join(lines))
    options = ["--target", "y", "--group", "customer", "--weight", "worth"]

    checked = answer("check", "t.csv", *options, cwd=tmp_path)
    found = answer("train", "t.csv", *options, "--class-weight", "balanced", "--trials", "1", cwd=tmp_path)

    manifest = json.loads((Path(tmp_path, found["path"]) / "bundle.json").read_text())
    assert {each["code"]: each["action"] for each in checked["findings"]}.items() >= {
        ("group", "not learnt from"),
        ("weight", "not learnt from"),
    }
    assert [column["name"] for column in manifest["schema"]["columns"]] == ["score"]
    assert [manifest["training"]["options"][name] for name in ("group", "weight", "class_weight")] == [
        "customer",
        "worth",
        "balanced",
    ]


def test_an_example_can_be_written(tmp_path: Path) -> None:
    assert rowcast("example", "iris", "--out", "iris.csv", cwd=tmp_path).returncode == 0

    assert len((tmp_path / "iris.csv").read_text().splitlines()) == 151


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_scored_table_has_its_columns_and_the_answers_of_the_server(
    used: Path, answers: dict[int, dict[str, Any]], tmp_path: Path, suffix: str
) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)

    summary = answer("predict", "loans", "rows.csv", "--out", f"out.{suffix}", "--home", used, cwd=tmp_path)

    scored = _read(tmp_path / f"out.{suffix}")
    assert (summary["rows"], summary["model"], summary["version"], len(scored)) == (60, "loans", 1, 60)
    wanted = ["prediction", "probability", "score", "probability.Approved", "probability.Rejected"]
    assert list(scored[0]) == [*ROWS[0], *wanted]
    for number, (row, line) in enumerate(zip(ROWS, scored, strict=True)):
        reply = answers[number]
        assert {name: _shown(line[name]) for name in row} == {name: _shown(cell) for name, cell in row.items()}
        assert line["prediction"] == reply["prediction"]
        shares = reply["probabilities"]
        numbers = [reply["probability"], reply["score"], shares["Approved"], shares["Rejected"]]
        assert [np.float32(line[name]) for name in wanted[1:]] == [np.float32(value) for value in numbers]


def test_rows_that_do_not_fit_end_the_job_unless_they_have_a_place_to_go(used: Path, tmp_path: Path) -> None:
    lines = APPLICATIONS["t.csv"].splitlines()
    (tmp_path / "t.csv").write_text(
        "\n".join([*lines[:2], lines[2].replace(lines[2].split(",")[0], "much", 1), lines[3]])
    )
    ask = ("predict", "loans", "t.csv", "--out", "o.csv", "--home", used)

    refused = rowcast(*ask, "--strict", cwd=tmp_path)
    by_default = rowcast(*ask, cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (by_default.returncode, by_default.stderr)
    assert (refused.returncode, "row 1: annual_income" in refused.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]

    summary = answer(*ask, "--rejects", "bad.csv", "--columns", "loan_term", "--jobs", "1", cwd=tmp_path)
    assert (summary["rows"], summary["rejected"]) == (2, 1)
    assert summary["rows_per_second"] > 0
    (bad,) = _read(tmp_path / "bad.csv")
    assert (bad["rejected_row"], bad["rejected_column"], bad["annual_income"]) == ("1", "annual_income", "much")
    assert list(_read(tmp_path / "o.csv")[0])[:2] == ["loan_term", "prediction"]


def _shown(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_output_that_nobody_reads_to_its_end_is_no_error(used: Path) -> None:
    listing = subprocess.Popen(
        [*ROWCAST, "history", "list", "--limit", "1000", "--json", "--home", str(used)],
        cwd=used,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listing.stdout is not None
    listing.stdout.close()
    _, complaint = listing.communicate(timeout=30)

    assert (listing.returncode, complaint) == (0, b"")


def test_tables_for_people_are_tab_separated_when_piped(used: Path) -> None:
    finished = rowcast("models", "list", "--home", used, cwd=used)

    heading, *rows = [line.split("\t") for line in finished.stdout.splitlines()]
    assert heading[:3] == ["model", "version", "aliases"]
    assert [row[:3] for row in rows] == [["loans", "1", "champion"], ["sum", "1", "champion"]]


# Evidence.

TAMPERINGS: dict[str, str] = {
    "a row": "UPDATE entries SET row = CAST(replace(CAST(row AS TEXT), '0', '1') AS BLOB) WHERE seq = 5",
    "a salt": "UPDATE entries SET salt = zeroblob(16) WHERE seq = 5",
    "an answer": "UPDATE entries SET head = (SELECT head FROM entries WHERE seq = 6) WHERE seq = 5",
    "a link": "UPDATE entries SET link = zeroblob(32) WHERE seq = 5",
    "an entry gone": "DELETE FROM entries WHERE seq = 5",
    "the first entry gone": "DELETE FROM entries WHERE seq = 0",
    "two entries swapped": "UPDATE entries SET seq = CASE seq WHEN 5 THEN 1006 ELSE 1005 END WHERE seq IN (5, 6);"
    "UPDATE entries SET seq = seq - 1000 WHERE seq > 1000",
}


@pytest.mark.parametrize("statements", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_tampered_history_does_not_verify(copy: Path, statements: str) -> None:
    connection = sqlite3.connect(copy / "history.db")
    connection.executescript(statements)
    connection.commit()
    connection.close()

    verdict = answer("verify", "--home", copy, cwd=copy, status=1)

    (broken,) = verdict["broken"]
    assert broken["seq"] in (0, 5)
    assert broken["reason"]


def test_erasing_a_row_keeps_the_history_whole(copy: Path) -> None:
    connection = sqlite3.connect(copy / "history.db")
    connection.execute("UPDATE entries SET row = NULL, salt = NULL WHERE seq IN (3, 40)")
    connection.commit()
    connection.close()

    assert answer("verify", "--home", copy, cwd=copy)["broken"] == []
    replay = answer("replay", "--home", copy, cwd=copy)
    assert (replay["equal"], replay["not_replayable"]) == (59, 2)


def test_a_history_whose_model_is_gone_cannot_be_replayed_and_says_why(copy: Path) -> None:
    shutil.rmtree(copy / "models" / "sum")

    replay = answer("replay", "--home", copy, cwd=copy)

    assert (replay["equal"], replay["not_replayable"]) == (60, 1)
    assert "sum" in replay["examples"][0]["reason"]


# Mistakes.


class Mistake(NamedTuple):
    """A command line, what makes it wrong, and a part of the line that says so."""

    name: str
    arguments: str
    says: str
    settings: Mapping[str, str] = MappingProxyType({})
    files: Mapping[str, str] = MappingProxyType({})


CSV = {"t.csv": "a,b,y\n" + "".join(f"{n},{n % 7},{n % 2}\n" for n in range(200))}
TWO = {"t.csv": "a,y2,y\n" + "".join(f"{n % 9},{n % 3 // 2 - 1},{n % 2}\n" for n in range(200))}
APPLICATIONS = {"t.csv": "\n".join([",".join(ROWS[0]), *(",".join(map(_shown, row.values())) for row in ROWS[:3])])}
MISTAKES = [
    Mistake("no command", "", "command"),
    Mistake("an unknown command", "trian", "trian"),
    Mistake("an unknown option", "verify --loud", "--loud"),
    Mistake("a missing argument", "train --target y", "table"),
    Mistake("a missing option", "train t.csv", "--target", files=CSV),
    Mistake("a table that does not exist", "train nothing.csv --target y", "nothing.csv"),
    Mistake("a folder for a table", "train . --target y", "."),
    Mistake("a table of an unknown kind", "train t.doc --target y", "t.doc", files={"t.doc": "a,b\n1,2\n"}),
    Mistake("an empty table", "train t.csv --target y", "t.csv", files={"t.csv": ""}),
    Mistake("an unknown target", "train t.csv --target z", "'z'", files=CSV),
    Mistake("checking without a target", "check t.csv", "--target", files=CSV),
    Mistake("checking an unknown target", "check t.csv --target z", "'z'", files=CSV),
    Mistake("checking a header alone", "check t.csv --target y", "no rows", files={"t.csv": "a,y\n"}),
    Mistake("a column to exclude that is none", "train t.csv --target y --exclude bb", "did you mean 'b'", files=CSV),
    Mistake("a label to mend that is none", "train t.csv --target y --map 7=1", "meets no label", files=CSV),
    Mistake("one class", "check t.csv --target a", "in every row", files={"t.csv": "a,b\n" + "1,2\n1,3\n" * 50}),
    Mistake("an unknown candidate", "train t.csv --target y --candidates oracle", "oracle", files=CSV),
    Mistake("an unknown metric", "train t.csv --target y --metric luck", "luck", files=CSV),
    Mistake("two ways to split", "train t.csv --target y --group b --time a", "cannot both decide", files=CSV),
    Mistake("a group that is no column", "train t.csv --target y --group c", "no column 'c'", files=CSV),
    Mistake("groups that are too few", "train t.csv --target y --group y2", "fewer than the 3 folds", files=TWO),
    Mistake("weights below zero", "train t.csv --target y --weight y2", "negative in row 0", files=TWO),
    Mistake("an unknown class weight", "train t.csv --target y --class-weight even", "none or balanced", files=CSV),
    Mistake("no trials", "train t.csv --target y --trials 0", "--trials", files=CSV),
    Mistake("trials in words", "train t.csv --target y --trials many", "--trials", files=CSV),
    Mistake("a name that cannot be used", "train t.csv --target y --name My/Model", "My/Model", files=CSV),
    Mistake("a reserved name", "train t.csv --target y --name reload", "reserved", files=CSV),
    Mistake("an unknown positive label", "train t.csv --target y --positive maybe", "maybe", files=CSV),
    Mistake("predicting with an unknown model", "predict nope t.csv --out o.csv", "'nope'", files=CSV),
    Mistake("a version that does not exist", "predict loans@9 t.csv --out o.csv --home {home}", "version 9", files=CSV),
    Mistake("an alias that does not exist", "predict loans@best t.csv --out o.csv --home {home}", "'best'", files=CSV),
    Mistake(
        "columns that the model does not take",
        "predict loans t.csv --out o.csv --home {home}",
        "annual_income",
        files=CSV,
    ),
    Mistake(
        "an output of an unknown kind", "predict loans t.csv --out o.doc --home {home}", "o.doc", files=APPLICATIONS
    ),
    Mistake(
        "both strict and forgiving",
        "predict loans t.csv --out o.csv --strict --rejects b.csv --home {home}",
        "--rejects",
        files=APPLICATIONS,
    ),
    Mistake(
        "a column to keep that is not there",
        "predict loans t.csv --out o.csv --columns nope --home {home}",
        "'nope'",
        files=APPLICATIONS,
    ),
    Mistake("serving nothing", "serve --port 0", "rowcast train"),
    Mistake("serving an unknown model", "serve --port 0 nope --home {home}", "'nope'"),
    Mistake("serving a version that does not exist", "serve --port 0 loans@9 --home {home}", "version 9"),
    Mistake("a default that is not served", "serve --port 0 --default-model nope --home {home}", "'nope'"),
    Mistake("a port in use", "serve --port {port} --home {home}", "in use"),
    Mistake("a port out of range", "serve --port 99999 --home {home}", "99999"),
    Mistake("a port in words", "serve --port http --home {home}", "--port"),
    Mistake("an open door", "serve --host 0.0.0.0 --home {home}", "--insecure"),
    Mistake("an open door by IPv6", "serve --host :: --home {home}", "--insecure"),
    Mistake("an open door by name", "serve --host example.test --home {home}", "--insecure"),
    Mistake("an unknown durability", "serve --port 0 --durability forever --home {home}", "forever"),
    Mistake("an unknown variable", "models list", "ROWCAST_PROT", settings={"ROWCAST_PROT": "1"}),
    Mistake("a wrong variable", "models list", "'port'", settings={"ROWCAST_PORT": "abc"}),
    Mistake(
        "a Kubernetes variable", "models list", "enableServiceLinks", settings={"ROWCAST_PORT": "tcp://10.0.0.1:80"}
    ),
    Mistake("a prefix that is none", "models list", "'root_path'", settings={"ROWCAST_ROOT_PATH": "api/"}),
    Mistake("an unknown store", "history list", "sqlite:///", settings={"ROWCAST_STORE": "mysql://db/rowcast"}),
    Mistake("an unknown key", "models list", "'prot'", files={"rowcast.toml": "prot = 1\n"}),
    Mistake("a wrong value", "models list", "'port'", files={"rowcast.toml": 'port = "high"\n'}),
    Mistake("settings that are no TOML", "models list", "rowcast.toml", files={"rowcast.toml": "port: 1\n"}),
    Mistake("an unknown name in .env", "models list", "rowcast_prot", files={".env": "ROWCAST_PROT=1\n"}),
    Mistake("a page of nothing", "history list --limit 0", "--limit"),
    Mistake("an unknown example", "example titanic --out t.csv", "titanic"),
    Mistake("an example into a folder that does not exist", "example iris --out no/such/t.csv", "no/such"),
    Mistake("a file for a home", "models list --home t.csv", "t.csv", files=CSV),
    Mistake("verifying what is no database", "verify --home .", "history.db", files={"history.db": "hello" * 100}),
    Mistake("listing what is no database", "history list --home .", "history.db", files={"history.db": "hello" * 100}),
]


@pytest.fixture(scope="session")
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_one_line_and_exit_2(
    mistake: Mistake,
    used: Path,
    taken: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, content in mistake.files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    for name, value in mistake.settings.items():
        monkeypatch.setenv(name, value)
    words = [word.format(home=used, port=taken) for word in mistake.arguments.split()]
    monkeypatch.setattr(sys, "argv", ["rowcast", *words])

    with pytest.raises(SystemExit) as ended:  # in this process: half a second cheaper, fifty times
        cli.main()

    printed, said = capfd.readouterr()
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert said.endswith("\n")
    assert mistake.says in said.removeprefix("error: ")
    assert ended.value.code == 2
    assert printed == ""


@pytest.mark.parametrize(
    "arguments", ["trian", "serve --port 0 nope", "serve --port {port} --home {home}", "verify --home /dev/null"]
)
def test_a_mistake_is_one_line_for_a_process_too(arguments: str, used: Path, taken: int, tmp_path: Path) -> None:
    finished = rowcast(*arguments.format(home=used, port=taken).split(), cwd=tmp_path)

    assert finished.returncode == 2
    assert finished.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", finished.stderr)


def test_a_server_that_was_refused_leaves_nothing_behind(copy: Path, taken: int) -> None:
    finished = rowcast("serve", "--port", str(taken), "--home", copy, cwd=copy)

    assert finished.returncode == 2
    assert list((copy / "journal").glob("*.journal")) == []


HELP = ["", "check", "train", "serve", "models list", "history"]


@pytest.mark.parametrize("command", HELP)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    finished = rowcast(*command.split(), "--help", cwd=tmp_path)

    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"Usage: rowcast {command}".rstrip())


def test_a_command_line_wins_over_the_environment_and_that_over_files(tmp_path: Path) -> None:
    def home(*arguments: str, **variables: str) -> str:
        finished = rowcast("doctor", "--json", *arguments, cwd=tmp_path, settings=variables)
        parts = {part["part"]: part["says"] for part in json.loads(finished.stdout)["parts"]}
        return Path(parts["settings"]).name

    (tmp_path / "rowcast.toml").write_text('home = "from-toml"\n')
    assert home() == "from-toml"
    (tmp_path / ".env").write_text("ROWCAST_HOME=from-dotenv\n")
    assert home() == "from-dotenv"
    assert home(ROWCAST_HOME="from-environment") == "from-environment"
    assert home("--home", "from-command-line", ROWCAST_HOME="from-environment") == "from-command-line"
