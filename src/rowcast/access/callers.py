"""Callers: clients and their permissions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from rowcast.access.keys import Key
from rowcast.access.quotas import Meter, Quota, new_meters
from rowcast.access.scopes import SCOPES, Scope
from rowcast.access.shared_quotas import SharedQuotas


class Caller(msgspec.Struct, frozen=True, gc=False):
    """The identity and permissions of a client. Each history entry records the caller's key id and tenant."""

    key_id: str = ""
    tenant: str = ""
    scopes: frozenset[Scope] = frozenset(SCOPES)
    models: frozenset[str] = frozenset()
    """The models that the caller may use; an empty set allows every model."""
    until: float = math.inf
    """The Unix timestamp, in seconds, at which the key expires."""
    meter: Meter | None = None
    """Limits predictions."""
    general_meter: Meter | None = None
    """Limits all other requests; often the same object as `meter`."""

    def may_use(self, model: str) -> bool:
        """Return whether the caller may use this model."""
        return not self.models or model in self.models

    @property
    def sees_all_tenants(self) -> bool:
        """Whether the caller may read every tenant's predictions; true for administrators without a tenant."""
        return "admin" in self.scopes and not self.tenant


UNAUTHENTICATED: Final = Caller(scopes=frozenset(), models=frozenset(("",)))
"""A client that did not send a required key. The only model name it may use is the empty string, which is not a valid
model name."""


def active_callers(
    keys: Iterable[Key],
    now: float,
    default: Quota | None,
    share: int,
    predict: Quota | None = None,
    *,
    shared: SharedQuotas | None = None,
) -> dict[bytes, Caller]:
    """Map the hash of each active key to its caller. Both hashes of a rotated key share one meter.

    `default` is the quota for keys without their own quota; for predictions, `predict` overrides it. `share` is the
    number of processes that split each quota; it has no effect if `shared` is set.
    """
    callers: dict[bytes, Caller] = {}
    for key in keys:
        if key.state(now) != "active":
            continue
        own = None if key.quota else predict
        meter, general = new_meters(key.quota or default, own, share, shared=shared, owner=f"key:{key.id}")
        caller = Caller(
            key.id,
            key.tenant,
            frozenset(key.scopes),
            frozenset(key.models),
            key.valid_until(),
            meter,
            general,
        )
        callers[bytes.fromhex(key.hash)] = caller
        if key.old_hash and now < key.old_until:
            until = min(caller.until, key.old_until)
            callers[bytes.fromhex(key.old_hash)] = msgspec.structs.replace(caller, until=until)
    return callers


def keep_meters(new: dict[bytes, Caller], old: Mapping[bytes, Caller]) -> dict[bytes, Caller]:
    """Return the new callers. Each caller with unchanged quotas keeps its old meters, so its usage is not reset."""
    previous = {caller.key_id: caller for caller in old.values()}

    def with_meter(caller: Caller) -> Caller:
        before = previous.get(caller.key_id)
        if before is None or _quotas(before) != _quotas(caller):
            return caller
        return msgspec.structs.replace(caller, meter=before.meter, general_meter=before.general_meter)

    return {digest: with_meter(caller) for digest, caller in new.items()}


def _quotas(caller: Caller) -> tuple[Quota | None, ...]:
    return tuple(meter.quota if meter else None for meter in (caller.meter, caller.general_meter))
