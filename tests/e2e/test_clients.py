"""The real clients of other systems, unmodified, against a real server: they get what the native dialect says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import models, servers

ROOT = Path(__file__).parents[2]
ROWS = 1000


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path) -> Iterator[tuple[servers.Server, Path]]:
    """A server with two workers whose only model is the loan example, and the rows as a file."""
    folder = tmp_path_factory.mktemp("clients")
    rows = folder / "rows.json"
    rows.write_text(json.dumps(models.loan_rows(ROWS)))
    with servers.running(models.with_models(folder / "home", loan_registry), "--workers", "2") as server:
        yield server, rows


@pytest.fixture(scope="module")
def native(asked: tuple[servers.Server, Path]) -> list[dict[str, Any]]:
    """What the native dialect answers."""
    server, rows = asked
    with server.client() as client:
        reply = client.post("/predict", json={"rows": json.loads(rows.read_text())})
    found: list[dict[str, Any]] = reply.json()["predictions"]
    return found


def run(client: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command of a client's own environment, made when it is not there."""
    subprocess.run([ROOT / "scripts" / "clients.sh", client], check=True, timeout=170, stdin=subprocess.DEVNULL)
    program, *rest = map(str, words)
    command = [str(ROOT / f".venv-clients-{client}" / "bin" / program), *rest]
    return subprocess.run(
        command, env=servers.environment(no_proxy="*"), capture_output=True, text=True, timeout=120, check=False
    )


def told(client: str, script: str, *words: str | Path) -> dict[str, Any]:
    """What a client's script prints."""
    finished = run(client, "python", ROOT / "tests" / "clients" / script, *words)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_tritons_client_in_all_its_ways(asked: tuple[servers.Server, Path], native: list[dict[str, Any]]) -> None:
    server, rows = asked
    found = told("triton", "triton.py", f"127.0.0.1:{server.port}", rows)

    labels, scores = [one["prediction"] for one in native], [one["score"] for one in native]
    spread = [[one["probabilities"][name] for name in ("Approved", "Rejected")] for one in native]
    assert len(found["asked"]) == 18
    for way, answers in found["asked"].items():
        assert answers == {"labels": labels, "scores": scores, "probabilities": spread}, way
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["version_ready"] == [True, False]
    assert found["server"]["name"] == "rowcast"
    assert found["model"]["platform"] == "onnx_onnxv1"
    assert {one["datatype"] for one in found["model"]["inputs"]} <= {"INT64", "FP64", "BOOL", "BYTES"}
    assert found["config"]["name"] == "loans"
    assert found["index"] == [{"name": "loans", "version": "1", "state": "READY", "reason": ""}]
    assert found["chosen"] == ["score", "id"]
    assert found["later"]["scores"] == scores[:3]
    assert found["refused"][0] == "400"
    assert "annual_income" in found["refused"][1]
    assert found["no_output"][0] == "400"
    assert found["no_model"][0] == "404"
    away = {"name": "loans", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert found["unloaded"] == [False, False, [away]]
    assert found["loaded"] == [True, True]
    assert found["config_refused"][0] == found["file_refused"][0] == "400"
    assert found["all_stats"] == 1
    assert found["stats"]["inference_count"] == 18 * ROWS + 6
    assert found["stats"]["inference_stats"]["fail"]["count"] >= 2
    with server.client() as client:
        for prediction_id, score in zip(found["ids"], scores[:3], strict=True):
            kept = client.get(f"/predictions/{prediction_id}").json()
            assert (kept["source"], kept["prediction"]["score"]) == ("v2", score)


@pytest.mark.slow
def test_mlservers_infer_command(
    asked: tuple[servers.Server, Path], native: list[dict[str, Any]], tmp_path: Path
) -> None:
    server, rows = asked
    given = [row for row in json.loads(rows.read_text())[:60] if None not in row.values()]
    wanted = [
        one["score"]
        for one, row in zip(native, json.loads(rows.read_text())[:60], strict=False)
        if None not in row.values()
    ]
    lines = [
        {"inputs": [{"name": n, "shape": [1, 1], "datatype": _kind(cell), "data": [cell]} for n, cell in row.items()]}
        for row in given
    ]
    (tmp_path / "in").write_text("".join(json.dumps(line) + "\n" for line in lines))

    for options in ((), ("-b",), ("-s", "7")):
        command = ["mlserver", "infer", "-u", f"127.0.0.1:{server.port}", "-m", "loans"]
        finished = run("triton", *command, "-i", tmp_path / "in", "-o", tmp_path / "out", *options)

        assert finished.returncode == 0, finished.stderr
        replies = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
        replies.sort(key=lambda reply: reply["parameters"]["batch_index"])
        found = [next(one for one in reply["outputs"] if one["name"] == "score")["data"][0] for reply in replies]
        assert found == pytest.approx(wanted, abs=1e-7)


def _kind(cell: Any) -> str:
    return "BYTES" if isinstance(cell, str) else "INT64"


@pytest.mark.slow
def test_kserves_rest_client(asked: tuple[servers.Server, Path], native: list[dict[str, Any]]) -> None:
    server, rows = asked
    found = told("kserve", "kserve_rest.py", server.address, rows)

    assert found["v1"] == [True, True]
    assert found["v2"] == [True, True, True]
    assert len(found["asked"]) == 4
    for way, labels in found["asked"].items():
        assert labels == [one["prediction"] for one in native], way
    for way, scores in found["scores"].items():
        assert scores == [one["score"] for one in native], way
    assert "annual_income: is required" in found["v1 refused"]
    assert "there is no input 'x'" in found["v2 refused"]
    assert "there is no model 'nobody'" in found["v1 nobody"]


@pytest.mark.slow
def test_mlflows_scoring_client(asked: tuple[servers.Server, Path], native: list[dict[str, Any]]) -> None:
    server, rows = asked
    found = told("mlflow", "mlflow_scoring.py", "127.0.0.1", str(server.port), rows)

    assert found["version"]
    assert found["table"] == found["nullable"] == [one["prediction"] for one in native]
    spread = [[one["probabilities"][name] for name in ("Approved", "Rejected")] for one in native[:3]]
    assert found["probabilities"] == spread
    assert '"error_code":"BAD_REQUEST"' in found["refused"]
