"""Hashes of a model's training rows: they show which rows of another table the model was trained on.

A row is hashed as the model reads it, without the values of sensitive columns. The hashes are salted, so that they
cannot be compared between bundles. A hash has 32 bits, so the file is small. If the hash of a new row collides with
that of a training row, the row is merely excluded from comparisons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import BundleError
from rowcast.schema.encoding import NUMBERS, TEXTS, Plan
from rowcast.schema.prediction import Decision, label_text
from rowcast.schema.schema import Schema

HEADER: Final = b"rowcast row hashes 1\n"
SALT_BYTES: Final = 16
HASH: Final = np.dtype("<u4")

Hashes = NDArray[np.uint32]
Tensors = Mapping[str, NDArray[Any]]


def hash_rows(tensors: Tensors, labels: Sequence[bytes], schema: Schema, plan: Plan, salt: bytes) -> Hashes:
    """Return one hash per row, computed from the row's label and its tensors without sensitive columns."""
    sensitive = {column.name for column in schema.columns if column.sensitive}
    kept: dict[str, NDArray[Any]] = {}
    for spec in plan:
        hidden = [index for index, feature in enumerate(spec.columns) if feature.column in sensitive]
        kept[spec.name] = np.delete(tensors[spec.name], hidden, axis=1)
    numbers = np.array(kept.get(NUMBERS, np.empty((len(labels), 0))), "<f4", order="C") + np.float32(0)  # no -0.0
    numbers[np.isnan(numbers)] = np.nan
    packed, width = numbers.tobytes(), numbers.shape[1] * numbers.itemsize
    texts = kept.get(TEXTS, np.empty((len(labels), 0), object)).tolist()
    digests = b"".join(
        hashlib.blake2b(
            packed[row * width : (row + 1) * width] + msgspec.json.encode(texts[row]) + label,
            digest_size=HASH.itemsize,
            key=salt,
        ).digest()
        for row, label in enumerate(labels)
    )
    return np.frombuffer(digests, HASH)


def label_bytes(decision: Decision, target: NDArray[Any]) -> list[bytes]:
    """Return each row's label or value; `target` has the form of `LabelledRows.target`."""
    if decision.task == "regression":
        return [value.tobytes() for value in np.asarray(target, "<f8")]
    classes = list(decision.classes)
    if decision.task == "binary":
        classes = [classes[1 - decision.positive], classes[decision.positive]]
    names = [label_text(label).encode() for label in classes]
    return [names[index] for index in target.tolist()]


def encode(salt: bytes, hashes: Hashes) -> bytes:
    """Return the content of the file: a header, the salt and the sorted hashes."""
    return HEADER + salt + np.unique(hashes).astype(HASH).tobytes()


def decode(content: bytes) -> tuple[bytes, Hashes]:
    """Return the salt and the hashes; raise BundleError if the content is not valid."""
    start = len(HEADER) + SALT_BYTES
    if not content.startswith(HEADER) or len(content) < start or (len(content) - start) % HASH.itemsize:
        raise BundleError("the hashes of the training rows are damaged or in an unknown format", slug="damaged-bundle")
    return content[len(HEADER) : start], np.frombuffer(content[start:], HASH)
