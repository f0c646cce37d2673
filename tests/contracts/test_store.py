"""The contract of `Store`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rowcast.errors import Unavailable
from rowcast.history import chain
from rowcast.history.chain import decode_erasure
from rowcast.history.entry_filter import Selection
from rowcast.history.ports import ErasureRequest, ErasureStep, OpenErasure, Position, Store, StoredEntry
from support import stores
from support.entries import MIXED, draft, drafts, identifier, sealed

NO_JOURNALS: frozenset[str] = frozenset()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with stores.new_store(request, tmp_path) as opened:
        yield opened


def test_an_empty_store_has_no_entries(store: Store) -> None:
    assert store.get(identifier(0)) is None
    assert store.latest(10) == []
    assert store.writers() == []
    assert list(store.chain("w")) == []
    assert store.position("w") is None
    assert store.count() == 0
    assert store.erasures() == []
    assert store.open_erasures() == []


def test_entries_are_returned_as_they_were_recorded(store: Store) -> None:
    entries = sealed("w", drafts(0, 3))

    store.record("w", entries)

    assert store.get(identifier(1)) == StoredEntry("w", entries[1])
    assert list(store.chain("w")) == entries
    assert list(store.chain("w", after=0)) == entries[1:]
    assert store.position("w") == Position(2, entries[2].link)
    assert store.count() == 3


def test_a_recorded_chain_passes_verification(store: Store) -> None:
    entries = sealed("w", drafts(0, 50))
    store.record("w", entries[:20])
    store.record("w", entries[20:])

    assert list(chain.verify("w", store.chain("w"))) == []


def test_recording_entries_again_has_no_effect(store: Store) -> None:
    entries = sealed("w", drafts(0, 4))
    store.record("w", entries[:3])

    store.record("w", entries)
    store.record("w", entries[1:2])

    assert list(store.chain("w")) == entries
    assert store.count() == 4
    assert store.position("w") == Position(3, entries[3].link)


def test_a_recorded_entry_cannot_be_replaced(store: Store) -> None:
    entries = sealed("w", drafts(0, 3))
    store.record("w", entries)

    store.record("w", [entries[1]._replace(row=b"forged", link=b"forged" * 5), entries[2]._replace(row=None)])

    assert list(store.chain("w")) == entries


def test_the_order_of_commits_does_not_affect_the_chains(store: Store) -> None:
    ours, theirs = sealed("a", drafts(10, 20)), sealed("b", drafts(0, 10))

    store.record("a", ours[5:])
    store.record("b", theirs)
    store.record("a", ours[:5])

    assert list(store.chain("a")) == ours
    assert store.position("a") == Position(9, ours[9].link)
    assert [stored.sealed for stored in store.latest(20)] == [*reversed(ours), *reversed(theirs)]


def test_a_failed_transaction_records_no_entries(store: Store) -> None:
    entries = sealed("w", drafts(0, 3))
    store.record("w", entries[:1])

    with pytest.raises(Unavailable):  # prediction IDs are unique across writers
        store.record("other", sealed("other", [draft(7), draft(0)]))

    assert store.count() == 1
    store.record("w", entries)
    assert list(store.chain("w")) == entries


def test_each_writer_has_a_separate_chain(store: Store) -> None:
    ours, theirs = sealed("b", drafts(0, 2)), sealed("a", drafts(10, 13))
    store.record("b", ours)
    store.record("a", theirs)

    assert store.writers() == ["a", "b"]
    assert list(store.chain("a")) == theirs
    assert store.get(identifier(0)) == StoredEntry("b", ours[0])
    assert store.position("unknown") is None


def test_several_indexers_can_record_concurrently(store: Store) -> None:
    chains = {f"w{number}": sealed(f"w{number}", drafts(number * 1000, number * 1000 + 60)) for number in range(4)}

    def index(writer: str) -> None:
        with stores.another(store) as own:
            for start in range(0, 60, 20):
                own.record(writer, chains[writer][start : start + 20])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(index, chains))

    assert {writer: list(store.chain(writer)) for writer in store.writers()} == chains
    assert store.count() == 240


def test_pages_list_the_newest_entries_first(store: Store) -> None:
    store.record("a", sealed("a", drafts(0, 5)))
    store.record("b", sealed("b", drafts(5, 10)))

    pages = (store.latest(4), store.latest(4, before=identifier(6)), store.latest(4, before=identifier(2)))

    numbers = [[int.from_bytes(stored.sealed.salt or b"") for stored in page] for page in pages]
    assert numbers == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]


def test_pages_can_be_filtered_by_model(store: Store) -> None:
    store.record("w", sealed("w", [draft(n, "loans" if n % 2 else "iris") for n in range(6)]))

    assert [stored.sealed.seq for stored in store.latest(10, Selection(model="loans"))] == [5, 3, 1]
    assert [stored.sealed.seq for stored in store.latest(1, Selection(model="loans"), before=identifier(5))] == [3]
    assert store.latest(10, Selection(model="unknown")) == []


def test_entries_without_rows_are_recorded_and_pass_verification(store: Store) -> None:
    entries = [entry._replace(salt=None, row=None) for entry in sealed("w", drafts(0, 3))]

    store.record("w", entries)

    assert list(store.chain("w")) == entries
    assert list(chain.verify("w", store.chain("w"))) == []


def test_rows_can_contain_any_bytes(store: Store) -> None:
    entries = sealed("w", [draft(0, row=b""), draft(1, row=bytes(range(256))), draft(2, row=b"\0" * 9)])

    store.record("w", entries)

    assert [entry.row for entry in store.chain("w")] == [entry.row for entry in entries]


@pytest.mark.parametrize(
    "selection",
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
        Selection(models=("unknown",)),
    ],
)
def test_the_pages_of_a_selection_contain_exactly_the_selected_entries(store: Store, selection: Selection) -> None:
    store.record("w", sealed("w", MIXED))
    expected = [number for number in reversed(range(60)) if is_selected(selection, number)]

    numbers: list[int] = []
    before = None
    while page := store.latest(7, selection, before):
        numbers += [stored.sealed.seq for stored in page]
        before = identifier(numbers[-1])

    assert numbers == expected


def is_selected(selection: Selection, number: int) -> bool:
    """Return whether the selection contains the entry, without using the implementation under test."""
    entity = "" if number % 3 else f"customer-{number % 6}"
    label = "Approved" if number % 4 else "Rejected"
    return (
        selection.model in (None, "loans" if number % 2 else "iris")
        and selection.version in (None, 1 + number % 3)
        and selection.label in (None, label)
        and selection.tenant in (None, "" if number % 5 else "bank")
        and selection.entity in (None, entity)
        and (selection.first or "") <= identifier(number) < (selection.end or "z")
        and (not selection.ids or identifier(number) in selection.ids)
        and (not selection.models or ("loans" if number % 2 else "iris") in selection.models)
    )


def request(selection: Selection) -> ErasureRequest:
    return ErasureRequest(selection, "user", "erase")


def erase(store: Store, erasure: OpenErasure, limit: int = 1000, after: str | None = None, at: int = 0) -> ErasureStep:
    return store.erase(erasure.request, number=erasure.number, at=at, limit=limit, after=after)


def test_an_erasure_is_recorded_and_removes_rows_but_not_hashes(store: Store) -> None:
    store.record("w", sealed("w", MIXED))
    erasure = store.open_erasure(request(Selection(entity="customer-3")), "f", NO_JOURNALS)

    step = erase(store, erasure, at=17)

    erased = [entry.seq for entry in store.chain("w") if entry.row is None]
    (recorded,) = [decode_erasure(entry.head) for entry in store.erasures()]
    assert erased == [number for number in range(60) if number % 6 == 3]
    assert all((entry.row is None) == (entry.salt is None) for entry in store.chain("w"))
    assert list(chain.verify("w", store.chain("w"))) == []
    assert list(chain.verify(chain.ERASURES, store.erasures())) == []
    assert (step, store.erased_rows(erasure.number)) == (ErasureStep(10, None), 10)
    assert (recorded.at, recorded.by, recorded.reason, recorded.rows) == (17, "user", "erase", 10)
    assert b"customer-3" in recorded.selection


def test_an_erasure_in_several_steps_counts_each_row_once(store: Store) -> None:
    store.record("w", sealed("w", MIXED))
    erasure = store.open_erasure(request(Selection(end=identifier(25))), "f", NO_JOURNALS)
    steps = [erase(store, erasure, 10)]
    while steps[-1].last is not None:
        steps.append(erase(store, erasure, 10, steps[-1].last))
    again = erase(store, erasure, 100)

    assert [step.rows for step in steps] == [10, 10, 5]
    assert again == ErasureStep(0, None)
    assert store.erased_rows(erasure.number) == 25
    assert len(store.erasures()) == 3  # a step that erases no rows is not recorded


def test_recording_entries_again_does_not_restore_erased_rows(store: Store) -> None:
    entries = sealed("w", drafts(0, 3))
    store.record("w", entries)
    erase(store, store.open_erasure(request(Selection()), "f", NO_JOURNALS))

    store.record("w", entries)

    assert [entry.row for entry in store.chain("w")] == [None] * 3


def test_an_erasure_request_stays_open_until_completed_and_its_number_is_never_reused(store: Store) -> None:
    first = store.open_erasure(request(Selection(entity="a")), "f", frozenset({"journal"}))
    second = store.open_erasure(request(Selection(ids=(identifier(1),))), "f", NO_JOURNALS)

    assert first.pending == {"f": {"journal"}}
    assert store.open_erasures() == [first, second]
    for _ in range(2):
        store.complete(first.number, "f")
        store.complete(second.number, "f")
    assert store.open_erasures() == []
    assert store.open_erasure(request(Selection(entity="c")), "f", NO_JOURNALS).number > second.number


def test_an_erasure_request_waits_for_every_registered_folder(store: Store) -> None:
    store.register_folder("a")
    store.register_folder("b")
    store.register_folder("b")
    number = store.open_erasure(request(Selection()), "a", frozenset({"j1"})).number
    store.register_folder("late")

    (erasure,) = store.open_erasures()
    assert erasure.pending == {"a": {"j1"}, "b": None, "late": None}

    store.acknowledge(number, "b", frozenset({"j2", "j3"}))
    store.acknowledge(number, "unknown", NO_JOURNALS)
    store.complete(number, "a")
    store.complete(number, "late")
    (erasure,) = store.open_erasures()
    assert erasure.pending == {"b": {"j2", "j3"}}

    store.complete(number, "b")
    assert store.open_erasures() == []


def test_new_erasure_requests_do_not_wait_for_an_unregistered_folder(store: Store) -> None:
    store.register_folder("a")
    store.register_folder("b")
    before = store.open_erasure(request(Selection()), "a", NO_JOURNALS)
    store.unregister_folder("b")
    after = store.open_erasure(request(Selection()), "a", NO_JOURNALS)

    assert (set(before.pending), set(after.pending)) == ({"a", "b"}, {"a"})
    assert store.open_erasures() == [before, after]


def test_erased_bytes_can_be_scrubbed(store: Store) -> None:
    store.record("w", sealed("w", MIXED))
    erase(store, store.open_erasure(request(Selection()), "f", NO_JOURNALS))

    assert store.scrub()


def test_the_maintenance_lock_is_exclusive_but_not_required_for_recording(store: Store) -> None:
    held, release, results = threading.Event(), threading.Event(), []

    def hold() -> None:
        with stores.another(store) as own, own.maintenance() as acquired:
            results.append(acquired)
            held.set()
            release.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    with store.maintenance() as acquired:
        results.append(acquired)
    store.record("w", sealed("w", drafts(0, 1)))
    release.set()
    holder.join()
    with store.maintenance() as acquired:
        results.append(acquired)

    assert results == [True, False, True]
    assert store.count() == 1


def test_a_closed_store_can_be_opened_again(store: Store) -> None:
    store.record("w", sealed("w", drafts(0, 1)))
    store.close()
    store.close()

    with store as opened:
        opened.check()
        opened.record("w", sealed("w", drafts(0, 2)))
    assert store.count() == 2


def test_the_folder_of_a_store_on_disk_exists(store: Store) -> None:
    assert store.disk_folder is None or store.disk_folder.is_dir()
