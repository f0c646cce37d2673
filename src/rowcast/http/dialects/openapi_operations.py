"""Functions that build the OpenAPI operations of protocols with their own error formats."""

from __future__ import annotations

from typing import Any

from rowcast.http.json_schemas import TEXT, Json, array, closed, reference
from rowcast.http.openapi_parts import SECURITY
from rowcast.http.problems import STATUS, TITLES

ERROR = closed(error=TEXT)
"""The schema of an error body in V1 and V2."""
# Each slug represents all slugs with the same status.
ANY_ROUTE = (
    "request-timeout",
    "body-too-large",
    "unsupported-media-type",
    "over-quota",
    "head-too-large",
    "overloaded",
)
PREDICTION_ROUTE = ("malformed-body", "model-not-found", "repeat-in-flight", "not-supported", "too-late")
NAME_PARAMETER = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[a-z0-9._-]{1,64}$"},
}
LABEL: Json = {"type": ["string", "number", "boolean"]}
CELL: Json = {"type": ["string", "number", "boolean", "null"]}
CELLS = array(CELL)


def operation(
    tag: str,
    path: str,
    summary: str,
    success: Json,
    *,
    problems: tuple[str, ...] = (),
    error: Json = ERROR,
    is_public: bool = False,
) -> Json:
    """Return an operation. `problems` are the slugs that this route reports in addition to the common slugs."""
    responses = {"200": success, **_error_responses((*problems, *ANY_ROUTE), error)}
    result: Json = {
        "tags": [tag],
        "summary": summary,
        "operationId": path.strip("/").replace("/", "_").replace("{name}", "one").replace(":", "_"),
        "responses": responses,
    }
    if "{name}" in path:
        result["parameters"] = [NAME_PARAMETER]
    responses |= _error_responses(("forbidden",), error)
    if not is_public:
        result["security"] = SECURITY
        responses |= _error_responses(("unauthorized",), error)
    return result


def get(
    tag: str,
    path: str,
    summary: str,
    schema: Json,
    *,
    problems: tuple[str, ...] = (),
    is_public: bool = False,
    can_be_unready: bool = False,
) -> dict[str, Json]:
    """Return the path item of a GET route. `can_be_unready` adds a 503 response with the same body or an error."""
    description = operation(
        tag, path, summary, success(schema), problems=("bad-option", *problems), is_public=is_public
    )
    if can_be_unready:
        description["responses"]["503"] = success({"anyOf": [schema, ERROR]}, "Not ready")
    return {path: {"get": description}}


def success(schema: Json, description: str = "Success", *, media_type: str = "application/json") -> Json:
    """Return a response whose body matches the schema."""
    return {"description": description, "content": {media_type: {"schema": schema}}}


def body(schema: Json, *, required: bool = False, example: Any = None) -> Json:
    """Return a JSON request body."""
    content: Json = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"required": required, "content": {"application/json": content}}


def object_with(required: tuple[str, ...] = (), /, **properties: Any) -> Json:
    """Return the schema of a request object; properties not listed in `required` are optional."""
    schema: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def _error_responses(slugs: tuple[str, ...], error: Json) -> dict[str, Json]:
    """Return the error responses, in the protocol's format and as problem details for clients that accept them."""
    content = {"application/json": {"schema": error}, "application/problem+json": {"schema": reference("Problem")}}
    return {str(STATUS[slug]): {"description": TITLES[slug], "content": content} for slug in slugs}
