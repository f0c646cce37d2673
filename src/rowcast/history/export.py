"""History exports: CSV for spreadsheets, and JSON Lines with every field. Both are streamed in chunks."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from rowcast.history.records import Record, decode_reply
from rowcast.schema.prediction import label_text

RECORDS_PER_PIECE, BYTES_PER_PIECE = 500, 4 * 1024 * 1024
FORMULA = re.compile(r"[=+\-@\t\r](?![\d.]*(?:[eE][+-]?\d+)?\Z)")
"""Matches the start of text that a spreadsheet would run as a formula. Numbers such as -1.5 are not formulas."""
COLUMNS = (
    "id",
    "at",
    "model",
    "version",
    "prediction",
    "probability",
    "score",
    "entity",
    "tenant",
    "key_id",
    "source",
    "request_id",
    "digest",
    "writer",
    "seq",
    "row",
)


def to_columns(record: Record) -> dict[str, Any]:
    """Return the exact values of one entry, keyed by column; `row` is JSON, or None if the row has been erased."""
    reply = decode_reply(record.prediction)
    return {
        "id": record.id,
        "at": record.at,
        "model": record.model,
        "version": record.version,
        "prediction": label_text(reply.prediction),
        "probability": None if reply.probability is msgspec.UNSET else reply.probability,
        "score": None if reply.score is msgspec.UNSET else reply.score,
        "entity": record.entity,
        "tenant": record.tenant,
        "key_id": record.key_id,
        "source": record.source,
        "request_id": record.request_id,
        "digest": record.digest,
        "writer": record.writer,
        "seq": record.seq,
        "row": bytes(record.row).decode() if isinstance(record.row, msgspec.Raw) else None,
    }


def split_into_pieces(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield lists of up to `RECORDS_PER_PIECE` records; end a list early if its rows reach `BYTES_PER_PIECE`."""
    piece: list[Record] = []
    size = 0
    for record in records:
        piece.append(record)
        size += len(record.row) if isinstance(record.row, msgspec.Raw) else 0
        if len(piece) == RECORDS_PER_PIECE or size >= BYTES_PER_PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def to_csv(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield CSV: a header line, then one line per entry, with RFC 3339 timestamps.

    Some values come from clients, so an apostrophe is added before text that a spreadsheet would run as a formula.
    """
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(COLUMNS)
    for piece in split_into_pieces(records):
        for record in piece:
            values = to_columns(record)
            values["at"] = record.at.isoformat(timespec="microseconds")
            lines.writerow([_cell(value) for value in values.values()])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    if buffer.tell():
        yield buffer.getvalue().encode()  # write the header even if there are no entries


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if FORMULA.match(value) else value
    return "" if value is None else value


def to_json_lines(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield JSON Lines: one object per entry, in the format of `GET /predictions/{id}`."""
    encode = msgspec.json.Encoder().encode_lines
    for piece in split_into_pieces(records):
        yield encode([_on_one_line(record) for record in piece])


def _on_one_line(record: Record) -> Record:
    """Remove the line breaks from a row that was sent as indented JSON."""
    if isinstance(record.row, msgspec.Raw) and b"\n" in bytes(record.row):
        return msgspec.structs.replace(record, row=msgspec.Raw(msgspec.json.format(bytes(record.row), indent=-1)))
    return record


FORMATS: Mapping[str, Callable[[Iterable[Record]], Iterator[bytes]]] = {"csv": to_csv, "jsonl": to_json_lines}
