"""The history on real servers: erasure, export, verification, retention and full disks."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from support import models, servers
from support.commands import rowcast
from support.servers import Server
from support.waiting import eventually

ROWS = models.loan_rows(60, seed=21)
MARK = 987_650_000  # occurs nowhere else in the history


def answer(*arguments: str | Path, cwd: Path, status: int = 0, **settings: str) -> Any:
    """Run a command with --json and return the parsed output."""
    finished = rowcast(*arguments, "--json", cwd=cwd, settings=settings)
    assert finished.returncode == status, finished.stderr
    return json.loads(finished.stdout)


def newest_first(ids: list[str]) -> list[str]:
    """Sort IDs from newest to oldest, as the history does; the order within a millisecond is arbitrary."""
    return sorted(ids, reverse=True)


def fill(client: httpx.Client, rows: list[dict[str, Any]] = ROWS) -> list[str]:
    """Request one prediction per row for six customers in turn; return the prediction IDs."""
    ids = []
    for number, row in enumerate(rows):
        body = {**row, "bank_assets": MARK + number}
        reply = client.post("/predict", json=body, params={"entity": f"customer-{number % 6}"})
        assert reply.status_code == 200, reply.text
        ids.append(reply.json()["id"])
    return ids


def on_disk(home: Path) -> set[int]:
    """Return the row numbers that occur in the history files."""
    files = [home / "history.db", home / "history.db-wal", *(home / "journal").iterdir()]
    content = b"".join(path.read_bytes() for path in files if path.exists())
    return {number for number in range(len(ROWS)) if str(MARK + number).encode() in content}


def test_rows_erased_while_a_server_is_running_are_removed_from_every_file(home: Path) -> None:
    with servers.running(home) as server, server.client() as client:
        ids = fill(client)
        erased = answer("history", "erase", "--entity", "customer-3", "--home", home, cwd=home)
        single = answer("history", "erase", "--id", ids[1].upper(), "--home", home, cwd=home)
        expected = {number for number in range(60) if number % 6 == 3} | {1}

        assert (erased["rows"], erased["journals"], single["rows"]) == (10, [], 1)
        assert on_disk(home) == set(range(60)) - expected
        assert "row" not in client.get(f"/predictions/{ids[3]}").json()
        assert client.get(f"/predictions/{ids[4]}").json()["row"]["bank_assets"] == MARK + 4
        fill(client, ROWS[:1])
        verification = answer("verify", "--home", home, cwd=home)
        replay = answer("replay", "--home", home, cwd=home)
        records = answer("history", "erasures", "--home", home, cwd=home)["erasures"]

    assert (verification["entries"], verification["erased"], verification["unrecorded"], verification["broken"]) == (
        61,
        11,
        0,
        [],
    )
    assert (replay["equal"], replay["not_replayable"]) == (50, 11)
    assert [(record["reason"], record["rows"], record["wanted"]) for record in records] == [
        ("erase", 10, {"entity": "customer-3"}),
        ("erase", 1, {"ids": [ids[1]]}),
    ]
    assert all("@" in record["by"] and record["at"].endswith("Z") for record in records)


def test_an_erasure_covers_every_home_that_shares_the_store(home: Path, tmp_path: Path, loan_registry: Path) -> None:
    other = models.with_models(tmp_path / "other", loan_registry)
    shared = {"ROWCAST_STORE": f"sqlite:///{home / 'history.db'}"}
    with (
        servers.running(home) as server,
        servers.running(other, settings=shared) as second,
        server.client() as client,
        second.client() as second_client,
    ):
        fill(client, ROWS[:12])
        fill(second_client)
        eventually(lambda: len(client.get("/predictions", params={"limit": 1000}).json()["predictions"]) == 72)
        erased = answer("history", "erase", "--entity", "customer-3", "--home", home, cwd=home)
        verification = answer("verify", "--home", home, cwd=home)

    assert (erased["rows"], erased["journals"]) == (2 + 10, [])
    assert on_disk(home) | on_disk(other) == {number for number in range(60) if number % 6 != 3}
    assert (verification["erased"], verification["unrecorded"], verification["broken"]) == (12, 0, [])


def test_a_purge_also_erases_rows_in_journals(home: Path) -> None:
    unavailable = {"ROWCAST_STORE": "sqlite:////proc/none/history.db"}
    server = servers.start(home, settings=unavailable)
    with server.client() as client:
        fill(client)
    server.kill()
    assert on_disk(home) == set(range(60))

    purged = answer("history", "purge", "--before", "2999-01-01", "--model", "loans", "--home", home, cwd=home)

    assert (purged["rows"], purged["journals"]) == (60, [])
    assert on_disk(home) == set()
    verification = answer("verify", "--home", home, cwd=home)
    assert (verification["entries"], verification["erased"], verification["broken"]) == (60, 60, [])


def test_a_purge_keeps_later_rows_and_rows_scored_by_other_models(home: Path) -> None:
    with servers.running(home) as server, server.client() as client:
        fill(client, ROWS[:5])
        purged = answer("history", "purge", "--before", "2020-01-01", "--home", home, cwd=home)
        other = answer("history", "purge", "--before", "2999-01-01", "--model", "other", "--home", home, cwd=home)

    assert (purged["rows"], other["rows"]) == (0, 0)
    assert on_disk(home) == set(range(5))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["purge", "--before", "last week"], "--before 'last week'"),
        (["erase"], "either --entity or --id"),
        (["erase", "--entity", "e", "--id", "i"], "either --entity or --id"),
        (["erase", "--id", "nothing"], "unknown prediction 'nothing'"),
        (["erase", "--entity", ""], "--entity must not be empty"),
        (["export", "--out", "history.xlsx"], "must end in .csv, .jsonl or .parquet"),
        (["export", "--out", "missing/history.csv"], "cannot write missing/history.csv"),
        (["list", "--since", "31.1.2026"], "since: '31.1.2026'"),
        (["list", "--cursor", "x"], "cursor: "),
        (["verify", "--heads", "nothing.json"], "cannot read the chain heads in nothing.json"),
    ],
)
def test_an_error_is_reported_on_one_line(home: Path, arguments: list[str], text: str) -> None:
    finished = rowcast("history", *arguments, "--home", home, cwd=home)

    assert (finished.returncode, finished.stdout) == (2, "")
    assert text in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path) -> Iterator[tuple[Server, list[str]]]:
    """A server with sixty stored predictions, and the IDs of the predictions."""
    home = models.with_models(tmp_path_factory.mktemp("filled") / "home", loan_registry)
    with servers.running(home) as server:
        with server.client() as client:
            ids = fill(client)
            eventually(lambda: len(client.get("/predictions", params={"limit": 1000}).json()["predictions"]) == 60)
        yield server, ids


def test_every_filter_selects_the_same_entries_over_http_and_on_the_command_line(
    filled: tuple[Server, list[str]],
) -> None:
    server, ids = filled
    for filters, expected in (
        ({"entity": "customer-2"}, {number for number in range(60) if number % 6 == 2}),
        ({"model": "loans", "version": "1"}, set(range(60))),
        ({"version": "2"}, set()),
        ({"until": "2026-01-01"}, set()),
        ({"since": "2026-01-01T00:00:00+02:00"}, set(range(60))),
        ({"label": "no such label"}, set()),
    ):
        with server.client() as client:
            sent = client.get("/predictions", params={**filters, "limit": 1000}).json()["predictions"]
        options = [word for name, value in filters.items() for word in (f"--{name}", value)]
        listed = answer("history", "list", "--limit", "100", *options, "--home", server.home, cwd=server.home)

        assert {entry["id"] for entry in sent} == {ids[number] for number in expected}
        assert listed["predictions"] == sent


def test_the_list_and_export_commands_include_recent_predictions_or_report_how_many_are_omitted(
    home: Path,
) -> None:
    server = servers.start(home)
    try:
        with server.client() as client:
            ids = fill(client, ROWS[:3])
            listed = answer("history", "list", "--home", home, cwd=home)
            ids += fill(client, ROWS[:3])
            exported = answer("history", "export", "--out", "all.csv", "--home", home, cwd=home)
            os.kill(server.indexer(), signal.SIGSTOP)
            ids += fill(client, ROWS[:2])
    finally:
        server.kill()
    later = rowcast("history", "list", "--json", "--home", home, cwd=home)

    assert [entry["id"] for entry in listed["predictions"]] == newest_first(ids[:3])
    assert exported["entries"] == 6
    assert [entry["id"] for entry in json.loads(later.stdout)["predictions"]] == newest_first(ids[:6])
    assert "2 newer predictions are still in the journal and not shown yet" in later.stderr


def test_a_filter_by_label_returns_all_predictions_with_that_label(filled: tuple[Server, list[str]]) -> None:
    server, ids = filled
    with server.client() as client:
        parts = {
            label: client.get("/predictions", params={"label": label, "limit": 1000}).json()["predictions"]
            for label in ("Approved", "Rejected")
        }

    assert all(entry["prediction"]["prediction"] == label for label, part in parts.items() for entry in part)
    assert sorted(entry["id"] for part in parts.values() for entry in part) == sorted(ids)


@pytest.mark.parametrize(
    ("filters", "name"),
    [
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "since"),
        ({"version": "one"}, "version"),
        ({"version": "0"}, "version"),
        ({"limit": "0"}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"model": "x" * 65}, "model"),
        ({"befor": "x"}, "befor"),
    ],
)
def test_the_problem_for_an_invalid_filter_names_the_filter(
    filled: tuple[Server, list[str]], filters: dict[str, str], name: str
) -> None:
    with filled[0].client() as client:
        reply = client.get("/predictions", params=filters)
        exported = client.get("/predictions/export", params=filters)

    for refused in (reply, exported):
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")
        assert refused.json()["type"] == "urn:rowcast:error:bad-option"
    assert name in reply.json()["detail"]


def test_an_export_has_the_same_content_in_every_format(filled: tuple[Server, list[str]], tmp_path: Path) -> None:
    server, ids = filled
    options = ["--entity", "customer-2", "--home", str(server.home)]
    for kind in ("csv", "jsonl", "parquet"):
        assert answer("history", "export", "--out", f"h.{kind}", *options, cwd=tmp_path)["entries"] == 10
    with server.client() as client:
        sent = {kind: client.get(f"/predictions/export?format={kind}&entity=customer-2") for kind in ("csv", "jsonl")}
        parquet = client.get("/predictions/export?format=parquet")

    lines = [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()]
    cells = list(csv.DictReader(io.StringIO((tmp_path / "h.csv").read_text())))
    frame = pl.read_parquet(tmp_path / "h.parquet").to_dicts()
    expected = sorted((ids[number] for number in range(60) if number % 6 == 2), reverse=True)
    assert (
        [line["id"] for line in lines] == [line["id"] for line in cells] == [line["id"] for line in frame] == expected
    )
    assert [float(line["probability"]) for line in cells] == [line["prediction"]["probability"] for line in lines]
    assert [json.loads(line["row"]) for line in cells] == [line["row"] for line in lines]
    assert [json.loads(line["row"]) for line in frame] == [line["row"] for line in lines]
    assert [line["at"] for line in frame] == [datetime.fromisoformat(line["at"]) for line in lines]
    assert {kind: reply.content for kind, reply in sent.items()} == {
        kind: (tmp_path / f"h.{kind}").read_bytes() for kind in sent
    }
    assert (parquet.status_code, "rowcast history export" in parquet.json()["detail"]) == (400, True)
    assert oct((tmp_path / "h.csv").stat().st_mode & 0o777) == "0o600"


def test_a_published_head_reveals_that_a_chain_was_truncated(home: Path, tmp_path: Path) -> None:
    with servers.running(home, settings={"ROWCAST_LOG_FORMAT": "json"}) as server, server.client() as client:
        fill(client, ROWS[:20])
    (tmp_path / "heads.json").write_text(rowcast("history", "heads", "--json", "--home", home, cwd=home).stdout)
    server.log.rename(tmp_path / "server.log")
    whole = answer("verify", "--heads", tmp_path / "heads.json", "--home", home, cwd=home)
    assert (whole["heads"], whole["broken"]) == (1, [])

    cut = (
        "import sqlite3; c = sqlite3.connect('history.db'); c.execute('DELETE FROM entries WHERE seq > 14'); c.commit()"
    )
    subprocess.run(["python3", "-c", cut], cwd=home, check=True)

    # Without a published head, the truncation cannot be detected.
    assert answer("verify", "--home", home, cwd=home)["broken"] == []
    for heads in ("heads.json", "server.log"):
        result = answer("verify", "--heads", tmp_path / heads, "--home", home, cwd=home, status=1)
        assert [broken["seq"] for broken in result["broken"]] == [19]


def test_an_entry_is_stored_before_the_reply_is_sent_if_the_durability_setting_is_store(home: Path) -> None:
    with servers.running(home, "--durability", "store") as server, server.client() as client:
        for row in ROWS[:10]:
            prediction_id = client.post("/predict", json=row).json()["id"]
            newest = client.get("/predictions", params={"limit": 1}).json()["predictions"]
            assert [entry["id"] for entry in newest] == [prediction_id]


def test_sensitive_values_are_never_written_to_disk(home: Path, tmp_path: Path) -> None:
    table = tmp_path / "loans.csv"
    assert rowcast("example", "loans", "--out", table, "--rows", "300", cwd=tmp_path).returncode == 0
    trained = rowcast(
        "train", table, "--target", "loan_status", "--name", "private", "--sensitive", "bank_assets",
        "--candidates", "logistic", "--trials", "1", "--home", home, cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    secret: dict[str, str] = {}
    for how in ("hash", "drop"):
        with servers.running(home, "private", settings={"ROWCAST_SENSITIVE": how}) as server, server.client() as client:
            ids = fill(client, ROWS[:6])
            invalid = client.post("/predict", json={**ROWS[0], "bank_assets": f"{MARK}x"})
            entry = client.get(f"/predictions/{ids[0]}").json()
        secret[how] = entry["row"].get("bank_assets", "")

        assert (invalid.status_code, str(MARK) in invalid.text) == (422, False)
        assert on_disk(home) == set()
        assert str(MARK) not in server.log.read_text()
        assert entry["withheld"] == ["bank_assets"]
    replay = answer("replay", "--home", home, cwd=home)
    assert (secret["hash"][:4], secret["drop"]) == ("rs1-", "")
    assert oct((home / "history.key").stat().st_mode & 0o777) == "0o600"
    assert (replay["not_replayable"], replay["different"]) == (12, 0)
    assert "bank_assets" in replay["examples"][0]["reason"]


def shift_ids(home: Path, time: datetime) -> None:
    """Change the ids of all entries so that the entries appear to have been recorded at the given time."""
    stamp = f"{int(time.timestamp() * 1000):012x}"
    with contextlib.closing(sqlite3.connect(home / "history.db")) as connection, connection:
        prefix = f"{stamp[:8]}-{stamp[8:]}"
        connection.execute("UPDATE entries SET id = ? || substr(id, 14)", [prefix])


def test_nothing_is_erased_if_the_clock_is_far_ahead(home: Path) -> None:
    with servers.running(home) as server, server.client() as client:
        fill(client, ROWS[:5])
    shift_ids(home, datetime.now(UTC) - timedelta(days=400))

    with servers.running(home, settings={"ROWCAST_RETENTION_DAYS": "30"}) as server:
        eventually(lambda: "retention is paused" in server.log.read_text())
        checked = rowcast("doctor", "--home", home, cwd=home, settings={"ROWCAST_RETENTION_DAYS": "30"})
    assert on_disk(home) != set()
    assert "370 days overdue" in " ".join(checked.stdout.split())
    assert checked.returncode == 1


def test_the_indexer_erases_rows_after_the_retention_period(home: Path) -> None:
    with servers.running(home) as server, server.client() as client:
        fill(client, ROWS[:5])
    shift_ids(home, datetime.now(UTC) - timedelta(days=32))

    with servers.running(home, settings={"ROWCAST_RETENTION_DAYS": "30"}) as server:
        eventually(lambda: on_disk(home) == set())
    # The ids in the store were changed, and `verify` reports the first of them.
    assert answer("verify", "--home", home, cwd=home, status=1)["erased"] == 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A 100 MiB in-memory file system. Mounting it requires root privileges, which CI has."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_server_rejects_requests_while_disk_space_is_low(small_disk: Path, loan_registry: Path) -> None:
    home = models.with_models(small_disk / "home", loan_registry)
    with servers.running(home, settings={"ROWCAST_MIN_FREE_MB": "40"}) as server, server.client() as client:
        fill(client, ROWS[:10])
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 60 * 1024 * 1024)
        refused = eventually(lambda: (r := client.post("/predict", json=ROWS[0])).status_code != 200 and r)
        health = client.get("/health")
        ballast.unlink()
        eventually(lambda: client.post("/predict", json=ROWS[0]).status_code == 200)

    assert (refused.status_code, refused.json()["type"]) == (503, "urn:rowcast:error:disk-low")
    assert refused.headers["retry-after"] == "1"
    assert (health.status_code, health.json()["checks"]["disk"] != "ok") == (503, True)
    verification = answer("verify", "--home", home, cwd=home)
    assert (verification["broken"], verification["entries"] >= 11) == ([], True)


def test_no_prediction_is_lost_when_the_disk_is_full(small_disk: Path, loan_registry: Path) -> None:
    home = models.with_models(small_disk / "home", loan_registry)
    answered: list[str] = []
    with servers.running(home, settings={"ROWCAST_MIN_FREE_MB": "0"}) as server, server.client() as client:
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file:
            free = os.statvfs(small_disk)
            os.posix_fallocate(file.fileno(), 0, (free.f_bavail - 1) * free.f_frsize)
        big = {"rows": ROWS * 60}
        statuses = []
        for _ in range(20):  # not all of these batches fit into the journal
            reply = client.post("/predict", json=big)
            statuses.append(reply.status_code)
            answered += (
                [prediction["id"] for prediction in reply.json()["predictions"]] if reply.status_code == 200 else []
            )
        ballast.unlink()
        eventually(lambda: client.post("/predict", json=ROWS[0]).status_code == 200)

    listed = answer("history", "list", "--limit", "100000", "--home", home, cwd=home)["predictions"]
    assert {*statuses} == {200, 503}
    assert set(answered) <= {entry["id"] for entry in listed}
    assert answer("verify", "--home", home, cwd=home)["broken"] == []
