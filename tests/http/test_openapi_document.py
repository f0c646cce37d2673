"""The OpenAPI document of a server with three models, compared with `openapi.json` in this folder.

After a change to the document, run `PYTHONPATH=tests python tests/http/test_openapi_document.py` and review the diff.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rowcast.adapters.memory.jobs import MemoryFileStore, MemoryJobStore
from rowcast.http import openapi
from rowcast.http.cold_app import ColdApp
from rowcast.http.cold_routes import add_cold_routes
from rowcast.http.job_routes import add_job_routes
from rowcast.jobs.service import JobLimits, JobService
from rowcast.serving.deployment import Deployment
from rowcast.version import VERSION
from support import models

EXPECTED = Path(__file__).with_name("openapi.json")
WIRE = {
    "request": {"form": "matrix", "path": "data", "use_cache": "use_cache", "on_unknown": "ignore"},
    "reply": {"labels": {"$rows": ["$label", "$class_index"]}, "cached": "$cached", "of": "$model"},
}


def described(folder: Path, *, root_path: str = "") -> Any:
    """Return the document of a server with three models: a regression model, a binary model, and a multiclass model
    that has a wire template."""
    columns = models.number_columns(2)
    graphs = [
        ("sum", models.sum_graph(2), models.REGRESSION, "values", None),
        ("yes-no", models.mlp_graph(2, 2), models.classes("no", "yes"), "probabilities", None),
        ("wired", models.mlp_graph(2, 3), models.classes("a", "b", "c"), "probabilities", WIRE),
    ]
    live = {
        name: models.live(folder, name, graph, columns, decision, kind, wire)
        for name, graph, decision, kind, wire in graphs
    }
    live["sum@1"] = live["sum"]
    cold, deployment = ColdApp(), Deployment(live, "sum")
    unused: Any = None
    add_cold_routes(cold, deployment, unused, unused, open_metrics=True)
    jobs = JobService(MemoryJobStore(), MemoryFileStore(), JobLimits(1000, 10, 60.0, ""), unused)
    add_job_routes(cold, jobs, deployment, max_json_bytes=1000, is_draining=unused)
    return rounded(openapi.document(cold, deployment, root_path, open_metrics=True))


def without_copies(document: Any) -> Any:
    """Return the document with each repeated part, such as a problem response, moved to a numbered list."""
    texts = Counter(json.dumps(node) for node in _nodes(document))
    places: dict[str, int] = {}
    shared: list[Any] = []

    def shorten(node: Any) -> Any:
        text = json.dumps(node)
        if text in places:
            return {"shared": places[text]}
        if isinstance(node, dict):
            node = {key: shorten(value) for key, value in node.items()}
        elif isinstance(node, list):
            node = [shorten(value) for value in node]
        if texts[text] == 1 or len(text) < 100:
            return node
        places[text] = len(shared)
        shared.append(node)
        return {"shared": places[text]}

    return {"document": shorten(document), "shared": shared}


def _nodes(node: Any) -> Iterator[Any]:
    """Yield the objects and lists in a document."""
    if isinstance(node, dict | list):
        yield node
        for child in node.values() if isinstance(node, dict) else node:
            yield from _nodes(child)


def rounded(node: Any) -> Any:
    """Return the document with rounded numbers, because the last bits of a score depend on the machine."""
    if isinstance(node, dict):
        return {key: rounded(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [rounded(value) for value in node]
    return round(node, 4) if isinstance(node, float) else node


def test_the_document_describes_every_route_and_model_as_expected(tmp_path: Path) -> None:
    document = described(tmp_path)

    assert document["info"].pop("version") == VERSION
    actual, expected = without_copies(document), json.loads(EXPECTED.read_text())
    assert actual["shared"] == expected["shared"]
    assert actual == expected


def test_the_document_names_the_root_path_and_missing_models(tmp_path: Path) -> None:
    cold, unused = ColdApp(), Any
    add_cold_routes(cold, Deployment({}), unused, unused, open_metrics=False)  # type: ignore[arg-type]

    empty = openapi.document(cold, Deployment({}), open_metrics=False)

    assert empty["info"]["description"] == openapi.NO_MODELS
    assert "security" in empty["paths"]["/metrics"]["get"]
    assert described(tmp_path, root_path="/rowcast")["servers"] == [{"url": "/rowcast"}]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        written = described(Path(folder))
    del written["info"]["version"]
    EXPECTED.write_text(json.dumps(without_copies(written), indent=1, ensure_ascii=False) + "\n")
