"""`make bench-store`: index journals into PostgreSQL with `fsync=on`, then list and look up entries.

    python bench/store.py [--entries 200000] [--stored 5000000] [--no-record]

The benchmark starts its own PostgreSQL server. First, it moves `--entries` predictions from journals into the store, as
an indexer does. Then it fills the table up to `--stored` entries over twelve months, and measures lists and lookups. It
also checks that no query reads a whole partition. Finally, it compares two servers with 128 connections: one waits
until PostgreSQL has committed each prediction (`durability=store`), the other has the default settings
(`durability=process` and SQLite). With `--only-durability`, only this comparison runs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from requirements import Check, record, show
from rich.console import Console

from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.postgresql.partitions import Month
from rowcast.adapters.postgresql.queries import SELECT_CHAIN, SELECT_ENTRY, page_query
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.history.chain import Draft, Entry, encode_head
from rowcast.history.entry_filter import Selection
from rowcast.schema.identity import uuid7_randomness, uuid7s
from support import models, postgresql, servers
from support.postgresql import Postgres
from support.servers import Server

BATCH = 50
PER_SECOND, MILLISECONDS = 20_000, 50.0
CONNECTIONS, ROUNDS, SECONDS = 128, 5, 3
DURABLE_SHARE = 0.3
LOOKUPS, PAGES = 200, 20
FIRST, MONTHS = Month(2025, 11), 12
MONTH_MS = 30 * 24 * 3600 * 1000
OPTIONS = {
    "fsync": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
}


def main() -> int:
    """Measure, check the requirements and record the figures; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--stored", type=int, default=5_000_000)
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    parser.add_argument("--only-durability", action="store_true", help="compare only the two servers")
    options = parser.parse_args()
    kept = options.only_durability or measure_store(options)
    return 0 if measure_durability(options) and kept else 1


def measure_store(options: argparse.Namespace) -> bool:
    """Measure the indexer and the queries; return whether the requirements are met."""
    with postgresql.running(**OPTIONS) as postgres, PostgresStore(postgres.url) as store:
        checks = index(store, options.entries)
        fill(store, options.stored - options.entries)
        postgres.execute("ANALYZE rowcast.entries")
        checks += queries(postgres, store)
        stored = store.count()
    show(Console(width=110), checks, f"PostgreSQL with fsync=on, {stored:,} entries")
    kept = all(check.kept for check in checks)
    if not options.no_record:
        figures = {check.name: round(check.value, 2) for check in checks}
        record("store", entries=options.entries, stored=stored, checks=figures, kept=kept)
    return kept


def measure_durability(options: argparse.Namespace) -> bool:
    """Compare the two servers; return whether the requirement is met."""
    with postgresql.running(**OPTIONS) as postgres:
        checks = durability(postgres)
    show(Console(width=110), checks, f"durability=store with {CONNECTIONS} connections")
    kept = all(check.kept for check in checks)
    if not options.no_record:
        record("store durability", checks={check.name: round(check.value, 3) for check in checks}, kept=kept)
    return kept


def index(store: PostgresStore, count: int) -> list[Check]:
    """Write journals, and measure how fast they are moved into the store."""
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        journal = FileJournal(Path(folder), lambda: "w" * 32)
        rows = [msgspec.json.encode(row) for row in models.loan_rows(500)]
        for start in range(0, count, BATCH):
            journal.append([draft(number, rows) for number in range(start, min(start + BATCH, count))])
        journal.close()
        reader = FolderJournalReader(Path(folder))
        began, cpu = time.perf_counter(), time.process_time()
        moved = reader.drain(store)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert moved == store.count() == count
    return [
        Check("entries per CPU second of the indexer", count / cpu, least=PER_SECOND),
        Check("entries per second", count / seconds, aim=PER_SECOND),
    ]


def draft(number: int, rows: Sequence[bytes]) -> Draft:
    """Return a prediction for the loan example. All predictions are made in the last seconds of the last month."""
    at = last_moment() + number // 100
    (prediction_id,) = uuid7s(at, number.to_bytes(uuid7_randomness(1)))
    score = number % 997 / 997
    reply = msgspec.json.encode(
        {
            "id": prediction_id,
            "model": "loans",
            "version": 1 + number % 3,
            "prediction": "Approved" if number % 100 else "Rejected",
            "probability": score,
            "probabilities": {"Approved": score, "Rejected": 1 - score},
            "warnings": [],
        }
    )
    entity = f"customer-{number % 50_000}"
    head = encode_head(Entry(at * 1000, "rb1-" + "0" * 64, "native", f"request-{number}", reply, "key", "bank", entity))
    return Draft(head, number.to_bytes(16), rows[number % len(rows)])


def last_moment() -> int:
    """Return a time in the last of the twelve months, in Unix milliseconds."""
    return first_moment() + MONTHS * MONTH_MS


def first_moment() -> int:
    return int(FIRST.first_id[:8] + FIRST.first_id[9:13], 16) + MONTH_MS // 2


def fill(store: PostgresStore, count: int) -> None:
    """Add entries from other writers, spread evenly over twelve months."""
    connection = store._writer()
    connection.seconds = None
    moments = [first_moment() + month * MONTH_MS for month in range(MONTHS)]
    store._partitions.create_missing(connection, [uuid7s(moment, bytes(9))[0] for moment in moments])
    connection.execute("INSERT INTO rowcast.writers (writer, last_seq, last_link) VALUES ('filler', %s, '')", [count])
    connection.execute(
        """INSERT INTO rowcast.entries
        SELECT w.number, g,
            (lpad(to_hex(%(first)s + g * %(step)s), 12, '0') || '70008000' || lpad(to_hex(g), 12, '0'))::uuid,
            'model-' || g %% 7, 1 + g %% 3, CASE WHEN g %% 20 = 0 THEN 'Rejected' ELSE 'Approved' END,
            'tenant-' || g %% 11, 'entity-' || g %% 100000, e.head, e.salt, e."row", e.row_hash, e.link
        FROM generate_series(0, %(last)s::bigint) AS g, rowcast.writers AS w,
            (SELECT * FROM rowcast.entries LIMIT 1) AS e
        WHERE w.writer = 'filler'""",
        {"first": moments[0], "step": max(1, (moments[-1] - moments[0]) // max(1, count)), "last": count - 1},
    )


def queries(postgres: Postgres, store: PostgresStore) -> list[Check]:
    """Measure lists and lookups, and check their query plans."""
    random = Random(1)
    selections = {
        "all": Selection(),
        "model": Selection(model="loans"),
        "another model": Selection(model="model-3", version=2),
        "label": Selection(label="Rejected"),
        "tenant": Selection(tenant="tenant-5"),
        "entity": Selection(entity="customer-77"),
        "unknown entity": Selection(entity="nobody"),
    }
    checks = []
    for name, selection in selections.items():
        befores = [None, *(uuid7s(random.randrange(first_moment(), last_moment()), bytes(9))[0] for _ in range(PAGES))]
        times = [timed(partial(store.latest, 50, selection, before)) for before in befores]
        checks += limits(f"list of 50, {name}", times)
        refuse_scans(postgres, store, *page_query(selection, befores[1]))
    ids = [entry.sealed.head for entry in store.latest(LOOKUPS, Selection(model="loans"))]
    found = [msgspec.json.decode(msgspec.msgpack.decode(head)[4])["id"] for head in ids]
    checks += limits("look-up by id", [timed(partial(store.get, key)) for key in found])
    checks += limits("position of a writer", [timed(partial(store.position, "filler")) for _ in range(LOOKUPS)])
    refuse_scans(postgres, store, SELECT_ENTRY, [found[0]])
    refuse_scans(postgres, store, SELECT_CHAIN, ["filler", 100, 200])
    return checks


def timed(query: Callable[[], Any]) -> float:
    began = time.perf_counter()
    query()
    return (time.perf_counter() - began) * 1000


def limits(name: str, times: Sequence[float]) -> list[Check]:
    return [
        Check(f"{name}: median, ms", statistics.median(times)),
        Check(f"{name}: longest, ms", max(times), most=MILLISECONDS),
    ]


def refuse_scans(postgres: Postgres, store: PostgresStore, query: str, values: Any) -> None:
    """Fail if a query plan reads a whole partition that contains entries."""
    parameters = {**values, "limit": 50} if isinstance(values, dict) else values
    plan = "\n".join(row[0] for row in store._readers.fetch(f"EXPLAIN {query}", parameters))
    empty = [str(name) for (name,) in postgres.execute("SELECT relname FROM pg_class WHERE reltuples <= 0")]
    scans = [line for line in plan.splitlines() if "Seq Scan on entries" in line]
    assert all(any(f"on {name} " in line for name in empty) for line in scans), plan


def durability(postgres: Postgres) -> list[Check]:
    """Compare a server that waits for PostgreSQL with one that does not, in alternating runs of wrk."""
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as scratch:
        folder = Path(scratch)
        registry = models.trained_loans(folder / "models").root
        script = folder / "post.lua"
        body = msgspec.json.encode(models.loan_rows(1)[0]).decode()
        script.write_text(
            f"wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\nwrk.body = '{body}'\n"
        )
        homes = [models.with_models(folder / name, registry) for name in ("process", "store")]
        settings = {"ROWCAST_STORE": postgres.url, "ROWCAST_DURABILITY": "store"}
        with servers.running(homes[0]) as usual, servers.running(homes[1], settings=settings) as durable:
            rounds = [(requests_per_second(usual, script), requests_per_second(durable, script)) for _ in range(ROUNDS)]
    ratio = statistics.median(second / first for first, second in rounds)
    return [
        Check("requests/s: durability=process with SQLite", statistics.median(first for first, _ in rounds)),
        Check("requests/s: durability=store with PostgreSQL", statistics.median(second for _, second in rounds)),
        Check("requests/s: durability=store with PostgreSQL / process with SQLite", ratio, least=DURABLE_SHARE),
    ]


def requests_per_second(server: Server, script: Path) -> float:
    """Return the successful requests per second with 128 connections; fail if a request fails."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script), f"{server.address}/predict"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    (line,) = [line for line in output.splitlines() if line.startswith("Requests/sec:")]
    return float(line.split()[1])


if __name__ == "__main__":
    sys.exit(main())
