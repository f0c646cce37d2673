"""Metrics by the names of the systems that Rowcast replaces, for dashboards that know no others.

Their texts name no labels, so there are none. A prediction request is one to a route that predicts, however answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

_predicts = re.compile(r".*(/predict|/predict/batch|:predict|/infer|/invocations)").fullmatch

Requests = Mapping[tuple[str, ...], Sequence[float]]
"""Route, method and status to what `prometheus.py` keeps of a request."""


def old_names(requests: Requests, bounds: Sequence[str], rows: float, latest: float, load: float) -> Iterator[Metric]:
    """The metrics of loan-mlops, then those of onnx-pipeline."""
    nothing = [0.0] * (len(bounds) + 1)
    of_predictions = [cells for (route, *_), cells in requests.items() if _predicts(route)]
    for cells, (counted, text), (timed, about) in (
        (
            of_predictions,
            ("pred_requests", "Requests for predictions."),
            ("pred_request_latency_seconds", "Time that they took."),
        ),
        (
            list(requests.values()),
            ("ml_api_requests", "HTTP requests answered."),
            ("ml_api_request_duration_seconds", "Time that they took."),
        ),
    ):
        together = [sum(column) for column in zip(nothing, *cells, strict=True)]
        running = list(accumulate(together[:-1]))
        yield CounterMetricFamily(counted, text, value=running[-1])
        yield HistogramMetricFamily(timed, about, list(zip(bounds, running, strict=True)), together[-1])
    yield GaugeMetricFamily(
        "latest_prediction", "The last prediction: the number of its class, or the value.", value=latest
    )
    yield CounterMetricFamily("ml_api_predictions", "Rows scored and recorded.", value=rows)
    yield GaugeMetricFamily("ml_api_model_load_seconds", "Loading a model; the slowest that is served.", value=load)
