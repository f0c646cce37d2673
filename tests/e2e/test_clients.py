"""Unmodified clients of other systems get the same predictions as native clients."""

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
def loan_server(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path) -> Iterator[tuple[servers.Server, Path]]:
    """A server with two processes that serves the loan example, and the path of a JSON file that contains rows."""
    folder = tmp_path_factory.mktemp("clients")
    rows = folder / "rows.json"
    rows.write_text(json.dumps(models.loan_rows(ROWS)))
    with servers.running(models.with_models(folder / "home", loan_registry), "--workers", "2") as server:
        yield server, rows


@pytest.fixture(scope="module")
def native(loan_server: tuple[servers.Server, Path]) -> list[dict[str, Any]]:
    """The predictions that the native dialect returns for the rows of `loan_server`."""
    server, rows = loan_server
    with server.client() as client:
        reply = client.post("/predict", json={"rows": json.loads(rows.read_text())})
    predictions: list[dict[str, Any]] = reply.json()["predictions"]
    return predictions


def run(client: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in the client's virtual environment; create the environment if necessary."""
    subprocess.run([ROOT / "scripts" / "clients.sh", client], check=True, timeout=170, stdin=subprocess.DEVNULL)
    program, *rest = map(str, words)
    command = [str(ROOT / f".venv-clients-{client}" / "bin" / program), *rest]
    return subprocess.run(
        command, env=servers.environment(no_proxy="*"), capture_output=True, text=True, timeout=120, check=False
    )


def results_of(client: str, script: str, *words: str | Path) -> dict[str, Any]:
    """Run a client's script and return the results that the script prints."""
    finished = run(client, "python", ROOT / "tests" / "clients" / script, *words)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    results: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return results


@pytest.mark.slow
def test_the_triton_client_gets_the_same_predictions_as_a_native_client_in_every_encoding(
    loan_server: tuple[servers.Server, Path], native: list[dict[str, Any]]
) -> None:
    server, rows = loan_server
    results = results_of("triton", "triton.py", f"127.0.0.1:{server.port}", rows)

    labels, scores = [prediction["prediction"] for prediction in native], [prediction["score"] for prediction in native]
    spread = [[prediction["probabilities"][name] for name in ("Approved", "Rejected")] for prediction in native]
    assert len(results["predictions"]) == 18
    for encoding, answers in results["predictions"].items():
        assert answers == {"labels": labels, "scores": scores, "probabilities": spread}, encoding
    assert (results["live"], results["ready"], results["model_ready"]) == (True, True, True)
    assert results["version_ready"] == [True, False]
    assert results["server"]["name"] == "rowcast"
    assert results["model"]["platform"] == "onnx_onnxv1"
    assert {tensor["datatype"] for tensor in results["model"]["inputs"]} <= {"INT64", "FP64", "BOOL", "BYTES"}
    assert results["config"]["name"] == "loans"
    assert results["index"] == [{"name": "loans", "version": "1", "state": "READY", "reason": ""}]
    assert results["selection"] == ["score", "id"]
    assert results["async"]["scores"] == scores[:3]
    assert results["missing_column"][0] == "400"
    assert "annual_income" in results["missing_column"][1]
    assert results["no_output"][0] == "400"
    assert results["no_model"][0] == "404"
    unavailable = {"name": "loans", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert results["unloaded"] == [False, False, [unavailable]]
    assert results["loaded"] == [True, True]
    assert results["config_refused"][0] == results["file_refused"][0] == "400"
    assert results["all_stats"] == 1
    assert results["stats"]["inference_count"] == 18 * ROWS + 6
    assert results["stats"]["inference_stats"]["fail"]["count"] >= 2
    with server.client() as client:
        for prediction_id, score in zip(results["ids"], scores[:3], strict=True):
            entry = client.get(f"/predictions/{prediction_id}").json()
            assert (entry["source"], entry["prediction"]["score"]) == ("v2", score)


@pytest.mark.slow
def test_the_mlserver_infer_command_gets_the_same_scores_as_a_native_client(
    loan_server: tuple[servers.Server, Path], native: list[dict[str, Any]], tmp_path: Path
) -> None:
    server, rows = loan_server
    pairs = list(zip(native, json.loads(rows.read_text())[:60], strict=False))
    complete = [(prediction, row) for prediction, row in pairs if None not in row.values()]
    lines = [
        {"inputs": [{"name": n, "shape": [1, 1], "datatype": _kind(cell), "data": [cell]} for n, cell in row.items()]}
        for _, row in complete
    ]
    (tmp_path / "in").write_text("".join(json.dumps(line) + "\n" for line in lines))

    for options in ((), ("-b",), ("-s", "7")):
        command = ["mlserver", "infer", "-u", f"127.0.0.1:{server.port}", "-m", "loans"]
        finished = run("triton", *command, "-i", tmp_path / "in", "-o", tmp_path / "out", *options)

        assert finished.returncode == 0, finished.stderr
        replies = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
        replies.sort(key=lambda reply: reply["parameters"]["batch_index"])
        scores = [
            next(output for output in reply["outputs"] if output["name"] == "score")["data"][0] for reply in replies
        ]
        assert scores == pytest.approx([prediction["score"] for prediction, _ in complete], abs=1e-7)


def _kind(cell: Any) -> str:
    return "BYTES" if isinstance(cell, str) else "INT64"


@pytest.mark.slow
def test_the_kserve_rest_client_gets_the_same_predictions_as_a_native_client(
    loan_server: tuple[servers.Server, Path], native: list[dict[str, Any]]
) -> None:
    server, rows = loan_server
    results = results_of("kserve", "kserve_rest.py", server.address, rows)

    assert results["v1"] == [True, True]
    assert results["v2"] == [True, True, True]
    assert len(results["labels"]) == 4
    for form, labels in results["labels"].items():
        assert labels == [prediction["prediction"] for prediction in native], form
    for form, scores in results["scores"].items():
        assert scores == [prediction["score"] for prediction in native], form
    assert "annual_income" in results["v1 invalid row"]
    assert "'x'" in results["v2 invalid row"]
    assert "'nobody'" in results["v1 unknown model"]


@pytest.mark.slow
def test_the_mlflow_scoring_client_gets_the_same_predictions_as_a_native_client(
    loan_server: tuple[servers.Server, Path], native: list[dict[str, Any]]
) -> None:
    server, rows = loan_server
    results = results_of("mlflow", "mlflow_scoring.py", "127.0.0.1", str(server.port), rows)

    assert results["version"]
    assert results["table"] == results["nullable"] == [prediction["prediction"] for prediction in native]
    spread = [[prediction["probabilities"][name] for name in ("Approved", "Rejected")] for prediction in native[:3]]
    assert results["probabilities"] == spread
    assert '"error_code":"BAD_REQUEST"' in results["invalid row"]
