"""Display titles of metrics."""

from __future__ import annotations

from typing import Final

TITLES: Final = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "f1": "F1",
    "brier": "Brier score",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}


def metric_title(metric: str) -> str:
    """Return the title of a metric as it appears within a sentence."""
    return TITLES.get(metric, metric.replace("_", " "))
