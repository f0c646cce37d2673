"""KServe's V1 protocol, which is TensorFlow Serving's REST API."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from rowcast.errors import BodyError, ModelNotFound, NotFound, RequestError
from rowcast.http.dialects.scoring import Scoring, document, exactly_one, no_query, only, predictions, sentence
from rowcast.http.problems import Problem
from rowcast.http.routes import JSON, Door, Reply, Request

SOURCE = "v1"
SIGNATURES = ("", "predict", "serving_default")
LABELS = ("champion", "stable")
"""The version that is served under the model's name."""
CONTENT_TYPES = frozenset((JSON, b"application/x-www-form-urlencoded"))
"""`curl -d` declares the latter, and TensorFlow Serving's documents use it so."""
_path = re.compile(r"/v1/models/([^/:]+)(?:/versions/([^/:]+)|/labels/([^/:]+))?(?:(/metadata)|:([a-z]+))?").fullmatch


class KServe:
    """The doors below `/v1/models`."""

    def __init__(self, scoring: Scoring, ready: Callable[[], bool]) -> None:
        self._scoring = scoring
        self._ready = ready

    def door(self, path: str) -> Door | None:
        """What answers this path."""
        if path != "/v1/models" and not path.startswith("/v1/"):
            return None
        if path in ("/v1/models", "/v1/models/"):
            return Door("/v1/models", "GET", self._models, form)
        parts = _path(path)
        if parts is None or parts[4]:
            return Door("unmatched", "GET", _nowhere, form)
        name, version, label, _, verb = parts.groups()
        pattern = "/v1/models/{name}" + ("/versions/{version}" if version else "/labels/{label}" if label else "")
        if verb is None:
            return Door(pattern, "GET", partial(self._model, name, version, label), form)
        if verb == "predict":
            answer = partial(self._predict, name, version, label)
            return Door(f"{pattern}:predict", "POST", answer, form, "predict", content_types=CONTENT_TYPES)
        return Door(f"{pattern}:other", "POST", partial(_not_offered, verb), form, content_types=CONTENT_TYPES)

    async def _models(self, request: Request) -> Reply:
        no_query(request)
        names = {model.name for model in self._scoring.deployment.of(request.caller.models).models()}
        return Reply(msgspec.json.encode({"models": sorted(names)}))

    async def _model(self, name: str, version: str | None, label: str | None, request: Request) -> Reply:
        no_query(request)
        model = self._scoring.model(request, name, _version(version, label))
        ready = self._ready()
        versions = [one.version for one in self._scoring.deployment.models() if one.name == model.name]
        if version is not None or label is not None:
            versions = [model.version]
        status = {"error_code": "OK", "error_message": ""}
        found = {
            "name": model.name,
            "ready": ready,
            "model_version_status": [{"version": str(one), "state": "AVAILABLE", "status": status} for one in versions],
        }
        return Reply(msgspec.json.encode(found), 200 if ready else 503)

    async def _predict(self, name: str, version: str | None, label: str | None, request: Request) -> Reply:
        no_query(request)
        model = self._scoring.model(request, name, _version(version, label))
        found = document(request.body)
        layout = exactly_one(found, ("instances", "inputs"))
        only(found, ("instances", "inputs", "signature_name"))
        if found.get("signature_name", "") not in SIGNATURES:
            raise BodyError(f"the model has no signature but {SIGNATURES[-1]!r}")
        if layout == "instances" and not isinstance(found[layout], list):
            raise BodyError("`instances` must be a list of rows")
        rows = self._scoring.laid_out(model, found[layout])
        answers = predictions(await self._scoring.score(request, model, rows, SOURCE))
        return Reply(msgspec.json.encode({"predictions" if layout == "instances" else "outputs": answers}))


def _version(version: str | None, label: str | None) -> str | None:
    """The version that is meant; a label that is not known names none."""
    if label is not None and label not in LABELS:
        raise ModelNotFound(f"there is no label {label[:40]!r}; the version that is served is {LABELS[0]!r}")
    return version


def form(problem: Problem) -> tuple[int, bytes]:
    """`{"error": "text"}`; the protocol knows 400 where we know 422."""
    status = 400 if problem.status == 422 else problem.status
    return status, msgspec.json.encode({"error": sentence(problem)})


async def _nowhere(request: Request) -> Reply:
    raise NotFound("there is nothing at this address; see /docs")


async def _not_offered(verb: str, request: Request) -> Any:
    raise RequestError(f":{verb[:40]} is not offered here; :predict is", slug="not-supported")
