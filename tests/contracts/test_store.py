"""What every store keeps: `StoreReader` and `StoreWriter`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import msgspec
import pytest

from rowcast.adapters.memory import MemoryStore
from rowcast.adapters.sqlite.store import MIGRATIONS, SqliteStore, page_query, statement
from rowcast.errors import HistoryError, Unavailable
from rowcast.history import chain
from rowcast.history.chain import Entry, decode_erasure, encode_head
from rowcast.history.entry_filter import Selection
from rowcast.history.ports import ErasureRequest, Position, Step, Stored
from rowcast.schema.prediction import Prediction
from support.entries import draft, drafts, identifier, sealed

Store = MemoryStore | SqliteStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "history.db")


def test_an_empty_store_answers_with_nothing(store: Store) -> None:
    assert store.get(identifier(0)) is None
    assert store.latest(10) == []
    assert store.writers() == []
    assert list(store.chain("w")) == []
    assert store.position("w") is None
    assert store.count() == 0


def test_an_entry_comes_back_as_it_was_kept(store: Store) -> None:
    entries = sealed("w", drafts(0, 3))

    store.record("w", entries)

    assert store.get(identifier(1)) == Stored("w", entries[1])
    assert list(store.chain("w")) == entries
    assert list(store.chain("w", after=0)) == entries[1:]
    assert store.position("w") == Position(2, entries[2].link)
    assert store.count() == 3


def test_what_was_kept_verifies(store: Store) -> None:
    entries = sealed("w", drafts(0, 50))
    store.record("w", entries[:20])
    store.record("w", entries[20:])

    assert list(chain.verify("w", store.chain("w"))) == []


def test_recording_again_changes_nothing(store: Store) -> None:
    entries = sealed("w", drafts(0, 4))
    store.record("w", entries[:3])

    store.record("w", entries)
    store.record("w", entries[1:2])

    assert list(store.chain("w")) == entries
    assert store.count() == 4
    assert store.position("w") == Position(3, entries[3].link)


def test_what_is_kept_cannot_be_replaced(store: Store) -> None:
    entries = sealed("w", drafts(0, 3))
    store.record("w", entries)

    store.record("w", [entries[1]._replace(row=b"forged", link=b"forged" * 5), entries[2]._replace(row=None)])

    assert list(store.chain("w")) == entries


def test_writers_do_not_mix(store: Store) -> None:
    ours, theirs = sealed("b", drafts(0, 2)), sealed("a", drafts(10, 13))
    store.record("b", ours)
    store.record("a", theirs)

    assert store.writers() == ["a", "b"]
    assert list(store.chain("a")) == theirs
    assert store.get(identifier(0)) == Stored("b", ours[0])
    assert store.position("nobody") is None


def test_the_latest_come_newest_first_a_page_at_a_time(store: Store) -> None:
    store.record("a", sealed("a", drafts(0, 5)))
    store.record("b", sealed("b", drafts(5, 10)))

    first = store.latest(4)
    second = store.latest(4, before=identifier(6))
    third = store.latest(4, before=identifier(2))

    numbers = [[int.from_bytes(stored.sealed.salt or b"") for stored in page] for page in (first, second, third)]
    assert numbers == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]


def test_the_latest_can_be_those_of_one_model(store: Store) -> None:
    store.record("w", sealed("w", [draft(n, "loans" if n % 2 else "iris") for n in range(6)]))

    assert [stored.sealed.seq for stored in store.latest(10, Selection(model="loans"))] == [5, 3, 1]
    assert [stored.sealed.seq for stored in store.latest(1, Selection(model="loans"), before=identifier(5))] == [3]
    assert store.latest(10, Selection(model="nothing")) == []


def test_an_erased_row_stays_erased_and_the_chain_whole(store: Store) -> None:
    entries = [entry._replace(salt=None, row=None) for entry in sealed("w", drafts(0, 3))]

    store.record("w", entries)

    assert list(store.chain("w")) == entries
    assert list(chain.verify("w", store.chain("w"))) == []


def test_bytes_of_any_kind_are_kept(store: Store) -> None:
    entries = sealed("w", [draft(0, row=b""), draft(1, row=bytes(range(256))), draft(2, row=b"\0" * 9)])

    store.record("w", entries)

    assert [entry.row for entry in store.chain("w")] == [entry.row for entry in entries]


MIXED = [
    draft(
        number,
        "loans" if number % 2 else "iris",
        version=1 + number % 3,
        label="Approved" if number % 4 else "Rejected",
        tenant="" if number % 5 else "bank",
        entity="" if number % 3 else f"customer-{number % 6}",
    )
    for number in range(60)
]


@pytest.mark.parametrize(
    "wanted",
    [
        Selection(),
        Selection(model="loans"),
        Selection(model="loans", version=2),
        Selection(label="Rejected"),
        Selection(label=""),
        Selection(tenant="bank"),
        Selection(tenant=""),
        Selection(entity="customer-3"),
        Selection(entity=""),
        Selection(tenant="bank", entity="customer-0", label="Rejected"),
        Selection(first=identifier(20)),
        Selection(end=identifier(20)),
        Selection(first=identifier(7), end=identifier(8)),
        Selection(ids=(identifier(3), identifier(44), identifier(999))),
        Selection(model="loans", label="Approved", first=identifier(10), end=identifier(50)),
        Selection(models=("loans",)),
        Selection(models=("iris", "loans"), label="Rejected"),
        Selection(model="iris", models=("loans",)),
        Selection(models=("nothing",)),
    ],
)
def test_a_selection_gives_what_it_takes_page_by_page(store: Store, wanted: Selection) -> None:
    store.record("w", sealed("w", MIXED))
    expected = [number for number in reversed(range(60)) if takes(wanted, number)]

    found: list[int] = []
    before = None
    while page := store.latest(7, wanted, before):
        found += [stored.sealed.seq for stored in page]
        before = identifier(found[-1])

    assert found == expected


def takes(wanted: Selection, number: int) -> bool:
    """The rule, said once more in plain words."""
    entity = "" if number % 3 else f"customer-{number % 6}"
    label = "Approved" if number % 4 else "Rejected"
    return (
        wanted.model in (None, "loans" if number % 2 else "iris")
        and wanted.version in (None, 1 + number % 3)
        and wanted.label in (None, label)
        and wanted.tenant in (None, "" if number % 5 else "bank")
        and wanted.entity in (None, entity)
        and (wanted.first or "") <= identifier(number) < (wanted.end or "z")
        and (not wanted.ids or identifier(number) in wanted.ids)
        and (not wanted.models or ("loans" if number % 2 else "iris") in wanted.models)
    )


def request(wanted: Selection, **journals: str) -> ErasureRequest:
    return ErasureRequest(wanted, "somebody", "erase", journals)


def test_erased_rows_are_gone_their_hashes_stay_and_it_is_recorded(store: Store) -> None:
    store.record("w", sealed("w", MIXED))
    asked = store.ask(request(Selection(entity="customer-3")))

    step = store.erase(asked, 17, 1000)

    erased = [entry.seq for entry in store.chain("w") if entry.row is None]
    (recorded,) = [decode_erasure(entry.head) for entry in store.erasures()]
    assert erased == [number for number in range(60) if number % 6 == 3]
    assert all((entry.row is None) == (entry.salt is None) for entry in store.chain("w"))
    assert list(chain.verify("w", store.chain("w"))) == []
    assert list(chain.verify(chain.ERASURES, store.erasures())) == []
    assert (step, store.erased(asked.number)) == (Step(10, None), 10)
    assert (recorded.at, recorded.by, recorded.reason, recorded.rows) == (17, "somebody", "erase", 10)
    assert b"customer-3" in recorded.wanted


def test_an_erasure_goes_step_by_step_and_counts_each_row_once(store: Store) -> None:
    store.record("w", sealed("w", MIXED))
    asked = store.ask(request(Selection(end=identifier(25))))
    steps = [store.erase(asked, 0, 10)]
    while steps[-1].last is not None:
        steps.append(store.erase(asked, 0, 10, steps[-1].last))
    again = store.erase(asked, 0, 100)

    assert [step.rows for step in steps] == [10, 10, 5]
    assert again == Step(0, None)
    assert store.erased(asked.number) == 25
    assert len(store.erasures()) == 3  # a step that erased nothing leaves no record


def test_what_is_stored_after_a_request_is_erased_when_it_is_fresh(store: Store) -> None:
    entries = sealed("w", [draft(number, entity="e") for number in range(6)])
    store.record("w", entries[:4])
    asked = store.ask(request(Selection(entity="e"), journal="w"))
    store.record("w", entries[4:])

    step = store.erase(asked, 0, 100, fresh=True)

    assert step.rows == 2
    assert [entry.seq for entry in store.chain("w") if entry.row is None] == [4, 5]


def test_requests_stay_open_until_they_are_settled_and_numbers_are_not_used_again(store: Store) -> None:
    first = store.ask(request(Selection(entity="a"), journal="w"))
    second = store.ask(request(Selection(ids=(identifier(1),))))

    assert store.asked() == [first, second]
    assert store.settle([first.number, second.number])
    assert store.asked() == []
    assert store.ask(request(Selection(entity="c"))).number not in (first.number, second.number)


def test_an_erased_entry_is_not_brought_back_by_its_journal(store: Store) -> None:
    entries = sealed("w", drafts(0, 3))
    store.record("w", entries)
    store.erase(store.ask(request(Selection())), 0, 100)

    store.record("w", entries)

    assert [entry.row for entry in store.chain("w")] == [None] * 3


@pytest.fixture
def sqlite(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "history.db")


def test_reading_makes_no_file(sqlite: SqliteStore) -> None:
    sqlite.latest(1)

    assert not sqlite.path.exists()


def test_a_file_that_is_only_just_being_made_is_an_empty_history(sqlite: SqliteStore) -> None:
    connection = sqlite3.connect(sqlite.path)
    connection.execute("PRAGMA journal_mode = WAL")

    assert sqlite.count() == 0
    assert sqlite.latest(1) == []
    connection.close()


def test_another_store_on_the_file_reads_while_one_writes(sqlite: SqliteStore) -> None:
    entries = sealed("w", drafts(0, 400))
    reader = SqliteStore(sqlite.path)
    counts: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            counts.append(reader.count())

    thread = threading.Thread(target=read)
    thread.start()
    for start in range(0, 400, 20):
        sqlite.record("w", entries[start : start + 20])
    done.set()
    thread.join()

    assert counts == sorted(counts)
    assert all(count % 20 == 0 for count in counts)
    assert reader.count() == 400


def test_a_transaction_that_fails_keeps_nothing(sqlite: SqliteStore) -> None:
    entries = sealed("w", drafts(0, 3))
    # Another writer with the same prediction ids: the index of ids refuses the whole transaction.
    sqlite.record("w", entries[:1])

    with pytest.raises(Unavailable, match="cannot be written"):
        sqlite.record("other", sealed("other", [draft(7), draft(0)]))

    assert sqlite.count() == 1
    sqlite.record("w", entries)
    assert list(sqlite.chain("w")) == entries


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"not a database, by any means" * 100)

    with pytest.raises(Unavailable, match=r"history\.db"):
        SqliteStore(path).count()
    with pytest.raises(Unavailable, match=r"history\.db"):
        SqliteStore(path).record("w", sealed("w", drafts(0, 1)))


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(Unavailable, match="cannot be opened"):
        SqliteStore(tmp_path / "file" / "history.db").record("w", sealed("w", drafts(0, 1)))


def test_a_newer_database_is_refused(sqlite: SqliteStore) -> None:
    sqlite.record("w", sealed("w", drafts(0, 1)))
    sqlite.close()
    with sqlite3.connect(sqlite.path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()

    with pytest.raises(HistoryError, match="newer Rowcast"):
        SqliteStore(sqlite.path).record("w", sealed("w", drafts(0, 1)))


def test_reading_a_newer_database_is_refused(sqlite: SqliteStore) -> None:
    sqlite.record("w", sealed("w", drafts(0, 1)))
    sqlite.close()
    with sqlite3.connect(sqlite.path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()

    with pytest.raises(HistoryError, match="newer Rowcast"):
        SqliteStore(sqlite.path).latest(1)


QUERIES = {
    "entries_model": Selection(model="loans", version=2),
    "entries_label": Selection(label="Rejected"),
    "entries_tenant": Selection(tenant="bank"),
    "entries_entity": Selection(entity="customer-3"),
    "entries_id": Selection(first=identifier(20), end=identifier(40)),
}


@pytest.mark.parametrize("before", [None, identifier(30)])
@pytest.mark.parametrize("index", QUERIES)
def test_every_filter_has_an_index_in_the_order_of_the_list(
    sqlite: SqliteStore, index: str, before: str | None
) -> None:
    sqlite.record("w", sealed("w", MIXED))
    query, values = page_query(QUERIES[index], before)

    with sqlite3.connect(sqlite.path) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", {**values, "limit": 50})]
    connection.close()

    assert any(f"SEARCH e USING INDEX {index} " in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


def test_erased_rows_are_gone_from_the_files(sqlite: SqliteStore) -> None:
    """Rows of many sizes, erased in several goes in no order: nothing of them may stay in pages that were rebuilt."""
    random = Random(7)
    marks = [random.randbytes(12).hex() for _ in range(1500)]
    rows = [b'{"who":"%s","more":"%s"}' % (mark.encode(), b"x" * random.randrange(3000)) for mark in marks]
    entries = sealed("w", [draft(number, row=row) for number, row in enumerate(rows)])
    for start in range(0, 1500, 100):
        sqlite.record("w", entries[start : start + 100])
    order = random.sample(range(1500), 1500)

    for gone in (order[:200], order[200:600], order[600:1100]):
        sqlite.erase(sqlite.ask(request(Selection(ids=tuple(identifier(number) for number in gone)))), 0, 1000)
        assert sqlite.settle([])

    on_disk = b"".join(path.read_bytes() for path in sqlite.path.parent.iterdir())
    left = {number for number in range(1500) if marks[number].encode() in on_disk}
    assert left == set(order[1100:])


def test_a_reader_who_takes_his_time_does_not_hold_up_the_settling(sqlite: SqliteStore) -> None:
    sqlite.record("w", sealed("w", MIXED))
    reading = SqliteStore(sqlite.path).chain("w")
    next(reading)
    sqlite.erase(sqlite.ask(request(Selection())), 0, 1000)

    assert sqlite.settle([1]) is False
    list(reading)
    assert sqlite.settle([]) is True


def test_the_values_of_a_regression_are_no_labels(sqlite: SqliteStore) -> None:
    reply = msgspec.json.encode(Prediction(identifier(0), "prices", 1, 12.5))
    head = encode_head(Entry(0, "rb1-00", "native", "r", reply))
    sqlite.record("w", sealed("w", [chain.Draft(head, bytes(16), b"{}")]))

    with sqlite3.connect(sqlite.path) as connection:
        assert connection.execute("SELECT label FROM entries").fetchall() == [("",)]
    connection.close()


def test_many_processes_may_open_a_new_history_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rowcast.adapters.sqlite.store import SqliteStore\n"
        "sys.stdin.readline(); SqliteStore(Path('history.db')).check()"
    )
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program], cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(6)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[1] for process in processes]

        assert said == [""] * 6


def test_a_history_of_the_first_schema_is_read_as_it_is_and_migrated_by_its_writer(sqlite: SqliteStore) -> None:
    with sqlite3.connect(sqlite.path) as connection:
        for part in statement(MIGRATIONS[0]).split(";\n"):
            connection.execute(part)
        connection.execute("PRAGMA user_version = 1")
    connection.close()

    assert (sqlite.latest(10), sqlite.erasures()) == ([], [])
    sqlite.record("w", sealed("w", MIXED))
    sqlite.erase(sqlite.ask(request(Selection(entity="customer-3"))), 0, 1000)

    assert len(sqlite.erasures()) == 1
    assert sqlite.latest(1, Selection(entity="customer-0"))[0].sealed.seq == 54
