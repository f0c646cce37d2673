"""Routes: what each of them demands, and which route a path gets."""

from __future__ import annotations

import pytest

from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.history.service import History
from rowcast.http.cold_app import ColdApp
from rowcast.http.cold_routes import add_cold_routes
from rowcast.http.routes import Router
from rowcast.serving.deployment import Deployment
from rowcast.serving.health import Health


@pytest.fixture(scope="module")
def router() -> Router:
    cold = ColdApp()
    history = History(MemoryStore(), EmptyJournalReader())
    add_cold_routes(cold, Deployment({}), history, Health(), None, bytes, open_metrics=False)  # type: ignore[arg-type]
    return Router({}, [], cold.routes)


@pytest.mark.parametrize(
    ("method", "path", "pattern", "scope", "is_public"),
    [
        ("GET", "/predictions", "/predictions", "read", False),
        ("HEAD", "/predictions", "/predictions", "read", False),
        ("GET", "/predictions/export", "/predictions/export", "read", False),
        ("GET", "/predictions/1", "/predictions/{prediction_id}", "read", False),
        ("DELETE", "/predictions/1", "/predictions/{prediction_id}", "admin", False),
        ("POST", "/models/reload", "/models/reload", "admin", False),
        ("POST", "/whatever", "unmatched", "admin", False),
        ("POST", "/models/none/predict", "/models/{name}/predict", "predict", False),
        ("GET", "/models", "/models", None, False),
        ("GET", "/models/info", "/models/info", None, False),
        ("GET", "/metrics", "/metrics", None, False),
        ("GET", "/nowhere", "unmatched", None, False),
        ("GET", "/", "/", None, True),
        ("GET", "/health/live", "/health/live", None, True),
        ("GET", "/static/vendor/redoc/redoc.standalone.js", "/static/{path:path}", None, True),
    ],
)
def test_every_path_has_a_route_that_states_its_scope(
    router: Router, method: str, path: str, pattern: str, scope: str | None, is_public: bool
) -> None:
    route = router.find(path, method)

    assert (route.pattern, route.scope, route.is_public) == (pattern, scope, is_public)
