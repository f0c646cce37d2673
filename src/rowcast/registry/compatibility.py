"""Check whether clients of one version can use another version without changes."""

from __future__ import annotations

from rowcast.registry.bundle import Manifest
from rowcast.schema.prediction import Decision, label_text
from rowcast.schema.schema import Column, Schema


def find_difference(old: Manifest, new: Manifest) -> str:
    """Return the first difference in the target, schema or format that can affect a client, or an empty string."""
    if old.training.target != new.training.target:
        return f"the target is {new.training.target!r} instead of {old.training.target!r}"
    if old.wire != new.wire:
        return "the wire template is different"
    return _decision_difference(old.decision, new.decision) or _schema_difference(old.schema, new.schema)


def _decision_difference(old: Decision, new: Decision) -> str:
    if old.task != new.task:
        return f"the task is {new.task} instead of {old.task}"
    if old.classes != new.classes:
        names = [", ".join(map(label_text, decision.classes)) for decision in (new, old)]
        return f"the classes are {names[0]} instead of {names[1]}"
    if old.positive != new.positive:
        return f"the positive class is {label_text(new.classes[new.positive])}"
    return ""


def _schema_difference(old: Schema, new: Schema) -> str:
    names = old.names()
    if added := [name for name in new.names() if name not in names]:
        return f"the column {added[0]!r} is new"
    if removed := [name for name in names if name not in new.names()]:
        return f"the column {removed[0]!r} is missing"
    if names != new.names():
        return "the columns are in a different order"
    changes = (_column_difference(*pair) for pair in zip(old.columns, new.columns, strict=True))
    return next(filter(None, changes), "")


def _column_difference(old: Column, new: Column) -> str:
    """Return a difference that can cause a row to be rejected, read differently or protected less."""
    name = f"the column {new.name!r}"
    if old.kind != new.kind:
        return f"{name} has the kind {new.kind} instead of {old.kind}"
    if old.missing and not new.missing:
        return f"{name} no longer accepts missing values"
    if old.zone != new.zone:
        return f"{name} has the time zone {new.zone} instead of {old.zone}"
    if set(old.forms) - set(new.forms) or set(old.words) - set(new.words):
        return f"{name} no longer accepts some notations"
    if new.closed and not (old.closed and set(old.levels) <= set(new.levels)):
        return f"{name} no longer accepts some values"
    if old.sensitive and not new.sensitive:
        return f"{name} is no longer sensitive"
    return ""
