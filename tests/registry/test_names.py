"""The rules for model names."""

from __future__ import annotations

import pytest

from rowcast.errors import RegistryError
from rowcast.registry.names import check_alias, check_name, name_from


@pytest.mark.parametrize("name", ["a", "loans", "loan-data_2.0", "7", "x" * 64])
def test_a_valid_name_is_returned(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Loans", "-loans", "../loans", "loan data", "x" * 65, "info", "reload"])
def test_an_invalid_or_reserved_name_is_rejected(name: str) -> None:
    with pytest.raises(RegistryError):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "name"), [("Loan data 2026", "loan-data-2026"), ("ünï", "n"), ("...", "model"), ("x" * 80, "x" * 64)]
)
def test_any_string_can_be_converted_to_a_valid_name(text: str, name: str) -> None:
    assert name_from(text) == name
    assert check_name(name_from(text)) == name


@pytest.mark.parametrize("alias", ["a", "a-b_9", "x" * 32])
def test_a_valid_alias_is_returned(alias: str) -> None:
    assert check_alias(alias) == alias


@pytest.mark.parametrize("alias", ["", "x" * 33, "9", "-a", "A", "a.b", "a\n"])
def test_an_invalid_alias_is_rejected(alias: str) -> None:
    with pytest.raises(RegistryError):
        check_alias(alias)
