"""Secrets for a single home, and secrets that several homes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.adapters.files.secret import FileSecret
from rowcast.errors import SettingsError, Unavailable
from rowcast.history.ports import SecretStore
from rowcast.history.secret import SECRET_BYTES, load_secret, load_shared_secret

OWN = bytes(range(32))


class Missing:
    """A secret store that is not available."""

    location = "postgresql://away/db"

    def find(self) -> bytes | None:
        raise Unavailable("away")

    def keep(self, secret: bytes) -> bytes:
        raise Unavailable("away")


@pytest.fixture
def shared(tmp_path: Path) -> SecretStore:
    return FileSecret(tmp_path / "shared.key")


@pytest.fixture
def copy(tmp_path: Path) -> SecretStore:
    return FileSecret(tmp_path / "home" / "history.key")


def test_a_secret_is_created_once(shared: SecretStore) -> None:
    secret = load_secret(shared)

    assert len(secret) == SECRET_BYTES
    assert load_secret(shared) == secret


def test_the_first_home_shares_its_own_secret(shared: SecretStore, copy: SecretStore) -> None:
    copy.keep(OWN)

    assert load_shared_secret(shared, copy) == OWN
    assert shared.find() == OWN


def test_later_homes_receive_the_shared_secret_and_keep_a_copy(shared: SecretStore, copy: SecretStore) -> None:
    shared.keep(OWN)

    assert load_shared_secret(shared, copy) == OWN
    assert load_shared_secret(Missing(), copy) == OWN


def test_a_home_with_a_different_secret_is_refused(shared: SecretStore, copy: SecretStore) -> None:
    shared.keep(bytes(32))
    copy.keep(OWN)

    with pytest.raises(SettingsError) as refused:
        load_shared_secret(shared, copy)

    assert shared.location in refused.value.message
    assert copy.location in refused.value.message
    assert OWN.hex() not in refused.value.message


def test_no_secret_is_created_while_the_shared_secret_is_not_available(copy: SecretStore) -> None:
    with pytest.raises(Unavailable):
        load_shared_secret(Missing(), copy)

    assert copy.find() is None
