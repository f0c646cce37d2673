"""Routes, requests and responses. A route declares its rules once; the edge applies them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

import msgspec

from rowcast.access.context import RequestContext
from rowcast.access.scopes import Scope as KeyScope
from rowcast.errors import NotFound, RequestError
from rowcast.http.problems import ErrorForm
from rowcast.serving.interface import ModelInterface
from rowcast.serving.ports import Answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Lifespan = Callable[[Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
ONLY_JSON = frozenset((JSON,))
UNMATCHED = "unmatched"
READING = ("GET", "HEAD", "OPTIONS")
LONG_BODY = "rowcast.long_body"
"""The ASGI extension whose function `allow` gives a streamed request more time."""
API_HEADERS: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
"""The headers that the edge adds to the replies of hot routes."""


class RequestRules(msgspec.Struct, frozen=True):
    """The limits that apply to every request, and the path prefix under which clients reach the server."""

    max_body: int
    wait_seconds: float
    """The maximum number of seconds that a request can wait to be scored."""
    root_path: str = ""


class QueryOptions(msgspec.Struct, frozen=True):
    """The options in the query string of a prediction request."""

    partial: bool = False
    use_cache: bool = True
    use_wire: bool = True
    """Whether to use the model's wire template, if it has one, instead of the native format."""
    entity: str = ""


NO_OPTIONS = QueryOptions()


def no_options(query: bytes) -> QueryOptions:
    """Raise RequestError if the query string is not empty."""
    if query:
        raise RequestError("this path accepts no query parameters", slug="bad-option")
    return NO_OPTIONS


def any_options(query: bytes) -> QueryOptions:
    """Accept any query string; the handler parses it."""
    return NO_OPTIONS


class Request(msgspec.Struct):
    """An authenticated request with its complete body."""

    path: str
    headers: dict[bytes, bytes]
    body: bytes
    context: RequestContext
    options: QueryOptions = NO_OPTIONS
    is_alone: bool = False
    """Whether no other client is sending requests. If so, a single row is scored immediately."""
    response_headers: Sequence[tuple[bytes, bytes]] = ()
    """Headers that the handler adds to its response."""
    model: ModelInterface | None = None
    rows: int = 0
    """The number of rows that the model scored. The request log contains `model` and `rows`."""

    def add_header(self, name: bytes, value: bytes) -> None:
        """Add a header to the response."""
        self.response_headers = [*self.response_headers, (name, value)]

    def used(self, model: ModelInterface, rows: int, cache_hit: bool | None) -> None:
        """Record the model and the number of rows; add the header X-Cache unless `cache_hit` is None."""
        self.model, self.rows = model, rows
        if cache_hit is not None:
            self.add_header(b"x-cache", b"hit" if cache_hit else b"miss")


class Response(msgspec.Struct):
    """The response from a handler."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = []


Handler = Callable[[Request], Awaitable[Response]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A method and a path pattern, with the rules that the edge applies to matching requests."""

    pattern: str
    """The path, with its parameters in braces; also used in metrics and logs."""
    method: str
    handler: Handler | None
    """The function that answers requests, or None if the cold app handles the route."""
    scope: KeyScope | None = None
    """The scope that the key must have, or None to accept any valid key. Quotas apply only to routes with a scope."""
    is_public: bool = False
    """Whether clients can use the route without a key."""
    is_probe: bool = False
    """Whether the route reports only whether the server is alive or ready. All clients can use probes."""
    is_streamed: bool = False
    """Whether the cold app reads the body in chunks and limits its size. Otherwise, the edge reads the body."""
    dialect: str = ""
    """The `source` recorded in the history for predictions from this route."""
    content_types: frozenset[bytes] = ONLY_JSON
    error_form: ErrorForm | None = None
    """The dialect's error format, or None to send problem details."""
    is_idempotent: bool = False
    """Whether the route supports Idempotency-Key."""
    read_options: Callable[[bytes], QueryOptions] = no_options
    quick: QuickHandler | None = None
    """The hot path, which answers a plain request for one row without creating a task."""


class QuickHandler(Protocol):
    """The hot path of a route, built for the route's model when the model goes live."""

    def accepts(self, query: bytes, body: bytes) -> bool:
        """Return whether this is a single-row request without special options."""
        ...

    def submit(self, request: Request, answer: Answer) -> None:
        """Submit the row for scoring; `answer` receives the reply. Raise the same errors as the general path."""
        ...


class Dialect(Protocol):
    """The routes of a protocol other than the native protocol."""

    def find(self, path: str) -> Route | None:
        """Return the route for a path, or None if the path does not belong to the protocol.

        For an unknown path under the protocol's prefix, return a route that responds with 404.
        """
        ...


class Router:
    """Finds the route for a path: hot routes first, then dialects, then cold routes."""

    def __init__(self, hot: Mapping[str, Route], dialects: Sequence[Dialect]) -> None:
        self.hot = hot
        self._dialects = dialects
        self._cold: list[tuple[Callable[[str], Any], Route]] = []

    def add_cold(self, cold: Sequence[Route]) -> None:
        """Add cold routes."""
        self._cold += [(_compile(route.pattern), route) for route in cold]

    def is_cold(self, path: str) -> bool:
        """Return whether only cold routes can match a path."""
        return path not in self.hot and all(dialect.find(path) is None for dialect in self._dialects)

    def find(self, path: str, method: str) -> Route:
        """Return the route for a request.

        For an unknown path or method, return a route that responds with 404 or 405. That route requires the scope
        'admin' unless the method is GET, HEAD or OPTIONS.
        """
        route = self.hot.get(path)
        if route is not None:
            return route
        for dialect in self._dialects:
            route = dialect.find(path)
            if route is not None:
                return route
        return self._find_cold(path, "GET" if method == "HEAD" else method)

    def _find_cold(self, path: str, method: str) -> Route:
        pattern = UNMATCHED
        for matches, route in self._cold:
            if matches(path):
                if route.method == method:
                    return route
                pattern = route.pattern
        scope: KeyScope | None = None if method in READING else "admin"
        return Route(pattern=pattern, method=method, handler=None, scope=scope, read_options=any_options)


def _compile(pattern: str) -> Callable[[str], Any]:
    """Return a function that checks whether a path matches the pattern; `{name:path}` can contain slashes."""
    parts = re.split(r"(\{[a-z_]+(?::path)?\})", pattern)
    expression = "".join(
        (".+" if part.endswith(":path}") else "[^/]+") if part.startswith("{") else re.escape(part) for part in parts
    )
    return re.compile(expression).fullmatch


async def answer_not_found(request: Request) -> Response:
    """Raise NotFound for an unknown path under a dialect's prefix."""
    raise NotFound("unknown path; see /docs")


async def refuse_unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
    """The cold app of a process without cold routes: always raise NotFound."""
    raise NotFound("unknown path")


def strip_prefix(path: str, root: str) -> str:
    """Remove the root path up to twice: the server adds it, and a proxy may also leave it in place."""
    if not root:
        return path
    for _ in range(2):
        if path.startswith(root + "/") or path == root:
            path = path[len(root) :] or "/"
    return path
