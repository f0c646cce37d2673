"""The Open Inference Protocol V2 (REST): KServe's, Triton's and MLServer's clients speak it."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from rowcast.errors import BodyError, NotFound, RequestError, Unavailable
from rowcast.http.authentication import allow_model
from rowcast.http.dialects import v2_infer
from rowcast.http.dialects.scoring import Scoring, document, no_query, only, sentence
from rowcast.http.dialects.v2_repository import Repository
from rowcast.http.dialects.v2_statistics import Tally
from rowcast.http.problems import Problem
from rowcast.http.routes import Door, Reply, Request
from rowcast.schema.tensors import Tensor
from rowcast.serving.live_models import LiveModel
from rowcast.version import VERSION

SOURCE = "v2"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
MODEL = "/v2/models/{name}"
VERSION_OF = "/v2/models/{name}/versions/{version}"
_model_path = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer|config|stats))?").fullmatch
_repository_path = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)").fullmatch


class OpenInference:
    """The doors below `/v2`."""

    def __init__(self, scoring: Scoring, ready: Callable[[], bool], repository: Repository, tally: Tally) -> None:
        self._scoring = scoring
        self._ready = ready
        self._repository = repository
        self._tally = tally
        self._fixed = {
            "/v2": Door("/v2", "GET", self._server, form, open=True),
            "/v2/health/live": Door("/v2/health/live", "GET", self._live, form, open=True),
            "/v2/health/ready": Door("/v2/health/ready", "GET", self._is_ready, form, open=True),
            "/v2/models/stats": Door("/v2/models/stats", "GET", self._all_stats, form, "read"),
            "/v2/repository/index": _posted("/v2/repository/index", self._index, "admin"),
        }
        self._actions: dict[str, Callable[[LiveModel, Request], Awaitable[Reply]]] = {
            "": self._metadata,
            "ready": self._model_ready,
            "config": self._config,
            "stats": self._stats,
            "infer": self._infer,
        }

    def door(self, path: str) -> Door | None:
        """What answers this path."""
        if not path.startswith("/v2"):
            return None
        path = path.rstrip("/")
        found = self._fixed.get(path)
        if found is not None:
            return found
        if (parts := _model_path(path)) is not None:
            name, version, action = parts[1], parts[2], parts[3] or ""
            pattern = (VERSION_OF if version else MODEL) + (f"/{action}" if action else "")
            answer = partial(self._of_model, name, version, self._actions[action])
            if action == "infer":
                return _posted(pattern, answer, "predict")
            return Door(pattern, "GET", answer, form, "read" if action == "stats" else None)
        if (parts := _repository_path(path)) is not None:
            loads = parts[2] == "load"
            change = partial(self._change, parts[1], loads)
            return _posted(f"/v2/repository/models/{{name}}/{parts[2]}", change, "admin")
        if path == "/v2" or path.startswith("/v2/"):
            return Door("unmatched", "GET", _nowhere, form)
        return None

    async def _server(self, request: Request) -> Reply:
        return _json({"name": "rowcast", "version": VERSION, "extensions": EXTENSIONS})

    async def _live(self, request: Request) -> Reply:
        return _json({"live": True})

    async def _is_ready(self, request: Request) -> Reply:
        # The specification calls it `live`, KServe's client looks for `ready`.
        ready = self._ready()
        return _json({"live": ready, "ready": ready}, 200 if ready else 503)

    async def _of_model(
        self,
        name: str,
        version: str | None,
        action: Callable[[LiveModel, Request], Awaitable[Reply]],
        request: Request,
    ) -> Reply:
        no_query(request)
        return await action(self._scoring.model(request, name, version), request)

    async def _metadata(self, model: LiveModel, request: Request) -> Reply:
        outputs = v2_infer.outputs(model)
        found = {
            "name": model.name,
            "versions": self._versions(model),
            "platform": "onnx_onnxv1",
            "inputs": v2_infer.inputs(model.schema.columns),
            "outputs": [
                {"name": output.name, "datatype": output.datatype, "shape": [-1, output.width]} for output in outputs
            ],
        }
        return _json(found)

    def _versions(self, model: LiveModel) -> list[str]:
        return [str(one.version) for one in self._scoring.deployment.models() if one.name == model.name]

    async def _model_ready(self, model: LiveModel, request: Request) -> Reply:
        ready = self._ready()
        return _json({"name": model.name, "ready": ready}, 200 if ready else 503)

    async def _config(self, model: LiveModel, request: Request) -> Reply:
        def described(name: str, datatype: str, width: int) -> dict[str, Any]:
            kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
            return {"name": name, "data_type": kind, "dims": [width]}

        found = {
            "name": model.name,
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "version_policy": {"specific": {"versions": [int(version) for version in self._versions(model)]}},
            "max_batch_size": self._scoring.max_rows,
            "input": [described(one["name"], one["datatype"], 1) for one in v2_infer.inputs(model.schema.columns)],
            "output": [described(*msgspec.structs.astuple(one)) for one in v2_infer.outputs(model)],
        }
        return _json(found)

    async def _stats(self, model: LiveModel, request: Request) -> Reply:
        if request.caller.tenant:
            raise _not_for_tenants()
        return _json({"model_stats": [self._tally.of(model.name, model.version)]})

    async def _all_stats(self, request: Request) -> Reply:
        no_query(request)
        if request.caller.tenant or request.caller.models:
            raise _not_for_tenants()
        models = self._scoring.deployment.models()
        return _json({"model_stats": [self._tally.of(model.name, model.version) for model in models]})

    async def _infer(self, model: LiveModel, request: Request) -> Reply:
        started = time.perf_counter_ns()
        try:
            rows, found = await self._answered(model, request)
        except BaseException:
            self._tally.count(model.name, model.version, 0, time.perf_counter_ns() - started)
            raise
        self._tally.count(model.name, model.version, rows, time.perf_counter_ns() - started)
        return found

    async def _answered(self, model: LiveModel, request: Request) -> tuple[int, Reply]:
        asked = v2_infer.read(request, model)
        decision = model.manifest.decision
        wanted = v2_infer.chosen(model, asked.inference)
        inputs = v2_infer.named(model, asked.inputs, self._scoring.max_rows)
        found = self._block(model, request, asked, inputs, wanted)
        if found is None:
            rows = self._scoring.columns(model, v2_infer.cells(model, inputs))
            answers = await self._scoring.score(request, model, rows, SOURCE)
            found = {output.name: v2_infer.data(output, decision, answers) for output, _ in wanted}
            found["warnings"] = v2_infer.warnings(answers)
        return asked.inputs[0].rows, v2_infer.reply(request, model, asked.inference, wanted, found)

    def _block(
        self,
        model: LiveModel,
        request: Request,
        asked: v2_infer.Asked,
        inputs: dict[str, Tensor],
        wanted: Sequence[tuple[v2_infer.Output, bool]],
    ) -> dict[str, Any] | None:
        """The outputs of many rows at once; None when they must be read one by one. HOT"""
        predictor = self._scoring.predictor
        columns = v2_infer.block_columns(asked, asked.inputs[0].rows)
        tensors = model.columns.read(inputs) if columns and predictor.takes_blocks(model) else None
        if columns is None or tensors is None:
            return None
        request.spend(asked.inputs[0].rows)
        block = predictor.predict_block(model, tensors, columns, asked.tail, self._scoring.ask(request, SOURCE))
        return v2_infer.of_block(model.manifest.decision, block, wanted)

    async def _index(self, request: Request) -> Reply:
        no_query(request)
        asked = document(request.body) if request.body.strip() else {}
        only(asked, ("ready", "repository_name"))
        ready = asked.get("ready", False)
        if type(ready) is not bool:
            raise BodyError("`ready` must be true or false")
        found = [one for one in await self._repository.index() if request.caller.may_use(one.name)]
        return _json([one for one in found if one.state == "READY" or not ready])

    async def _change(self, name: str, loads: bool, request: Request) -> Reply:
        no_query(request)
        allow_model(request.caller, name)
        asked = document(request.body) if request.body.strip() else {}
        parameters = asked.get("parameters", {})
        if not isinstance(parameters, dict):
            raise BodyError("`parameters` must be an object")
        for parameter in parameters:
            if parameter != "unload_dependents":
                raise RequestError(
                    f"the parameter {parameter[:80]!r} is refused: models come from the registry and from nowhere else"
                )
        status, workers = await self._repository.change(name, loaded=loads)
        if status == "pending":
            raise Unavailable("not every worker has followed yet; try again in a second")
        if status == "failed":
            raise RequestError(next(worker.reload_error for worker in workers if worker.reload_error))
        return _json({})


def form(problem: Problem) -> tuple[int, bytes]:
    """`{"error": "text"}`; the protocol knows 400 where we know 422."""
    status = 400 if problem.status == 422 else problem.status
    return status, msgspec.json.encode({"error": sentence(problem)})


def _posted(name: str, answer: Callable[[Request], Awaitable[Reply]], scope: Any) -> Door:
    return Door(name, "POST", answer, form, scope, content_types=v2_infer.PLAIN)


def _json(found: Any, status: int = 200) -> Reply:
    return Reply(msgspec.json.encode(found), status)


async def _nowhere(request: Request) -> Reply:
    raise NotFound("there is nothing at this address; see /docs")


def _not_for_tenants() -> RequestError:
    return RequestError("statistics tell of all callers: they need a key without a tenant", slug="forbidden")
