"""Scopes as a comma-separated list."""

from __future__ import annotations

import pytest

from rowcast.access.scopes import parse_scopes
from rowcast.errors import SettingsError


def test_scopes_are_parsed_into_their_usual_order() -> None:
    assert parse_scopes("read, predict") == ("predict", "read")


@pytest.mark.parametrize("text", ["predict,write", "", " , "])
def test_unknown_or_missing_scopes_are_refused_with_the_available_ones(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_scopes(text)

    assert "predict, read, admin" in refused.value.message
