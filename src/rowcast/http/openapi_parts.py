"""Parts shared by all operations in the OpenAPI document: response headers, security schemes and problem responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rowcast.http.json_schemas import Json, reference
from rowcast.http.problems import STATUS, TITLES
from rowcast.schema.schema import REQUIRED

COMMON_HEADERS: Json = {
    "X-Request-ID": {
        "description": "The request id that the client sent or the server generated.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "RateLimit-Policy": {"description": "The quota of the API key.", "schema": {"type": "string"}},
    "RateLimit": {
        "description": "The number of rows left in the quota, and the number of seconds until the full quota is "
        "available.",
        "schema": {"type": "string"},
    },
    "traceparent": {"description": "The server's span within the client's trace.", "schema": {"type": "string"}},
}
PREDICTION_HEADERS: Json = {
    "X-Cache": {
        "description": "`hit` or `miss`; present only if the cache is enabled.",
        "schema": {"enum": ["hit", "miss"]},
    },
    "X-Wire-Warning": {
        "description": "The number of cells that the wire template filled in, and the number of fields that it "
        "ignored.",
        "schema": {"type": "string", "pattern": "^filled=[0-9]+, ignored=[0-9]+$"},
    },
    "Idempotency-Replayed": {
        "description": "Whether this is the stored response to an earlier request; sent only if the request has "
        "an Idempotency-Key.",
        "schema": {"enum": ["true", "false"]},
    },
}
_RETRY_AFTER: Json = {
    "Retry-After": {
        "description": "The number of seconds to wait before retrying.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    }
}
_WWW_AUTHENTICATE: Json = {
    "WWW-Authenticate": {"description": "The accepted authentication scheme.", "schema": {"type": "string"}}
}
_HEADERS_BY_STATUS: dict[int, Json] = {401: _WWW_AUTHENTICATE, 409: _RETRY_AFTER, 429: _RETRY_AFTER, 503: _RETRY_AFTER}
SECURITY_SCHEMES: Json = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "An API key, created with `rowcast keys create`.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same API key as a bearer token."},
}
# The empty requirement allows requests without a key. A server accepts such requests if no keys exist.
SECURITY: list[Json] = [{}, {"key": []}, {"bearer": []}]


def problem_responses(slugs: Sequence[str]) -> dict[str, Json]:
    """Return the problem responses by status; slugs with the same status share a response."""
    by_status: dict[int, list[str]] = {}
    for slug in slugs:
        by_status.setdefault(STATUS[slug], []).append(slug)
    return {str(status): _problem_response(status, shared) for status, shared in by_status.items()}


def json_content(schemas: Sequence[Json], examples: Mapping[str, object]) -> Json:
    """Return the content of a JSON body that matches one of the schemas."""
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
    return {
        "application/json": {"schema": schema, "examples": {name: {"value": body} for name, body in examples.items()}}
    }


def require_key(operation: Json) -> None:
    """Add the security requirement and the responses for callers without a valid key or permission."""
    operation["security"] = SECURITY
    operation["responses"] |= problem_responses(("unauthorized", "forbidden", "local-only", "host-not-allowed"))


def _problem_response(status: int, slugs: Sequence[str]) -> Json:
    examples = {slug: {"value": _example(slug)} for slug in slugs}
    return {
        "description": "; ".join(TITLES[slug] for slug in slugs),
        "headers": {**COMMON_HEADERS, **_HEADERS_BY_STATUS.get(status, {})},
        "content": {"application/problem+json": {"schema": reference("Problem"), "examples": examples}},
    }


def _example(slug: str) -> Json:
    example: Json = {
        "type": f"urn:rowcast:error:{slug}",
        "title": TITLES[slug],
        "status": STATUS[slug],
        "detail": "What is wrong and how to fix it.",
        "instance": "urn:rowcast:request:0c9a8f21d7e3-1f",
    }
    if slug == "invalid-row":
        example["errors"] = [{"column": "income", "code": "missing", "message": REQUIRED}]
    return example
