"""Values from numpy, pandas and polars are encoded as the JSON values that a server expects."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rowcast.client.encoding import encode
from rowcast.client.errors import BadCall


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), b"null"),
        (pd.NA, b"null"),
        (pd.NaT, b"null"),
        (np.datetime64("NaT"), b"null"),
        (np.float32(1.5), b"1.5"),
        (np.int64(2), b"2"),
        (np.bool_(True), b"true"),
        (np.str_("x"), b'"x"'),
        (Decimal("1.50"), b"1.50"),
        (pd.Timestamp("2026-01-02T03:04:05.123456789"), b'"2026-01-02T03:04:05.123456"'),
        (pd.Timestamp("2026-01-02", tz="Europe/Berlin"), b'"2026-01-02T00:00:00.000000+01:00"'),
        (np.datetime64("2026-01-02T03:04:05.123456789"), b'"2026-01-02T03:04:05.123456"'),
    ],
    ids=repr,
)
def test_a_value_is_encoded_as_json(value: Any, text: bytes) -> None:
    assert encode({"a": value}, "the row") == b'{"a":' + text + b"}"


def test_the_error_for_another_value_names_the_subject_but_not_the_value() -> None:
    with pytest.raises(BadCall) as error:
        encode({"a": Exception("secret")}, "row 7")

    assert str(error.value) == "cannot encode row 7 as JSON (TypeError); use JSON-compatible values"
