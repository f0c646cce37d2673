"""The charts and tables in the quality section are built from the holdout."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from rowcast.training.report import quality_section
from rowcast.training.report.evaluation import EvaluatedModel
from support.reports import evaluated_model


def matrix_of(model: EvaluatedModel) -> quality_section.ConfusionMatrix:
    matrix = quality_section._matrix(model)
    assert matrix is not None
    return matrix


def test_the_confusion_matrix_does_not_depend_on_the_position_of_the_positive_class() -> None:
    model = evaluated_model()
    decision = msgspec.structs.replace(model.decision, classes=("yes", "no"), positive=0)
    swapped = replace(model, decision=decision, output=model.output[:, ::-1].copy())

    matrix, reverse = matrix_of(model), matrix_of(swapped)

    assert (matrix.names, reverse.names) == (("no", "yes"), ("yes", "no"))
    assert reverse.rows[0].cells == matrix.rows[1].cells[::-1]
    assert reverse.rows[1].cells == matrix.rows[0].cells[::-1]
    assert sum(cell.share for cell in matrix.rows[0].cells) == pytest.approx(1)


def test_a_confusion_matrix_with_many_classes_is_wide_or_omitted() -> None:
    model = evaluated_model(200)

    def with_classes(count: int) -> EvaluatedModel:
        decision = msgspec.structs.replace(model.decision, task="multiclass", classes=tuple(range(count)))
        rows = replace(model.rows, target=np.arange(200) % count)
        return replace(model, decision=decision, rows=rows, output=np.eye(count, dtype=np.float32)[rows.target])

    assert not matrix_of(with_classes(quality_section.WIDE_MATRIX_CLASSES)).is_wide
    assert matrix_of(with_classes(quality_section.MAX_MATRIX_CLASSES)).is_wide
    assert matrix_of(with_classes(3)).threshold is None
    assert quality_section._matrix(with_classes(quality_section.MAX_MATRIX_CLASSES + 1)) is None


def test_residual_charts_show_a_sample_of_a_large_holdout() -> None:
    model = evaluated_model(quality_section.MAX_DOTS + 1)
    decision = msgspec.structs.replace(model.decision, task="regression", classes=())
    model = replace(model, decision=decision, output=model.output[:, 1])

    scatter, residuals, distribution = quality_section._residual_charts(model)

    assert "800 of 801 rows" in scatter.description
    assert "800 of 801 rows" in residuals.description
    assert distribution.shapes
