"""Replies of a wire template: JSON trees made into byte templates once, filled from native replies.

A blank is filled with the very text that the native reply has in that place: no number is read and written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from rowcast.errors import SettingsError
from rowcast.schema.prediction import Decision, Label

EACH_ROW: Final = "$rows"
EACH_REQUEST: Final = "$requests"
CERTAIN: Final = ("$probability", "$probabilities", "$probabilities_by_label")
"""Only where the graph gives probabilities."""
NULL: Final = msgspec.Raw(b"null")
FIELDS: Final[Mapping[str, tuple[Any, ...]]] = {
    "id": (msgspec.Raw,),
    "prediction": (msgspec.Raw,),
    "probability": (msgspec.Raw, NULL),
    "score": (msgspec.Raw, NULL),
    "probabilities": (dict[str, msgspec.Raw],),
    "warnings": (msgspec.Raw,),
    "cached": (bool,),
}
"""Fields of a native reply, as they are read."""

_encode = msgspec.json.Encoder().encode


class Facts(NamedTuple):
    """What is the same in every reply of a model."""

    model: str
    version: int
    columns: Sequence[str]
    categories: int
    booleans: int

    def words(self) -> dict[str, bytes]:
        """Each with its blank."""
        return {
            "$model": _encode(self.model),
            "$version": _encode(self.version),
            "$model_loaded": b"true",
            "$columns": _encode(self.columns),
            "$column_count": _encode(len(self.columns)),
            "$category_count": _encode(self.categories),
            "$boolean_count": _encode(self.booleans),
        }


class Told(NamedTuple):
    """One request's answer: the native replies of its rows, and what is known beside them."""

    replies: Sequence[bytes]
    seconds: float


_Row = Any
"""Those fields of a native reply that are used, each as the text it has there; and `native`, all of it."""


class _Request(NamedTuple):
    rows: Sequence[_Row]
    seconds: float
    requests: Sequence[_Request] = ()


Fill = Callable[[Any], bytes | msgspec.Raw]
"""Makes the text of one blank, from a row's fields or from a request."""


Fields = Mapping[str, tuple[str, Fill]]
"""Word to the field of the native reply that it needs, if any, and what makes its text."""
Loops = Mapping[str, Callable[[Any, str], Fill]]


class Blanks(NamedTuple):
    """A byte template and what fills its blanks, in order."""

    text: bytes
    fills: tuple[Fill, ...]

    def filled(self, about: Any) -> bytes:
        """The text. HOT."""
        return self.text % tuple([fill(about) for fill in self.fills])


class Reply:
    """Both replies of a template, ready to be filled."""

    def __init__(
        self, used: Sequence[str], single: Blanks, batch: Blanks, alone: Blanks | None, *, whole: bool
    ) -> None:
        fields = [*((name, *FIELDS[name]) for name in used), ("native", bytes, b"")]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Used", fields, kw_only=True, gc=False)).decode
        self._whole = whole
        self._single = single
        self._batch = batch
        self.alone = None if alone is None or whole else _quick(self._decode, alone)
        """Makes the reply to a request of one row from the native one; None when it takes more than that."""

    def one(self, told: Told) -> bytes:
        """The reply to one request."""
        return self._single.filled(self._request(told))

    def many(self, told: Sequence[Told], seconds: float) -> bytes:
        """The reply to a batch of requests."""
        requests = [self._request(one) for one in told]
        return self._batch.filled(_Request([row for request in requests for row in request.rows], seconds, requests))

    def _request(self, told: Told) -> _Request:
        return _Request([self._read(reply) for reply in told.replies], told.seconds)

    def _read(self, native: bytes) -> _Row:
        row: Any = self._decode(native)
        if self._whole:
            row.native = native
        return row


def _quick(read: Callable[[bytes], Any], blanks: Blanks) -> Callable[[bytes], bytes]:
    """HOT. Two blanks are the usual number, and a comprehension costs as much as they do (bench/serve.py)."""
    text, fills = blanks
    if len(fills) == 2:
        first, second = fills

        def filled_with_two(native: bytes) -> bytes:
            row = read(native)
            return text % (first(row), second(row))

        return filled_with_two

    def filled(native: bytes) -> bytes:
        row = read(native)
        return text % tuple([fill(row) for fill in fills])

    return filled


def default_reply(*, matrix: bool) -> Any:
    """The reply of a template that says none: as native as can be."""
    return {"model": "$model", "version": "$version", "predictions": {EACH_ROW: "$native"}} if matrix else "$native"


def default_batch_reply() -> Any:
    """The reply to a batch where the template says none."""
    return {"model": "$model", "version": "$version", "predictions": {EACH_REQUEST: "$reply"}}


def compile_reply(
    single: Any,
    batch: Any,
    facts: Facts,
    decision: Decision,
    labels: Mapping[str, Any],
    numbers: Mapping[str, int],
    *,
    matrix: bool,
    probabilities: bool,
) -> Reply:
    """Both trees, proven; SettingsError names the place of what cannot be filled."""
    if single is msgspec.UNSET:
        single = default_reply(matrix=matrix)
    if batch is msgspec.UNSET:
        batch = default_batch_reply()
    words = _Words(facts, _row_fills(decision, labels, numbers), _without_use(decision, probabilities=probabilities))
    one = words.request(single, "reply", alone=not matrix)
    many = words.batch(batch, "batch_reply", one)
    whole = "native" in words.used
    return Reply(sorted(words.used - {"native"}), one, many, words.of_one_row(one), whole=whole)


def compile_root(tree: Any, facts: Facts) -> bytes:
    """What `GET /` answers: nothing in it depends on a request."""
    return _Words(facts, {}, {}).fixed(tree, "root").text % ()


class _Words:
    """Compiles trees, and keeps which fields of native replies they use."""

    def __init__(self, facts: Facts, rows: Fields, useless: Mapping[str, str]) -> None:
        self.used: set[str] = set()
        self._firsts: dict[Fill, Fill] = {}
        """What fills a blank from a request of one row, to what fills it from that row."""
        self._facts = facts.words()
        self._rows = rows
        self._useless = useless
        self._width = len(facts.columns)

    def fixed(self, tree: Any, where: str) -> Blanks:
        """A tree that answers no request."""
        return self._compile(tree, where, {}, {})

    def request(self, tree: Any, where: str, *, alone: bool) -> Blanks:
        """A tree that answers one request; `alone` when that has one row, which needs no `$rows`."""
        words = self._request_words()
        if alone:
            rows = {**self._rows, "$cached": ("cached", _cached)}
            words |= {word: (field, self._first(fill)) for word, (field, fill) in rows.items()}
        return self._compile(tree, where, words, {EACH_ROW: self._each_row})

    def of_one_row(self, blanks: Blanks) -> Blanks | None:
        """The same for the row of a request that has one; None when it takes more than a row to fill."""
        fills = [self._firsts.get(fill) for fill in blanks.fills]
        return None if None in fills else Blanks(blanks.text, tuple(fill for fill in fills if fill is not None))

    def _first(self, fill: Fill) -> Fill:
        def first(request: _Request) -> bytes | msgspec.Raw:
            return fill(request.rows[0])

        self._firsts[first] = fill
        return first

    def batch(self, tree: Any, where: str, reply: Blanks) -> Blanks:
        """A tree that answers a batch; `$reply` is the reply to each request."""

        def each_request(below: Any, place: str) -> Fill:
            words = {**self._request_words(), "$reply": ("", reply.filled)}
            each = self._compile(below, place, words, {EACH_ROW: self._each_row})
            return lambda batch: b"[" + b",".join([each.filled(request) for request in batch.requests]) + b"]"

        return self._compile(tree, where, self._request_words(), {EACH_ROW: self._each_row, EACH_REQUEST: each_request})

    def _each_row(self, tree: Any, where: str) -> Fill:
        each = self._compile(tree, where, self._rows, {})
        return lambda request: b"[" + b",".join([each.filled(row) for row in request.rows]) + b"]"

    def _request_words(self) -> dict[str, tuple[str, Fill]]:
        width = self._width
        return {
            "$latency_seconds": ("", lambda request: b"%.6f" % request.seconds),
            "$input_shape": ("", lambda request: b"[%d,%d]" % (len(request.rows), width)),
            "$cached": (
                "cached",
                lambda request: b"true" if all(row.cached for row in request.rows) else b"false",
            ),
        }

    def _compile(self, tree: Any, where: str, words: Fields, loops: Loops) -> Blanks:
        writer = _Writer(self, words, loops)
        writer.write(tree, where)
        return Blanks(b"".join(writer.texts), tuple(writer.fills))

    def fact(self, name: str) -> bytes | None:
        """The text of what is the same in every reply."""
        return self._facts.get(name)

    def fill(self, name: str, place: str, words: Fields) -> Fill:
        """What fills this blank; SettingsError says why nothing can."""
        if name in words and name not in self._useless:
            field, fill = words[name]
            self.used |= {field} - {""}
            return fill
        raise SettingsError(f"the wire template: {place}: {self._why_not(name, [*self._facts, *words])}")

    def _why_not(self, name: str, here: Sequence[str]) -> str:
        if name in self._useless:
            return f"{name} is not known: {self._useless[name]}"
        if name in self._rows:
            return f"{name} belongs to a row; put it below {EACH_ROW}, which makes a list with an entry a row"
        known = ", ".join(sorted(word for word in here if word not in self._useless))
        return f"there is no {name} here; known are {known} (write $$ for a text that begins with $)"


class _Writer:
    """Writes one tree as a byte template."""

    def __init__(self, known: _Words, words: Fields, loops: Loops) -> None:
        self.texts: list[bytes] = []
        self.fills: list[Fill] = []
        self._known = known
        self._words = words
        self._loops = loops

    def write(self, node: Any, place: str) -> None:
        """One node and what is below it."""
        if isinstance(node, Mapping):
            self._object(node, place)
        elif isinstance(node, list | tuple):
            self.texts.append(b"[")
            for number, below in enumerate(node):
                self.texts.append(b"," * bool(number))
                self.write(below, f"{place}[{number}]")
            self.texts.append(b"]")
        elif isinstance(node, str) and node.startswith("$") and not node.startswith("$$"):
            fact = self._known.fact(node)
            if fact is None:
                self._blank(self._known.fill(node, place, self._words))
            else:
                self.texts.append(fact.replace(b"%", b"%%"))
        else:
            self.texts.append(_literal(node[1:] if isinstance(node, str) and node.startswith("$$") else node))

    def _object(self, node: Mapping[Any, Any], place: str) -> None:
        if len(node) == 1 and (loop := next(iter(node))) in (EACH_ROW, EACH_REQUEST):
            if loop not in self._loops:
                raise SettingsError(f"the wire template: {place}: {loop} cannot stand here")
            self._blank(self._loops[loop](node[loop], f"{place}.{loop}"))
            return
        self.texts.append(b"{")
        for number, (key, below) in enumerate(node.items()):
            self.texts.append(b"," * bool(number) + _literal(_key(key, place)) + b":")
            self.write(below, f"{place}.{key}")
        self.texts.append(b"}")

    def _blank(self, fill: Fill) -> None:
        self.texts.append(b"%b")
        self.fills.append(fill)


def _row_fills(
    decision: Decision, labels: Mapping[str, Any], numbers: Mapping[str, int]
) -> dict[str, tuple[str, Fill]]:
    """Each word of a row: the field of the native reply that it needs, and what makes its text."""
    names = decision.names()
    classes: dict[bytes, Label] = {_encode(label): label for label in decision.classes}
    written = {raw: _encode(labels[name]) for raw, name in zip(classes, names, strict=True)}
    numbered = {raw: _encode(numbers[name]) for raw, name in zip(classes, names, strict=True)}
    keys = [_literal(label if isinstance(label := labels[name], str) else _encode(label).decode()) for name in names]
    by_label = b"{" + b",".join([key + b":%b" for key in keys]) + b"}"

    def listed(row: _Row) -> bytes:
        found = row.probabilities
        return b"[" + b",".join([found[name] for name in names]) + b"]"

    def labelled(row: _Row) -> bytes:
        found = row.probabilities
        return by_label % tuple([found[name] for name in names])

    return {
        "$label": (
            "prediction",
            (lambda row: written[bytes(row.prediction)]) if names else (attrgetter("prediction")),
        ),
        "$class_index": ("prediction", lambda row: numbered[bytes(row.prediction)]),
        "$prediction": ("prediction", attrgetter("prediction")),
        "$probability": ("probability", attrgetter("probability")),
        "$score": ("score", attrgetter("score")),
        "$probabilities": ("probabilities", listed),
        "$probabilities_by_label": ("probabilities", labelled),
        "$id": ("id", attrgetter("id")),
        "$warnings": ("warnings", attrgetter("warnings")),
        "$native": ("native", attrgetter("native")),
    }


def _without_use(decision: Decision, *, probabilities: bool) -> dict[str, str]:
    """Words that this model cannot fill, and why."""
    useless: dict[str, str] = {}
    if decision.task != "binary":
        useless["$score"] = "it is the probability of the positive class, of a model of two classes"
    if decision.task == "regression":
        useless |= dict.fromkeys((*CERTAIN, "$class_index"), "the model predicts a value")
    elif not probabilities:
        useless |= dict.fromkeys((*CERTAIN, "$score"), "the model's graph gives labels alone")
    return useless


def _cached(row: _Row) -> bytes:
    return b"true" if row.cached else b"false"


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise SettingsError(f"the wire template: {place}: the name {key!r} must be text; put it in quotes")
    if key.startswith("$") and not key.startswith("$$"):
        raise SettingsError(
            f"the wire template: {place}: {key} must be the only name of its object ({EACH_ROW}, {EACH_REQUEST}); "
            "write $$ for a name that begins with $"
        )
    return key.removeprefix("$") if key.startswith("$$") else key


def _literal(value: Any) -> bytes:
    """JSON as it stands in a byte template."""
    return _encode(value).replace(b"%", b"%%")
