"""The command line: JSON output, one-line error messages and verification of the history."""

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
from support.commands import rowcast
from support.servers import ROWCAST, environment, rowcast_process

ROWS = models.loan_rows(60)
SINGLES, BATCHED = ROWS[:25], ROWS[25:]


@pytest.fixture(scope="session")
def answers() -> dict[int, dict[str, Any]]:
    """A mapping from row numbers to the server's replies; the `used` fixture fills it."""
    return {}


@pytest.fixture(scope="session")
def used(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path, answers: dict[int, dict[str, Any]]) -> Path:
    """A home whose history contains predictions from two models. Tests must not change the home."""
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


def json_of(*arguments: str | Path, cwd: Path, status: int = 0) -> Any:
    """Run a command with --json and return the parsed output."""
    finished = rowcast(*arguments, "--json", cwd=cwd)
    assert finished.returncode == status, finished.stderr
    return json.loads(finished.stdout)


# Results.


def test_the_models_list_command_shows_the_version_and_aliases_of_each_model(used: Path) -> None:
    listed = json_of("models", "list", "--home", used, cwd=used)["models"]

    assert [(model["model"], model["version"], model["aliases"]) for model in listed] == [
        ("loans", 1, ["champion"]),
        ("sum", 1, ["champion"]),
    ]
    assert {"task", "metric", "score", "target", "created", "digest"} <= listed[0].keys()


def test_the_report_command_prints_the_path_of_a_report_or_copies_the_report(used: Path, tmp_path: Path) -> None:
    located = json_of("report", "loans", "--home", used, cwd=used)
    copied = json_of("report", "loans@champion", "--out", tmp_path / "loans.html", "--home", used, cwd=used)

    assert (located["model"], located["version"]) == ("loans", 1)
    assert Path(located["path"]).name == "report.html"
    assert copied["path"] == str(tmp_path / "loans.html")
    assert Path(copied["path"]).read_bytes() == (used / located["path"]).read_bytes()


def test_the_report_command_fails_if_the_report_is_missing_or_cannot_be_written(used: Path, tmp_path: Path) -> None:
    missing = rowcast("report", "sum", "--home", used, cwd=used)
    nowhere = rowcast("report", "loans", "--out", tmp_path / "no" / "x.html", "--home", used, cwd=used)

    assert (missing.returncode, nowhere.returncode) == (2, 2)
    assert missing.stderr.startswith("error: sum@1 has no report")
    assert nowhere.stderr.startswith("error: cannot write the report to ")
    assert missing.stderr.count("\n") == nowhere.stderr.count("\n") == 1


def test_the_history_list_command_lists_entries_from_newest_to_oldest_across_pages(
    used: Path, answers: dict[int, dict[str, Any]]
) -> None:
    first = json_of("history", "list", "--limit", "20", "--model", "loans", "--home", used, cwd=used)
    second = json_of(
        "history", "list", "--limit", "100", "--model", "loans", "--cursor", first["next"], "--home", used, cwd=used
    )

    listed = [entry["id"] for entry in first["predictions"] + second["predictions"]]
    assert listed == sorted(listed, reverse=True)
    assert set(listed) == {reply["id"] for reply in answers.values()}
    assert second["next"] is None
    oldest = second["predictions"][-1]
    assert (oldest["row"], oldest["entity"], oldest["source"]) == (SINGLES[0], "application 0", "native")
    assert oldest["prediction"] == answers[0]


def test_the_history_show_command_shows_one_prediction(used: Path, answers: dict[int, dict[str, Any]]) -> None:
    shown = json_of("history", "show", answers[0]["id"].upper(), "--home", used, cwd=used)
    printed = rowcast("history", "show", answers[0]["id"], "--home", used, cwd=used)

    assert (shown["prediction"], shown["row"]) == (answers[0], SINGLES[0])
    fields = dict(line.split("\t") for line in printed.stdout.splitlines())
    assert json.loads(fields["row"]) == SINGLES[0]
    assert fields["at"].endswith("Z")


def test_the_history_can_be_verified_and_replayed(used: Path) -> None:
    verdict = json_of("verify", "--home", used, cwd=used)
    replay = json_of("replay", "--home", used, cwd=used)
    single = json_of("history", "replay", "--model", "sum", "--home", used, cwd=used)

    assert (verdict["entries"], verdict["broken"]) == (61, [])
    assert (replay["entries"], replay["equal"], replay["examples"]) == (61, 61, [])
    assert (single["entries"], single["equal"]) == (1, 1)


def test_the_doctor_command_finds_no_problems_in_an_intact_home(used: Path) -> None:
    checkup = json_of("doctor", "--home", used, cwd=used)

    assert checkup["ok"]
    assert {"rowcast", "settings", "registry", "model loans", "model sum", "store", "journal"} <= {
        part["part"] for part in checkup["parts"]
    }


def test_the_doctor_command_exits_with_code_1_if_it_finds_a_problem(copy: Path, tmp_path: Path) -> None:
    with (copy / "models" / "loans" / "1" / "model.onnx").open("ab") as file:
        file.write(b"\0")

    checkup = json_of("doctor", "--home", copy, cwd=tmp_path, status=1)

    assert not checkup["ok"]
    assert [part["part"] for part in checkup["parts"] if not part["ok"]] == ["model loans"]
    assert "model.onnx" in next(part["says"] for part in checkup["parts"] if not part["ok"])


def test_the_train_command_prints_one_json_document(tmp_path: Path) -> None:
    examples.write_example("loans", tmp_path / "loans.csv", rows=600)

    result = json_of(
        "train", "loans.csv", "--target", "loan_status", "--candidates", "logistic", "--trials", "1", cwd=tmp_path
    )

    assert (result["model"], result["version"], result["task"]) == ("loans", 1, "binary")
    assert {"path", "digest", "metric", "score", "findings", "seconds"} <= result.keys()
    assert {"accuracy", "f1", "roc_auc"} <= result["holdout"].keys()
    assert (result["parity"]["label_flips"], result["parity"]["max_abs_diff"] <= 1e-5) == (0, True)
    assert [set(kind) for kind in result["candidates"]] == [{"name", "score", "trials", "seconds"}]
    assert (Path(tmp_path, result["path"]) / "bundle.json").is_file()
    listed = json_of("models", "list", cwd=tmp_path)["models"]
    assert [(model["model"], model["digest"]) for model in listed] == [("loans", result["digest"])]


def test_labels_can_be_read_from_a_separate_file(tmp_path: Path) -> None:
    (tmp_path / "X.csv").write_text("a,b,c\n" + "".join(f"{n % 9},{n % 7},{n % 5}\n" for n in range(300)))
    (tmp_path / "y.csv").write_text("approved\n" + "".join("yes.\n" if n % 9 > 4 else "no\n" for n in range(300)))
    options = ["--target-file", "y.csv", "--map", "yes.=yes", "--exclude", "b,c", "--trials", "1"]

    result = json_of("train", "X.csv", *options, cwd=tmp_path)

    manifest = json.loads((Path(tmp_path, result["path"]) / "bundle.json").read_text())
    assert result["model"] == "x"
    assert manifest["training"]["target"] == "approved"
    assert manifest["decision"]["classes"] == ["no", "yes"]
    assert [column["name"] for column in manifest["schema"]["columns"]] == ["a"]


def test_the_check_command_reports_findings_and_writes_no_files(tmp_path: Path) -> None:
    lines = [f"{n},{n % 7},{'yes' if n % 7 > 3 else 'no'},x\n" for n in range(200)]
    (tmp_path / "t.csv").write_text("row,score,y,same\n" + "".join(lines))

    checked = json_of("check", "t.csv", "--target", "y", cwd=tmp_path)
    shown = rowcast("check", "t.csv", "--target", "y", cwd=tmp_path)

    assert (checked["rows"], checked["task"], checked["classes"]) == (200, "binary", ["no", "yes"])
    assert [(column["name"], column["kind"]) for column in checked["columns"]] == [
        ("row", ""),
        ("score", "integer"),
        ("same", ""),
    ]
    flags = {finding["code"]: finding.get("flag") for finding in checked["findings"]}
    assert flags["id"] == "--keep row"
    assert flags["leak"] == "--exclude score"
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[0].split("\t") == ["column", "kind", "finding", "action", "override"]
    cells = {line.split("\t")[0]: line.split("\t")[1:] for line in shown.stdout.splitlines()}
    assert (cells["same"][0], cells["same"][-1]) == ("dropped", "--keep same")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_the_train_command_accepts_a_group_column_a_weight_column_and_class_weights(tmp_path: Path) -> None:
    lines = [f"c{n // 4},{n % 7},{n % 3 + 1},{'yes' if n // 4 % 5 > 3 else 'no'}\n" for n in range(400)]
    (tmp_path / "t.csv").write_text("customer,score,worth,y\n" + "".join(lines))
    options = ["--target", "y", "--group", "customer", "--weight", "worth"]

    checked = json_of("check", "t.csv", *options, cwd=tmp_path)
    trained = json_of("train", "t.csv", *options, "--class-weight", "balanced", "--trials", "1", cwd=tmp_path)

    manifest = json.loads((Path(tmp_path, trained["path"]) / "bundle.json").read_text())
    assert {finding["code"]: finding["action"] for finding in checked["findings"]}.items() >= {
        ("group", "not used as a feature"),
        ("weight", "not used as a feature"),
    }
    assert [column["name"] for column in manifest["schema"]["columns"]] == ["score"]
    assert [manifest["training"]["options"][name] for name in ("group", "weight", "class_weight")] == [
        "customer",
        "worth",
        "balanced",
    ]


def test_the_example_command_writes_a_table(tmp_path: Path) -> None:
    assert rowcast("example", "iris", "--out", "iris.csv", cwd=tmp_path).returncode == 0

    assert len((tmp_path / "iris.csv").read_text().splitlines()) == 151


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_predict_command_and_the_server_return_the_same_predictions(
    used: Path, answers: dict[int, dict[str, Any]], tmp_path: Path, suffix: str
) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)

    summary = json_of("predict", "loans", "rows.csv", "--out", f"out.{suffix}", "--home", used, cwd=tmp_path)

    scored = _read(tmp_path / f"out.{suffix}")
    assert (summary["rows"], summary["model"], summary["version"], len(scored)) == (60, "loans", 1, 60)
    added = ["prediction", "probability", "score", "probability.Approved", "probability.Rejected"]
    assert list(scored[0]) == [*ROWS[0], *added]
    for number, (row, line) in enumerate(zip(ROWS, scored, strict=True)):
        reply = answers[number]
        assert {name: _shown(line[name]) for name in row} == {name: _shown(cell) for name, cell in row.items()}
        assert line["prediction"] == reply["prediction"]
        shares = reply["probabilities"]
        numbers = [reply["probability"], reply["score"], shares["Approved"], shares["Rejected"]]
        assert [np.float32(line[name]) for name in added[1:]] == [np.float32(value) for value in numbers]


def test_the_predict_command_stops_at_an_invalid_row_unless_the_rejects_option_is_set(
    used: Path, tmp_path: Path
) -> None:
    lines = APPLICATIONS["t.csv"].splitlines()
    (tmp_path / "t.csv").write_text(
        "\n".join([*lines[:2], lines[2].replace(lines[2].split(",")[0], "much", 1), lines[3]])
    )
    command = ("predict", "loans", "t.csv", "--out", "o.csv", "--home", used)

    strict = rowcast(*command, "--strict", cwd=tmp_path)
    by_default = rowcast(*command, cwd=tmp_path)
    for failed in (strict, by_default):
        assert (failed.returncode, "line 3 (row 1), column 'annual_income'" in failed.stderr) == (2, True)
    assert ("--rejects" in strict.stderr, "--rejects" in by_default.stderr) == (False, True)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]

    summary = json_of(*command, "--rejects", "bad.csv", "--columns", "loan_term", "--jobs", "1", cwd=tmp_path)
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


def test_a_closed_pipe_does_not_cause_an_error(used: Path) -> None:
    listing = subprocess.Popen(
        [*ROWCAST, "history", "list", "--limit", "1000", "--json", "--home", str(used)],
        cwd=used,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listing.stdout is not None
    listing.stdout.close()
    _, errors = listing.communicate(timeout=30)

    assert (listing.returncode, errors) == (0, b"")


def test_tables_are_tab_separated_when_the_output_is_piped(used: Path) -> None:
    finished = rowcast("models", "list", "--home", used, cwd=used)

    heading, *rows = [line.split("\t") for line in finished.stdout.splitlines()]
    assert heading[:3] == ["model", "version", "aliases"]
    assert [row[:3] for row in rows] == [["loans", "1", "champion"], ["sum", "1", "champion"]]


# History.

TAMPERINGS: dict[str, str] = {
    "a row": "UPDATE entries SET row = CAST(replace(CAST(row AS TEXT), '0', '1') AS BLOB) WHERE seq = 5",
    "a salt": "UPDATE entries SET salt = zeroblob(16) WHERE seq = 5",
    "an answer": "UPDATE entries SET head = (SELECT head FROM entries WHERE seq = 6) WHERE seq = 5",
    "a link": "UPDATE entries SET link = zeroblob(32) WHERE seq = 5",
    "a deleted entry": "DELETE FROM entries WHERE seq = 5",
    "a deleted first entry": "DELETE FROM entries WHERE seq = 0",
    "two entries swapped": "UPDATE entries SET seq = CASE seq WHEN 5 THEN 1006 ELSE 1005 END WHERE seq IN (5, 6);"
    "UPDATE entries SET seq = seq - 1000 WHERE seq > 1000",
}


@pytest.mark.parametrize("statements", TAMPERINGS.values(), ids=TAMPERINGS)
def test_an_altered_history_fails_verification(copy: Path, statements: str) -> None:
    connection = sqlite3.connect(copy / "history.db")
    connection.executescript(statements)
    connection.commit()
    connection.close()

    verdict = json_of("verify", "--home", copy, cwd=copy, status=1)

    (broken,) = verdict["broken"]
    assert broken["seq"] in (0, 5)
    assert broken["reason"]


def test_the_history_passes_verification_after_rows_are_erased(copy: Path) -> None:
    connection = sqlite3.connect(copy / "history.db")
    connection.execute("UPDATE entries SET row = NULL, salt = NULL WHERE seq IN (3, 40)")
    connection.commit()
    connection.close()

    assert json_of("verify", "--home", copy, cwd=copy)["broken"] == []
    replay = json_of("replay", "--home", copy, cwd=copy)
    assert (replay["equal"], replay["not_replayable"]) == (59, 2)


def test_entries_for_a_deleted_model_cannot_be_replayed(copy: Path) -> None:
    shutil.rmtree(copy / "models" / "sum")

    replay = json_of("replay", "--home", copy, cwd=copy)

    assert (replay["equal"], replay["not_replayable"]) == (60, 1)
    assert "sum" in replay["examples"][0]["reason"]


# Errors.


class Error(NamedTuple):
    """A command that fails, and part of its error message."""

    name: str
    arguments: str
    message: str
    settings: Mapping[str, str] = MappingProxyType({})
    files: Mapping[str, str] = MappingProxyType({})


CSV = {"t.csv": "a,b,y\n" + "".join(f"{n},{n % 7},{n % 2}\n" for n in range(200))}
TWO = {"t.csv": "a,y2,y\n" + "".join(f"{n % 9},{n % 3 // 2 - 1},{n % 2}\n" for n in range(200))}
APPLICATIONS = {"t.csv": "\n".join([",".join(ROWS[0]), *(",".join(map(_shown, row.values())) for row in ROWS[:3])])}
ERRORS = [
    Error("an unknown command", "trian", "trian"),
    Error("an unknown option", "verify --loud", "--loud"),
    Error("a missing argument", "train --target y", "table"),
    Error("a missing option", "train t.csv", "--target", files=CSV),
    Error("a table that does not exist", "train nothing.csv --target y", "nothing.csv"),
    Error("a folder as the table", "train . --target y", "."),
    Error("a table in an unknown format", "train t.doc --target y", "t.doc", files={"t.doc": "a,b\n1,2\n"}),
    Error("an empty table", "train t.csv --target y", "t.csv", files={"t.csv": ""}),
    Error("an unknown target", "train t.csv --target z", "'z'", files=CSV),
    Error("checking with an option that needs a target", "check t.csv --positive yes", "--target", files=CSV),
    Error("checking an unknown target", "check t.csv --target z", "'z'", files=CSV),
    Error("checking a table without rows", "check t.csv --target y", "no rows", files={"t.csv": "a,y\n"}),
    Error("a missing column to exclude", "train t.csv --target y --exclude bb", "did you mean 'b'", files=CSV),
    Error("a missing label to rename", "train t.csv --target y --map 7=1", "7=1", files=CSV),
    Error("one class", "check t.csv --target a", "in every row", files={"t.csv": "a,b\n" + "1,2\n1,3\n" * 50}),
    Error("an unknown candidate", "train t.csv --target y --candidates oracle", "oracle", files=CSV),
    Error("an unknown metric", "train t.csv --target y --metric luck", "luck", files=CSV),
    Error("two ways to split", "train t.csv --target y --group b --time a", "time", files=CSV),
    Error("a group that is not a column", "train t.csv --target y --group c", "no column 'c'", files=CSV),
    Error("too few groups", "train t.csv --target y --group y2", "3 folds need", files=TWO),
    Error("negative weights", "train t.csv --target y --weight y2", "negative value in row 0", files=TWO),
    Error("an unknown class weight", "train t.csv --target y --class-weight even", "'none' or 'balanced'", files=CSV),
    Error("no trials", "train t.csv --target y --trials 0", "--trials", files=CSV),
    Error("trials that are not a number", "train t.csv --target y --trials many", "--trials", files=CSV),
    Error("an invalid name", "train t.csv --target y --name My/Model", "My/Model", files=CSV),
    Error("a reserved name", "train t.csv --target y --name reload", "reserved", files=CSV),
    Error("an unknown positive label", "train t.csv --target y --positive maybe", "maybe", files=CSV),
    Error("predicting with an unknown model", "predict nope t.csv --out o.csv", "'nope'", files=CSV),
    Error("a version that does not exist", "predict loans@9 t.csv --out o.csv --home {home}", "version 9", files=CSV),
    Error("an alias that does not exist", "predict loans@best t.csv --out o.csv --home {home}", "'best'", files=CSV),
    Error(
        "a table without the model's columns",
        "predict loans t.csv --out o.csv --home {home}",
        "annual_income",
        files=CSV,
    ),
    Error(
        "an output in an unknown format", "predict loans t.csv --out o.doc --home {home}", "o.doc", files=APPLICATIONS
    ),
    Error(
        "both --strict and --rejects",
        "predict loans t.csv --out o.csv --strict --rejects b.csv --home {home}",
        "--rejects",
        files=APPLICATIONS,
    ),
    Error(
        "a missing column to copy",
        "predict loans t.csv --out o.csv --columns nope --home {home}",
        "'nope'",
        files=APPLICATIONS,
    ),
    Error("serving nothing", "serve --port 0", "rowcast train"),
    Error("serving an unknown model", "serve --port 0 nope --home {home}", "'nope'"),
    Error("serving a version that does not exist", "serve --port 0 loans@9 --home {home}", "version 9"),
    Error("a default model that is not served", "serve --port 0 --default-model nope --home {home}", "'nope'"),
    Error("a port in use", "serve --port {port} --home {home}", "in use"),
    Error("a port out of range", "serve --port 99999 --home {home}", "99999"),
    Error("a port that is not a number", "serve --port http --home {home}", "--port"),
    Error("an open port without a key", "serve --host 0.0.0.0 --home {home}", "--insecure"),
    Error("an open IPv6 port without a key", "serve --host :: --home {home}", "--insecure"),
    Error("an open host name without a key", "serve --host example.test --home {home}", "--insecure"),
    Error("an unknown durability", "serve --port 0 --durability forever --home {home}", "forever"),
    Error("an unknown variable", "models list", "ROWCAST_PROT", settings={"ROWCAST_PROT": "1"}),
    Error("an invalid variable", "models list", "'port'", settings={"ROWCAST_PORT": "abc"}),
    Error("a Kubernetes variable", "models list", "enableServiceLinks", settings={"ROWCAST_PORT": "tcp://10.0.0.1:80"}),
    Error("an invalid path prefix", "models list", "'root_path'", settings={"ROWCAST_ROOT_PATH": "api/"}),
    Error("an unknown store", "history list", "sqlite:///", settings={"ROWCAST_STORE": "mysql://db/rowcast"}),
    Error("an unknown key", "models list", "'prot'", files={"rowcast.toml": "prot = 1\n"}),
    Error("an invalid value", "models list", "'port'", files={"rowcast.toml": 'port = "high"\n'}),
    Error("settings that are not TOML", "models list", "rowcast.toml", files={"rowcast.toml": "port: 1\n"}),
    Error("an unknown name in .env", "models list", "rowcast_prot", files={".env": "ROWCAST_PROT=1\n"}),
    Error("an empty page", "history list --limit 0", "--limit"),
    Error("an unknown example", "example titanic --out t.csv", "titanic"),
    Error("an example into a folder that does not exist", "example iris --out no/such/t.csv", "no/such"),
    Error("a file as the home", "models list --home t.csv", "t.csv", files=CSV),
    Error(
        "verifying a file that is not a database", "verify --home .", "history.db", files={"history.db": "hello" * 100}
    ),
    Error(
        "listing a file that is not a database",
        "history list --home .",
        "history.db",
        files={"history.db": "hello" * 100},
    ),
]


@pytest.fixture(scope="session")
def used_port() -> Iterator[int]:
    """A port that is already in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.name)
def test_a_failed_command_prints_one_line_and_exits_with_code_2(
    error: Error,
    used: Path,
    used_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, content in error.files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    for name, value in error.settings.items():
        monkeypatch.setenv(name, value)
    words = [word.format(home=used, port=used_port) for word in error.arguments.split()]
    monkeypatch.setattr(sys, "argv", ["rowcast", *words])

    # Run the command in this process: starting a new process takes half a second.
    with pytest.raises(SystemExit) as ended:
        cli.main()

    output, printed = capfd.readouterr()
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert printed.endswith("\n")
    assert error.message in printed.removeprefix("error: ")
    assert ended.value.code == 2
    assert output == ""


@pytest.mark.parametrize(
    "arguments", ["trian", "serve --port 0 nope", "serve --port {port} --home {home}", "verify --home /dev/null"]
)
def test_a_failed_command_in_a_separate_process_prints_one_line(
    arguments: str, used: Path, used_port: int, tmp_path: Path
) -> None:
    finished = rowcast_process(*arguments.format(home=used, port=used_port).split(), cwd=tmp_path)

    assert finished.returncode == 2
    assert finished.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", finished.stderr)


def test_a_failed_startup_leaves_no_journal_behind(copy: Path, used_port: int) -> None:
    finished = rowcast_process("serve", "--port", str(used_port), "--home", copy, cwd=copy)

    assert finished.returncode == 2
    assert list((copy / "journal").glob("*.journal")) == []


HELP = ["", "check", "train", "serve", "models list", "history"]


@pytest.mark.parametrize("command", HELP)
def test_the_help_option_prints_the_usage_of_a_command(command: str, tmp_path: Path) -> None:
    finished = rowcast(*command.split(), "--help", cwd=tmp_path)

    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"Usage: rowcast {command}".rstrip())


def test_options_override_environment_variables_and_environment_variables_override_files(tmp_path: Path) -> None:
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
