"""Decode requests whose rows and options are at the paths that a wire template specifies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from rowcast.errors import BodyError, DocumentError
from rowcast.schema.encoding import decode_json

MAX_TTL: Final = 86_400
MAX_PATH_NAMES: Final = 16
Flag = bool | None
Seconds = Annotated[float, msgspec.Meta(ge=1, le=MAX_TTL, multiple_of=1)] | None
"""A whole number of seconds; clients may write 60 as 60.0."""
Matrix = list[tuple[msgspec.Raw, ...]]
Decode = Callable[[bytes], Any]
_name = r"[^.\[\]\"\\\x00-\x1f]+"
_match_path = re.compile(rf"{_name}(\.{_name}){{0,{MAX_PATH_NAMES - 1}}}").fullmatch
_match_batch = re.compile(r"([^\[\]]+)\[\](?:\.(.+))?").fullmatch


class Leaf(NamedTuple):
    """The end of a path. `value` is a type, a JSON Schema or an example, depending on the tree."""

    value: Any
    required: bool


Tree = dict[str, Any]
"""Maps a name to the tree below it, or to a leaf."""


class UnwrappedRequest(NamedTuple):
    """The content of one request: a row as JSON text or a matrix of raw cells, and the cache options."""

    rows: Any
    use_cache: bool
    ttl: int


class RequestShape:
    """Decodes requests of one shape. With `lax`, unknown names are ignored and reported instead of being rejected."""

    def __init__(self, *, path: str, batch: str, use_cache: str, cache_ttl: str, matrix: bool, lax: bool) -> None:
        for key, value in (("path", path), ("use_cache", use_cache), ("cache_ttl", cache_ttl)):
            if value and not _match_path(value):
                message = f"{value[:80]!r} is not a path; write up to {MAX_PATH_NAMES} names joined by dots"
                raise _problem(key, message)
        self.is_plain = not (path or use_cache or cache_ttl)
        if not path and not self.is_plain:
            raise _problem("path", "required if there are cache options; write the path of the row, for example `data`")
        self._row_path, self._use_cache_path, self._ttl_path = path, use_cache, cache_ttl
        self._list_path = _list_path(batch, path, matrix=matrix)
        self._lax = lax
        single = self._single_tree(Matrix if matrix else msgspec.Raw, Flag, Seconds)
        batch_tree = _build_tree([(self._list_path, Leaf(list[msgspec.Raw], True))])
        self._decode, self._decode_lax = self._decoders(single)
        self._decode_batch, self._decode_batch_lax = self._decoders(batch_tree)
        paths = (path, use_cache, cache_ttl)
        self._getters = [attrgetter(_attribute(single, each)) if each else None for each in paths]
        self._get_list = attrgetter(_attribute(batch_tree, self._list_path))

    def read(self, body: bytes) -> tuple[UnwrappedRequest, int]:
        """Return the request, and the number of objects with ignored names: 0 or 1."""
        document, ignored = _decode(body, self._decode, self._decode_lax)
        rows, use_cache, ttl = [None if get is None else get(document) for get in self._getters]
        return UnwrappedRequest(rows, use_cache is not False, int(ttl or 0)), ignored

    def read_batch(self, body: bytes) -> tuple[list[UnwrappedRequest], int]:
        """Return the requests in a batch, and the number of objects with ignored names."""
        document, ignored = _decode(body, self._decode_batch, self._decode_batch_lax)
        bodies = [bytes(raw) for raw in self._get_list(document)]
        if self.is_plain:
            return [UnwrappedRequest(raw, True, 0) for raw in bodies], ignored
        results = [self.read(raw) for raw in bodies]
        return [request for request, _ in results], ignored + sum(count for _, count in results)

    def example(self, rows: Any) -> Any:
        """Return a request that contains `rows`."""
        return rows if self.is_plain else _leaf_values(self._single_tree(rows, True, 3600))

    def batch_example(self, rows: Any) -> Any:
        """Return a batch of one request that contains `rows`."""
        return _leaf_values(_build_tree([(self._list_path, Leaf([self.example(rows)], True))]))

    def schemas(self, rows: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the JSON Schemas of a request and of a batch, given the schema of the rows."""
        use_cache = {"type": ["boolean", "null"], "default": True}
        ttl = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_TTL}
        single = rows if self.is_plain else self._schema(self._single_tree(rows, use_cache, ttl))
        batch = {"type": "array", "items": single, "minItems": 1}
        return single, self._schema(_build_tree([(self._list_path, Leaf(batch, True))]))

    def _single_tree(self, rows: Any, use_cache: Any, ttl: Any) -> Tree:
        leaves = [(self._row_path, Leaf(rows, True)), (self._use_cache_path, Leaf(use_cache, False))]
        leaves.append((self._ttl_path, Leaf(ttl, False)))
        return _build_tree([(path, leaf) for path, leaf in leaves if path])

    def _schema(self, tree: Tree) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {n: b.value if isinstance(b, Leaf) else self._schema(b) for n, b in tree.items()},
            "required": [name for name, below in tree.items() if _is_required(below)],
            "additionalProperties": self._lax,
        }

    def _decoders(self, tree: Tree) -> tuple[Decode, Decode | None]:
        strict = msgspec.json.Decoder(_struct(tree, strict=True)).decode
        return strict, msgspec.json.Decoder(_struct(tree, strict=False)).decode if self._lax else None


def _decode(body: bytes, strict: Decode, lax: Decode | None) -> tuple[Any, int]:
    """Return the decoded body, and 1 if only the lax decoder accepts it, otherwise 0.

    Raise BodyError if both decoders reject the body.
    """
    refusal: Exception | None = None
    for ignored, decode in enumerate((strict, lax)):
        if decode is None:
            continue
        try:
            return decode(body), ignored
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            refusal = error
    decode_json(body)  # raises a more precise error if the body is not JSON
    raise BodyError(f"the request does not match the model's wire template: {refusal}", slug="wrong-shape")


def _list_path(batch: str, path: str, *, matrix: bool) -> str:
    """Return the path of a batch's list of requests, which is the part of `batch` before `[]`."""
    text = batch or ("requests[]" if matrix else "rows[]")
    match = _match_batch(text)
    if match is None or not _match_path(match[1]) or (match[2] is not None and match[2] != path):
        example = f"requests[].{path}" if path else "requests[]"
        raise _problem("batch", f"{text[:80]!r} does not specify the list of requests; write, for example, {example!r}")
    return match[1]


def _build_tree(leaves: Iterable[tuple[str, Leaf]]) -> Tree:
    root: Tree = {}
    for path, leaf in leaves:
        *parents, last = path.split(".")
        tree: Any = root
        for name in parents:
            tree = tree.setdefault(name, {})
        if isinstance(tree, Leaf) or last in tree or not isinstance(tree, dict):
            raise _problem("", f"the path {path!r} is used twice or conflicts with another path")
        tree[last] = leaf
    return root


def _attribute(tree: Tree, path: str) -> str:
    """Return the attribute path that corresponds to `path` in the struct made from `tree`."""
    attributes = []
    below: Any = tree
    for name in path.split("."):
        attributes.append(f"f{list(below).index(name)}")
        below = below[name]
    return ".".join(attributes)


def _struct(tree: Tree, *, strict: bool) -> type[msgspec.Struct]:
    """Return a struct type that decodes JSON with the tree's shape; optional leaves may be absent."""
    fields: list[Any] = []
    for index, below in enumerate(tree.values()):
        kind = below.value if isinstance(below, Leaf) else _struct(below, strict=strict)
        if _is_required(below):
            fields.append((f"f{index}", kind))
        elif isinstance(below, Leaf):
            fields.append((f"f{index}", kind, None))
        else:
            fields.append((f"f{index}", kind, msgspec.field(default_factory=kind)))
    rename = {f"f{index}": name for index, name in enumerate(tree)}
    return msgspec.defstruct("Body", fields, rename=rename, forbid_unknown_fields=strict, kw_only=True)


def _leaf_values(tree: Tree) -> dict[str, Any]:
    return {name: below.value if isinstance(below, Leaf) else _leaf_values(below) for name, below in tree.items()}


def _is_required(below: Any) -> bool:
    return below.required if isinstance(below, Leaf) else any(map(_is_required, below.values()))


def _problem(key: str, message: str) -> DocumentError:
    return DocumentError("wire template", f"request.{key}" if key else "request", message)
