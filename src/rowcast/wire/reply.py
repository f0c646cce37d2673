"""Render replies as specified by a wire template.

A template is compiled once into byte templates. At run time, values are copied from the native reply as JSON text, so
numbers are never decoded and re-encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from rowcast.errors import DocumentError
from rowcast.schema.prediction import Decision, Label

EACH_ROW: Final = "$rows"
EACH_REQUEST: Final = "$requests"
PROBABILITY_PLACEHOLDERS: Final = ("$probability", "$probabilities", "$probabilities_by_label")
NULL: Final = msgspec.Raw(b"null")
NATIVE_FIELDS: Final[Mapping[str, tuple[Any, ...]]] = {
    "id": (msgspec.Raw,),
    "prediction": (msgspec.Raw,),
    "probability": (msgspec.Raw, NULL),
    "score": (msgspec.Raw, NULL),
    "probabilities": (dict[str, msgspec.Raw],),
    "warnings": (msgspec.Raw,),
    "cached": (bool,),
}
"""The fields of a native reply, each with its type and, if it is optional, its default."""

_encode = msgspec.json.Encoder().encode


class ModelFacts(NamedTuple):
    """The model properties that a template can use, and the template's values for the model's classes."""

    model: str
    version: int
    columns: Sequence[str]
    category_count: int
    boolean_count: int
    decision: Decision
    labels: Mapping[str, Any]
    """Maps a class name to the value of `$label`."""
    class_numbers: Mapping[str, int]
    """Maps a class name to the value of `$class_index`."""
    has_probabilities: bool = True

    def constants(self) -> dict[str, bytes]:
        """Return the JSON text of each placeholder whose value is the same in every reply."""
        return {
            "$model": _encode(self.model),
            "$version": _encode(self.version),
            "$model_loaded": b"true",
            "$columns": _encode(self.columns),
            "$column_count": _encode(len(self.columns)),
            "$category_count": _encode(self.category_count),
            "$boolean_count": _encode(self.boolean_count),
        }


class NativeReplies(NamedTuple):
    """The native replies for the rows of one request, and the request's latency in seconds."""

    replies: Sequence[bytes]
    seconds: float


NativeRow = Any
"""A decoded native reply. Most fields contain raw JSON text; `native` contains the whole reply."""


class _RenderContext(NamedTuple):
    """The data for the placeholders of one request or batch."""

    rows: Sequence[NativeRow]
    seconds: float
    requests: Sequence[_RenderContext] = ()
    """The requests of a batch; empty for a single request."""


Renderer = Callable[[Any], bytes | msgspec.Raw]
"""Returns the text of one placeholder, given a decoded native reply or a render context."""
Placeholders = Mapping[str, tuple[str, Renderer]]
"""Maps a placeholder to its native field ("" for none) and its renderer."""
Loops = Mapping[str, Callable[[Any, str], Renderer]]
"""Maps `$rows` or `$requests` to a function that compiles the tree below it."""


class ByteTemplate(NamedTuple):
    """A `bytes` format string and the renderers of its `%b` fields, in order."""

    text: bytes
    renderers: tuple[Renderer, ...]

    def render(self, source: Any) -> bytes:
        """Fill every field from `source`. Hot path."""
        return self.text % tuple([renderer(source) for renderer in self.renderers])


class ReplyRenderer:
    """Renders both replies of a template: the reply to a single request and the reply to a batch."""

    def __init__(
        self,
        used_fields: Sequence[str],
        single: ByteTemplate,
        batch: ByteTemplate,
        *,
        row: ByteTemplate | None,
        uses_whole_reply: bool,
    ) -> None:
        fields = [*((name, *NATIVE_FIELDS[name]) for name in used_fields), ("native", bytes, b"")]
        self._decode = msgspec.json.Decoder(msgspec.defstruct("NativeRow", fields, kw_only=True, gc=False)).decode
        self._uses_whole_reply = uses_whole_reply
        self._single = single
        self._batch = batch
        self.render_row = None if row is None or uses_whole_reply else _row_renderer(self._decode, row)
        """Renders the reply to a single-row request from the native reply; None if the template needs more data."""

    def render(self, request: NativeReplies) -> bytes:
        """Return the reply to one request."""
        return self._single.render(self._context(request))

    def render_batch(self, requests: Sequence[NativeReplies], seconds: float) -> bytes:
        """Return the reply to a batch of requests."""
        contexts = [self._context(request) for request in requests]
        return self._batch.render(_RenderContext([row for each in contexts for row in each.rows], seconds, contexts))

    def _context(self, request: NativeReplies) -> _RenderContext:
        return _RenderContext([self._read(reply) for reply in request.replies], request.seconds)

    def _read(self, native: bytes) -> NativeRow:
        row: Any = self._decode(native)
        if self._uses_whole_reply:
            row.native = native
        return row


def _row_renderer(decode: Callable[[bytes], Any], template: ByteTemplate) -> Callable[[bytes], bytes]:
    """Return a function that renders a reply from one native reply. Hot path.

    Most templates have two placeholders; a list comprehension would double the cost of rendering (bench/serve.py).
    """
    text, renderers = template
    if len(renderers) == 2:
        first, second = renderers

        def render_two(native: bytes) -> bytes:
            row = decode(native)
            return text % (first(row), second(row))

        return render_two

    def render(native: bytes) -> bytes:
        row = decode(native)
        return text % tuple([renderer(row) for renderer in renderers])

    return render


def default_reply(*, matrix: bool) -> Any:
    """Return the reply tree for templates that define none: the native reply or, for a matrix, a native batch reply."""
    return {"model": "$model", "version": "$version", "predictions": {EACH_ROW: "$native"}} if matrix else "$native"


def default_batch_reply() -> Any:
    """Return the batch reply tree for templates that define none."""
    return {"model": "$model", "version": "$version", "predictions": {EACH_REQUEST: "$reply"}}


def compile_replies(reply: Any, batch_reply: Any, facts: ModelFacts, *, matrix: bool) -> ReplyRenderer:
    """Compile both reply trees; raise DocumentError if this model cannot fill a placeholder."""
    compiler = _TreeCompiler(facts, _row_placeholders(facts), _unavailable(facts))
    single_tree = default_reply(matrix=matrix) if reply is msgspec.UNSET else reply
    single = compiler.compile_request(single_tree, "reply", single_row=not matrix)
    batch_tree = default_batch_reply() if batch_reply is msgspec.UNSET else batch_reply
    batch = compiler.compile_batch(batch_tree, "batch_reply", single)
    return ReplyRenderer(
        sorted(compiler.used_fields - {"native"}),
        single,
        batch,
        row=compiler.row_template(single),
        uses_whole_reply="native" in compiler.used_fields,
    )


def compile_root(tree: Any, facts: ModelFacts) -> bytes:
    """Return the reply to `GET /`, which contains only constants."""
    return _TreeCompiler(facts, {}, {}).compile_constant(tree, "root").text % ()


class _TreeCompiler:
    """Compiles reply trees and collects the native fields that they use."""

    def __init__(self, facts: ModelFacts, row_placeholders: Placeholders, unavailable: Mapping[str, str]) -> None:
        self.used_fields: set[str] = set()
        self._row_renderers: dict[Renderer, Renderer] = {}
        """Maps each renderer that takes a single-row request to the renderer that takes the row itself."""
        self._constants = facts.constants()
        self._row_placeholders = row_placeholders
        self._unavailable = unavailable
        self._width = len(facts.columns)

    def compile_constant(self, tree: Any, place: str) -> ByteTemplate:
        """Compile a tree that contains only constants."""
        return self._compile(tree, place, {}, {})

    def compile_request(self, tree: Any, place: str, *, single_row: bool) -> ByteTemplate:
        """Compile the reply to one request. With `single_row`, row placeholders can be used outside `$rows`."""
        placeholders = self._request_placeholders()
        if single_row:
            rows = {**self._row_placeholders, "$cached": ("cached", _cached)}
            placeholders |= {name: (field, self._of_first_row(render)) for name, (field, render) in rows.items()}
        return self._compile(tree, place, placeholders, {EACH_ROW: self._each_row})

    def compile_batch(self, tree: Any, place: str, reply: ByteTemplate) -> ByteTemplate:
        """Compile the reply to a batch. Below `$requests`, `$reply` is the reply to one request."""

        def each_request(below: Any, place: str) -> Renderer:
            placeholders = {**self._request_placeholders(), "$reply": ("", reply.render)}
            each = self._compile(below, place, placeholders, {EACH_ROW: self._each_row})
            return lambda batch: b"[" + b",".join([each.render(request) for request in batch.requests]) + b"]"

        loops = {EACH_ROW: self._each_row, EACH_REQUEST: each_request}
        return self._compile(tree, place, self._request_placeholders(), loops)

    def row_template(self, request: ByteTemplate) -> ByteTemplate | None:
        """Return a template that renders the same reply from a single row, or None if the reply needs more data."""
        renderers = [self._row_renderers.get(renderer) for renderer in request.renderers]
        return None if None in renderers else ByteTemplate(request.text, tuple(filter(None, renderers)))

    def constant(self, name: str) -> bytes | None:
        """Return the JSON text of a constant placeholder, or None if the placeholder is not constant."""
        return self._constants.get(name)

    def renderer(self, name: str, place: str, placeholders: Placeholders) -> Renderer:
        """Return the renderer of a placeholder; raise DocumentError if the placeholder is not available here."""
        if name in placeholders and name not in self._unavailable:
            field, renderer = placeholders[name]
            self.used_fields |= {field} - {""}
            return renderer
        raise _problem(place, self._refusal(name, [*self._constants, *placeholders]))

    def _of_first_row(self, renderer: Renderer) -> Renderer:
        def render(request: _RenderContext) -> bytes | msgspec.Raw:
            return renderer(request.rows[0])

        self._row_renderers[render] = renderer
        return render

    def _each_row(self, tree: Any, place: str) -> Renderer:
        each = self._compile(tree, place, self._row_placeholders, {})
        return lambda request: b"[" + b",".join([each.render(row) for row in request.rows]) + b"]"

    def _request_placeholders(self) -> dict[str, tuple[str, Renderer]]:
        width = self._width
        return {
            "$latency_seconds": ("", lambda request: b"%.6f" % request.seconds),
            "$input_shape": ("", lambda request: b"[%d,%d]" % (len(request.rows), width)),
            "$cached": (
                "cached",
                lambda request: b"true" if all(row.cached for row in request.rows) else b"false",
            ),
        }

    def _compile(self, tree: Any, place: str, placeholders: Placeholders, loops: Loops) -> ByteTemplate:
        builder = _TemplateBuilder(self, placeholders, loops)
        builder.add(tree, place)
        return ByteTemplate(b"".join(builder.texts), tuple(builder.renderers))

    def _refusal(self, name: str, available: Sequence[str]) -> str:
        if name in self._unavailable:
            return f"{name} is not available: {self._unavailable[name]}"
        if name in self._row_placeholders:
            return f"{name} belongs to a row; put it inside {EACH_ROW}, which produces a list with one item per row"
        names = ", ".join(sorted(name for name in available if name not in self._unavailable))
        return f"unknown placeholder {name}; available here: {names} (to start text with $, write $$)"


class _TemplateBuilder:
    """Builds the byte template of one tree."""

    def __init__(self, compiler: _TreeCompiler, placeholders: Placeholders, loops: Loops) -> None:
        self.texts: list[bytes] = []
        self.renderers: list[Renderer] = []
        self._compiler = compiler
        self._placeholders = placeholders
        self._loops = loops

    def add(self, node: Any, place: str) -> None:
        """Add a node and everything below it."""
        if isinstance(node, Mapping):
            self._add_object(node, place)
        elif isinstance(node, list | tuple):
            self.texts.append(b"[")
            for number, below in enumerate(node):
                self.texts.append(b"," * bool(number))
                self.add(below, f"{place}[{number}]")
            self.texts.append(b"]")
        elif isinstance(node, str) and node.startswith("$") and not node.startswith("$$"):
            constant = self._compiler.constant(node)
            if constant is None:
                self._add_renderer(self._compiler.renderer(node, place, self._placeholders))
            else:
                self.texts.append(constant.replace(b"%", b"%%"))
        else:
            self.texts.append(_literal(node[1:] if isinstance(node, str) and node.startswith("$$") else node))

    def _add_object(self, node: Mapping[Any, Any], place: str) -> None:
        if len(node) == 1 and (loop := next(iter(node))) in (EACH_ROW, EACH_REQUEST):
            if loop not in self._loops:
                raise _problem(place, f"{loop} is not allowed here")
            self._add_renderer(self._loops[loop](node[loop], f"{place}.{loop}"))
            return
        self.texts.append(b"{")
        for number, (key, below) in enumerate(node.items()):
            self.texts.append(b"," * bool(number) + _literal(_key(key, place)) + b":")
            self.add(below, f"{place}.{key}")
        self.texts.append(b"}")

    def _add_renderer(self, renderer: Renderer) -> None:
        self.texts.append(b"%b")
        self.renderers.append(renderer)


def _row_placeholders(facts: ModelFacts) -> dict[str, tuple[str, Renderer]]:
    names = facts.decision.names()
    classes: dict[bytes, Label] = {_encode(label): label for label in facts.decision.classes}
    labels = [facts.labels[name] for name in names]
    label_texts = {raw: _encode(label) for raw, label in zip(classes, labels, strict=True)}
    number_texts = {raw: _encode(facts.class_numbers[name]) for raw, name in zip(classes, names, strict=True)}
    keys = [_literal(label if isinstance(label, str) else _encode(label).decode()) for label in labels]
    by_label = b"{" + b",".join([key + b":%b" for key in keys]) + b"}"

    def probability_list(row: NativeRow) -> bytes:
        probabilities = row.probabilities
        return b"[" + b",".join([probabilities[name] for name in names]) + b"]"

    def probability_object(row: NativeRow) -> bytes:
        probabilities = row.probabilities
        return by_label % tuple([probabilities[name] for name in names])

    prediction = attrgetter("prediction")
    return {
        "$label": ("prediction", (lambda row: label_texts[bytes(row.prediction)]) if names else prediction),
        "$class_index": ("prediction", lambda row: number_texts[bytes(row.prediction)]),
        "$prediction": ("prediction", prediction),
        "$probability": ("probability", attrgetter("probability")),
        "$score": ("score", attrgetter("score")),
        "$probabilities": ("probabilities", probability_list),
        "$probabilities_by_label": ("probabilities", probability_object),
        "$id": ("id", attrgetter("id")),
        "$warnings": ("warnings", attrgetter("warnings")),
        "$native": ("native", attrgetter("native")),
    }


def _unavailable(facts: ModelFacts) -> dict[str, str]:
    """Return the placeholders that this model cannot fill, each with the reason."""
    reasons: dict[str, str] = {}
    if facts.decision.task != "binary":
        reasons["$score"] = "only a binary model has a positive class"
    if facts.decision.task == "regression":
        reasons |= dict.fromkeys((*PROBABILITY_PLACEHOLDERS, "$class_index"), "the model is a regression model")
    elif not facts.has_probabilities:
        reasons |= dict.fromkeys((*PROBABILITY_PLACEHOLDERS, "$score"), "the model returns only labels")
    return reasons


def _cached(row: NativeRow) -> bytes:
    return b"true" if row.cached else b"false"


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise _problem(place, f"key {key!r} must be a string; put it in quotes")
    if key.startswith("$") and not key.startswith("$$"):
        raise _problem(
            place,
            f"invalid key {key}: only {EACH_ROW} and {EACH_REQUEST} can start with $, and each must be the only key of "
            "its object; to start another key with $, write $$",
        )
    return key.removeprefix("$") if key.startswith("$$") else key


def _literal(value: Any) -> bytes:
    """Encode a value as JSON, with `%` escaped for a byte template."""
    return _encode(value).replace(b"%", b"%%")


def _problem(place: str, message: str) -> DocumentError:
    return DocumentError("wire template", place, message)
