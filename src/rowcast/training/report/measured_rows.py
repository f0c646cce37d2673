"""The input of the sections on quality: rows with known targets, and a model's output for these rows."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from rowcast.schema.encoding import Plan
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Schema
from rowcast.training.cost import Cost
from rowcast.training.problem import LabelledRows


class MeasuredRows(Protocol):
    """Rows with their targets and the output of a model: the holdout of a training run, or another table."""

    @property
    def decision(self) -> Decision:
        """The rule that converts the output into labels."""
        ...

    @property
    def metric(self) -> str:
        """The metric that the model was trained for."""
        ...

    @property
    def schema(self) -> Schema:
        """The columns of the model."""
        ...

    @property
    def plan(self) -> Plan:
        """The positions of the columns in `rows`."""
        ...

    @property
    def rows(self) -> LabelledRows:
        """The encoded rows with their targets."""
        ...

    @property
    def output(self) -> NDArray[Any]:
        """The output of the graph for the rows."""
        ...

    @property
    def seed(self) -> int:
        """The seed for drawing samples."""
        ...

    @property
    def cost(self) -> Cost | None:
        """The costs of errors, if they were set in training."""
        ...
