"""The rows of a request: all rows are validated before any row is scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.errors import BodyError, InvalidRows, ValueProblem
from rowcast.schema.schema import MAX_PROBLEMS
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import RejectedRow, Row, check_count, is_rows_object, read_each, read_rows, read_valid
from support import models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LiveModel:
    folder: Path = tmp_path_factory.mktemp("models")
    return models.live(folder, "m", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")


GOOD, BAD = b'{"x0":1, "x1":2}', b'{"x0":"a"}'


def body(*rows: bytes) -> bytes:
    return b'{"rows":[%b]}' % b",".join(rows)


def test_rows_keep_the_received_bytes(model: LiveModel) -> None:
    rows = read_rows(model, body(GOOD, GOOD), max_rows=2)

    assert [row.received for row in rows if isinstance(row, Row)] == [GOOD, GOOD]


def test_every_problem_in_every_row_is_reported_with_the_row_number(model: LiveModel) -> None:
    with pytest.raises(InvalidRows) as refused:
        read_rows(model, body(GOOD, BAD, GOOD, BAD), max_rows=10)

    assert {(problem.row, problem.column) for problem in refused.value.problems} == {
        (1, "x0"),
        (1, "x1"),
        (3, "x0"),
        (3, "x1"),
    }


def test_invalid_rows_keep_their_position_in_partial_mode(model: LiveModel) -> None:
    rows = read_rows(model, body(GOOD, BAD, GOOD), max_rows=10, partial=True)

    assert [type(row) for row in rows] == [Row, RejectedRow, Row]


def test_validation_stops_at_the_maximum_number_of_problems(model: LiveModel) -> None:
    with pytest.raises(InvalidRows) as refused:
        read_rows(model, body(*[BAD] * MAX_PROBLEMS), max_rows=10_000)

    assert len(refused.value.problems) == MAX_PROBLEMS


def test_a_partial_reply_lists_a_limited_number_of_problems(model: LiveModel) -> None:
    unknown = b'{"x0":1,"x1":2,%b}' % b",".join(b'"y%d":1' % number for number in range(500))

    rows = read_rows(model, body(*[unknown] * 200, GOOD), max_rows=201, partial=True)

    counts = [len(row.problems) for row in rows if isinstance(row, RejectedRow)]
    assert counts == [100] * 10 + [1] * 190
    assert isinstance(rows[199], RejectedRow)
    assert [(problem.row, problem.code) for problem in rows[199].problems] == [(199, "invalid-row")]
    assert isinstance(rows[200], Row)


@pytest.mark.parametrize(
    ("sent", "slug"),
    [
        (body(), "no-rows"),
        (body(GOOD, GOOD, GOOD), "too-many-rows"),
        (b'{"rows":1}', "malformed-body"),
        (b'{"rows":[],"more":1}', "malformed-body"),
        (b'{"rows":[', "malformed-body"),
        (b"", "empty-body"),
        (b"[" * 10_000, "too-deep"),
    ],
)
def test_a_body_that_is_not_a_list_of_rows_is_rejected(model: LiveModel, sent: bytes, slug: str) -> None:
    with pytest.raises(BodyError) as refused:
        read_rows(model, sent, max_rows=2)

    assert refused.value.slug == slug


def test_the_error_for_an_item_that_is_not_an_object_includes_the_row_number(model: LiveModel) -> None:
    with pytest.raises(BodyError) as refused:
        read_rows(model, body(GOOD, b"[1]"), max_rows=2)

    assert refused.value.slug == "not-an-object"
    assert refused.value.message.startswith("row 1: ")


def test_rows_are_returned_only_if_all_are_valid(model: LiveModel) -> None:
    def read(raw: bytes) -> Row:
        return Row(model.encoder.read(raw), raw)

    assert len(read_valid([GOOD, GOOD], read, max_rows=2)) == 2
    with pytest.raises(InvalidRows):
        read_valid([GOOD, BAD], read, max_rows=2)


@pytest.mark.parametrize(
    ("sent", "is_rows"),
    [
        (b'{"rows":1}', True),
        (b'{"rows":[],"x":1}', False),
        (b'{"x":"\\"rows\\""}', False),
        (b"{", False),
        (b"1", False),
    ],
)
def test_an_object_is_a_batch_if_rows_is_its_only_key(sent: bytes, *, is_rows: bool) -> None:
    assert is_rows_object(sent) is is_rows


def test_a_row_uses_the_cache_with_its_default_lifetime(model: LiveModel) -> None:
    row = Row(model.encoder.read(GOOD), GOOD)

    assert (row.uses_cache, row.cache_key, row.cached_score, row.cache_seconds) == (True, "", None, 0)


def test_a_batch_is_not_read_beyond_the_maximum_number_of_problems() -> None:
    seen: list[int] = []

    def read(number: int) -> Row:
        seen.append(number)
        raise InvalidRows([ValueProblem("x", "missing", "is required")])

    with pytest.raises(InvalidRows) as refused:
        read_valid(range(MAX_PROBLEMS + 5), read, max_rows=10_000)

    assert len(seen) == len(refused.value.problems) == MAX_PROBLEMS
    assert [problem.row for problem in refused.value.problems] == seen


def test_a_partial_batch_is_read_to_the_end() -> None:
    def read(number: int) -> Row:
        raise InvalidRows([ValueProblem("x", "missing", "is required")])

    rows = read_each(range(MAX_PROBLEMS + 2), read, max_rows=10_000, partial=True)

    codes = [row.problems[0].code for row in rows if isinstance(row, RejectedRow)]
    assert codes == ["missing"] * MAX_PROBLEMS + ["invalid-row"] * 2


@pytest.mark.parametrize(("count", "slug"), [(0, "no-rows"), (4, "too-many-rows")])
def test_the_number_of_rows_must_be_between_one_and_the_limit(count: int, slug: str) -> None:
    check_count(1, 3)
    check_count(3, 3)
    with pytest.raises(BodyError) as refused:
        check_count(count, 3)

    assert refused.value.slug == slug
