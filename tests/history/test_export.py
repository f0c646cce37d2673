"""Exporting the history as CSV and JSON Lines."""

from __future__ import annotations

import csv
import io
import json

import msgspec
import pytest

from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.history import export
from rowcast.history.chain import Draft, Entry, encode_head
from rowcast.history.export import COLUMNS, RECORDS_PER_PIECE, split_into_pieces, to_csv, to_json_lines
from rowcast.history.records import Record
from rowcast.history.service import History
from rowcast.schema.prediction import Prediction
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


def test_a_long_csv_export_contains_every_entry_once() -> None:
    store = MemoryStore()
    count = 2 * RECORDS_PER_PIECE + 1
    store.record("w", sealed("w", drafts(0, count)))

    lines = list(csv.DictReader(io.StringIO(b"".join(to_csv(records(store))).decode())))

    assert [line["id"] for line in lines] == [identifier(number) for number in reversed(range(count))]


def test_chunks_of_large_rows_have_fewer_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BYTES_PER_PIECE", 100)
    store = MemoryStore()
    store.record("w", sealed("w", [draft(number, row=b'{"x":"%b"}' % (b"a" * 40)) for number in range(7)]))

    assert [len(piece) for piece in split_into_pieces(records(store))] == [3, 3, 1]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("-1.5", "-1.5"),
        ("+3e-7", "+3e-7"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_a_csv_export_contains_no_formulas(text: str, cell: str) -> None:
    store = MemoryStore()
    store.record("w", sealed("w", [draft(0, label=text, entity=text, tenant=text)]))

    (line,) = csv.DictReader(io.StringIO(b"".join(to_csv(records(store))).decode(), newline=""))
    (document,) = b"".join(to_json_lines(records(store))).splitlines()

    assert [line[name] for name in ("prediction", "entity", "tenant")] == [cell] * 3
    assert json.loads(document).get("entity", "") == text


def complete_record(**reply: float) -> Record:
    """Return a record with a value in each field."""
    prediction = Prediction(identifier(7), "loans", 3, True, **reply)  # type: ignore[arg-type]
    at = 1_700_000_000_000_000
    head = Entry(at, "rb1-00", "v2", "r7", msgspec.json.encode(prediction), "key", "bank", "customer")
    store = MemoryStore()
    store.record("w", sealed("w", [*drafts(0, 2), Draft(encode_head(head), bytes(16), b'{"x" : 7.50}')]))
    return records(store)[0]


def test_each_csv_column_contains_its_field() -> None:
    (line,) = csv.DictReader(io.StringIO(b"".join(to_csv([complete_record(probability=0.75, score=0.25)])).decode()))

    assert line == {
        "id": identifier(7),
        "at": "2023-11-14T22:13:20.000000+00:00",
        "model": "loans",
        "version": "3",
        "prediction": "true",
        "probability": "0.75",
        "score": "0.25",
        "entity": "customer",
        "tenant": "bank",
        "key_id": "key",
        "source": "v2",
        "request_id": "r7",
        "digest": "rb1-00",
        "writer": "w",
        "seq": "2",
        "row": '{"x" : 7.50}',
    }


def test_a_cell_without_a_value_is_empty() -> None:
    (line,) = csv.DictReader(io.StringIO(b"".join(to_csv([complete_record()])).decode()))

    assert (line["probability"], line["score"]) == ("", "")


def test_the_columns_of_a_table_have_the_same_names_and_exact_values() -> None:
    record = complete_record(probability=0.75)

    columns = export.to_columns(record)

    assert list(columns) == list(COLUMNS)
    assert (columns["at"], columns["probability"], columns["score"], columns["seq"]) == (record.at, 0.75, None, 2)


def test_a_row_on_one_line_is_exported_byte_for_byte() -> None:
    assert b'"row":{"x" : 7.50}' in b"".join(to_json_lines([complete_record()]))


def test_a_chunk_ends_after_five_hundred_records_or_when_its_rows_reach_four_mebibytes() -> None:
    record = complete_record()
    half = msgspec.structs.replace(record, row=msgspec.Raw(bytes(2 * 1024 * 1024)))
    less = msgspec.structs.replace(record, row=msgspec.Raw(bytes(2 * 1024 * 1024 - 1)))

    assert [len(piece) for piece in split_into_pieces([record] * 1001)] == [500, 500, 1]
    assert [len(piece) for piece in split_into_pieces([half] * 5)] == [2, 2, 1]
    assert [len(piece) for piece in split_into_pieces([half, less, half, less])] == [3, 1]
