"""History as a file: CSV for spreadsheets, JSON Lines with everything. Text in pieces, never the whole."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec

from rowcast.history.service import Record
from rowcast.schema.prediction import Prediction, label_text

ROWS_A_PIECE = 500
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

_reply = msgspec.json.Decoder(Prediction).decode


def flat(record: Record) -> dict[str, Any]:
    """One entry as a line of a table; `row` is JSON, None where it was erased. None of it is invented or rounded."""
    reply = _reply(record.prediction)
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


def pieces(records: Iterable[Record]) -> Iterator[list[Record]]:
    """So many records at a time as are written at once."""
    rest = iter(records)
    while piece := list(islice(rest, ROWS_A_PIECE)):
        yield piece


def as_csv(records: Iterable[Record]) -> Iterator[bytes]:
    """A header line, then a line an entry; times in RFC 3339."""
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(COLUMNS)
    for piece in pieces(records):
        for record in piece:
            found = flat(record)
            found["at"] = datetime.fromtimestamp(record.at / 1e6, UTC).isoformat(timespec="microseconds")
            lines.writerow(["" if value is None else value for value in found.values()])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    if buffer.tell():
        yield buffer.getvalue().encode()  # the header of an empty history


def as_lines(records: Iterable[Record]) -> Iterator[bytes]:
    """A JSON object an entry, as `GET /predictions/ID` shows it."""
    encode = msgspec.json.Encoder().encode_lines
    for piece in pieces(records):
        yield encode([_on_one_line(record) for record in piece])


def _on_one_line(record: Record) -> Record:
    """A row is kept as it was sent, perhaps over many lines."""
    if isinstance(record.row, msgspec.Raw) and b"\n" in bytes(record.row):
        return msgspec.structs.replace(record, row=msgspec.Raw(msgspec.json.format(bytes(record.row), indent=-1)))
    return record


TEXTS: Mapping[str, Callable[[Iterable[Record]], Iterator[bytes]]] = {"csv": as_csv, "jsonl": as_lines}
