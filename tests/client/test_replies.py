"""The client's reply structs: they decode replies from newer and older servers, and load no large library."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import msgspec

from rowcast.client.replies import HistoryEntry
from rowcast.serving.fleet import ReloadResult
from rowcast.serving.health import HealthReport
from rowcast.serving.model_descriptions import ServedModel

ENTRY = {
    "id": "i",
    "at": "2026-01-01T00:00:00Z",
    "model": "loans",
    "version": 1,
    "digest": "d",
    "source": "native",
    "request_id": "r",
    "prediction": {"id": "i", "model": "loans", "version": 1, "prediction": "yes"},
    "writer": "w",
    "seq": 0,
}
MODEL = {
    "name": "loans",
    "version": 1,
    "digest": "d",
    "default": True,
    "task": "regression",
    "target": "price",
    "metric": "rmse",
    "score": 1.5,
}


def test_the_time_of_an_entry_is_in_utc() -> None:
    entry = msgspec.convert(ENTRY, HistoryEntry)

    assert entry.when == datetime(2026, 1, 1, tzinfo=UTC)
    assert entry.row is None


def test_fields_added_by_newer_servers_are_ignored() -> None:
    health = msgspec.json.decode(b'{"status":"ok","ready":true,"added_later":[1]}', type=HealthReport)

    assert (health.status, health.ready, health.processes) == ("ok", True, ())


def test_states_added_by_newer_servers_are_accepted() -> None:
    reply = b'{"status":"partial","processes":[{"process":0,"state":"paused"}],"imports":[]}'

    result = msgspec.json.decode(reply, type=ReloadResult)

    assert (result.status, result.processes[0].state) == ("partial", "paused")


def test_column_kinds_added_by_newer_servers_are_accepted() -> None:
    reply = {**MODEL, "columns": [{"name": "photo", "kind": "image", "added_later": 1}]}

    assert msgspec.convert(reply, ServedModel).columns == reply["columns"]


def test_optional_fields_can_be_omitted() -> None:
    model = msgspec.convert(MODEL, ServedModel)
    result = msgspec.json.decode(b'{"status":"ok","processes":[]}', type=ReloadResult)

    assert (model.classes, model.positive, model.threshold, model.created, model.schema) == ((), None, None, "", {})
    assert (result.processes, result.imports) == ([], [])


def test_the_client_loads_neither_numpy_nor_onnxruntime() -> None:
    code = (
        "import rowcast.client, sys\n"
        "heavy = {'numpy', 'onnxruntime', 'polars', 'pydantic', 'fastapi'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
