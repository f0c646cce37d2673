"""The history's secrets: the key for hashing sensitive values, and the key for signing."""

from __future__ import annotations

import secrets

from rowcast.errors import SettingsError, Unavailable
from rowcast.history.ports import SecretStore

SECRET_BYTES = 32


def load_secret(store: SecretStore) -> bytes:
    """Return the secret; create it if necessary."""
    return store.find() or store.keep(secrets.token_bytes(SECRET_BYTES))


def load_shared_secret(shared: SecretStore, copy: SecretStore) -> bytes:
    """Return a secret that several homes share, and keep a copy in this home.

    The first home shares its own secret, if it has one. Thanks to the copy, a server can start while the shared secret
    is not available. Raise SettingsError if the copy differs, because equal values would then have different hashes.
    """
    own = copy.find()
    try:
        secret = shared.find() or shared.keep(own or secrets.token_bytes(SECRET_BYTES))
    except Unavailable:
        if own is None:
            raise
        return own
    if own is None:
        return copy.keep(secret)
    if own != secret:
        raise SettingsError(
            f"the secret in {copy.location} differs from the secret in {shared.location}; to use the shared "
            f"secret, move {copy.location} to another folder; new hashes will then differ from earlier hashes"
        )
    return secret
