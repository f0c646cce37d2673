"""The OpenAPI document: the cold routes, documented by FastAPI, and the prediction routes of every live model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from rowcast.http import health_openapi
from rowcast.http.cold_app import ColdApp, ColdRoute
from rowcast.http.dialects import mlflow_openapi, native_openapi, v1_openapi, v2_openapi
from rowcast.http.json_schemas import Json, derive
from rowcast.http.openapi_parts import COMMON_HEADERS, SECURITY_SCHEMES, problem_responses, require_key
from rowcast.http.problems import STATUS, Problem
from rowcast.registry.bundle import Parity
from rowcast.schema.schema import Column

if TYPE_CHECKING:
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.interface import ModelInterface

TAGS = {
    "predictions": "Send one row, or several rows in `rows`. Every prediction is recorded before it is returned.",
    "models": "The served models and the rows that they accept.",
    "jobs": "Tables that are scored in the background.",
    "history": "The recorded predictions.",
    "health": "Health checks and metrics, for load balancers and Prometheus.",
    "v2": "Open Inference Protocol V2, for clients of KServe, Triton and MLServer.",
    "v1": "KServe V1, for clients of KServe and TensorFlow Serving.",
    "mlflow": "MLflow's scoring protocol, which SageMaker also uses.",
}
NO_MODELS = "No models are visible. Either no model is loaded, or you need an API key; click Authorize to enter a key."


def document(cold: ColdApp, deployment: Deployment[ModelInterface], root_path: str = "", *, open_metrics: bool) -> Json:
    """Return the OpenAPI document for the deployed models. `root_path` is the path prefix that clients use."""
    api = cold.api
    openapi: Json = get_openapi(
        title=api.title,
        version=api.version,
        description=None if deployment.live else NO_MODELS,
        routes=api.routes,
        servers=[{"url": root_path}] if root_path else None,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    paths: dict[str, Json] = openapi.setdefault("paths", {})
    components = _describe_cold_routes(cold, paths)
    paths |= health_openapi.paths(open_metrics=open_metrics)
    components |= native_openapi.components(deployment)
    for dialect in (native_openapi, v2_openapi, v1_openapi, mlflow_openapi):
        paths |= dialect.paths(deployment)
    openapi["components"] = {"schemas": components, "securitySchemes": SECURITY_SCHEMES}
    return openapi


def _describe_cold_routes(cold: ColdApp, paths: dict[str, Json]) -> dict[str, Json]:
    """Replace FastAPI's response descriptions, which lack bodies and problems; return the schema components."""
    routes = list(cold.documented.items())
    # The reply schemas refer to Column and Parity without defining them.
    others = [Problem, Column, Parity, *health_openapi.REPLIES]
    schemas, components = derive([*others, *(route.response for _, route in routes)])
    components["Problem"]["properties"]["type"] = {
        "enum": [f"urn:rowcast:error:{slug}" for slug in [*STATUS, "internal"]]
    }
    for ((path, method), route), schema in zip(routes, schemas[len(others) :], strict=True):
        _describe_responses(paths[path][method], route, schema)
    return components


def _describe_responses(operation: Json, route: ColdRoute, schema: Json) -> None:
    responses: dict[str, Any] = operation["responses"]
    responses.pop("422", None)  # FastAPI documents 422 for a validation error, but ColdApp returns 400
    success = {
        "description": operation["summary"],
        "headers": COMMON_HEADERS,
        "content": {media_type: {"schema": schema} for media_type in route.media_types},
    }
    responses.pop("200", None)
    responses[str(route.status)] = success
    slugs = list(route.problems)
    if any(parameter["in"] == "query" for parameter in operation.get("parameters", [])):
        slugs.append("bad-option")
    if route.route.scope is not None:
        slugs.append("over-quota")
    responses |= problem_responses(slugs)
    for status, description in route.other_statuses.items():
        responses[str(status)] = {**success, "description": description}
    if not route.route.is_public:
        require_key(operation)
