"""Quotas: parsing and enforcement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.access.quotas import Meter, Quota, new_meter, new_meters, parse_quota
from rowcast.access.shared_quotas import QuotaUse
from rowcast.errors import OverQuota, SettingsError


@given(
    st.integers(1, 50),
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 8)), min_size=1, max_size=60),
)
def test_a_burst_cannot_exceed_the_quota_and_a_window_cannot_exceed_twice_the_quota(
    rows: int, seconds: int, requests: list[tuple[float, int]]
) -> None:
    meter, now, accepted = Meter(Quota(rows, seconds)), 100.0, []
    for pause, count in requests:
        now += pause
        try:
            meter.spend(count, now)
        except OverQuota:
            continue
        accepted.append((now, count))

    for start, _ in accepted:
        window = sum(count for at, count in accepted if start <= at <= start + seconds)
        assert window <= 2 * rows
        assert sum(count for at, count in accepted if at == start) <= rows


def test_the_error_for_a_row_over_quota_contains_a_retry_delay() -> None:
    meter = Meter(Quota(10, 60))
    for _ in range(10):
        meter.spend(1, 5.0)

    with pytest.raises(OverQuota) as refused:
        meter.spend(1, 5.0)

    assert refused.value.seconds == 6
    meter.spend(1, 5.0 + 6)
    assert meter.headers(5.0 + 6) == b'ratelimit-policy: "default";q=10;w=60\r\nratelimit: "default";r=0;t=61\r\n'


def test_a_rejected_request_does_not_use_up_any_quota() -> None:
    meter = Meter(Quota(10, 60))
    meter.spend(8, 0.0)
    for _ in range(5):
        with pytest.raises(OverQuota):
            meter.spend(3, 0.0)

    meter.spend(2, 0.0)


def test_the_error_for_a_request_larger_than_the_quota_contains_no_retry_delay() -> None:
    with pytest.raises(OverQuota) as refused:
        Meter(Quota(10, 60)).spend(11, 0.0)

    assert refused.value.seconds == 0


def test_each_server_process_gets_an_equal_share_of_a_quota() -> None:
    meter = Meter(Quota(100, 60), share=4)
    meter.spend(25, 0.0)

    with pytest.raises(OverQuota):
        meter.spend(1, 0.0)


@pytest.mark.parametrize(
    ("text", "quota"), [("100/60s", Quota(100, 60)), ("5/1m", Quota(5, 60)), ("5/10", Quota(5, 10))]
)
def test_valid_quotas_are_parsed(text: str, quota: Quota) -> None:
    assert parse_quota(text) == quota


@pytest.mark.parametrize("text", ["100", "0/60s", "5/1w", ""])
def test_the_error_for_an_invalid_quota_quotes_the_value(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_quota(text)

    assert repr(text) in refused.value.message


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("100/60s", Quota(100, 60)),
        ("100 rows/1m", Quota(100, 60)),
        ("20 requests/60", Quota(20, 60, "requests")),
        ("20requests/2h", Quota(20, 7200, "requests")),
    ],
)
def test_a_quota_counts_rows_or_requests(text: str, quota: Quota) -> None:
    assert parse_quota(text) == quota == parse_quota(str(quota))


@pytest.mark.parametrize("text", ["20 batches/60s", "requests/60s", "20 request/60s", "20 rows"])
def test_a_quota_with_an_unknown_unit_is_rejected(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_quota(text)


def test_a_quota_of_requests_does_not_count_the_rows_of_a_request() -> None:
    meter = new_meter(Quota(2, 60, "requests"))
    assert meter is not None

    for _ in range(2):
        meter.spend(1, 0.0)
        meter.spend(999, 0.0, 1000)
    with pytest.raises(OverQuota):
        meter.spend(1, 0.0)
    assert b'ratelimit-policy: "default";q=2;qu="requests";w=60' in meter.headers(0.0)


def test_predictions_and_other_requests_share_a_meter_unless_predictions_have_their_own_quota() -> None:
    predict, general = new_meters(Quota(5, 60), None)
    assert predict is general is not None
    predict, general = new_meters(None, Quota(5, 60))
    assert predict is not None
    assert general is None
    predict, general = new_meters(Quota(5, 60), Quota(7, 60))
    assert (predict.quota.rows, general.quota.rows) == (7, 5)  # type: ignore[union-attr]


def test_a_row_meter_counts_every_row_and_reports_the_remaining_rows() -> None:
    meter = new_meter(Quota(10, 60))
    assert meter is not None
    assert new_meter(None) is None
    assert meter.is_immediate

    full = meter.headers(5.0)
    meter.spend(1, 5.0)
    meter.spend(3, 5.0, 4)

    policy = b'ratelimit-policy: "default";q=10;w=60\r\n'
    assert full == policy + b'ratelimit: "default";r=10;t=0\r\n'
    assert meter.headers(5.0) == policy + b'ratelimit: "default";r=6;t=25\r\n'
    assert meter.headers(28.0) == policy + b'ratelimit: "default";r=9;t=2\r\n'
    assert meter.headers(29.0) == full


def test_the_reported_remaining_quota_covers_all_server_processes() -> None:
    meter = new_meter(Quota(100, 60), 4)
    assert meter is not None

    meter.spend(5, 0.0)

    assert meter.headers(0.0) == b'ratelimit-policy: "default";q=100;w=60\r\nratelimit: "default";r=80;t=13\r\n'


def test_a_quota_that_is_smaller_than_the_number_of_processes_allows_one_row_in_each_process() -> None:
    meter = new_meter(Quota(2, 60), 4)
    assert meter is not None

    meter.spend(1, 0.0)
    with pytest.raises(OverQuota):
        meter.spend(1, 59.0)
    meter.spend(1, 60.0)


def test_an_idle_caller_does_not_accumulate_extra_quota() -> None:
    meter = Meter(Quota(2, 60))
    meter.spend(1, 0.0)
    meter.spend(2, 1000.0)

    with pytest.raises(OverQuota) as refused:
        meter.spend(2, 1000.0)

    assert (refused.value.seconds, refused.value.message) == (60, "quota of 2/60s exceeded; retry in 60 s")


def test_the_error_for_a_request_larger_than_the_quota_counts_the_rows_of_the_whole_request() -> None:
    for rows, whole in ((11, 12), (12, 0), (12, 11)):
        with pytest.raises(OverQuota) as refused:
            Meter(Quota(10, 60)).spend(rows, 0.0, whole)
        assert refused.value.message == ("too many rows for the quota of 10/60s: 12; send fewer rows per request")


def test_the_text_form_of_a_quota_has_the_syntax_that_the_parser_accepts() -> None:
    assert [str(quota) for quota in (Quota(5, 60), Quota(5, 60, "requests"))] == ["5/60s", "5 requests/60s"]


def test_both_meters_of_a_caller_are_divided_between_the_server_processes() -> None:
    predict, general = new_meters(Quota(10, 60), Quota(20, 60), 2)
    assert predict is not None
    assert general is not None

    predict.spend(10, 0.0)
    general.spend(5, 0.0)
    for meter in (predict, general):
        with pytest.raises(OverQuota):
            meter.spend(1, 0.0)


class SharedCount:
    """An in-process shared count that a test can make unavailable."""

    def __init__(self) -> None:
        self.is_away = False
        self.used: dict[str, int] = {}

    async def charge(self, name: str, rows: int, *, limit: int, seconds: int) -> QuotaUse | None:
        if self.is_away:
            return None
        used = self.used.get(name, 0) + rows
        accepted = used <= limit
        if accepted:
            self.used[name] = used
        return QuotaUse(accepted, self.used[name] * seconds / limit)


async def accepted_rows(meter: Meter | None, now: float) -> int:
    """Charge single rows until one is refused; return the number of accepted rows."""
    for count in range(1000):
        try:
            charging = meter.spend(1, now)  # type: ignore[union-attr]
            assert charging is not None
            await charging
        except OverQuota:
            return count
    raise AssertionError("no row was refused")


async def test_each_process_enforces_its_share_while_the_shared_count_is_unavailable() -> None:
    shared = SharedCount()
    shared.is_away = True
    meters = [new_meter(Quota(10, 60), 2, shared=shared, name="a") for _ in range(2)]

    assert [await accepted_rows(meter, 0.0) for meter in meters] == [5, 5]


async def test_an_outage_of_the_shared_count_does_not_reset_a_quota() -> None:
    shared = SharedCount()
    meter = new_meter(Quota(10, 60), 2, shared=shared, name="a")
    assert meter is not None
    for _ in range(6):
        await meter.spend(1, 0.0)  # type: ignore[misc]
    shared.is_away = True

    assert await accepted_rows(meter, 0.0) == 2
    assert b"r=0;t=61" in meter.headers(0.0)
    shared.is_away = False
    assert await accepted_rows(meter, 0.0) == 4


async def test_each_caller_purpose_and_quota_is_counted_separately() -> None:
    shared = SharedCount()
    for owner in ("key:a", "key:b"):
        for quota in (Quota(1, 60), Quota(1, 60, "requests")):
            for meter in new_meters(quota, Quota(2, 60), shared=shared, owner=owner):
                assert meter is not None
                await accepted_rows(meter, 0.0)

    assert sorted(shared.used.values()) == [1, 1, 1, 1, 2, 2]
