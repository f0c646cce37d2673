"""Run by test_clients.py in the environment of Triton's client: asks in every way it has, and prints what it got.

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
    """A tensor a column; those with missing values as FP64 with NaN."""
    made = []
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
        made.append(tensor)
    return made


def answers(result: triton.InferResult) -> dict[str, Any]:
    """The outputs as plain lists."""
    labels = [cell.decode() if isinstance(cell, bytes) else str(cell) for cell in result.as_numpy("prediction").ravel()]
    return {
        "labels": labels,
        "scores": [float(cell) for cell in result.as_numpy("score").ravel()],
        "probabilities": result.as_numpy("probabilities").tolist(),
    }


def refused(ask: Any) -> list[Any]:
    """How a refusal arrives at the caller."""
    try:
        ask()
    except triton.InferenceServerException as error:
        return [error.status(), error.message()]
    return []


def main(address: str, path: str) -> None:
    """Everything once."""
    rows = json.loads(Path(path).read_text())
    client = triton.InferenceServerClient(address)
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("loans"),
        "version_ready": [client.is_model_ready("loans", "1"), client.is_model_ready("loans", "7")],
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata("loans"),
        "config": client.get_model_config("loans", "1"),
        "index": client.get_model_repository_index(),
    }
    asked: dict[str, Any] = {}
    for binary in (True, False):
        for numbers in ("INT64", "FP64", "FP32"):
            for packing in (None, "gzip", "deflate"):
                result = client.infer(
                    "loans",
                    inputs(rows, binary=binary, numbers=numbers),
                    request_id="mine",
                    model_version="1",
                    request_compression_algorithm=packing,
                    response_compression_algorithm=packing,
                )
                assert result.get_response()["id"] == "mine"
                asked[f"{'binary' if binary else 'json'} {numbers} {packing}"] = answers(result)
    found["asked"] = asked
    some = [triton.InferRequestedOutput("score", binary_data=False), triton.InferRequestedOutput("id")]
    result = client.infer("loans", inputs(rows[:3], binary=True, numbers="INT64"), outputs=some)
    found["chosen"] = [output["name"] for output in result.get_response()["outputs"]]
    found["ids"] = [cell.decode() for cell in result.as_numpy("id").ravel()]
    found["later"] = answers(client.async_infer("loans", inputs(rows[:3], binary=True, numbers="INT64")).get_result())
    less = inputs(rows[:3], binary=True, numbers="INT64")[1:]
    found["refused"] = refused(lambda: client.infer("loans", less))
    found["no_output"] = refused(
        lambda: client.infer(
            "loans", inputs(rows[:3], binary=True, numbers="INT64"), outputs=[triton.InferRequestedOutput("x")]
        )
    )
    found["no_model"] = refused(lambda: client.get_model_metadata("nobody"))
    client.unload_model("loans")
    found["unloaded"] = [client.is_server_ready(), client.is_model_ready("loans"), client.get_model_repository_index()]
    client.load_model("loans")
    found["loaded"] = [client.is_server_ready(), client.is_model_ready("loans")]
    found["config_refused"] = refused(lambda: client.load_model("loans", config="{}"))
    found["file_refused"] = refused(lambda: client.load_model("loans", config="{}", files={"file:1/x": b"x"}))
    found["stats"] = client.get_inference_statistics("loans")["model_stats"][0]
    found["all_stats"] = len(client.get_inference_statistics()["model_stats"])
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
