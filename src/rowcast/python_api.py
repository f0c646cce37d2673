"""The Python face: what `import rowcast` offers, made of the same parts as the command line and the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast import settings
from rowcast.app import models as app_models
from rowcast.errors import InvalidRows

if TYPE_CHECKING:
    from rowcast.schema.prediction import Score
    from rowcast.serving.live_models import LiveModel
    from rowcast.training.result import TrainingResult


def train(
    data: Any, target: str | None = None, name: str | None = None, *, home: str | Path | None = None, **options: Any
) -> TrainingResult:
    """Train on a file, a data frame, columns or rows, publish the model and return what `rowcast train --json` prints.

    `options` are those of `training.options.TrainingOptions`: positive, exclude, keep, map, metric, trials ... and
    `target_file`, when the labels lie in a file of their own.
    """
    return app_models.train(settings.load(home=home), data, target=target, name=name, **options)


def load(reference: str, *, home: str | Path | None = None) -> Model:
    """A published model, `NAME`, `NAME@3` or `NAME@alias`, loaded and proven."""
    return Model(app_models.live_model(settings.load(home=home), reference))


class Model:
    """A loaded model; its answers are those of the server, and are not recorded."""

    def __init__(self, live: LiveModel) -> None:
        self._live = live
        self.name, self.version, self.digest = live.name, live.version, live.digest
        self.schema = live.schema

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Score]:
        """One outcome a row: prediction, probability, score, probabilities. InvalidRows says what does not fit."""
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
    """Data frames write missing numbers as NaN; a row says None."""
    return {name: None if isinstance(value, float) and value != value else value for name, value in row.items()}
