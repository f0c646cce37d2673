"""API keys: hashing, lookup, expiry and validation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from rowcast.access import keys as access_keys
from rowcast.access.keys import Key
from rowcast.errors import SettingsError
from support.access import new_key


def test_a_key_contains_its_id_but_not_its_hash() -> None:
    key = access_keys.format_key("aa", b"\x01" * access_keys.SECRET_BYTES)

    assert key.startswith("rk_aa_0101")
    assert access_keys.hash_key(key) not in key
    assert len(access_keys.hash_key(key)) == 64


def test_two_active_keys_cannot_have_the_same_name() -> None:
    with pytest.raises(SettingsError):
        access_keys.add_key([new_key()], new_key("2", name="key 1"))
    assert len(access_keys.add_key([new_key(revoked=1)], new_key("2", name="key 1"))) == 2


def test_a_key_can_be_found_by_id_or_name() -> None:
    keys = [new_key("1"), new_key("2")]

    assert access_keys.find_key(keys, "2") is keys[1]
    assert access_keys.find_key(keys, "key 2") is keys[1]


@pytest.mark.parametrize("keys", [[], [new_key("2", revoked=5, name="lost")]])
def test_an_unknown_or_revoked_key_is_not_found(keys: list[Key]) -> None:
    with pytest.raises(SettingsError) as refused:
        access_keys.find_key(keys, "lost")

    assert "'lost'" in refused.value.message


def test_a_key_is_active_until_it_expires_or_is_revoked() -> None:
    key = new_key(expires=100)

    assert (key.state(99), key.state(100)) == ("active", "expired")
    assert new_key(revoked=1).state(0) == "revoked"
    assert new_key().valid_until() == math.inf


@pytest.mark.parametrize("parse", [access_keys.parse_name, access_keys.parse_tenant])
def test_valid_names_are_accepted(parse: Callable[[str], str]) -> None:
    assert parse("acme") == "acme"


@pytest.mark.parametrize(
    ("parse", "text"),
    [(access_keys.parse_tenant, "Acme Ltd"), (access_keys.parse_name, " "), (access_keys.parse_name, "x" * 65)],
)
def test_the_error_for_an_invalid_name_quotes_the_name(parse: Callable[[str], str], text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(text)

    assert repr(text) in refused.value.message


def test_a_name_can_have_up_to_64_characters() -> None:
    assert access_keys.parse_name("n" * 64) == "n" * 64
    with pytest.raises(SettingsError):
        access_keys.parse_name("n" * 65)
