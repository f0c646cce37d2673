"""Requests in other systems' formats, sent to real servers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx

from support import commands, models, servers, v2
from support.waiting import eventually

ROWS = 300


def test_every_row_of_an_answered_batch_is_in_the_history_after_the_server_is_killed(home: Path) -> None:
    rows = models.loan_rows(ROWS)
    selection = [{"name": name} for name in ("id", "prediction", "score")]
    body, headers = v2.as_binary(v2.columns(rows), outputs=selection)
    first = servers.start(home, settings={"ROWCAST_METRICS_ALIASES": "1"})
    with first.client() as client:
        reply = client.post("/v2/models/loans/infer", content=body, headers=headers)
        journaled = client.get(f"/predictions/{v2.outputs(reply.content, reply.headers)['id'][7]}")
        metrics = client.get("/metrics").text
    first.kill()
    outputs = v2.outputs(reply.content, reply.headers)

    with servers.running(home) as second, second.client() as client:
        eventually(lambda: len(client.get("/predictions?limit=1000").json()["predictions"]) == ROWS)
        entries = [client.get(f"/predictions/{prediction_id}").json() for prediction_id in outputs["id"]]
    verified = commands.rowcast("history", "verify", "--json", "--home", home, cwd=home)
    replayed = commands.rowcast("replay", "--json", "--home", home, cwd=home)

    assert journaled.json()["prediction"]["score"] == outputs["score"][7]
    labels = outputs["prediction"]
    for label in set(labels):
        sample = f'rowcast_predictions_total{{label="{label}",model="loans",version="1"}} {labels.count(label)}.0'
        assert sample in metrics.splitlines()
    assert f"latest_prediction {float(sorted(set(labels)).index(labels[-1]))}" in metrics.splitlines()
    assert len({entry["writer"] for entry in entries}) == 1
    assert [entry["seq"] for entry in entries] == list(range(ROWS))
    for row, score, entry in zip(rows, outputs["score"], entries, strict=True):
        assert (entry["row"], entry["source"], entry["prediction"]["score"]) == (row, "v2", score)
    assert json.loads(verified.stdout)["broken"] == []
    assert json.loads(verified.stdout)["entries"] == ROWS
    assert json.loads(replayed.stdout)["equal"] == ROWS


def curl(address: str, *words: str) -> str:
    finished = subprocess.run(
        ["curl", "-s", "--noproxy", "*", *words[:-1], address + words[-1]], capture_output=True, text=True, check=True
    )
    return finished.stdout


def test_curl_commands_from_the_documentation_of_other_systems_work(
    server: servers.Server, client: httpx.Client
) -> None:
    row = models.loan_rows(1)[0]
    label = client.post("/predict", json=row).json()["prediction"]
    address = server.address
    lists = json.dumps({"instances": [list(row.values())]})
    split = json.dumps({"dataframe_split": {"columns": list(row), "data": [list(row.values())]}})
    csv = ",".join(row) + "\n" + ",".join("" if cell is None else str(cell) for cell in row.values()) + "\n"

    predict = json.loads(curl(address, "-d", lists, "-X", "POST", "/v1/models/loans:predict"))
    metadata = json.loads(curl(address, "/v2/models/loans"))
    infer = json.loads(curl(address, "-d", v2.as_json(v2.columns([row])).decode(), "/v2/models/loans/infer"))
    scored = json.loads(curl(address, "-H", "Content-Type:application/json", "--data", split, "/invocations"))
    read = json.loads(curl(address, "-H", "Content-Type: text/csv", "--data-binary", csv, "/invocations"))
    ready = json.loads(curl(address, "/v2/health/ready"))

    assert predict == scored == read == {"predictions": [label]}
    assert infer["outputs"][0]["data"] == [label]
    assert metadata["versions"] == ["1"]
    assert ready == {"live": True, "ready": True}


def test_each_served_version_can_be_requested_by_number(home: Path) -> None:
    from rowcast.adapters.files.registry import FolderRegistry

    registry = FolderRegistry(home / "models")
    graph = models.sum_graph(2)
    for _ in range(2):
        models.publish(registry, "sum", graph, models.number_columns(2), models.REGRESSION, "values")
    body = {"instances": [[1, 2]]}

    with servers.running(home, "sum@2", "sum@1") as server, server.client() as client:
        paths = ("/v1/models/sum:predict", "/v1/models/sum/versions/1:predict")
        statuses = [client.post(path, json=body).status_code for path in paths]
        missing = client.post("/v1/models/sum/versions/3:predict", json=body)
        versions = client.get("/v2/models/sum").json()["versions"]
        first = client.get("/v2/models/sum/versions/1/ready")

    assert statuses == [200, 200]
    assert (missing.status_code, list(missing.json())) == (404, ["error"])
    assert versions == ["1", "2"]
    assert first.status_code == 200
