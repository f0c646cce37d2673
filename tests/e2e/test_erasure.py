"""After an erasure, no file in the home contains a value of the erased rows."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import httpx

from support import models, servers, v2
from support.commands import rowcast

ROW = models.loan_rows(1, seed=3)[0]
BLOCK_ROWS = 20


def unusual(row: int) -> dict[str, Any]:
    """Return a row with unique numbers and with categories that did not occur in training."""
    numbers = [name for name, cell in ROW.items() if not isinstance(cell, str)]
    marked = {name: 7_310_000 + 1_000 * row + 7 * place for place, name in enumerate(numbers)}
    return {**ROW, **marked, "education": f"education-{row}", "purpose": f"purpose-{row}"}


def traces(row: dict[str, Any]) -> list[bytes]:
    """Return the bytes that represent the row's unusual values in files: as text and as packed numbers."""
    values = [value for name, value in row.items() if value != ROW[name]]
    numbers = [value for value in values if not isinstance(value, str)]
    return [str(value).encode() for value in values] + [
        struct.pack(form, value) for value in numbers for form in ("<q", "<d", "<f")
    ]


def found(home: Path, rows: list[dict[str, Any]]) -> set[str]:
    """Return the files in the home that contain a value of these rows."""
    patterns = [trace for row in rows for trace in traces(row)]
    files = {path.name: path.read_bytes().rstrip(b"\0") for path in home.rglob("*") if path.is_file()}
    return {name for name, content in files.items() if any(pattern in content for pattern in patterns)}


def predict(client: httpx.Client, rows: list[dict[str, Any]]) -> None:
    """Send rows in every dialect: singly, in a batch, as CSV, and as JSON and binary tensors."""
    lines = [",".join(row) for row in rows[:1]] + [",".join(map(str, row.values())) for row in rows[3:5]]
    json_tensors = v2.as_json(v2.columns(rows[5:7]))
    tensors, headers = v2.as_binary(v2.columns([{**row, **_texts()} for row in rows[7:]]))
    replies = [
        client.post("/predict", json=rows[0], headers={"idempotency-key": "once"}),
        client.post("/predict", json={"rows": rows[1:3]}),
        client.post("/invocations", content="\n".join(lines), headers={"content-type": "text/csv"}),
        client.post("/v2/models/loans/infer", content=json_tensors),
        client.post("/v2/models/loans/infer", content=tensors, headers=headers),
        client.post("/v1/models/loans:predict", json={"instances": rows[:1]}),
    ]
    assert [(reply.status_code, reply.text) for reply in replies if reply.status_code != 200] == []


def _texts() -> dict[str, Any]:
    """Return strings that occurred in training; a block cannot contain other strings."""
    return {name: cell for name, cell in ROW.items() if isinstance(cell, str)}


def test_no_file_in_the_home_contains_a_value_of_an_erased_row(home: Path) -> None:
    rows = [unusual(row) for row in range(7 + BLOCK_ROWS)]
    with servers.running(home) as server, server.client() as client:
        predict(client, rows)
        blocks = [path for path in (home / "journal").iterdir() if b'"format":2' in path.read_bytes()[:200]]
        assert len(blocks) == 1
        assert found(home, rows[:1])
        assert found(home, rows[-1:])

        erased = rowcast("history", "purge", "--before", "2999-01-01", "--json", "--home", home, cwd=home)

        assert (erased.returncode, json.loads(erased.stdout)["journals"]) == (0, []), erased.stderr
        assert found(home, rows) == set()
    assert found(home, rows) == set()
