"""Shared counters are summed over all processes and keep the counts of killed processes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rowcast.adapters.files.shared_counters import ROOM, LocalCounters, SharedCounters, sums
from rowcast.adapters.telemetry.metrics import Metrics
from rowcast.adapters.telemetry.prometheus import exposition
from rowcast.events import ModelLoaded, ReloadFinished, RequestAnswered, RequestFailed, RowsScored
from rowcast.serving.fleet import Counters, ProcessStatus

PROCESSES = [ProcessStatus(0, "ready"), ProcessStatus(1, "dead")]


def metrics(counts: Counters) -> Metrics:
    return Metrics(counts, lambda: 3)


def sample(metrics: Metrics, name: str, processes: Sequence[ProcessStatus] = PROCESSES) -> float:
    """Return the sum of a metric's samples."""
    text = exposition(metrics, processes).decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def record_events(metrics: Metrics, times: int) -> None:
    for _ in range(times):
        metrics.listen(RequestAnswered("/predict", "POST", 200, 0.25))
        metrics.listen(RowsScored("loans", 1, 2, ["yes", "no"]))


@pytest.mark.parametrize("shared", [False, True], ids=["local", "shared"])
def test_events_are_counted(tmp_path: Path, shared: bool) -> None:
    seen = metrics(SharedCounters(tmp_path, 0) if shared else LocalCounters())
    record_events(seen, 4)
    seen.listen(ModelLoaded("loans", 1, "digest", 0.5))
    seen.listen(ReloadFinished("broken"))

    assert sample(seen, "rowcast_requests_total") == 4
    assert sample(seen, "rowcast_request_duration_seconds_sum") == 1.0
    assert sample(seen, "rowcast_predictions_total") == 8
    assert sample(seen, "rowcast_model_loads_total") == 1
    assert 'rowcast_reloads_total{outcome="failed"} 1.0' in exposition(seen, PROCESSES).decode()
    assert 'rowcast_server_processes{state="dead"} 1.0' in exposition(seen, PROCESSES).decode()
    assert sample(seen, "rowcast_journal_segments") == 3


@pytest.mark.parametrize("shared", [False, True], ids=["local", "shared"])
def test_requests_are_counted_by_route_method_and_status(tmp_path: Path, shared: bool) -> None:
    seen = metrics(SharedCounters(tmp_path, 0) if shared else LocalCounters())
    answered = {
        ("/predict", "POST", 200): 3,
        ("/predict", "POST", 422): 2,
        ("/predict", "OPTIONS", 200): 1,
        ("/v1/models/{name}/labels/{label}", "GET", 200): 5,
        ("/v1/models/{name}/labels/{label}", "GET", 404): 4,
    }
    for request, times in answered.items():
        for _ in range(times):
            seen.listen(RequestAnswered(*request, 0.25))

    text = exposition(seen, PROCESSES).decode()

    pattern = r'^rowcast_requests_total{method="(.*)",route="(.*)",status="(.*)"} (.*)$'
    counted = re.findall(pattern, text, re.MULTILINE)
    assert {(route, method, int(status)): float(count) for method, route, status, count in counted} == answered


def test_counts_are_summed_over_processes_and_a_new_process_continues_the_counts_of_a_dead_process(
    tmp_path: Path,
) -> None:
    first, second = metrics(SharedCounters(tmp_path, 0)), metrics(SharedCounters(tmp_path, 1))
    record_events(first, 3)
    record_events(second, 5)
    successor = metrics(SharedCounters(tmp_path, 0))
    record_events(successor, 2)

    for seen in (second, successor):
        assert sample(seen, "rowcast_requests_total") == 10
        assert sample(seen, "rowcast_request_duration_seconds_sum") == 2.5
        assert sample(seen, "rowcast_predictions_total") == 20


def test_the_counts_of_a_killed_process_survive(tmp_path: Path) -> None:
    code = f"""
import os, signal, pathlib
from rowcast.adapters.files.shared_counters import SharedCounters
cells = SharedCounters(pathlib.Path({str(tmp_path)!r}), 0).cells(("requests", "/predict", "POST", "200"), 15)
for _ in range(1000):
    cells[3] += 1
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)

    assert sums(SharedCounters(tmp_path, 1)) == {
        ("requests", "/predict", "POST", "200"): [0.0, 0.0, 0.0, 1000.0, *[0.0] * 11]
    }


def test_labels_of_any_length_and_in_any_script_have_separate_counters(tmp_path: Path) -> None:
    counts = SharedCounters(tmp_path, 0)
    labels = [("predictions", "m", "1", "é" * length + "\n") for length in range(40)]
    for number, label in enumerate(labels):
        counts.cells(label, 1 + number % 3)[0] += number + 1

    assert {label: cells[0] for label, cells in sums(SharedCounters(tmp_path, 1)).items()} == {
        label: number + 1 for number, label in enumerate(labels)
    }


def test_labels_that_do_not_fit_in_the_file_do_not_affect_other_labels(tmp_path: Path) -> None:
    counts = SharedCounters(tmp_path, 0)
    counts.cells(("first",), 1)[0] += 1
    for number in range(ROOM // 16):
        counts.cells((f"label {number}",), 1)[0] += 1
    counts.cells(("first",), 1)[0] += 1

    totals = sums(counts)
    assert totals[("first",)] == [2.0]
    assert len(totals) < ROOM // 16
    assert (tmp_path / "process-0.counts").stat().st_size == ROOM


def test_queue_metrics_show_the_total_number_of_rows_and_the_longest_wait() -> None:
    processes = [
        ProcessStatus(0, "ready", waiting=3, waiting_seconds=0.5),
        ProcessStatus(1, "ready", waiting=4, waiting_seconds=2.25),
    ]
    seen = Metrics(LocalCounters(), lambda: 0)

    assert sample(seen, "rowcast_queue_rows", processes) == 7
    assert sample(seen, "rowcast_queue_age_seconds", processes) == 2.25


def test_cache_and_problem_counts_are_summed_over_all_processes(tmp_path: Path) -> None:
    first, second = metrics(SharedCounters(tmp_path, 0)), metrics(SharedCounters(tmp_path, 1))
    for seen in (first, second):
        seen.listen(RowsScored("loans", 1, 3, ["yes"] * 3, 1.0, 1, 2))
        seen.listen(RequestFailed("invalid-row"))

    assert sample(second, "rowcast_cache_hits_total") == 2
    assert sample(second, "rowcast_cache_misses_total") == 4
    assert sample(second, "rowcast_problems_total") == 2


def test_every_process_reports_the_most_recent_prediction_made_by_any_process(tmp_path: Path) -> None:
    first, second = (Metrics(SharedCounters(tmp_path, number), lambda: 0, old_names=True) for number in range(2))
    for seen, number in ((first, 1.0), (second, 7.0), (first, 3.0)):
        seen.listen(RowsScored("loans", 1, 1, ["yes"], number))

        assert sample(first, "latest_prediction") == sample(second, "latest_prediction") == number


def test_metrics_with_old_names_count_prediction_requests_in_all_dialects() -> None:
    seen = Metrics(LocalCounters(), lambda: 0, old_names=True)
    by_dialect = ("/models/{name}/predict", "/v2/models/{name}/infer", "/invocations", "/v1/models/{name}:predict")
    for route in ("/predict", *by_dialect):
        seen.listen(RequestAnswered(route, "POST", 200, 0.25))
    for route in ("/predictions", "/health", "/metrics"):
        seen.listen(RequestAnswered(route, "GET", 200, 0.5))

    assert sample(seen, "pred_requests_total") == sample(seen, "pred_request_latency_seconds_count") == 5
    assert sample(seen, "pred_request_latency_seconds_sum") == 1.25
    assert sample(seen, "ml_api_requests_total") == 8
    assert sample(seen, "ml_api_request_duration_seconds_sum") == 2.75


def test_a_request_slower_than_the_last_bucket_is_counted_in_the_infinite_bucket() -> None:
    seen = metrics(LocalCounters())

    for seconds in (0.25, 5.0, 7.0):
        seen.listen(RequestAnswered("/predict", "POST", 200, seconds))

    text = exposition(seen, PROCESSES).decode()
    found = re.findall(r'^rowcast_request_duration_seconds_bucket{.*le="([^"]+)".*} (\S+)$', text, re.MULTILINE)
    counts = {bound: float(count) for bound, count in found}
    assert [counts[bound] for bound in ("0.1", "0.25", "2.5", "5.0", "+Inf")] == [0, 1, 1, 2, 3]
    assert sample(seen, "rowcast_request_duration_seconds_count") == 3
    assert sample(seen, "rowcast_request_duration_seconds_sum") == 12.25
