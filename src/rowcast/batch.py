"""A table scored from disk to disk."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import polars as pl

from rowcast import tables
from rowcast.bundle import Manifest
from rowcast.ports import Graph, Reference


class Summary(msgspec.Struct, frozen=True):
    """What `rowcast predict --json` prints."""

    model: str
    version: int
    digest: str
    rows: int
    out: str
    seconds: float


def score(table: tables.Table, manifest: Manifest, graph: Graph) -> pl.DataFrame:
    """The table's columns, unchanged, and the predictions beside them; InvalidRows names cells that do not fit."""
    tensors = tables.encode(table, manifest.schema, manifest.plan)
    return tables.with_predictions(table.frame, manifest.decision, graph.run(tensors))


def score_file(reference: Reference, manifest: Manifest, graph: Graph, source: Path, out: Path) -> Summary:
    """Score one file into another; nothing is written when a row does not fit."""
    started = time.monotonic()
    tables.check_name(out)
    scored = score(tables.read(source), manifest, graph)
    tables.write(scored, out)
    seconds = round(time.monotonic() - started, 3)
    return Summary(reference.name, reference.version, manifest.digest, scored.height, str(out), seconds)
