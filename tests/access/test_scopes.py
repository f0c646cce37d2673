"""Parsing comma-separated scopes."""

from __future__ import annotations

import pytest

from rowcast.access.scopes import parse_scopes
from rowcast.errors import SettingsError


def test_parsed_scopes_are_in_canonical_order() -> None:
    assert parse_scopes("read, predict") == ("predict", "read")


@pytest.mark.parametrize("text", ["predict,write", "", " , "])
def test_the_error_for_unknown_or_missing_scopes_lists_the_available_scopes(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_scopes(text)

    assert "predict, read, admin" in refused.value.message
