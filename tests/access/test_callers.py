"""Callers: secrets, quota meters and tenant visibility."""

from __future__ import annotations

import math

import pytest

from rowcast.access import keys as access_keys
from rowcast.access.callers import UNAUTHENTICATED, Caller, active_callers, keep_meters
from rowcast.access.quotas import Quota
from rowcast.access.scopes import Scope
from rowcast.errors import OverQuota
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


def test_a_key_keeps_its_meter_until_its_quota_changes() -> None:
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


def test_a_caller_has_the_identity_and_the_limits_of_its_key() -> None:
    key = new_key(tenant="acme", models=("loans",), expires=90, scopes=("read", "predict"))

    ((digest, caller),) = active_callers([key, new_key("2", expires=50)], 50, None, 1).items()

    assert digest == bytes.fromhex(key.hash)
    assert caller == Caller("1", "acme", frozenset({"read", "predict"}), frozenset({"loans"}), 90)
    assert (caller.may_use("loans"), caller.may_use("other"), Caller().may_use("other")) == (True, False, True)


def test_the_quota_of_a_key_overrides_the_default_quotas_for_predictions_and_for_other_requests() -> None:
    default, predict = Quota(7, 60), Quota(8, 60)
    keys = [new_key("own", "a", quota=Quota(5, 60)), new_key("none", "b")]

    own, none = active_callers(keys, 0, default, 1, predict).values()

    assert own.meter is own.general_meter
    assert [meter and meter.quota for meter in (own.meter, none.meter, none.general_meter)] == [
        Quota(5, 60),
        predict,
        default,
    ]


def test_a_caller_gets_new_meters_if_any_of_its_quotas_changes() -> None:
    def callers(default: Quota | None, predict: Quota | None) -> dict[bytes, Caller]:
        return active_callers([new_key()], 0, default, 1, predict)

    old = callers(Quota(5, 60), Quota(6, 60))
    (before,) = old.values()
    (same,) = keep_meters(callers(Quota(5, 60), Quota(6, 60)), old).values()
    (general,) = keep_meters(callers(Quota(4, 60), Quota(6, 60)), old).values()
    (predict,) = keep_meters(callers(Quota(5, 60), None), old).values()

    assert (same.meter is before.meter, same.general_meter is before.general_meter) == (True, True)
    assert before.meter not in (general.meter, predict.meter)
    assert before.general_meter not in (general.general_meter, predict.general_meter)


def test_the_quotas_of_a_caller_are_split_between_the_server_processes() -> None:
    (caller,) = active_callers([new_key(quota=Quota(10, 60))], 0, None, 2).values()
    assert caller.meter is not None

    caller.meter.spend(5, 0.0)
    with pytest.raises(OverQuota):
        caller.meter.spend(1, 0.0)


def test_a_client_without_the_required_key_has_no_permissions() -> None:
    assert UNAUTHENTICATED.scopes == frozenset()
    assert not UNAUTHENTICATED.may_use("loans")
    assert not UNAUTHENTICATED.sees_all_tenants
