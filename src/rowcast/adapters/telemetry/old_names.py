"""Metrics for existing dashboards, under the names used by the systems that Rowcast replaces.

As documented for those systems, these metrics have no labels. A prediction request is any request to a route that
returns predictions, regardless of the status of the response.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

_predicts = re.compile(r".*(/predict|/predict/batch|:predict|/infer|/invocations)").fullmatch

Requests = Mapping[tuple[str, ...], Sequence[float]]
"""Maps route, method and status to the cells in which `metrics.py` counts the requests."""


def old_names(requests: Requests, bounds: Sequence[str], rows: float, latest: float, load: float) -> Iterator[Metric]:
    """Yield the metrics under the names that loan-mlops and onnx-pipeline use."""
    zeros = [0.0] * (len(bounds) + 1)
    prediction_requests = [cells for (route, *_), cells in requests.items() if _predicts(route)]
    for cells, (counter, counter_help), (histogram, histogram_help) in (
        (
            prediction_requests,
            ("pred_requests", "Prediction requests."),
            ("pred_request_latency_seconds", "Duration of prediction requests."),
        ),
        (
            list(requests.values()),
            ("ml_api_requests", "Answered HTTP requests."),
            ("ml_api_request_duration_seconds", "Duration of HTTP requests."),
        ),
    ):
        totals = [sum(column) for column in zip(zeros, *cells, strict=True)]
        cumulative = list(accumulate(totals[:-1]))
        yield CounterMetricFamily(counter, counter_help, value=cumulative[-1])
        yield HistogramMetricFamily(histogram, histogram_help, list(zip(bounds, cumulative, strict=True)), totals[-1])
    yield GaugeMetricFamily(
        "latest_prediction",
        "The most recent prediction: a class index or, for a regression model, the predicted value.",
        value=latest,
    )
    yield CounterMetricFamily("ml_api_predictions", "Scored and recorded rows.", value=rows)
    yield GaugeMetricFamily(
        "ml_api_model_load_seconds", "Load time of the served model that took the longest to load.", value=load
    )
