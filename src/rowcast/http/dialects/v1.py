"""KServe's V1 protocol, which is TensorFlow Serving's REST API."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import msgspec

from rowcast.errors import BodyError, ModelNotFound, RequestError
from rowcast.http.dialects.scoring import DialectScoring, check_keys, labels, only_key, read_object, write_error
from rowcast.http.routes import JSON, UNMATCHED, Request, Response, Route, answer_not_found

V1 = "v1"
SIGNATURES = ("", "predict", "serving_default")
LABELS = ("champion", "stable")
"""The labels of the version that is served under the model's name."""
CONTENT_TYPES = frozenset((JSON, b"application/x-www-form-urlencoded"))
"""The accepted content types. They include the form type because TensorFlow Serving's documentation uses `curl -d`,
which sends this type by default."""
_match = re.compile(r"/v1/models/([^/:]+)(?:/versions/([^/:]+)|/labels/([^/:]+))?(?:(/metadata)|:([a-z]+))?").fullmatch


class V1Routes:
    """The routes under `/v1/models`."""

    def __init__(self, scoring: DialectScoring, ready: Callable[[], bool]) -> None:
        self._scoring = scoring
        self._ready = ready
        self._list = Route(pattern="/v1/models", method="GET", handler=self._models, error_form=write_error)
        self._not_found = Route(pattern=UNMATCHED, method="GET", handler=answer_not_found, error_form=write_error)

    def find(self, path: str) -> Route | None:
        """Return the route for a path."""
        if path != "/v1/models" and not path.startswith("/v1/"):
            return None
        if path in ("/v1/models", "/v1/models/"):
            return self._list
        parts = _match(path)
        if parts is None or parts[4]:
            return self._not_found
        name, version, label, _, verb = parts.groups()
        pattern = "/v1/models/{name}" + ("/versions/{version}" if version else "/labels/{label}" if label else "")
        if verb is None:
            status = partial(self._model, name, version, label)
            return Route(pattern=pattern, method="GET", handler=status, error_form=write_error)
        if verb == "predict":
            return Route(
                pattern=f"{pattern}:predict",
                method="POST",
                handler=partial(self._predict, name, version, label),
                scope="predict",
                dialect=V1,
                content_types=CONTENT_TYPES,
                error_form=write_error,
                is_idempotent=True,
            )
        refuse = partial(_refuse_verb, verb)
        return Route(
            pattern=f"{pattern}:other",
            method="POST",
            handler=refuse,
            content_types=CONTENT_TYPES,
            error_form=write_error,
        )

    async def _models(self, request: Request) -> Response:
        visible = self._scoring.deployment.restricted_to(request.context.caller.models)
        return Response(msgspec.json.encode({"models": sorted({model.name for model in visible.models()})}))

    async def _model(self, name: str, version: str | None, label: str | None, request: Request) -> Response:
        model = self._scoring.model(request, name, _read_version(version, label))
        ready = self._ready()
        versions = [live.version for live in self._scoring.deployment.models() if live.name == model.name]
        if version is not None or label is not None:
            versions = [model.version]
        status = {"error_code": "OK", "error_message": ""}
        body = {
            "name": model.name,
            "ready": ready,
            "model_version_status": [
                {"version": str(number), "state": "AVAILABLE", "status": status} for number in versions
            ],
        }
        return Response(msgspec.json.encode(body), 200 if ready else 503)

    async def _predict(self, name: str, version: str | None, label: str | None, request: Request) -> Response:
        model = self._scoring.model(request, name, _read_version(version, label))
        document = read_object(request.body)
        layout = only_key(document, ("instances", "inputs"))
        check_keys(document, ("instances", "inputs", "signature_name"))
        if document.get("signature_name", "") not in SIGNATURES:
            raise BodyError(f"unknown signature; the model's only signature is {SIGNATURES[-1]!r}")
        if layout == "instances" and not isinstance(document[layout], list):
            raise BodyError('"instances" must be a list of rows')
        rows = self._scoring.read_rows(model, document[layout])
        predictions = labels(await self._scoring.score(request, model, rows))
        return Response(msgspec.json.encode({"predictions" if layout == "instances" else "outputs": predictions}))


def _read_version(version: str | None, label: str | None) -> str | None:
    """Return the requested version; None means the version that is served under the model's name."""
    if label is not None and label not in LABELS:
        raise ModelNotFound(f"unknown label {label[:40]!r}; the served version has the label {LABELS[0]!r}")
    return version


async def _refuse_verb(verb: str, request: Request) -> Response:
    raise RequestError(f"the method :{verb[:40]} is not supported; use :predict", slug="not-supported")
