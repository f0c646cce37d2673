"""Derive an imported classifier's classes, in order, from its metadata and its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rowcast.registry.onnx_import.metadata import Metadata, metadata_error
from rowcast.schema.prediction import Decision, Label

SHOWN_LABELS = 8


def class_labels(
    metadata: Metadata,
    *,
    keys: Sequence[Any] | None = None,
    labels: Sequence[Any] | None = None,
    width: int | None = None,
) -> tuple[Label, ...]:
    """Return the classes in the same order as the output's scores.

    `keys` are the keys of a map output, `labels` are the graph's own labels for the trial rows, and `width` is the
    number of scores per row. If neither the keys nor the metadata contain names, the classes are 0, 1, 2 and so on.
    """
    if keys is not None:
        return _from_keys(metadata, keys)
    if metadata.class_names is not None:
        return tuple(metadata.class_names)
    distinct = sorted(set(labels or ()), key=str)
    if any(isinstance(label, str) for label in distinct):
        names = _join(distinct)
        message = (
            f"required, because the graph's labels are strings ({names}); "
            "list the classes in the same order as the scores"
        )
        raise metadata_error("class_names", message)
    count = metadata.output_classes or width
    if count is None:
        count = max((int(label) for label in distinct), default=1) + 1
    if any(not 0 <= label < count for label in distinct):
        message = f"required, because the graph's labels ({_join(distinct)}) are not all between 0 and {count - 1}"
        raise metadata_error("class_names", message)
    return tuple(range(max(count, 2)))


def build_decision(classes: tuple[Label, ...], metadata: Metadata) -> Decision:
    """Return the `Decision` for a classifier with these classes."""
    if len(classes) < 2:
        raise metadata_error("class_names", "a classifier needs at least two classes")
    if len(classes) > 2:
        return Decision(task="multiclass", classes=classes)
    if metadata.positive is None:
        return Decision(task="binary", classes=classes)
    if metadata.positive not in classes:
        raise metadata_error("positive", f"unknown class {metadata.positive!r}; the classes are {_join(classes)}")
    return Decision(task="binary", classes=classes, positive=classes.index(metadata.positive))


def _from_keys(metadata: Metadata, keys: Sequence[Any]) -> tuple[Label, ...]:
    names = metadata.class_names
    if all(isinstance(key, str) for key in keys):
        if names is not None and {str(name) for name in names} != set(keys):
            raise metadata_error("class_names", f"the graph has different classes: {', '.join(keys)}")
        return tuple(keys)
    if names is None:
        return tuple(keys)
    if not all(0 <= key < len(names) for key in keys):
        message = f"lists {len(names)} classes, but the graph's class indices are {_join(keys)}"
        raise metadata_error("class_names", message)
    return tuple(names[key] for key in keys)


def _join(labels: Sequence[Any]) -> str:
    return ", ".join(map(str, labels[:SHOWN_LABELS]))
