"""Request counts and durations for the Open Inference Protocol, summed over all server processes."""

from __future__ import annotations

import time
from typing import Any

from rowcast.serving.fleet import CounterCells, Counters

FAMILY = "inferences"
REQUESTS, ROWS, NANOSECONDS, FAILED, FAILED_NANOSECONDS, LAST = range(6)


class ModelStatistics:
    """Counts requests and reports the results in the format of the protocol's statistics extension."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._cells: dict[tuple[str, int], CounterCells] = {}

    def count(self, model: str, version: int, rows: int, nanoseconds: int) -> None:
        """Count one request; `rows` is 0 if the request failed."""
        key = model, version
        cells = self._cells.get(key)
        if cells is None:
            cells = self._cells[key] = self._counters.cells((FAMILY, model, str(version)), 6)
        if rows:
            cells[REQUESTS] += 1
            cells[ROWS] += rows
            cells[NANOSECONDS] += nanoseconds
            cells[LAST] = time.time_ns() // 1_000_000
        else:
            cells[FAILED] += 1
            cells[FAILED_NANOSECONDS] += nanoseconds

    def report(self, model: str, version: int) -> dict[str, Any]:
        """Return one entry of `model_stats`. Stages that are not measured separately have a duration of 0."""
        labels = (FAMILY, model, str(version))
        by_process = [cells for key, cells in self._counters.each() if key == labels] or [[0.0] * 6]
        requests, rows, spent, failed, spent_failing, _ = (int(sum(cells)) for cells in zip(*by_process, strict=True))
        unmeasured = {"count": requests, "ns": 0}
        return {
            "name": model,
            "version": str(version),
            "last_inference": int(max(cells[LAST] for cells in by_process)),
            "inference_count": rows,
            "execution_count": requests,
            "inference_stats": {
                "success": {"count": requests, "ns": spent},
                "fail": {"count": failed, "ns": spent_failing},
                "queue": unmeasured,
                "compute_input": unmeasured,
                "compute_infer": {"count": requests, "ns": spent},
                "compute_output": unmeasured,
                "cache_hit": {"count": 0, "ns": 0},
                "cache_miss": {"count": 0, "ns": 0},
            },
            "batch_stats": [],
        }
