"""Request counts and durations in the Open Inference Protocol, summed over all server processes."""

from __future__ import annotations

from collections.abc import Iterator

from rowcast.http.dialects.v2_statistics import ModelStatistics
from rowcast.serving.fleet import CounterCells, Labels


class SharedCounters:
    """Counters that several processes share."""

    def __init__(self, cells: list[tuple[Labels, list[float]]]) -> None:
        self._cells = cells

    def cells(self, labels: Labels, count: int) -> CounterCells:
        self._cells.append((labels, [0.0] * count))
        return self._cells[-1][1]

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        return iter(self._cells)


def test_counts_and_durations_are_summed_over_all_processes() -> None:
    cells: list[tuple[Labels, list[float]]] = []
    first, second = ModelStatistics(SharedCounters(cells)), ModelStatistics(SharedCounters(cells))
    first.count("loans", 1, 10, 1000)
    first.count("loans", 1, 5, 500)
    second.count("loans", 1, 1, 200)
    second.count("loans", 2, 7, 900)

    report = second.report("loans", 1)

    assert (report["inference_count"], report["execution_count"]) == (16, 3)
    assert report["inference_stats"]["success"] == {"count": 3, "ns": 1700}
    assert report["last_inference"] > 0


def test_failed_requests_are_counted_separately() -> None:
    statistics = ModelStatistics(SharedCounters([]))
    statistics.count("loans", 1, 0, 300)

    report = statistics.report("loans", 1)

    assert report["inference_stats"]["fail"] == {"count": 1, "ns": 300}
    assert (report["inference_count"], report["execution_count"]) == (0, 0)


def test_the_counts_of_a_model_without_requests_are_zero() -> None:
    report = ModelStatistics(SharedCounters([])).report("loans", 1)

    assert (report["inference_count"], report["last_inference"]) == (0, 0)
    assert set(report["inference_stats"]) == {
        *("success", "fail", "queue", "cache_hit", "cache_miss"),
        *("compute_input", "compute_infer", "compute_output"),
    }
