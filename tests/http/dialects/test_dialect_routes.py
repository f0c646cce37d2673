"""The rules for every route in V1, V2 and MLflow's protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.http.dialects import mlflow, scoring
from rowcast.http.routes import Dialect, Route
from support import models
from support.dialects import DialectFront

FORM, OCTETS, JSON = "application/x-www-form-urlencoded", "application/octet-stream", "application/json"
V1_TYPES, V2_TYPES = {JSON, FORM}, {JSON, FORM, OCTETS}
MODEL, VERSION = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
V1_MODEL = "/v1/models/{name}"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> DialectFront:
    folder: Path = tmp_path_factory.mktemp("models")
    columns = models.number_columns(2)
    return DialectFront(models.live(folder, "m", models.sum_graph(2), columns, models.REGRESSION, "values"))


def found(dialect: Dialect, path: str) -> Route:
    route = dialect.find(path)
    assert route is not None
    assert route.handler is not None
    assert route.quick is None
    return route


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/v1/models/m", V1_MODEL),
        ("/v1/models/m/versions/1", V1_MODEL + "/versions/{version}"),
        ("/v1/models/m/labels/stable", V1_MODEL + "/labels/{label}"),
        ("/v1/models/m/metadata", "unmatched"),
        ("/v1/nowhere", "unmatched"),
        ("/v2", "/v2"),
        ("/v2/", "/v2"),
        (MODEL.format(name="m"), MODEL),
        ("/v2/models/m/ready", MODEL + "/ready"),
        ("/v2/models/m/config", MODEL + "/config"),
        ("/v2/models/m/versions/1", VERSION),
        ("/v2/models/m/versions/1/ready", VERSION + "/ready"),
        ("/v2/nowhere", "unmatched"),
    ],
)
def test_reading_routes_accept_any_valid_key(front: DialectFront, path: str, pattern: str) -> None:
    route = found(front.v1 if path.startswith("/v1") else front.v2, path)

    assert (route.pattern, route.method, route.scope, route.is_idempotent) == (pattern, "GET", None, False)
    assert (route.is_public, route.is_probe) == (pattern == "/v2", False)
    assert route.error_form is scoring.write_error


@pytest.mark.parametrize(
    ("path", "is_probe"),
    [("/v2/health/live", True), ("/v2/health/ready", True), ("/ping", True), ("/version", False)],
)
def test_health_and_version_routes_are_public(front: DialectFront, path: str, *, is_probe: bool) -> None:
    route = found(front.v2 if path.startswith("/v2") else front.mlflow, path)

    assert (route.pattern, route.method, route.scope) == (path, "GET", None)
    assert (route.is_public, route.is_probe) == (True, is_probe)
    assert route.error_form is (scoring.write_error if path.startswith("/v2") else mlflow.write_error)


@pytest.mark.parametrize("pattern", ["/v2/models/stats", MODEL + "/stats", VERSION + "/stats"])
def test_statistics_require_the_read_scope(front: DialectFront, pattern: str) -> None:
    route = found(front.v2, pattern.format(name="m", version=1))

    assert (route.pattern, route.method, route.scope, route.is_public) == (pattern, "GET", "read", False)


@pytest.mark.parametrize(
    ("path", "pattern", "types"),
    [
        ("/v1/models/m:predict", V1_MODEL + ":predict", V1_TYPES),
        ("/v1/models/m/versions/1:predict", V1_MODEL + "/versions/{version}:predict", V1_TYPES),
        ("/v1/models/m/labels/stable:predict", V1_MODEL + "/labels/{label}:predict", V1_TYPES),
        ("/v2/models/m/infer", MODEL + "/infer", V2_TYPES),
        ("/v2/models/m/versions/1/infer", VERSION + "/infer", V2_TYPES),
        ("/invocations", "/invocations", {JSON, "text/csv"}),
    ],
)
def test_prediction_routes_require_the_predict_scope_and_are_idempotent(
    front: DialectFront, path: str, pattern: str, types: set[str]
) -> None:
    dialect, name = next(
        (dialect, name)
        for dialect, name in ((front.v1, "v1"), (front.v2, "v2"), (front.mlflow, "mlflow"))
        if dialect.find(path) is not None
    )
    route = found(dialect, path)

    assert (route.pattern, route.method, route.scope, route.dialect) == (pattern, "POST", "predict", name)
    assert (route.is_public, route.is_probe, route.is_idempotent) == (False, False, True)
    assert {kind.decode() for kind in route.content_types} == types
    assert route.error_form is (mlflow.write_error if name == "mlflow" else scoring.write_error)


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/v2/repository/index", "/v2/repository/index"),
        ("/v2/repository/models/m/load", "/v2/repository/models/{name}/load"),
        ("/v2/repository/models/m/unload", "/v2/repository/models/{name}/unload"),
    ],
)
def test_repository_routes_require_the_admin_scope(front: DialectFront, path: str, pattern: str) -> None:
    route = found(front.v2, path)

    assert (route.pattern, route.method, route.scope, route.is_idempotent) == (pattern, "POST", "admin", False)
    assert {kind.decode() for kind in route.content_types} == V2_TYPES
    assert route.error_form is scoring.write_error


def test_an_unknown_v1_verb_has_a_separate_route(front: DialectFront) -> None:
    route = found(front.v1, "/v1/models/m:explain")

    assert (route.pattern, route.method, route.scope) == (V1_MODEL + ":other", "POST", None)
    assert (route.is_idempotent, {kind.decode() for kind in route.content_types}) == (False, V1_TYPES)


@pytest.mark.parametrize("path", ["/", "/v1", "/v2x", "/v10/models", "/predict", "/invocations/"])
def test_other_paths_belong_to_no_dialect(front: DialectFront, path: str) -> None:
    assert [dialect.find(path) for dialect in front.dialects] == [None, None, None]
