"""Call a server with Triton's client. `test_clients.py` runs this script in a separate environment.

python triton.py HOST:PORT ROWS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton

NUMPY = {"INT64": np.int64, "FP64": np.float64, "FP32": np.float32, "BOOL": np.bool_, "BYTES": np.object_}


def inputs(rows: list[dict[str, Any]], *, binary: bool, numbers: str) -> list[triton.InferInput]:
    """Return one tensor per column; a column with missing values is sent as FP64 with NaN."""
    tensors = []
    for name in rows[0]:
        cells = [row[name] for row in rows]
        kind = numbers
        if isinstance(cells[0], str):
            kind = "BYTES"
        elif any(cell is None for cell in cells):
            kind, cells = "FP64", [np.nan if cell is None else cell for cell in cells]
        array = np.array(cells, dtype=NUMPY[kind]).reshape(-1, 1)
        tensor = triton.InferInput(name, array.shape, kind)
        tensor.set_data_from_numpy(array, binary_data=binary)
        tensors.append(tensor)
    return tensors


def answers(result: triton.InferResult) -> dict[str, Any]:
    """Return the outputs as lists."""
    labels = [cell.decode() if isinstance(cell, bytes) else str(cell) for cell in result.as_numpy("prediction").ravel()]
    return {
        "labels": labels,
        "scores": [float(cell) for cell in result.as_numpy("score").ravel()],
        "probabilities": result.as_numpy("probabilities").tolist(),
    }


def error_of(call: Any) -> list[Any]:
    """Return the status and message of the error that a call raises, or an empty list if it raises none."""
    try:
        call()
    except triton.InferenceServerException as error:
        return [error.status(), error.message()]
    return []


def main(address: str, path: str) -> None:
    """Call every operation once and print the results."""
    rows = json.loads(Path(path).read_text())
    client = triton.InferenceServerClient(address)
    results: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("loans"),
        "version_ready": [client.is_model_ready("loans", "1"), client.is_model_ready("loans", "7")],
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata("loans"),
        "config": client.get_model_config("loans", "1"),
        "index": client.get_model_repository_index(),
    }
    predictions: dict[str, Any] = {}
    for binary in (True, False):
        for numbers in ("INT64", "FP64", "FP32"):
            for compression in (None, "gzip", "deflate"):
                result = client.infer(
                    "loans",
                    inputs(rows, binary=binary, numbers=numbers),
                    request_id="mine",
                    model_version="1",
                    request_compression_algorithm=compression,
                    response_compression_algorithm=compression,
                )
                assert result.get_response()["id"] == "mine"
                predictions[f"{'binary' if binary else 'json'} {numbers} {compression}"] = answers(result)
    results["predictions"] = predictions
    selection = [triton.InferRequestedOutput("score", binary_data=False), triton.InferRequestedOutput("id")]
    result = client.infer("loans", inputs(rows[:3], binary=True, numbers="INT64"), outputs=selection)
    results["selection"] = [output["name"] for output in result.get_response()["outputs"]]
    results["ids"] = [cell.decode() for cell in result.as_numpy("id").ravel()]
    results["async"] = answers(client.async_infer("loans", inputs(rows[:3], binary=True, numbers="INT64")).get_result())
    incomplete = inputs(rows[:3], binary=True, numbers="INT64")[1:]
    results["missing_column"] = error_of(lambda: client.infer("loans", incomplete))
    results["no_output"] = error_of(
        lambda: client.infer(
            "loans", inputs(rows[:3], binary=True, numbers="INT64"), outputs=[triton.InferRequestedOutput("x")]
        )
    )
    results["no_model"] = error_of(lambda: client.get_model_metadata("nobody"))
    client.unload_model("loans")
    results["unloaded"] = [
        client.is_server_ready(),
        client.is_model_ready("loans"),
        client.get_model_repository_index(),
    ]
    client.load_model("loans")
    results["loaded"] = [client.is_server_ready(), client.is_model_ready("loans")]
    results["config_refused"] = error_of(lambda: client.load_model("loans", config="{}"))
    results["file_refused"] = error_of(lambda: client.load_model("loans", config="{}", files={"file:1/x": b"x"}))
    results["stats"] = client.get_inference_statistics("loans")["model_stats"][0]
    results["all_stats"] = len(client.get_inference_statistics()["model_stats"])
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
