"""Callers: secrets, quota meters and tenant visibility."""

from __future__ import annotations

import math

import pytest

from rowcast.access import keys as access_keys
from rowcast.access.callers import Caller, active_callers, keep_meters
from rowcast.access.quotas import Quota
from rowcast.access.scopes import Scope
from support.access import new_key


def test_both_secrets_of_a_rotated_key_share_a_quota_while_both_are_valid() -> None:
    (rotated,) = access_keys.rotate_key(
        [new_key(quota=Quota(5, 60))], "1", access_keys.hash_key("new"), now=100, overlap=50
    )

    during = active_callers([rotated], 149, None, 1)
    after = active_callers([rotated], 150, None, 1)

    assert len(during) == 2
    assert len({id(caller.meter) for caller in during.values()}) == 1
    assert list(after) == [bytes.fromhex(access_keys.hash_key("new"))]


def test_revoking_a_rotated_key_invalidates_both_secrets() -> None:
    rotated = access_keys.rotate_key([new_key()], "1", access_keys.hash_key("new"), now=100, overlap=50)

    assert active_callers(access_keys.revoke_key(rotated, "key 1", 120), 121, None, 1) == {}


def test_a_key_without_a_quota_gets_the_default_quota() -> None:
    (caller,) = active_callers([new_key()], 0, Quota(7, 60), 1).values()

    assert caller.meter is not None
    assert caller.meter.quota == Quota(7, 60)


def test_a_key_keeps_its_meter_unless_its_quota_changes() -> None:
    old = active_callers([new_key(quota=Quota(5, 60))], 0, None, 1)
    unchanged = keep_meters(active_callers([new_key(quota=Quota(5, 60))], 0, None, 1), old)
    changed = keep_meters(active_callers([new_key(quota=Quota(6, 60))], 0, None, 1), old)

    (before,) = old.values()
    assert [caller.meter is before.meter for caller in unchanged.values()] == [True]
    assert [caller.meter is before.meter for caller in changed.values()] == [False]


@pytest.mark.parametrize(
    ("tenant", "scopes", "expected"),
    [("", {"read", "admin"}, True), ("acme", {"read", "admin"}, False), ("", {"read"}, False)],
)
def test_only_an_administrator_without_a_tenant_can_see_all_tenants(
    tenant: str, scopes: set[Scope], expected: bool
) -> None:
    assert Caller("1", tenant, frozenset(scopes)).sees_all_tenants is expected


@pytest.mark.parametrize(("expires", "old_until"), [(120, 120), (1000, 150), (None, 150)])
def test_rotating_a_key_never_extends_its_lifetime(expires: int | None, old_until: int) -> None:
    secret = access_keys.hash_key("new")
    (rotated,) = access_keys.rotate_key([new_key(expires=expires)], "1", secret, now=100, overlap=50)

    callers = active_callers([rotated], 100, None, 1)

    new = callers.pop(bytes.fromhex(secret))
    (old,) = callers.values()
    assert (new.until, old.until) == (expires or math.inf, old_until)
    assert expires is None or active_callers([rotated], expires, None, 1) == {}
