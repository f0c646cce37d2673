"""The native dialect: one row, or `{"rows": [...]}`, in and predictions out."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import parse_qsl

import msgspec

from rowcast.errors import NoAnswer, RequestError
from rowcast.http.authentication import model_for
from rowcast.http.dialects.wire import SOURCE as WIRE
from rowcast.http.dialects.wire import WireApi
from rowcast.http.routes import HotRoute, Request
from rowcast.serving.batcher import Predictor
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Refused, Row, is_batch, read_rows
from rowcast.serving.waiting import Ask

SOURCE = "native"
ENTITY = re.compile(r"[\x20-\x7e]{1,128}").fullmatch

_encode = msgspec.json.Encoder().encode


class Options(msgspec.Struct, frozen=True):
    """What the query string may say."""

    partial: bool = False
    cache: bool = True
    wire: bool = True
    """False: requests and replies are native, whatever template the model has."""
    entity: str = ""


NO_OPTIONS = Options()


class NativeApi:
    """`POST /predict` and `POST /models/{name}/predict`, and the same with `/batch`."""

    def __init__(self, predictor: Predictor, *, max_rows: int) -> None:
        self._predictor = predictor
        self._max_rows = max_rows
        self._wired = WireApi(predictor, max_rows=max_rows)
        self.routes: dict[str, HotRoute] = {
            "/predict": HotRoute("/predict", "POST", self._answer(None)),
            "/predict/batch": HotRoute("/predict/batch", "POST", self._answer(None, batch=True)),
        }
        """By path, for the edge."""
        self._always = frozenset(self.routes)
        self.refresh()

    def refresh(self) -> None:
        """Have a route for every live model, and for no other."""
        live = {
            f"/models/{address}/predict{tail}": (address, tail)
            for address in self._predictor.deployment.addresses()
            for tail in ("", "/batch")
        }
        for path in self.routes.keys() - live.keys() - self._always:
            del self.routes[path]
        for path in live.keys() - self.routes.keys():
            name, tail = live[path]
            answer = self._answer(name, batch=bool(tail))
            self.routes[path] = HotRoute("/models/{name}/predict" + tail, "POST", answer)

    def _answer(self, name: str | None, *, batch: bool = False) -> Callable[[Request], Awaitable[bytes]]:
        deployment, predict, caching = self._predictor.deployment, self._predictor.predict, self._predictor.caching
        predict_row = self._wired.predict_row

        def answer(request: Request) -> Awaitable[bytes]:  # no coroutine of its own: the caller awaits the prediction
            caller = request.caller
            model = model_for(caller, deployment, name) if caller.models else deployment.get(name)
            options = _options(request.query) if request.query else NO_OPTIONS
            wire = model.wire
            if wire is not None and options.wire:
                ask = Ask(WIRE, request.request_id, caller.key_id, caller.tenant, options.entity, request.deadline)
                render = wire.render_row
                if render is not None and not batch and not (caching and options.cache):
                    return predict_row(model, wire, render, request, ask)
                wired = self._wired.batch if batch else self._wired.predict
                return wired(model, wire, request, ask, cache=options.cache)
            ask = Ask(SOURCE, request.request_id, caller.key_id, caller.tenant, options.entity, request.deadline)
            body = request.body
            if batch or (b'"rows"' in body and is_batch(body)):
                return self._batch(model, request, ask, options)
            row = Row(model.encoder.read(body), body)
            if caching and options.cache:
                return self._cached(model, row, request, ask)
            return predict(model, row, ask)

        return answer

    async def _cached(self, model: LiveModel, row: Row, request: Request, ask: Ask) -> bytes:
        (row,) = await self._predictor.recall(model, [row])
        request.note_cache(row.known is not None)
        return await self._predictor.predict(model, row, ask)

    async def _batch(self, model: LiveModel, request: Request, ask: Ask, options: Options) -> bytes:
        rows = read_rows(model, request.body, max_rows=self._max_rows, partial=options.partial)
        request.spend(len(rows))
        good = [row for row in rows if isinstance(row, Row)]
        if self._predictor.caching and options.cache:
            good = await self._predictor.recall(model, good)
            request.note_cache(bool(good) and all(row.known for row in good))
        try:
            replies = iter(await self._predictor.predict_all(model, good, ask) if good else ())
        except NoAnswer as none:
            refused = _refused(rows, none)
            if not options.partial:
                raise NoAnswer([place for place, row in enumerate(refused) if isinstance(row, Refused)]) from None
            rows = refused
            good = [row for row in rows if isinstance(row, Row)]
            replies = iter(await self._predictor.predict_all(model, good, ask) if good else ())
        predictions = [
            msgspec.Raw(_encode({"errors": row.problems}) if isinstance(row, Refused) else next(replies))
            for row in rows
        ]
        return _encode({"model": model.name, "version": model.version, "predictions": predictions})


def _refused(rows: Sequence[Row | Refused], none: NoAnswer) -> list[Row | Refused]:
    """The rows, those that have no answer refused; `none` counts those that were scored."""
    places = [place for place, row in enumerate(rows) if isinstance(row, Row)]
    silent = {places[row] for row in none.rows}
    return [
        Refused([msgspec.structs.replace(none.problems[0], row=place)]) if place in silent else row
        for place, row in enumerate(rows)
    ]


def _options(query: bytes) -> Options:
    """The query string as options; an unknown name or a wrong value is refused, not ignored."""
    try:
        given = dict(parse_qsl(query.decode(), keep_blank_values=True, strict_parsing=True))
    except ValueError:
        raise RequestError("the query string is malformed", slug="bad-option") from None
    for name, value in given.items():
        if name not in ("partial", "cache", "entity", "wire"):
            known = "partial=true, cache=false, entity=…, wire=false"
            raise RequestError(f"there is no option {name[:40]!r}; known are {known}", slug="bad-option")
        if name != "entity" and value not in ("true", "false"):
            raise RequestError(f"{name} must be true or false", slug="bad-option")
        if name == "entity" and not ENTITY(value):
            raise RequestError("entity must be 1 to 128 printable ASCII characters", slug="bad-option")
    return Options(
        given.get("partial") == "true",
        given.get("cache") != "false",
        given.get("wire") != "false",
        given.get("entity", ""),
    )
