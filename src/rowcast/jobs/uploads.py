"""Determines the format of an upload from its first bytes. The name of the file is never used, because clients choose
it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple

from rowcast.errors import RequestError
from rowcast.jobs.job import RESULT_FORMATS, JobEngine, JobRecording, ResultFormat

SNIFFED_BYTES: Final = 64 * 1024
GZIP: Final = b"\x1f\x8b"
MAX_COLUMNS: Final = 10_000
OPTION_NAMES: Final = ("model", "format", "columns", "record", "engine")


class UploadFormat(NamedTuple):
    """The name under which an upload is stored, and the format of its result unless the client selects another one."""

    name: str
    result: ResultFormat


def sniff_format(head: bytes) -> UploadFormat:
    """Return the format of a file that begins with these bytes."""
    if head[:4] == b"PAR1":
        return UploadFormat("input.parquet", "parquet")
    if head[:6] == b"ARROW1":
        return UploadFormat("input.arrow", "parquet")
    if head[:2] == GZIP:
        try:
            head = zlib.decompressobj(31).decompress(head, SNIFFED_BYTES)
        except zlib.error:
            head = b""  # the table reader reports the damage
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return UploadFormat("input.jsonl", "jsonl") if text[:1] in (b"{", b"[") else UploadFormat("input.csv", "csv")


class JobOptions(NamedTuple):
    """The options of a job, as sent by the client."""

    model: str | None = None
    format: ResultFormat | None = None
    """The result's format; None to use the upload's format."""
    columns: tuple[str, ...] | None = None
    record: JobRecording = "job"
    engine: JobEngine = "local"


def parse_options(values: Mapping[str, str]) -> JobOptions:
    """Parse the options; raise RequestError if an option is unknown or invalid. Empty values count as absent."""
    for name in values:
        if name not in OPTION_NAMES:
            raise RequestError(
                f"unknown option {name[:40]!r}; known options: {', '.join(OPTION_NAMES)}", slug="bad-option"
            )
    given = {name: value.strip() for name, value in values.items() if value.strip()}
    chosen = given.get("format")
    if chosen is not None and chosen not in RESULT_FORMATS:
        raise RequestError(f"unknown format {chosen[:40]!r}; expected {', '.join(RESULT_FORMATS)}", slug="bad-option")
    record = given.get("record", "job")
    if record not in ("job", "rows"):
        raise RequestError(f"record: {record[:40]!r} is not valid; expected job or rows", slug="bad-option")
    engine = given.get("engine", "local")
    if engine not in ("local", "ray"):
        raise RequestError(f"engine: {engine[:40]!r} is not valid; expected local or ray", slug="bad-option")
    columns = tuple(name.strip() for name in given["columns"].split(",")) if "columns" in given else None
    if columns is not None and len(columns) > MAX_COLUMNS:
        raise RequestError(f"columns: too many names; the limit is {MAX_COLUMNS}", slug="bad-option")
    known: ResultFormat | None = next((each for each in RESULT_FORMATS if each == chosen), None)
    return JobOptions(
        model=given.get("model"),
        format=known,
        columns=columns,
        record="rows" if record == "rows" else "job",
        engine="ray" if engine == "ray" else "local",
    )
