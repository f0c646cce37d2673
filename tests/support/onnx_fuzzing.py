"""Randomly altered ONNX files. The inspection must either reject a file or find the same content as the official
parser."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from rowcast.errors import BundleError
from rowcast.registry.onnx_import.inspect import inspect
from support import models
from support.onnx_graphs import FLOAT, PROBABILITIES, onnx_model

MAX_NODES = 100
Verdict = Literal["refused", "agreed", "unreadable", "different"]
"""The inspection refused the file, agreed with the official parser, accepted a file that the official parser cannot
read, or overlooked something that the official parser reads."""


class View(NamedTuple):
    """The parts of a model that the inspection checks, as the official parser reads them."""

    nodes: int
    domains: frozenset[str]
    is_safe: bool


def official_view(content: bytes) -> View | None:
    """Return what the official parser reads, or None if it rejects the bytes."""
    try:
        model = onnx.load_from_string(content)
    except DecodeError:
        return None
    graphs, nodes, tensors = [model.graph], [], []
    while graphs:
        graph = graphs.pop()
        nodes += graph.node
        tensors += [
            *graph.initializer,
            *(part for each in graph.sparse_initializer for part in (each.values, each.indices)),
        ]
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            tensors += [attribute.t, *attribute.tensors]
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                tensors += [sparse.values, sparse.indices]
    external = any(tensor.data_location or tensor.external_data for tensor in tensors)
    domains = frozenset([each.domain for each in (*model.opset_import, *nodes)])
    return View(len(nodes), domains, not (external or model.functions or model.training_info))


def verdict(content: bytes) -> Verdict:
    """Compare the inspection's result for a file with the official parser's."""
    try:
        inspection = inspect(content, MAX_NODES)
    except BundleError:
        return "refused"
    view = official_view(content)
    if view is None:
        return "unreadable"
    domains = frozenset(domain.decode() for domain in inspection.domains)
    return "agreed" if view == View(inspection.nodes, domains, is_safe=True) else "different"


def varint(number: int, *, padding: int = 0) -> bytes:
    """Encode a number, with `padding` superfluous bytes."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)] + [0] * padding
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def message_field(number: int, content: bytes, *, high_bits: int = 0, padding: int = 0, wire_type: int = 2) -> bytes:
    """Encode a field; `high_bits` are the bits of the tag that some parsers drop."""
    tag = varint(high_bits << 32 | number << 3 | wire_type, padding=padding)
    return tag + (varint(len(content)) if wire_type == 2 else b"") + content


class EncodedField(NamedTuple):
    """The positions of a field's tag, its content and the byte after its content."""

    start: int
    begin: int
    end: int
    wire_type: int


def encoded_fields(content: bytes) -> list[EncodedField]:
    """Return the fields of a message; return an empty list if the bytes are not a message."""
    fields: list[EncodedField] = []
    position = 0
    try:
        while position < len(content):
            start = position
            tag, begin = _decode_varint(content, start)
            wire_type = tag & 7
            if wire_type == 0:
                _, position = _decode_varint(content, begin)
            elif wire_type == 2:
                size, begin = _decode_varint(content, begin)
                position = begin + size
            else:
                position = begin + {1: 8, 5: 4}[wire_type]
            fields.append(EncodedField(start, begin, position, wire_type))
    except (IndexError, KeyError):
        return []
    return fields if position == len(content) else []


def _decode_varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (content[position] & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if content[position - 1] < 0x80:
            return value, position


def external_tensor() -> Any:
    """Return a tensor whose data is in another file."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    return tensor


FUNCTION = helper.make_function("", "F", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], [])
GRAPH = onnx.load_from_string(PROBABILITIES).graph.SerializeToString()
BRANCHES = onnx_model(
    [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True), "t")),
        helper.make_node(
            "If",
            ["c"],
            ["p"],
            then_branch=helper.make_graph([helper.make_node("Abs", ["x"], ["a"])], "then", [], [], [external_tensor()]),
            else_branch=helper.make_graph([helper.make_node("Abs", ["x"], ["b"], domain="com.evil")], "else", [], []),
        ),
    ],
    [("x", FLOAT, ["N", 2])],
    [("p", FLOAT, ["N", 2])],
)
SAFE_BRANCHES = onnx_model(
    [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True), "t")),
        helper.make_node(
            "If",
            ["c"],
            ["p"],
            then_branch=helper.make_graph([helper.make_node("Abs", ["x"], ["a"])], "then", [], []),
            else_branch=helper.make_graph([helper.make_node("Neg", ["x"], ["b"])], "else", [], []),
        ),
    ],
    [("x", FLOAT, ["N", 2])],
    [("p", FLOAT, ["N", 2])],
)
FILES = (PROBABILITIES, BRANCHES, SAFE_BRANCHES, models.mlp_graph(3, 2), models.trees_graph(4, 1))
CONTENTS = (
    b"",
    b"\x01",
    b"Loop",
    b"com.evil",
    GRAPH,
    FUNCTION.SerializeToString(),
    external_tensor().SerializeToString(),
    message_field(13, message_field(1, b"location")),
    message_field(14, varint(1), wire_type=0),
)


def alter(chance: random.Random, content: bytes) -> bytes:
    """Change a file in one to three places."""
    for _ in range(chance.randint(1, 3)):
        content = chance.choice(ALTERATIONS)(chance, content)
    return content


def _splice(chance: random.Random, content: bytes) -> bytes:
    """Replace up to four bytes with up to four random bytes or with a field."""
    position = chance.randint(0, len(content))
    inserted = _random_field(chance) if chance.random() < 0.5 else chance.randbytes(chance.randint(0, 4))
    return content[:position] + inserted + content[position + chance.randint(0, 4) :]


def _alter_field(chance: random.Random, content: bytes) -> bytes:
    """Add, repeat, replace or remove a field in the message or in a nested message, and correct all lengths."""
    fields = encoded_fields(content)
    messages = [each for each in fields if each.wire_type == 2 and encoded_fields(content[each.begin : each.end])]
    if messages and chance.random() < 0.75:
        field = chance.choice(messages)
        inner = _alter_field(chance, content[field.begin : field.end])
        tag = varint(_decode_varint(content, field.start)[0])
        return content[: field.start] + tag + varint(len(inner)) + inner + content[field.end :]
    if not fields:
        return content + _random_field(chance)
    field = chance.choice(fields)
    before, own, after = content[: field.start], content[field.start : field.end], content[field.end :]
    return before + chance.choice([own + own, b"", _random_field(chance), own + _random_field(chance)]) + after


def _random_field(chance: random.Random) -> bytes:
    wire_type = chance.choice([0, 2, 2, 2, 1, 5])
    sizes = {0: varint(chance.choice([0, 1, 2**32 + 1, 2**64 - 1])), 1: bytes(8), 5: bytes(4)}
    return message_field(
        chance.randint(1, 26),
        sizes.get(wire_type, chance.choice(CONTENTS)),
        high_bits=chance.choice([0, 0, 0, 0, 1, 4]),
        padding=chance.choice([0, 0, 0, 0, 1, 5]),
        wire_type=wire_type,
    )


ALTERATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (_splice, _alter_field, _alter_field)


def run(count: int, chance: random.Random) -> tuple[Counter[Verdict], bytes | None]:
    """Compare `count` altered files; return the number of files per verdict and one `different` file, if any."""
    verdicts: Counter[Verdict] = Counter(refused=0, agreed=0, unreadable=0, different=0)
    example = None
    for _ in range(count):
        content = alter(chance, chance.choice(FILES))
        result = verdict(content)
        verdicts[result] += 1
        if result == "different":
            example = content
    return verdicts, example
