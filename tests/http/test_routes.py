"""Routing: the route for each path, its required scope, and the removal of the root path."""

from __future__ import annotations

import pytest

from rowcast.access.context import RequestContext
from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import NotFound, RequestError
from rowcast.history.service import History
from rowcast.http.cold_app import ColdApp
from rowcast.http.cold_routes import add_cold_routes
from rowcast.http.health_routes import HealthRoutes
from rowcast.http.routes import (
    NO_OPTIONS,
    Request,
    Response,
    Route,
    Router,
    answer_not_found,
    any_options,
    no_options,
    strip_prefix,
)
from rowcast.serving.deployment import Deployment
from rowcast.serving.health import Health
from rowcast.serving.interface import ModelInterface


@pytest.fixture(scope="module")
def router() -> Router:
    cold = ColdApp()
    history = History(MemoryStore(), EmptyJournalReader())
    deployment: Deployment[ModelInterface] = Deployment({})
    add_cold_routes(cold, deployment, history, None, open_metrics=False)  # type: ignore[arg-type]
    health = HealthRoutes(deployment, Health(), None, bytes, open_metrics=False)
    router = Router({}, [health])
    router.add_cold(cold.routes)
    return router


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
def test_every_path_has_a_route_with_the_expected_scope(
    router: Router, method: str, path: str, pattern: str, scope: str | None, is_public: bool
) -> None:
    route = router.find(path, method)

    assert (route.pattern, route.scope, route.is_public) == (pattern, scope, is_public)


def test_hot_routes_take_precedence_over_dialect_routes_and_dialect_routes_over_cold_routes() -> None:
    def route(pattern: str) -> Route:
        return Route(pattern=pattern, method="POST", handler=None)

    class Everything:
        def find(self, path: str) -> Route | None:
            return None if path == "/cold" else route("dialect")

    router = Router({"/hot": route("hot")}, [Everything()])
    router.add_cold([route("/cold")])

    patterns = [router.find(path, "POST").pattern for path in ("/hot", "/other", "/cold")]
    assert patterns == ["hot", "dialect", "/cold"]


def test_a_request_with_an_unsupported_method_requires_the_admin_scope(router: Router) -> None:
    route = router.find("/predictions", "PUT")

    assert (route.pattern, route.scope, route.is_public) == ("/predictions", "admin", False)


@pytest.mark.parametrize(
    ("path", "root", "rest"),
    [
        ("/predict", "", "/predict"),
        ("/api/predict", "/api", "/predict"),
        ("/api/api/predict", "/api", "/predict"),
        ("/api/api/api/predict", "/api", "/api/predict"),
        ("/api", "/api", "/"),
        ("/apis/predict", "/api", "/apis/predict"),
        ("/predict", "/api", "/predict"),
    ],
)
def test_the_root_path_is_stripped_at_most_twice(path: str, root: str, rest: str) -> None:
    assert strip_prefix(path, root) == rest


def test_a_route_without_options_rejects_a_query_string() -> None:
    assert no_options(b"") is any_options(b"a=1") is NO_OPTIONS
    with pytest.raises(RequestError) as refused:
        no_options(b"a=1")
    assert refused.value.slug == "bad-option"


async def test_a_request_for_an_unknown_path_in_a_dialect_raises_not_found() -> None:
    with pytest.raises(NotFound):
        await answer_not_found(Request("/v2/none", {}, b"", RequestContext("v2", "r")))


def test_requests_responses_and_options_have_the_documented_defaults() -> None:
    request = Request("/x", {}, b"", RequestContext("native", "r"))
    response, options = Response(b"{}"), NO_OPTIONS

    assert (request.options, request.is_alone, request.response_headers) == (NO_OPTIONS, False, ())
    assert (request.model, request.rows) == (None, 0)
    assert (response.status, response.content_type, response.headers) == (200, b"application/json", [])
    assert (options.partial, options.use_cache, options.use_wire, options.entity) == (False, True, True, "")


def test_a_request_records_its_model_and_whether_the_cache_had_all_rows() -> None:
    for hit, headers in ((None, ()), (True, [(b"x-cache", b"hit")]), (False, [(b"x-cache", b"miss")])):
        request, model = Request("/x", {}, b"", RequestContext("native", "r")), object()
        request.used(model, 3, hit)  # type: ignore[arg-type]
        assert (request.model, request.rows, request.response_headers) == (model, 3, headers)
    request.add_header(b"a", b"b")
    assert request.response_headers == [(b"x-cache", b"miss"), (b"a", b"b")]


def test_a_parameter_matches_one_segment_unless_it_is_a_path() -> None:
    routes = [Route(pattern=pattern, method="GET", handler=None) for pattern in ("/a/{x}", "/b/{x:path}", "/c.d")]
    router = Router({}, [])
    router.add_cold(routes)

    paths = ("/a/1", "/a/1/2", "/a/", "/b/1/2", "/b/", "/c.d", "/cxd")
    patterns = [router.find(path, "GET").pattern for path in paths]
    assert patterns == ["/a/{x}", "unmatched", "unmatched", "/b/{x:path}", "unmatched", "/c.d", "unmatched"]
    assert [router.find("/none", method).scope for method in ("GET", "HEAD", "OPTIONS", "POST")] == [None] * 3 + [
        "admin"
    ]
    assert router.find("/none", "POST").read_options(b"a=1") is NO_OPTIONS


def test_a_route_is_protected_by_default() -> None:
    route = Route(pattern="/x", method="POST", handler=None)

    assert (route.scope, route.is_public, route.is_probe, route.is_idempotent) == (None, False, False, False)
    assert (route.dialect, route.error_form, route.quick, route.content_types) == (
        "",
        None,
        None,
        {b"application/json"},
    )
    assert route.read_options is no_options
