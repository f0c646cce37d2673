"""The authenticator: keys, scopes and quotas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from structlog.testing import capture_logs

from rowcast.access import keys as access_keys
from rowcast.access.addresses import parse_networks
from rowcast.access.callers import UNAUTHENTICATED, Caller
from rowcast.access.keys import Key
from rowcast.access.quotas import Quota
from rowcast.adapters.memory.keys import MemoryKeys
from rowcast.errors import Forbidden, ModelNotFound, OverQuota, SettingsError, Unauthorized
from rowcast.http import authentication
from rowcast.http.authentication import AccessRules, Authenticator, allow_model, model_for, require, require_everything
from rowcast.serving.deployment import Deployment
from support.access import SECRET, new_key

HOUR = 3600
LOCAL = ("127.0.0.1", 40_000)
HOST = {b"host": b"localhost:8000"}


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def presented(secret: str = SECRET) -> dict[bytes, bytes]:
    return {b"x-api-key": secret.encode()}


@pytest.mark.parametrize("options", [{"expires": 999_999}, {"revoked": 5}])
def test_an_expired_or_revoked_key_is_rejected(options: dict[str, int]) -> None:
    gate = Authenticator(MemoryKeys([new_key(**options)]), AccessRules(), Clock())

    with pytest.raises(Unauthorized):
        gate.admit(presented(), None)


def test_a_key_can_expire_while_the_server_is_running() -> None:
    clock = Clock()
    gate = Authenticator(MemoryKeys([new_key(expires=int(clock.now) + 10)]), AccessRules(), clock)
    gate.admit(presented(), None)

    clock.now += 10

    with pytest.raises(Unauthorized):
        gate.admit(presented(), None)


@pytest.mark.parametrize("shift", [1.0, -5000.0])
def test_key_changes_take_effect_within_a_second_even_if_the_clock_is_set_back(shift: float) -> None:
    clock, keys = Clock(), MemoryKeys([new_key()])
    gate = Authenticator(keys, AccessRules(), clock)
    gate.admit(presented(), None)

    keys.change(lambda present: [*access_keys.revoke_key(present, "1", 5), new_key("2", "other")])
    clock.now += shift

    with pytest.raises(Unauthorized):
        gate.admit(presented(), None)
    assert gate.admit(presented("other"), None).key_id == "2"


class BrokenKeys(MemoryKeys):
    """Keys that cannot be read while `is_broken` is true."""

    is_broken = False

    def revision(self) -> object:
        return self.is_broken

    def all(self) -> Sequence[Key]:
        if self.is_broken:
            raise SettingsError("the disk is gone")
        return super().all()


def test_the_previous_keys_stay_valid_while_the_keys_cannot_be_read() -> None:
    clock, keys = Clock(), BrokenKeys([new_key()])
    gate = Authenticator(keys, AccessRules(), clock)

    keys.is_broken = True
    clock.now += 1

    assert gate.admit(presented(), None).key_id == "1"
    with pytest.raises(Unauthorized):
        gate.admit(presented("unknown"), None)


def test_reloading_changed_keys_does_not_reset_quotas() -> None:
    clock, keys = Clock(), MemoryKeys([new_key(quota=Quota(3, HOUR))])
    gate = Authenticator(keys, AccessRules(), clock)
    gate.admit(presented(), None).meter.spend(3, 0.0)  # type: ignore[union-attr]

    keys.change(lambda present: [*present, new_key("2", "other")])
    clock.now += 1

    with pytest.raises(OverQuota):
        gate.admit(presented(), None).meter.spend(1, 0.0)  # type: ignore[union-attr]


def test_a_server_still_requires_a_key_after_its_keys_are_deleted() -> None:
    clock, keys = Clock(), MemoryKeys([new_key()])
    gate = Authenticator(keys, AccessRules(), clock)

    keys.change(lambda present: [])
    clock.now += 1

    for headers in ({}, presented()):
        with pytest.raises(Unauthorized):
            gate.admit(headers, None)


def test_a_server_requires_a_key_once_the_first_key_is_created() -> None:
    clock, keys = Clock(), MemoryKeys()
    gate = Authenticator(keys, AccessRules(), clock)
    assert gate.admit(HOST, LOCAL).sees_all_tenants

    keys.change(lambda present: [new_key()])
    clock.now += 1

    with pytest.raises(Unauthorized):
        gate.admit({}, None)


def test_every_presented_key_is_hashed_and_looked_up_exactly_once() -> None:
    """Response times cannot reveal a key, because the server looks up only the key's hash."""
    gate = Authenticator(
        MemoryKeys([new_key(str(number), f"secret {number}") for number in range(50)]), AccessRules(), Clock()
    )
    lookups: list[bytes] = []

    class RecordingDict(dict[bytes, Caller]):
        def get(self, digest: bytes, default: Any = None) -> Any:
            lookups.append(digest)
            return super().get(digest, default)

    gate._callers = RecordingDict(gate._callers)
    for wrong in ("secret 7", "secret 70", "x", "", "secret 7" * 1000):
        if wrong == "secret 7":
            gate.admit(presented(wrong), None)
        else:
            with pytest.raises(Unauthorized):
                gate.admit(presented(wrong), None)

    assert len(lookups) == 5
    assert all(len(digest) == 32 for digest in lookups)


def test_a_key_is_accepted_as_a_bearer_token() -> None:
    gate = Authenticator(MemoryKeys([new_key()]), AccessRules(), Clock())

    assert gate.admit({b"authorization": b"bearer " + SECRET.encode()}, None).key_id == "1"
    with pytest.raises(Unauthorized):
        gate.admit({b"authorization": b"Basic " + SECRET.encode()}, None)


def test_the_key_from_the_settings_has_every_scope() -> None:
    gate = Authenticator(MemoryKeys(), AccessRules(api_key="hunter22"), Clock())

    caller = gate.admit(presented("hunter22"), None)

    assert (caller.key_id, caller.meter, caller.general_meter) == ("env", None, None)
    assert caller.scopes == {"predict", "read", "admin"}
    assert caller.sees_all_tenants
    with pytest.raises(Unauthorized):
        gate.admit({}, None)


def test_a_server_without_keys_grants_the_admin_scope_only_if_it_listens_on_localhost() -> None:
    assert "admin" in Authenticator(MemoryKeys(), AccessRules(local_only=True)).admit(HOST, LOCAL).scopes
    assert "admin" not in Authenticator(MemoryKeys(), AccessRules(local_only=False)).admit(HOST, LOCAL).scopes


def test_an_insecure_server_without_keys_grants_remote_clients_no_admin_scope() -> None:
    gate = Authenticator(MemoryKeys(), AccessRules(insecure=True))

    assert gate.admit({}, ("10.0.0.1", 1)).scopes == {"predict", "read"}
    assert gate.admit({b"via": b"1.1 proxy"}, LOCAL).scopes == {"predict", "read"}
    assert "admin" in gate.admit({}, LOCAL).scopes


def test_a_valid_key_is_accepted_from_any_client_through_any_proxy_and_for_any_host() -> None:
    gate = Authenticator(MemoryKeys([new_key()]), AccessRules())
    headers = {**presented(), b"host": b"10.0.0.7:8000", b"x-forwarded-for": b"203.0.113.7"}

    assert gate.admit(headers, ("203.0.113.7", 1)).key_id == "1"


def test_an_invalid_key_does_not_bypass_the_rules_for_requests_without_a_key() -> None:
    gate = Authenticator(MemoryKeys(), AccessRules())

    for client, host in ((("203.0.113.7", 1), b"localhost"), (LOCAL, b"evil.example")):
        with pytest.raises(Forbidden):
            gate.admit({**presented(), b"host": host}, client)


def test_clients_behind_a_trusted_proxy_have_separate_quotas() -> None:
    rules = AccessRules(quota=Quota(1, 60), proxies=parse_networks(["127.0.0.1"]))
    gate = Authenticator(MemoryKeys(), rules)

    def spend(forwarded_for: bytes) -> None:
        meter = gate.admit({**HOST, b"x-forwarded-for": forwarded_for}, LOCAL).meter
        assert meter is not None
        meter.spend(1, 0.0)

    spend(b"203.0.113.7")
    spend(b"203.0.113.8")
    with pytest.raises(OverQuota):
        spend(b"192.0.2.99, 203.0.113.7")


def test_each_client_address_has_its_own_quota_if_there_are_no_keys() -> None:
    gate = Authenticator(MemoryKeys(), AccessRules(quota=Quota(1, 60), insecure=True))

    def spend(address: str) -> None:
        meter = gate.admit({}, (address, 1)).meter
        assert meter is not None
        meter.spend(1, 0.0)

    spend("10.0.0.1")
    spend("10.0.0.2")
    with pytest.raises(OverQuota):
        spend("10.0.0.1")


def test_a_caller_without_the_required_scope_is_rejected() -> None:
    scopes = frozenset({"predict", "read", "admin"})

    for scope in scopes:
        require(Caller("1", scopes=scopes), scope)  # type: ignore[arg-type]
        with pytest.raises(Forbidden):
            require(Caller("1", scopes=scopes - {scope}), scope)  # type: ignore[arg-type]
    require(Caller("1", scopes=frozenset()), None)


def test_metrics_require_the_read_scope_and_a_key_without_tenant_or_model_restrictions() -> None:
    require_everything(Caller("1", scopes=frozenset({"read"})))
    for caller in (
        Caller("1", "acme"),
        Caller("1", scopes=frozenset({"predict"})),
        Caller("1", models=frozenset({"loans"})),
    ):
        with pytest.raises(Forbidden):
            require_everything(caller)


def test_the_key_from_the_settings_has_the_default_quota() -> None:
    gate = Authenticator(MemoryKeys(), AccessRules(api_key="hunter22", quota=Quota(3, 60)), Clock())

    meter = gate.admit(presented("hunter22"), None).meter

    assert meter is not None
    assert meter.quota == Quota(3, 60)


def test_only_the_most_recently_used_addresses_keep_their_meters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "MAX_ADDRESSES", 2)
    gate = Authenticator(MemoryKeys(), AccessRules(quota=Quota(1, 60), insecure=True))

    meters = [gate.admit({}, (address, 1)).meter for address in ("a", "b", "a", "c", "a", "b")]

    assert meters[0] is meters[2] is meters[4]
    assert meters[1] is not meters[5]


class CountingKeys(MemoryKeys):
    """Counts how often the revision is read."""

    reads = 0

    def revision(self) -> object:
        self.reads += 1
        return super().revision()


@pytest.mark.parametrize(
    ("shift", "is_read"), [(0.0, False), (0.49, False), (0.5, True), (-0.4, False), (-0.5, False), (-0.6, True)]
)
def test_the_keys_are_checked_for_changes_every_half_second(shift: float, *, is_read: bool) -> None:
    clock, keys = Clock(), CountingKeys([new_key()])
    gate = Authenticator(keys, AccessRules(), clock)
    gate.admit(presented(), None)
    before = keys.reads

    clock.now += shift
    gate.admit(presented(), None)

    assert keys.reads - before == is_read


def test_unchanged_keys_are_not_read_again() -> None:
    class FragileKeys(MemoryKeys):
        reads = 0

        def all(self) -> Sequence[Key]:
            self.reads += 1
            return super().all()

    clock, keys = Clock(), FragileKeys([new_key()])
    gate = Authenticator(keys, AccessRules(), clock)
    for _ in range(3):
        clock.now += 1
        gate.admit(presented(), None)

    assert keys.reads == 1


def test_unreadable_keys_are_reported_in_the_log() -> None:
    clock, keys = Clock(), BrokenKeys([new_key()])
    gate = Authenticator(keys, AccessRules(), clock)
    keys.is_broken = True
    clock.now += 1

    with capture_logs() as lines:
        gate.admit(presented(), None)

    assert [(line["log_level"], line["reason"]) for line in lines] == [("warning", "the disk is gone")]


def test_the_error_says_whether_a_key_is_missing_or_invalid() -> None:
    gate = Authenticator(MemoryKeys([new_key()]), AccessRules(), Clock())

    def message(headers: dict[bytes, bytes]) -> str:
        with pytest.raises(Unauthorized) as refused:
            gate.admit(headers, None)
        return refused.value.message

    missing = "an API key is required; send it in the header x-api-key or as a bearer token"
    assert message({}) == message({b"x-api-key": b""}) == message({b"authorization": b"Bearer "}) == missing
    assert message(presented("x")) == "the API key is unknown, expired or revoked"
    assert gate.admit({b"authorization": b"BEARER  " + SECRET.encode() + b" "}, None).key_id == "1"
    assert gate.admit({**presented(), b"authorization": b"Bearer x"}, None).key_id == "1"


def test_a_public_route_recognizes_a_valid_key_and_tolerates_a_missing_key() -> None:
    gate = Authenticator(MemoryKeys([new_key()]), AccessRules(), Clock())

    assert gate.recognise(presented(), None).key_id == "1"
    assert gate.recognise({}, None) is gate.recognise(presented("x"), None) is UNAUTHENTICATED


def test_predictions_have_their_own_quota_for_clients_without_a_key_and_for_the_key_from_the_settings() -> None:
    rules = AccessRules(quota=Quota(4, 60), predict_quota=Quota(6, 60), processes=2, api_key="hunter22")
    keyed = Authenticator(MemoryKeys(), rules, Clock()).admit(presented("hunter22"), None)
    unkeyed = Authenticator(MemoryKeys(), msgspec.structs.replace(rules, api_key="")).admit(HOST, LOCAL)
    only_predict = Authenticator(MemoryKeys(), AccessRules(predict_quota=Quota(6, 60))).admit(HOST, LOCAL)

    for caller in (keyed, unkeyed):
        for meter, rows in ((caller.meter, 3), (caller.general_meter, 2)):
            assert meter is not None
            meter.spend(rows, 0.0)
            with pytest.raises(OverQuota):
                meter.spend(1, 0.0)
    assert only_predict.meter is not None
    assert only_predict.general_meter is None
    assert Authenticator(MemoryKeys(), AccessRules()).admit(HOST, LOCAL).meter is None


def test_the_meters_of_10_000_addresses_are_kept() -> None:
    gate = Authenticator(MemoryKeys(), AccessRules(quota=Quota(1, 60), insecure=True))
    first = gate.admit({}, ("0", 1)).meter
    for number in range(1, 10_000):
        gate.admit({}, (str(number), 1))
    assert gate.admit({}, ("0", 1)).meter is first
    second = gate.admit({}, ("1", 1)).meter

    gate.admit({}, ("10000", 1))  # replaces the address "2", which has not been used for the longest time

    assert gate.admit({}, ("0", 1)).meter is first
    assert gate.admit({}, ("1", 1)).meter is second
    assert len(gate._addresses) == 10_000


def test_the_error_for_a_missing_scope_names_the_key_and_the_scope() -> None:
    for caller, who in ((Caller("1", scopes=frozenset()), "key 1"), (UNAUTHENTICATED, "a caller without a key")):
        with pytest.raises(Forbidden) as refused:
            require(caller, "read")
        assert refused.value.message == f"{who} lacks the required scope 'read'"


def test_metrics_are_available_to_administrators() -> None:
    require_everything(Caller("1", scopes=frozenset({"admin"})))


def test_access_to_a_model_covers_all_its_versions() -> None:
    caller = Caller("1", models=frozenset({"loans"}))

    allow_model(caller, "loans")
    allow_model(caller, "loans@2")
    with pytest.raises(Forbidden) as refused:
        allow_model(caller, "loan@loans")
    assert refused.value.message == "key 1 does not grant access to this model"


PREFLIGHT = {b"origin": b"https://app.example", b"access-control-request-method": b"POST"}


def test_a_preflight_response_lists_methods_and_headers() -> None:
    gate = Authenticator(MemoryKeys(), AccessRules(origins=frozenset({"https://app.example"})))

    assert gate.preflight(PREFLIGHT, "POST") is None
    assert gate.preflight({b"origin": b"https://app.example"}, "OPTIONS") is None
    assert gate.preflight(PREFLIGHT, "OPTIONS") == [
        (b"access-control-allow-origin", b"https://app.example"),
        (b"access-control-allow-methods", authentication.METHODS),
        (b"access-control-allow-headers", authentication.ALLOWED_HEADERS),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Origin"),
    ]
    assert gate.cross_origin(PREFLIGHT, "POST") == [
        (b"access-control-allow-origin", b"https://app.example"),
        (b"access-control-expose-headers", authentication.EXPOSED_HEADERS),
        (b"vary", b"Origin"),
    ]
    with pytest.raises(Forbidden) as refused:
        gate.preflight({**PREFLIGHT, b"origin": b"https://evil.example"}, "OPTIONS")
    assert refused.value.slug == "cross-origin"


def test_every_origin_can_be_allowed() -> None:
    gate = Authenticator(MemoryKeys(), AccessRules(origins=frozenset({"*"})))

    assert gate.cross_origin(PREFLIGHT, "POST")[0] == (b"access-control-allow-origin", b"https://app.example")


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({b"host": b"app.example"}, True),
        ({b"host": b"app.example:80"}, False),
        ({}, False),
        ({b"sec-fetch-site": b"same-origin"}, True),
        ({b"sec-fetch-site": b"none"}, True),
        ({b"host": b"app.example", b"sec-fetch-site": b"same-site"}, False),
    ],
)
def test_a_page_from_another_origin_can_only_read(headers: dict[bytes, bytes], *, is_own: bool) -> None:
    gate = Authenticator(MemoryKeys(), AccessRules())
    request = {b"origin": b"https://app.example", **headers}

    for method in ("GET", "HEAD", "OPTIONS"):
        assert gate.cross_origin(request, method) == []
    for method in ("POST", "DELETE", "PUT"):
        if is_own:
            assert gate.cross_origin(request, method) == []
        else:
            with pytest.raises(Forbidden) as refused:
                gate.cross_origin(request, method)
            assert refused.value.slug == "cross-origin"


class Model(NamedTuple):
    """A model without a schema or graph."""

    name: str
    version: int = 1


def test_a_caller_gets_only_the_models_that_its_key_allows() -> None:
    loans, other = Model("loans"), Model("sum")
    live = Deployment({"loans": loans, "sum": other}, "loans")  # type: ignore[type-var]
    caller = Caller("1", models=frozenset({"sum"}))

    assert model_for(Caller(), live, None) is loans
    assert model_for(caller, live, "sum@1") is other
    for name in (None, "loans", "none"):
        with pytest.raises(Forbidden):
            model_for(caller, live, name)
    with pytest.raises(ModelNotFound) as refused:
        model_for(caller, live, "sum@2")
    assert "loans" not in refused.value.message
