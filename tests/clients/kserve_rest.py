"""Call a server with KServe's client. `test_clients.py` runs this script in a separate environment.

python kserve_rest.py http://HOST:PORT ROWS.json
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


def request(rows: list[dict[str, Any]], *, binary: bool) -> InferRequest:
    """Return a request with one tensor per column."""
    inputs = []
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if isinstance(cells[0], str):
            kind, array = "BYTES", np.array(cells, dtype=object)
        elif any(cell is None for cell in cells):
            kind, array = "FP64", np.array([np.nan if cell is None else cell for cell in cells])
        else:
            kind, array = "INT64", np.array(cells, np.int64)
        tensor = InferInput(name, [len(cells), 1], kind)
        tensor.set_data_from_numpy(array.reshape(-1, 1), binary_data=binary)
        inputs.append(tensor)
    return InferRequest("loans", inputs, request_id="mine")


async def error_of(call: Any) -> str:
    """Return the message of the error that a call raises, or an empty string if it raises none."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        return str(error)
    return ""


async def main(address: str, rows: list[dict[str, Any]]) -> None:
    """Call every operation once and print the results."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    v1, v2 = (InferenceRESTClient(RESTConfig(protocol=protocol)) for protocol in ("v1", "v2"))
    labels: dict[str, Any] = {
        "v1 instances": (await v1.infer(address, {"instances": rows}, model_name="loans"))["predictions"],
        "v1 inputs": (await v1.infer(address, {"inputs": columns}, model_name="loans"))["outputs"],
    }
    scores = {}
    for binary in (True, False):
        result = await v2.infer(address, request(rows, binary=binary), model_name="loans")
        assert result.id == "mine"
        outputs = {output.name: output for output in result.outputs}
        labels[f"v2 {binary}"] = [str(cell) for cell in outputs["prediction"].data]
        scores[f"v2 {binary}"] = [float(cell) for cell in np.ravel(outputs["score"].as_numpy())]
    results = {
        "labels": labels,
        "scores": scores,
        "v2": [
            await v2.is_server_live(address),
            await v2.is_server_ready(address),
            await v2.is_model_ready(address, "loans"),
        ],
        "v1": [await v1.is_server_live(address), await v1.is_model_ready(address, "loans")],
        "v1 invalid row": await error_of(v1.infer(address, {"instances": [{}]}, model_name="loans")),
        "v2 invalid row": await error_of(v2.infer(address, request([{"x": 1}], binary=True), model_name="loans")),
        "v1 unknown model": await error_of(v1.is_model_ready(address, "nobody")),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
