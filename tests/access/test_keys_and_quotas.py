"""Keys, quotas and who may do what, as plain values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.access import keys_and_quotas as access
from rowcast.access.keys_and_quotas import Caller, Key, Meter, Quota, callers
from rowcast.adapters.memory import MemoryKeys
from rowcast.errors import Forbidden, OverQuota, SettingsError, Unauthorized
from rowcast.history.entry_filter import Selection
from rowcast.http.authentication import Gate, Rules

SECRET = "rk_1_secret"
HOUR = 3600


def key(id_: str = "1", secret: str = SECRET, **options: Any) -> Key:
    given = {"name": f"key {id_}", "scopes": ("predict",), "created": 0, **options}
    return Key(id=id_, hash=access.hash_of(secret), **given)


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def presented(secret: str = SECRET) -> dict[bytes, bytes]:
    return {b"x-api-key": secret.encode()}


@given(
    st.integers(1, 50),
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 8)), min_size=1, max_size=60),
)
def test_no_window_ever_lets_more_through_than_twice_the_quota_and_no_burst_more_than_once(
    rows: int, seconds: int, asked: list[tuple[float, int]]
) -> None:
    meter, now, taken = Meter(Quota(rows, seconds)), 100.0, []
    for pause, count in asked:
        now += pause
        try:
            meter.spend(count, now)
        except OverQuota:
            continue
        taken.append((now, count))

    for start, _ in taken:
        window = sum(count for at, count in taken if start <= at <= start + seconds)
        assert window <= 2 * rows
        assert sum(count for at, count in taken if at == start) <= rows


def test_a_quota_refuses_the_row_too_many_and_says_when_there_is_one_again() -> None:
    meter = Meter(Quota(10, 60))
    for _ in range(10):
        meter.spend(1, 5.0)

    with pytest.raises(OverQuota) as refused:
        meter.spend(1, 5.0)

    assert refused.value.seconds == 6
    meter.spend(1, 5.0 + 6)
    assert meter.headers(5.0 + 6) == b'ratelimit-policy: "default";q=10;w=60\r\nratelimit: "default";r=0;t=61\r\n'


def test_a_refused_request_costs_nothing() -> None:
    meter = Meter(Quota(10, 60))
    meter.spend(8, 0.0)
    for _ in range(5):
        with pytest.raises(OverQuota):
            meter.spend(3, 0.0)

    meter.spend(2, 0.0)


def test_more_rows_than_the_quota_ever_allows_are_not_told_to_wait() -> None:
    with pytest.raises(OverQuota) as refused:
        Meter(Quota(10, 60)).spend(11, 0.0)

    assert refused.value.seconds == 0
    assert "more than the quota of 10/60s ever allows" in refused.value.message


def test_workers_share_a_quota() -> None:
    meter = Meter(Quota(100, 60), share=4)
    meter.spend(25, 0.0)

    with pytest.raises(OverQuota):
        meter.spend(1, 0.0)


def test_what_is_kept_of_a_key_is_its_hash() -> None:
    found = access.spelled("aa", b"\x01" * access.SECRET_BYTES)

    assert found.startswith("rk_aa_0101")
    assert access.hash_of(found) not in found
    assert len(access.hash_of(found)) == 64


def test_a_rotated_key_is_good_twice_for_a_while_and_spends_one_quota() -> None:
    (fresh,) = access.rotated([key(quota=Quota(5, 60))], "1", access.hash_of("new"), now=100, overlap=50)

    during = callers([fresh], 149, None, 1)
    after = callers([fresh], 150, None, 1)

    assert len(during) == 2
    assert len({id(caller.meter) for caller in during.values()}) == 1
    assert list(after) == [bytes.fromhex(access.hash_of("new"))]


def test_revoking_ends_the_key_and_the_one_from_before() -> None:
    kept = access.rotated([key()], "1", access.hash_of("new"), now=100, overlap=50)

    assert callers(access.revoked(kept, "key 1", 120), 121, None, 1) == {}


@pytest.mark.parametrize("options", [{"expires": 999_999}, {"revoked": 5}])
def test_an_ended_key_is_refused(options: dict[str, int]) -> None:
    gate = Gate(MemoryKeys([key(**options)]), Rules(), Clock())

    with pytest.raises(Unauthorized, match="unknown, expired or revoked"):
        gate.admit(presented(), {})


def test_a_key_ends_while_the_server_runs() -> None:
    clock = Clock()
    gate = Gate(MemoryKeys([key(expires=int(clock.now) + 10)]), Rules(), clock)
    gate.admit(presented(), {})

    clock.now += 10

    with pytest.raises(Unauthorized):
        gate.admit(presented(), {})


@pytest.mark.parametrize("shift", [1.0, -5000.0])
def test_changes_are_followed_within_a_second_even_when_the_clock_is_set_back(shift: float) -> None:
    clock, book = Clock(), MemoryKeys([key()])
    gate = Gate(book, Rules(), clock)
    gate.admit(presented(), {})

    book.change(lambda keys: [*access.revoked(keys, "1", 5), key("2", "other")])
    clock.now += shift

    with pytest.raises(Unauthorized):
        gate.admit(presented(), {})
    assert gate.admit(presented("other"), {}).key_id == "2"


def test_a_quota_in_use_outlives_a_change_of_the_keys() -> None:
    clock, book = Clock(), MemoryKeys([key(quota=Quota(3, HOUR))])
    gate = Gate(book, Rules(), clock)
    gate.admit(presented(), {}).meter.spend(3, 0.0)  # type: ignore[union-attr]

    book.change(lambda keys: [*keys, key("2", "other")])
    clock.now += 1

    with pytest.raises(OverQuota):
        gate.admit(presented(), {}).meter.spend(1, 0.0)  # type: ignore[union-attr]


def test_keys_that_vanish_open_nothing() -> None:
    clock, book = Clock(), MemoryKeys([key()])
    gate = Gate(book, Rules(), clock)

    book.change(lambda keys: [])
    clock.now += 1

    for headers in ({}, presented()):
        with pytest.raises(Unauthorized):
            gate.admit(headers, {})


def test_the_first_key_closes_a_server_that_needed_none() -> None:
    clock, book = Clock(), MemoryKeys()
    gate = Gate(book, Rules(), clock)
    assert gate.admit({}, {}).sees == Selection()

    book.change(lambda keys: [key()])
    clock.now += 1

    with pytest.raises(Unauthorized, match="a key is needed"):
        gate.admit({}, {})


def test_what_is_presented_is_hashed_and_looked_up_once_whatever_it_is() -> None:
    """The structure that makes timing tell nothing: bytes of a key are compared with nothing, hashes are dict keys."""
    gate = Gate(MemoryKeys([key(str(number), f"secret {number}") for number in range(50)]), Rules(), Clock())
    asked: list[bytes] = []

    class Watched(dict[bytes, Caller]):
        def get(self, digest: bytes, default: Any = None) -> Any:
            asked.append(digest)
            return super().get(digest, default)

    gate._callers = Watched(gate._callers)
    for wrong in ("secret 7", "secret 70", "x", "", "secret 7" * 1000):
        if wrong == "secret 7":
            gate.admit(presented(wrong), {})
        else:
            with pytest.raises(Unauthorized):
                gate.admit(presented(wrong), {})

    assert len(asked) == 5
    assert all(len(digest) == 32 for digest in asked)


def test_a_bearer_is_as_good_as_x_api_key() -> None:
    gate = Gate(MemoryKeys([key()]), Rules(), Clock())

    assert gate.admit({b"authorization": b"bearer " + SECRET.encode()}, {}).key_id == "1"
    with pytest.raises(Unauthorized):
        gate.admit({b"authorization": b"Basic " + SECRET.encode()}, {})


def test_the_key_of_the_environment_may_do_everything() -> None:
    gate = Gate(MemoryKeys(), Rules(api_key="hunter22"), Clock())

    caller = gate.admit(presented("hunter22"), {})

    assert caller.scopes == {"predict", "read", "admin"}
    assert caller.sees == Selection()
    with pytest.raises(Unauthorized):
        gate.admit({}, {})


def test_without_keys_only_this_machine_may_manage() -> None:
    assert "admin" in Gate(MemoryKeys(), Rules(local=True)).admit({}, {}).scopes
    assert "admin" not in Gate(MemoryKeys(), Rules(local=False)).admit({}, {}).scopes


def test_without_keys_each_address_has_a_quota_of_its_own() -> None:
    gate = Gate(MemoryKeys(), Rules(quota=Quota(1, 60)))

    def spend(address: str) -> None:
        meter = gate.admit({}, {"client": (address, 1)}).meter
        assert meter is not None
        meter.spend(1, 0.0)

    spend("10.0.0.1")
    spend("10.0.0.2")
    with pytest.raises(OverQuota):
        spend("10.0.0.1")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/predictions", "read"),
        ("GET", "/predictions/1", "read"),
        ("DELETE", "/predictions/1", "admin"),
        ("POST", "/models/reload", "admin"),
        ("POST", "/whatever", "admin"),
        ("POST", "/models/none/predict", "predict"),
        ("GET", "/models", None),
        ("GET", "/nowhere", None),
    ],
)
def test_every_route_needs_its_scope_and_an_unknown_one_the_highest(method: str, path: str, scope: Any) -> None:
    gate = Gate(MemoryKeys(), Rules())
    scopes = {"predict", "read", "admin"}

    assert gate.check(Caller(), method, path) == scope
    if scope:
        with pytest.raises(Forbidden, match=scope):
            gate.check(Caller("1", scopes=frozenset(scopes - {scope})), method, path)  # type: ignore[arg-type]


def test_metrics_tell_of_all_tenants_and_are_for_those_who_may_see_all() -> None:
    gate = Gate(MemoryKeys(), Rules())

    gate.check(Caller("1", scopes=frozenset({"read"})), "GET", "/metrics")
    for caller in (Caller("1", "acme"), Caller("1", scopes=frozenset({"predict"}))):
        with pytest.raises(Forbidden):
            gate.check(caller, "GET", "/metrics")


def test_only_an_administrator_without_tenant_sees_everybody() -> None:
    assert Caller("1", "", frozenset({"read", "admin"})).sees == Selection()
    assert Caller("1", "acme", frozenset({"read", "admin"})).sees == Selection(tenant="acme")
    assert Caller("1", "", frozenset({"read"})).sees == Selection(tenant="")
    assert Caller("1", "", frozenset({"read", "admin"}), frozenset({"b", "a"})).sees == Selection(models=("a", "b"))


@pytest.mark.parametrize(
    ("read", "good", "value"),
    [
        (access.read_quota, "100/60s", Quota(100, 60)),
        (access.read_quota, "5/1m", Quota(5, 60)),
        (access.read_quota, "5/10", Quota(5, 10)),
        (access.read_duration, "90d", 90 * 86_400),
        (access.read_scopes, "read, predict", ("predict", "read")),
        (access.read_tenant, "acme", "acme"),
    ],
)
def test_what_the_command_line_says_is_read(read: Any, good: str, value: Any) -> None:
    assert read(good) == value


@pytest.mark.parametrize(
    ("read", "bad"),
    [
        (access.read_quota, "100"),
        (access.read_quota, "0/60s"),
        (access.read_duration, "soon"),
        (access.read_scopes, "predict,write"),
        (access.read_scopes, ""),
        (access.read_tenant, "Acme Ltd"),
        (access.read_name, " "),
    ],
)
def test_what_cannot_be_read_is_named(read: Any, bad: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(bad)

    assert repr(bad.rpartition(",")[2]) in refused.value.message or "none" in refused.value.message


def test_two_keys_in_use_have_two_names() -> None:
    with pytest.raises(SettingsError, match="revoke or rotate"):
        access.made([key()], key("2", name="key 1"))
    assert len(access.made([key(revoked=1)], key("2", name="key 1"))) == 2


def test_a_key_without_end_ends_never() -> None:
    assert key().good_until() == math.inf
