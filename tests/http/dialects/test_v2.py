"""Server metadata, model metadata and model configuration in the Open Inference Protocol."""

from __future__ import annotations

import httpx
import pytest

# The shared client runs on the session's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_server_lists_its_extensions(client: httpx.AsyncClient) -> None:
    server = (await client.get("/v2")).json()

    assert server["name"] == "rowcast"
    assert server["extensions"] == ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]


async def test_the_metadata_lists_inputs_and_outputs(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v2/models/sum")).json() == {
        "name": "sum",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": name, "datatype": "FP64", "shape": [-1, 1]} for name in ("x0", "x1")],
        "outputs": [{"name": "prediction", "datatype": "FP32", "shape": [-1, 1]}],
    }


async def test_the_configuration_uses_the_triton_format(client: httpx.AsyncClient) -> None:
    config = (await client.get("/v2/models/loans/versions/1/config")).json()

    assert {"name": "purpose", "data_type": "TYPE_STRING", "dims": [1]} in config["input"]
    assert [(output["name"], output["dims"]) for output in config["output"]] == [
        ("prediction", [1]),
        ("probability", [1]),
        ("score", [1]),
        ("probabilities", [2]),
    ]
    assert config["version_policy"] == {"specific": {"versions": [1]}}


@pytest.mark.parametrize("path", ["/v2/nowhere", "/v2/models/nobody", "/v2/models/loans/versions/9/ready"])
async def test_a_request_for_an_unknown_path_or_model_gets_404(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path)

    assert (reply.status_code, list(reply.json())) == (404, ["error"])
