"""The reply structs: unknown fields are ignored, and the module stays light."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import msgspec

from rowcast.client.replies import HealthReport, HistoryEntry

ENTRY = {
    "id": "i",
    "at": 1_767_225_600_000_000,
    "model": "loans",
    "version": 1,
    "digest": "d",
    "source": "native",
    "request_id": "r",
    "prediction": {"id": "i", "model": "loans", "version": 1, "prediction": "yes"},
    "writer": "w",
    "seq": 0,
}


def test_the_time_of_an_entry_is_in_utc() -> None:
    entry = msgspec.convert(ENTRY, HistoryEntry)

    assert entry.when == datetime(2026, 1, 1, tzinfo=UTC)
    assert entry.row is None


def test_fields_of_newer_servers_are_ignored() -> None:
    health = msgspec.json.decode(b'{"status":"ok","ready":true,"added_later":[1]}', type=HealthReport)

    assert (health.status, health.ready, health.workers) == ("ok", True, ())


def test_the_client_loads_neither_numpy_nor_onnxruntime() -> None:
    code = (
        "import rowcast.client, sys\n"
        "heavy = {'numpy', 'onnxruntime', 'polars', 'pydantic', 'fastapi'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
