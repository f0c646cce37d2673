"""FastAPI for the cold routes: parameters, documentation and static files. The edge in front of it does the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from rowcast.access.scopes import Scope as KeyScope
from rowcast.errors import MethodNotAllowed, NotFound, RequestError, RowcastError
from rowcast.http import problems
from rowcast.http.routes import Route, any_options
from rowcast.version import VERSION

STATIC = Path(__file__).parent / "static"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class ColdApp:
    """A FastAPI application whose routes state the scope that they need."""

    def __init__(self) -> None:
        self.api = FastAPI(title="Rowcast", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)
        self.routes: list[Route] = []
        """What the edge must know of each route."""
        self.api.mount("/static", StaticFiles(directory=STATIC), name="static")
        self._declare("GET", "/static/{path:path}", None, is_public=True)
        _handle_errors(self.api)

    def route(
        self,
        method: str,
        pattern: str,
        scope: KeyScope | None = None,
        *,
        is_public: bool = False,
        **description: Any,
    ) -> Callable[[Endpoint], Endpoint]:
        """Declare a route. Without a scope any valid key may use it; a public route needs no key."""
        self._declare(method, pattern, scope, is_public=is_public)
        return self.api.api_route(pattern, methods=[method], **description)

    def _declare(self, method: str, pattern: str, scope: KeyScope | None, *, is_public: bool) -> None:
        route = Route(
            pattern=pattern, method=method, handler=None, scope=scope, is_public=is_public, read_options=any_options
        )
        self.routes.append(route)


def _handle_errors(api: FastAPI) -> None:
    def answer(error: Exception, request: Request) -> Response:
        status, body, headers = problems.answer(error, request.scope["state"]["request_id"])
        request.scope["state"]["problem"] = problems.slug(error)
        return Response(body, status, headers={name.decode(): value.decode() for name, value in headers})

    @api.exception_handler(RowcastError)
    async def known(request: Request, error: RowcastError) -> Response:
        return answer(error, request)

    @api.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return answer(MethodNotAllowed((error.headers or {}).get("Allow", "GET")), request)
        return answer(NotFound("nothing exists at this address; see /docs"), request)

    @api.exception_handler(RequestValidationError)
    async def parameters(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(RequestError(f"{where}: {first['msg']}", slug="bad-option"), request)
