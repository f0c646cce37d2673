"""API keys: hashing, lookup, expiry and validation."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
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


def test_the_error_for_a_missing_key_lists_the_active_keys() -> None:
    keys = [new_key("1"), new_key("2", revoked=5), new_key("3")]

    def message(keys: list[Key], wanted: str) -> str:
        with pytest.raises(SettingsError) as refused:
            access_keys.find_key(keys, wanted)
        return refused.value.message

    assert message(keys, "lost") == "unknown key 'lost'; available keys: 1, 3"
    assert message([new_key("2", revoked=5)], "lost") == "unknown key 'lost'; available keys: none"
    assert message(keys, "2") == message([*keys, new_key("4", name="2")], "2") == "key '2' is revoked"


def test_the_active_key_is_found_if_revoked_keys_have_the_same_name() -> None:
    keys = [new_key("1", revoked=5, name="a"), new_key("2", name="a")]

    assert access_keys.find_key(keys, "a") is keys[1]


def test_a_key_has_a_40_bit_id_and_a_192_bit_secret() -> None:
    assert (access_keys.ID_BYTES * 8, access_keys.SECRET_BYTES * 8) == (40, 192)


def test_revoking_a_key_changes_only_that_key() -> None:
    keys = [new_key("1"), new_key("2", old_hash="aa", old_until=50), new_key("3")]

    assert access_keys.revoke_key(keys, "2", 7) == [
        keys[0],
        new_key("2", old_hash="", old_until=50, revoked=7),
        keys[2],
    ]


def test_rotating_a_key_changes_only_that_key() -> None:
    keys = [new_key("1"), new_key("2")]

    assert access_keys.rotate_key(keys, "2", "bb", now=100, overlap=50) == [
        keys[0],
        msgspec.structs.replace(keys[1], hash="bb", old_hash=keys[1].hash, old_until=150),
    ]


def test_a_new_key_has_no_limits_and_no_previous_hash() -> None:
    key = Key(id="1", name="n", hash="aa", scopes=("read",), created=3)

    assert (key.tenant, key.models, key.quota, key.expires, key.revoked) == ("", (), None, None, None)
    assert (key.old_hash, key.old_until) == ("", 0)
    assert (key.valid_until(), new_key(revoked=1, expires=9).valid_until()) == (math.inf, -math.inf)


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


@pytest.mark.parametrize("parse", [access_keys.parse_name, access_keys.parse_tenant])
def test_the_error_for_an_invalid_name_quotes_at_most_80_characters(parse: Callable[[str], str]) -> None:
    with pytest.raises(SettingsError) as refused:
        parse("n" * 100)

    assert f"'{'n' * 80}'" in refused.value.message


def test_spaces_around_a_name_are_removed_and_control_characters_are_refused() -> None:
    assert access_keys.parse_name(" a b ") == "a b"
    with pytest.raises(SettingsError):
        access_keys.parse_name("a\tb")
