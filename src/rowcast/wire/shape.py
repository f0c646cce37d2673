"""Where in a request's JSON its rows and options lie: a decoder made once from a template's paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from rowcast.errors import BodyError, SettingsError
from rowcast.schema.encoding import decode_json

LONGEST_TTL: Final = 86_400
MOST_NAMES: Final = 16
"""In a path."""
Flag = bool | None
Seconds = Annotated[int, msgspec.Meta(ge=1, le=LONGEST_TTL)] | None
Matrix = list[tuple[msgspec.Raw, ...]]
_name = r"[^.\[\]\"\\\x00-\x1f]+"
_path = re.compile(rf"{_name}(\.{_name}){{0,{MOST_NAMES - 1}}}").fullmatch
_batch = re.compile(r"([^\[\]]+)\[\](?:\.(.+))?").fullmatch


class Leaf(NamedTuple):
    """What lies at the end of a path: a type, a JSON Schema or an example."""

    what: Any
    needed: bool


Tree = dict[str, Any]
"""A name to the tree below it, or to the leaf that lies there."""


class Envelope(NamedTuple):
    """One request without its wrapping: a row as JSON, or a matrix, and its options."""

    rows: Any
    use_cache: bool
    ttl: int


class Shape:
    """Reads requests of one shape. `lax` lets names pass that no path says, and counts that they did."""

    def __init__(self, path: str, batch: str, use_cache: str, cache_ttl: str, *, matrix: bool, lax: bool) -> None:
        for key, given in (("path", path), ("use_cache", use_cache), ("cache_ttl", cache_ttl)):
            if given and not _path(given):
                names = f"names joined by dots, {MOST_NAMES} at most"
                raise SettingsError(f"the wire template: request.{key} is {given[:80]!r}; write {names}")
        self.is_plain = not (path or use_cache or cache_ttl)
        if not path and not self.is_plain:
            raise SettingsError("the wire template: with options the row needs a place of its own; set request.path")
        self._rows, self._use_cache, self._cache_ttl = path, use_cache, cache_ttl
        self._list = _batch_list(batch, path, matrix=matrix)
        self._lax = lax
        single = self._tree(Matrix if matrix else msgspec.Raw, Flag, Seconds)
        many = _tree([(self._list, Leaf(list[msgspec.Raw], True))])
        self._single, self._lax_single = self._decoders(single)
        self._many, self._lax_many = self._decoders(many)
        self._get = [attrgetter(_place(single, path)) if path else None for path in (path, use_cache, cache_ttl)]
        self._get_list = attrgetter(_place(many, self._list))

    def read(self, body: bytes) -> tuple[Envelope, int]:
        """The request, and whether it held names of no use."""
        document, ignored = _decoded(body, self._single, self._lax_single)
        rows, use_cache, ttl = [None if get is None else get(document) for get in self._get]
        return Envelope(rows, use_cache is not False, ttl or 0), ignored

    def read_batch(self, body: bytes) -> tuple[list[Envelope], int]:
        """The requests of a batch."""
        document, ignored = _decoded(body, self._many, self._lax_many)
        found = [bytes(raw) for raw in self._get_list(document)]
        if self.is_plain:
            return [Envelope(raw, True, 0) for raw in found], ignored
        each = [self.read(raw) for raw in found]
        return [envelope for envelope, _ in each], ignored + sum(more for _, more in each)

    def example(self, rows: Any) -> Any:
        """A request with these rows."""
        return rows if self.is_plain else _plain(self._tree(rows, True, 3600))

    def batch_example(self, rows: Any) -> Any:
        """A batch of one such request."""
        return _plain(_tree([(self._list, Leaf([self.example(rows)], True))]))

    def schemas(self, rows: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """JSON Schema of a request and of a batch, by that of what lies at the path."""
        use_cache = {"type": ["boolean", "null"], "default": True}
        ttl = {"type": ["integer", "null"], "minimum": 1, "maximum": LONGEST_TTL}
        single = rows if self.is_plain else self._schema(self._tree(rows, use_cache, ttl))
        batch = {"type": "array", "items": single, "minItems": 1}
        return single, self._schema(_tree([(self._list, Leaf(batch, True))]))

    def _tree(self, rows: Any, use_cache: Any, ttl: Any) -> Tree:
        """What lies where in a single request."""
        leaves = [(self._rows, Leaf(rows, True)), (self._use_cache, Leaf(use_cache, False))]
        leaves.append((self._cache_ttl, Leaf(ttl, False)))
        return _tree([(path, leaf) for path, leaf in leaves if path])

    def _schema(self, tree: Tree) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {n: b.what if isinstance(b, Leaf) else self._schema(b) for n, b in tree.items()},
            "required": [name for name, below in tree.items() if _is_needed(below)],
            "additionalProperties": self._lax,
        }

    def _decoders(self, tree: Tree) -> tuple[Decode, Decode | None]:
        strict = msgspec.json.Decoder(_struct(tree, strict=True)).decode
        return strict, msgspec.json.Decoder(_struct(tree, strict=False)).decode if self._lax else None


Decode = Callable[[bytes], Any]


def _decoded(body: bytes, strict: Decode, lax: Decode | None) -> tuple[Any, int]:
    """The body, and whether only the lax decoder would take it; BodyError says what is wrong."""
    refused: Exception | None = None
    for ignored, decode in enumerate((strict, lax)):
        if decode is None:
            continue
        try:
            return decode(body), ignored
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            refused = error
    decode_json(body)  # says what is wrong with the text itself
    raise BodyError(f"the request has another shape than this model's: {refused}", slug="wrong-shape")


def _batch_list(batch: str, path: str, *, matrix: bool) -> str:
    """The path of the list of requests; what follows `[]` must be the path of a single request."""
    given = batch or ("requests[]" if matrix else "rows[]")
    found = _batch(given)
    if found is None or not _path(found[1]) or (found[2] is not None and found[2] != path):
        below = f"[].{path}" if path else "[]"
        raise SettingsError(f"the wire template: request.batch is {given[:80]!r}; write such as `requests{below}`")
    return found[1]


def _tree(leaves: Iterable[tuple[str, Leaf]]) -> Tree:
    whole: Tree = {}
    for path, leaf in leaves:
        *above, last = path.split(".")
        tree: Any = whole
        for name in above:
            tree = tree.setdefault(name, {})
        if isinstance(tree, Leaf) or last in tree or not isinstance(tree, dict):
            raise SettingsError(f"the wire template: two things lie at {path!r}, or one below the other")
        tree[last] = leaf
    return whole


def _place(tree: Tree, path: str) -> str:
    """The attribute of a path in the struct of its tree."""
    places = []
    below: Any = tree
    for name in path.split("."):
        places.append(f"f{list(below).index(name)}")
        below = below[name]
    return ".".join(places)


def _struct(tree: Tree, *, strict: bool) -> type[msgspec.Struct]:
    """The struct that decodes such a tree; what is not needed may be absent."""
    fields: list[Any] = []
    for index, below in enumerate(tree.values()):
        kind = below.what if isinstance(below, Leaf) else _struct(below, strict=strict)
        if _is_needed(below):
            fields.append((f"f{index}", kind))
        elif isinstance(below, Leaf):
            fields.append((f"f{index}", kind, None))
        else:
            fields.append((f"f{index}", kind, msgspec.field(default_factory=kind)))
    rename = {f"f{index}": name for index, name in enumerate(tree)}
    return msgspec.defstruct("Wrapping", fields, rename=rename, forbid_unknown_fields=strict, kw_only=True)


def _plain(tree: Tree) -> dict[str, Any]:
    return {name: below.what if isinstance(below, Leaf) else _plain(below) for name, below in tree.items()}


def _is_needed(below: Any) -> bool:
    return below.needed if isinstance(below, Leaf) else any(map(_is_needed, below.values()))
