"""Exporting the history as CSV and JSON Lines."""

from __future__ import annotations

import csv
import io
import json

from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.history.export import COLUMNS, RECORDS_PER_PIECE, to_csv, to_json_lines
from rowcast.history.records import Record
from rowcast.history.service import History
from support.entries import MIXED, draft, drafts, identifier, sealed


def records(store: MemoryStore) -> list[Record]:
    return list(History(store, EmptyJournalReader()).select())


def test_a_csv_export_has_a_header_and_one_line_per_entry() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", MIXED))

    lines = list(csv.DictReader(io.StringIO(b"".join(to_csv(records(store))).decode())))

    assert [line["id"] for line in lines] == [identifier(number) for number in reversed(range(60))]
    assert lines[0]["at"] == "2023-11-14T22:13:20.000059+00:00"
    assert json.loads(lines[0]["row"]) == {"x": 59}


def test_an_empty_csv_export_contains_only_the_header() -> None:
    assert b"".join(to_csv([])).decode().splitlines() == [",".join(COLUMNS)]
    assert list(to_json_lines([])) == []


def test_an_erased_row_is_exported_as_an_empty_csv_cell_and_omitted_from_json() -> None:
    store = MemoryStore()
    store.record("w", [entry._replace(row=None, salt=None) for entry in sealed("w", drafts(0, 1))])

    (line,) = csv.DictReader(io.StringIO(b"".join(to_csv(records(store))).decode()))
    (document,) = b"".join(to_json_lines(records(store))).splitlines()

    assert line["row"] == ""
    assert "row" not in json.loads(document)


def test_an_indented_row_is_exported_as_a_single_json_line() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", [draft(0, row=b'{\n  "x": 1.50\n}')]))

    (document,) = b"".join(to_json_lines(records(store))).splitlines()

    assert json.loads(document)["row"] == {"x": 1.5}
    assert b"1.50" in document


def test_long_exports_are_generated_in_chunks() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", drafts(0, RECORDS_PER_PIECE + 1)))

    pieces = list(to_json_lines(records(store)))

    assert [len(piece.splitlines()) for piece in pieces] == [RECORDS_PER_PIECE, 1]
