"""The health of a server process."""

from __future__ import annotations

from rowcast.serving.health import Health


def test_a_process_is_initially_not_ready() -> None:
    assert Health().is_ready is False


def test_each_part_reports_its_own_problem() -> None:
    problems = {"disk": "the disk is full"}
    health = Health()
    health.register("disk", lambda: problems.get("disk"))
    health.register("history", lambda: problems.get("history"))

    assert health.report() == {"disk": "the disk is full", "history": "ok"}
    problems.clear()
    assert health.report() == {"disk": "ok", "history": "ok"}


def test_a_problem_with_an_optional_part_is_reported_and_tolerated() -> None:
    health = Health()
    health.register("disk", lambda: None)
    health.register("cache", lambda: "Redis is unavailable", is_optional=True)

    assert health.report() == {"disk": "ok", "cache": "Redis is unavailable"}
    assert [health.can_do_without(name) for name in ("disk", "cache", "processes")] == [False, True, False]
