"""A schema with columns of four kinds, and wire templates compiled for it."""

from __future__ import annotations

from typing import Any

from rowcast.schema.encoding import RowEncoder, own_plan
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column, Schema
from rowcast.wire.codec import WireCodec, compile_template

SCHEMA = Schema(
    (
        Column(name="income", kind="number"),
        Column(name="since", kind="datetime"),
        Column(name="owner", kind="boolean"),
        Column(name="town", kind="category", levels=("Bonn",)),
    )
)
BINARY = Decision(task="binary", classes=("no", "yes"))
REGRESSION = Decision(task="regression")


def compiled(
    document: Any, decision: Decision = BINARY, schema: Schema = SCHEMA, *, has_probabilities: bool = True
) -> WireCodec:
    """Compile a template for a model with this schema and decision."""
    return compile_template(
        document,
        model="m",
        version=1,
        schema=schema,
        decision=decision,
        parse_row=RowEncoder(schema, own_plan(schema)).read,
        has_probabilities=has_probabilities,
    )
