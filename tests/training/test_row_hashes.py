"""Hashes of training rows: equal rows have equal hashes, and sensitive values do not affect them."""

from __future__ import annotations

import numpy as np
import pytest

from rowcast.errors import BundleError
from rowcast.schema.encoding import NUMBERS, TEXTS, own_plan
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column, Schema
from rowcast.training import row_hashes

SALT = bytes(16)
COLUMNS = (Column(name="n", kind="number"), Column(name="m", kind="number"), Column(name="t", kind="category"))


def hashes(
    rows: list[tuple[float, float, str]], labels: list[bytes], *, salt: bytes = SALT, sensitive: str = ""
) -> list[int]:
    schema = Schema(COLUMNS).with_sensitive([sensitive] if sensitive else [])
    tensors = {
        NUMBERS: np.array([row[:2] for row in rows], np.float32),
        TEXTS: np.array([[row[2]] for row in rows], object),
    }
    return row_hashes.hash_rows(tensors, labels, schema, own_plan(schema), salt).tolist()


def test_only_equal_rows_with_equal_labels_have_equal_hashes() -> None:
    rows = [(1.0, 2.0, "a"), (1.0, 2.0, "a"), (2.0, 1.0, "a"), (1.0, 2.0, "b"), (1.0, 2.0, "a")]

    first, second, *others = hashes(rows, [b"x", b"x", b"x", b"x", b"y"])

    assert first == second
    assert len({first, *others}) == 4


def test_negative_zero_and_all_kinds_of_nan_are_normalized() -> None:
    other_nan = float(np.frombuffer(np.uint32(0x7FC00001).tobytes(), np.float32)[0])

    assert hashes([(0.0, float("nan"), "a")], [b"x"]) == hashes([(-0.0, other_nan, "a")], [b"x"])


def test_values_of_sensitive_columns_do_not_affect_the_hash() -> None:
    for sensitive, row in (("n", (7.0, 2.0, "a")), ("t", (1.0, 2.0, "secret"))):
        assert hashes([row], [b"x"], sensitive=sensitive) == hashes([(1.0, 2.0, "a")], [b"x"], sensitive=sensitive)
        assert hashes([row], [b"x"]) != hashes([(1.0, 2.0, "a")], [b"x"])


def test_the_salt_affects_every_hash() -> None:
    rows = [(float(index), 0.0, "a") for index in range(50)]

    assert not set(hashes(rows, [b"x"] * 50)) & set(hashes(rows, [b"x"] * 50, salt=b"1" * 16))


def test_a_label_has_the_same_bytes_for_every_positive_class() -> None:
    first = Decision(task="binary", classes=("bad", "good"), positive=0)
    second = Decision(task="binary", classes=("bad", "good"), positive=1)

    assert row_hashes.label_bytes(first, np.array([1, 0])) == [b"bad", b"good"]
    assert row_hashes.label_bytes(second, np.array([1, 0])) == [b"good", b"bad"]


def test_encoded_hashes_are_decoded() -> None:
    content = row_hashes.encode(SALT, np.array([5, 3, 5, 2**32 - 1], np.uint32))

    salt, decoded = row_hashes.decode(content)

    assert (salt, decoded.tolist()) == (SALT, [3, 5, 2**32 - 1])


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c[:25], lambda c: c.replace(b"1\n", b"2\n"), lambda c: b""]
)
def test_damaged_hashes_are_rejected(damage: object) -> None:
    content = row_hashes.encode(SALT, np.array([5], np.uint32))

    with pytest.raises(BundleError):
        row_hashes.decode(damage(content))  # type: ignore[operator]
