"""The Python API: `train`, `load` and `Model`. It uses the same code as the command line and the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast import settings
from rowcast.app import models
from rowcast.errors import InvalidRows

if TYPE_CHECKING:
    from rowcast.schema.prediction import Score
    from rowcast.serving.live_models import LiveModel
    from rowcast.training.result import TrainingResult


def train(
    data: Any, target: str | None = None, name: str | None = None, *, home: str | Path | None = None, **options: Any
) -> TrainingResult:
    """Train a model, publish it and return the result that `rowcast train --json` prints.

    `data` is a file path, a data frame, a mapping from column names to values or a list of rows. The option
    `target_file` is a separate file that contains the labels. The other options are the fields of
    `rowcast.training.options.TrainingOptions`, for example `positive`, `exclude`, `keep`, `map`, `metric`, `trials` and
    `timeout`.
    """
    return models.train(settings.load(home=home), data, target=target, name=name, **options)


def load(reference: str, *, home: str | Path | None = None) -> Model:
    """Load a published model by its reference (`NAME`, `NAME@3` or `NAME@alias`) and verify it on its golden rows."""
    return Model(models.live_model(settings.load(home=home), reference))


class Model:
    """A loaded model. It returns the same scores as the server but does not record predictions."""

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self.name, self.version, self.digest = live.name, live.version, live.digest
        self.schema = live.schema

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Score]:
        """Return a score for each row; raise InvalidRows with every problem in every invalid row."""
        encoded, problems = [], []
        for number, row in enumerate(rows):
            try:
                encoded.append(self._live.encoder.parse(_without_nan(row)))
            except InvalidRows as invalid:
                problems += [msgspec.structs.replace(problem, row=number) for problem in invalid.problems]
        if problems:
            raise InvalidRows(problems)
        return self._live.score(encoded) if encoded else []


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN, which represents a missing number in a data frame, with None."""
    return {name: None if isinstance(value, float) and value != value else value for name, value in row.items()}
