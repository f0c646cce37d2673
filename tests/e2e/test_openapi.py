"""The OpenAPI document describes every reply from a real server, and no request causes a 5xx status."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from support import access, models, servers

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
EXAMPLES = 10
MATRIX = {
    "request": {"form": "matrix", "path": "data", "use_cache": "use_cache", "on_unknown": "ignore"},
    "labels": {"a": "A", "b": 2},
    "reply": {"labels": {"$rows": ["$label", "$class_index"]}, "cached": "$cached", "of": "$model"},
}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path) -> Any:
    """A server with keys, quotas and the cache enabled."""
    home = models.with_models(tmp_path_factory.mktemp("described") / "home", loan_registry)
    sum_ = models.number_columns(2)
    models.publish(FolderRegistry(home / "models"), "sum", models.sum_graph(2), sum_, models.REGRESSION, "values")
    models.publish(
        FolderRegistry(home / "models"),
        "matrix",
        models.mlp_graph(2, 3),
        sum_,
        models.classes("a", "b", "c"),
        "probabilities",
        MATRIX,
    )
    access.add(home, "boss", "predict", "read", "admin", quota="99999999/1s")
    settings = {"ROWCAST_CACHE": "true"}
    with servers.running(home, "--default-model", "loans", settings=settings) as server:
        yield server


def test_every_response_is_documented_with_a_status_and_a_specific_schema(described: servers.Server) -> None:
    with described.client() as client:
        document = client.get("/openapi.json").json()

    for path, item in document["paths"].items():
        for operation in item.values():
            assert "default" not in operation["responses"], path
            for status, response in operation["responses"].items():
                for kind, content in response.get("content", {}).items():
                    schema = content["schema"]
                    is_generic = kind.endswith("json") and schema == {"type": "object"} and path != "/sample"
                    assert not is_generic, f"{path} {status}"
    assert set(document["components"]["securitySchemes"]) == {"key", "bearer"}


@pytest.mark.slow
def test_fuzzed_requests_get_only_documented_replies(described: servers.Server, tmp_path: Path) -> None:
    """Schemathesis sends requests to every route except `unload`, because requests for an unloaded model would fail."""
    finished = subprocess.run(
        [
            *[str(Path(sys.executable).parent / "schemathesis"), "run", f"{described.address}/openapi.json"],
            *["--header", f"x-api-key: {access.secret('boss')}", "--checks", CHECKS, "--mode", "all"],
            *[
                "--exclude-path-regex",
                "/unload$",
                "--max-examples",
                str(EXAMPLES),
                "--seed",
                "7",
                "--no-color",
                "--phases",
                "examples,coverage,fuzzing",
            ],
        ],
        cwd=tmp_path,
        env=servers.environment(HYPOTHESIS_STORAGE_DIRECTORY=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    summary = re.search(r"(\d+) generated, (\d+) passed", finished.stdout)
    assert summary is not None
    assert summary[1] == summary[2]
    assert int(summary[1]) > 500
    with described.client() as client:
        assert httpx.codes.is_success(client.get("/health/ready").status_code)
