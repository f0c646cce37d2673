"""The Open Inference Protocol V2 (REST), which clients of KServe, Triton and MLServer use."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from rowcast.access.scopes import Scope as KeyScope
from rowcast.errors import BodyError, Forbidden, RequestError, Unavailable
from rowcast.http.authentication import allow_model
from rowcast.http.dialects import v2_metadata
from rowcast.http.dialects.scoring import DialectScoring, check_keys, read_object, write_error
from rowcast.http.dialects.v2_repository import Repository
from rowcast.http.dialects.v2_statistics import ModelStatistics
from rowcast.http.routes import UNMATCHED, Handler, Request, Response, Route, answer_not_found
from rowcast.version import VERSION

if TYPE_CHECKING:
    from rowcast.http.dialects import v2_infer
    from rowcast.schema.tensors import Tensor
    from rowcast.serving.interface import ModelInterface

V2 = "v2"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
MODEL = "/v2/models/{name}"
MODEL_VERSION = "/v2/models/{name}/versions/{version}"
_match_model = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer|config|stats))?").fullmatch
_match_repository = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)").fullmatch

ModelHandler: TypeAlias = "Callable[[ModelInterface, Request], Awaitable[Response]]"


class V2Routes:
    """The routes under `/v2`."""

    def __init__(
        self,
        scoring: DialectScoring,
        ready: Callable[[], bool],
        repository: Repository,
        statistics: ModelStatistics,
    ) -> None:
        self._scoring = scoring
        self._ready = ready
        self._repository = repository
        self._statistics = statistics
        fixed = [
            _get("/v2", self._server, is_public=True),
            _get("/v2/health/live", self._live, is_probe=True),
            _get("/v2/health/ready", self._server_ready, is_probe=True),
            _get("/v2/models/stats", self._all_stats, "read"),
            _post("/v2/repository/index", self._index, "admin"),
        ]
        self._fixed = {route.pattern: route for route in fixed}
        self._not_found = _get(UNMATCHED, answer_not_found)
        self._actions: dict[str, ModelHandler] = {
            "": self._metadata,
            "ready": self._model_ready,
            "config": self._config,
            "stats": self._stats,
            "infer": self._infer,
        }

    def find(self, path: str) -> Route | None:
        """Return the route for a path."""
        if not path.startswith("/v2"):
            return None
        path = path.rstrip("/")
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed
        if (parts := _match_model(path)) is not None:
            name, version, action = parts[1], parts[2], parts[3] or ""
            pattern = (MODEL_VERSION if version else MODEL) + (f"/{action}" if action else "")
            handler = partial(self._with_model, name, version, self._actions[action])
            if action == "infer":
                return _post(pattern, handler, "predict")
            return _get(pattern, handler, "read" if action == "stats" else None)
        if (parts := _match_repository(path)) is not None:
            loads = parts[2] == "load"
            return _post(
                f"/v2/repository/models/{{name}}/{parts[2]}", partial(self._set_loaded, parts[1], loads), "admin"
            )
        return self._not_found if path == "/v2" or path.startswith("/v2/") else None

    async def _server(self, request: Request) -> Response:
        return _json({"name": "rowcast", "version": VERSION, "extensions": EXTENSIONS})

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _server_ready(self, request: Request) -> Response:
        # The specification calls this field `live`, but KServe's client reads `ready`.
        ready = self._ready()
        return _json({"live": ready, "ready": ready}, 200 if ready else 503)

    async def _with_model(self, name: str, version: str | None, action: ModelHandler, request: Request) -> Response:
        return await action(self._scoring.model(request, name, version), request)

    async def _metadata(self, model: ModelInterface, request: Request) -> Response:
        outputs = v2_metadata.outputs(model)
        metadata = {
            "name": model.name,
            "versions": self._versions(model),
            "platform": "onnx_onnxv1",
            "inputs": v2_metadata.inputs(model.schema.columns),
            "outputs": [
                {"name": output.name, "datatype": output.datatype, "shape": [-1, output.width]} for output in outputs
            ],
        }
        return _json(metadata)

    def _versions(self, model: ModelInterface) -> list[str]:
        return [str(live.version) for live in self._scoring.deployment.models() if live.name == model.name]

    async def _model_ready(self, model: ModelInterface, request: Request) -> Response:
        ready = self._ready()
        return _json({"name": model.name, "ready": ready}, 200 if ready else 503)

    async def _config(self, model: ModelInterface, request: Request) -> Response:
        def describe(name: str, datatype: str, width: int) -> dict[str, Any]:
            kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
            return {"name": name, "data_type": kind, "dims": [width]}

        config = {
            "name": model.name,
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "version_policy": {"specific": {"versions": [int(version) for version in self._versions(model)]}},
            "max_batch_size": self._scoring.max_rows,
            "input": [
                describe(tensor["name"], tensor["datatype"], 1) for tensor in v2_metadata.inputs(model.schema.columns)
            ],
            "output": [describe(*msgspec.structs.astuple(output)) for output in v2_metadata.outputs(model)],
        }
        return _json(config)

    async def _stats(self, model: ModelInterface, request: Request) -> Response:
        if request.context.caller.tenant:
            raise _needs_unlimited_key()
        return _json({"model_stats": [self._statistics.report(model.name, model.version)]})

    async def _all_stats(self, request: Request) -> Response:
        if request.context.caller.tenant or request.context.caller.models:
            raise _needs_unlimited_key()
        models = self._scoring.deployment.models()
        return _json({"model_stats": [self._statistics.report(model.name, model.version) for model in models]})

    async def _infer(self, model: ModelInterface, request: Request) -> Response:
        started = time.perf_counter_ns()
        try:
            rows, response = await self._scored(model, request)
        except BaseException:
            self._statistics.count(model.name, model.version, 0, time.perf_counter_ns() - started)
            raise
        self._statistics.count(model.name, model.version, rows, time.perf_counter_ns() - started)
        return response

    async def _scored(self, model: ModelInterface, request: Request) -> tuple[int, Response]:
        from rowcast.http.dialects import v2_infer  # loads numpy, which a server with a queue does not need otherwise

        call = v2_infer.read(request, model)
        outputs = v2_infer.requested_outputs(model, call.inference)
        inputs = v2_infer.inputs_by_name(model, call.inputs, self._scoring.max_rows)
        data = await self._score_block(model, request, call, inputs, outputs)
        if data is None:
            rows = self._scoring.read_columns(model, v2_infer.cells(model, inputs))
            scored = await self._scoring.score(request, model, rows)
            data = {output.name: v2_infer.data(output, model.decision, scored) for output, _ in outputs}
            data["warnings"] = v2_infer.warnings(row.warnings for row in scored)
        return call.inputs[0].rows, v2_infer.response(request, model, call.inference, outputs, data)

    async def _score_block(
        self,
        model: ModelInterface,
        request: Request,
        call: v2_infer.Call,
        inputs: dict[str, Tensor],
        outputs: Sequence[tuple[v2_metadata.OutputSpec, bool]],
    ) -> dict[str, Any] | None:
        """Score the rows as a block and return the outputs; return None if the rows must be read individually.

        Hot path.
        """
        from rowcast.http.dialects import v2_infer

        service, rows = self._scoring.service, call.inputs[0].rows
        columns = v2_infer.block_columns(call, rows)
        if columns is None or not service.can_record_blocks(model):
            return None
        tensors = model.columns.read(inputs)
        if tensors is None:
            return None
        block = await service.predict_block(model, tensors, columns, call.tail, request.context)
        request.used(model, rows, None)
        return v2_infer.block_data(model.decision, block, outputs)

    async def _index(self, request: Request) -> Response:
        document = read_object(request.body) if request.body.strip() else {}
        check_keys(document, ("ready", "repository_name"))
        only_ready = document.get("ready", False)
        if type(only_ready) is not bool:
            raise BodyError('"ready" must be true or false')
        caller = request.context.caller
        entries = [entry for entry in await self._repository.index() if caller.may_use(entry.name)]
        return _json([entry for entry in entries if entry.state == "READY" or not only_ready])

    async def _set_loaded(self, name: str, loaded: bool, request: Request) -> Response:
        allow_model(request.context.caller, name)
        document = read_object(request.body) if request.body.strip() else {}
        parameters = document.get("parameters", {})
        if not isinstance(parameters, dict):
            raise BodyError('"parameters" must be an object')
        for parameter in parameters:
            if parameter != "unload_dependents":
                raise RequestError(
                    f"unsupported parameter {parameter[:80]!r}; models are loaded only from the registry"
                )
        result = await self._repository.set_loaded(name, loaded=loaded)
        if result.status == "pending":
            raise Unavailable("some server processes have not applied the change yet; retry after 1 s")
        if result.status == "failed":
            raise RequestError(next(process.reload_error for process in result.processes if process.reload_error))
        return _json({})


def _get(
    pattern: str, handler: Handler, scope: KeyScope | None = None, *, is_public: bool = False, is_probe: bool = False
) -> Route:
    return Route(
        pattern=pattern,
        method="GET",
        handler=handler,
        scope=scope,
        is_public=is_public or is_probe,
        is_probe=is_probe,
        error_form=write_error,
    )


def _post(pattern: str, handler: Handler, scope: KeyScope) -> Route:
    return Route(
        pattern=pattern,
        method="POST",
        handler=handler,
        scope=scope,
        dialect=V2,
        content_types=v2_metadata.CONTENT_TYPES,
        error_form=write_error,
        is_idempotent=scope == "predict",
    )


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status)


def _needs_unlimited_key() -> Forbidden:
    return Forbidden("statistics cover all callers; send a key without tenant or model limits")
