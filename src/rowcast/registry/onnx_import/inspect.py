"""Inspect an untrusted ONNX file without running it or loading it into a runtime.

`inspect` walks the protobuf encoding. It rejects external data, operators outside the ONNX standard, model-local
functions, training graphs, too many nodes, deeply nested subgraphs, and bytes that are not an ONNX model. It
copies no weights and takes about 0.4 µs per field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from rowcast.errors import BundleError

STANDARD_DOMAINS: Final = frozenset({b"", b"ai.onnx", b"ai.onnx.ml"})
MAX_DEPTH: Final = 8
EXTERNAL_LOCATION: Final = 1
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# An attribute stores each number as a separate field, and a forest can contain millions of numbers. This pattern skips
# all consecutive number fields in one match.
_match_numbers = re.compile(rb"(?:\x3d[\s\S]{4}|\x40[\x80-\xff]{0,9}[\x00-\x7f])+").match


class ProtobufField(NamedTuple):
    """One field of a message: its number, its value if it is a varint, and the position of its bytes."""

    number: int
    value: int
    start: int
    end: int


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
        raise _not_onnx() from None
    return Inspection(walk.nodes, frozenset(walk.domains))


class _Walk:
    """Walks the messages of an ONNX model. The numbers in the code are field numbers in onnx.proto3."""

    def __init__(self, content: bytes, max_nodes: int) -> None:
        self._content = content
        self._max_nodes = max_nodes
        self.nodes = 0
        self.domains: set[bytes] = set()

    def model(self) -> None:
        graphs = 0
        for field in self._fields(0, len(self._content)):
            if field.number == 7:
                graphs += 1
                self._graph(field, 1)
            elif field.number == 8:
                self._check_domain(b"".join(self._values(field, 1)))
            elif field.number == 25:
                message = "the ONNX model defines its own functions; inline them with onnx.inliner"
                raise BundleError(message, slug="local-functions")
            elif field.number == 20:
                message = "the ONNX model contains training information; export the model for inference"
                raise BundleError(message, slug="training-graph")
        if graphs != 1:
            raise _not_onnx()

    def _graph(self, graph: ProtobufField, depth: int) -> None:
        if depth > MAX_DEPTH:
            message = f"the ONNX graph has subgraphs nested more than {MAX_DEPTH} levels deep"
            raise BundleError(message, slug="too-deep")
        for field in self._fields(graph.start, graph.end):
            if field.number == 1:
                self._node(field, depth)
            elif field.number == 5:
                self._tensor(field)
            elif field.number == 15:
                self._sparse_tensor(field)

    def _node(self, node: ProtobufField, depth: int) -> None:
        self.nodes += 1
        if self.nodes > self._max_nodes:
            message = f"the ONNX graph has more than {self._max_nodes} nodes (setting max_model_nodes)"
            raise BundleError(message, slug="too-many-nodes")
        for field in self._fields(node.start, node.end):
            if field.number == 7:
                self._check_domain(self._content[field.start : field.end])
            elif field.number == 5:
                self._attribute(field, depth)

    def _attribute(self, attribute: ProtobufField, depth: int) -> None:
        for field in self._fields(attribute.start, attribute.end):
            if field.number in (6, 11):
                self._graph(field, depth + 1)
            elif field.number in (5, 10):
                self._tensor(field)
            elif field.number in (22, 23):
                self._sparse_tensor(field)

    def _sparse_tensor(self, tensor: ProtobufField) -> None:
        for field in self._fields(tensor.start, tensor.end):
            if field.number in (1, 2):
                self._tensor(field)

    def _tensor(self, tensor: ProtobufField) -> None:
        for field in self._fields(tensor.start, tensor.end):
            if field.number == 13 or (field.number == 14 and field.value == EXTERNAL_LOCATION):
                message = "the ONNX model stores weights in another file; save the model as a single file"
                raise BundleError(message, slug="external-data")

    def _check_domain(self, domain: bytes) -> None:
        if domain not in STANDARD_DOMAINS:
            shown = domain.decode(errors="replace")[:80]
            message = (
                f"the ONNX graph uses operators from the domain {shown!r}; only standard ONNX operators are supported"
            )
            raise BundleError(message, slug="unknown-operators")
        self.domains.add(domain)

    def _values(self, message: ProtobufField, number: int) -> list[bytes]:
        fields = self._fields(message.start, message.end)
        return [self._content[field.start : field.end] for field in fields if field.number == number]

    def _fields(self, position: int, end: int) -> Iterator[ProtobufField]:
        content = self._content
        while position < end:
            numbers = _match_numbers(content, position, end)
            if numbers is not None:
                position = numbers.end()
                continue
            tag, position = self._varint(position)
            number, wire_type = tag >> 3, tag & 7
            value, start = 0, position
            if wire_type == VARINT:
                value, position = self._varint(position)
            elif wire_type == BYTES:
                length, start = self._varint(position)
                position = start + length
            elif wire_type in (FIXED64, FIXED32):
                position += 8 if wire_type == FIXED64 else 4
            else:
                raise _not_onnx()
            if position > end or not number:
                raise _not_onnx()
            yield ProtobufField(number, value, start, position)

    def _varint(self, position: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self._content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
            if shift > 63:
                raise _not_onnx()


def _not_onnx() -> BundleError:
    return BundleError("the file is not a valid ONNX model, or it is truncated", slug="not-onnx")
