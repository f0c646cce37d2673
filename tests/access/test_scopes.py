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

    assert refused.value.message.endswith("available scopes: predict, read, admin")


def test_every_scope_can_be_given_once_or_several_times() -> None:
    assert parse_scopes("admin,read,,predict,read") == ("predict", "read", "admin")


def test_the_error_for_unknown_scopes_quotes_only_them() -> None:
    with pytest.raises(SettingsError) as refused:
        parse_scopes("predict,write,x")

    assert refused.value.message.startswith("unknown scope 'write', 'x';")
