"""A model without its graph: schema, encoder, decision, wire template and examples.

This module imports neither numpy nor onnxruntime, so that a gateway can use it to validate requests and render forms.
"""

from __future__ import annotations

from typing import Any

from rowcast.errors import BundleError, SettingsError
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.schema.encoding import NUMBERS, TEXTS, RowEncoder
from rowcast.schema.prediction import Score, has_probabilities
from rowcast.wire.codec import WireCodec, compile_template


class ModelInterface:
    """The inputs and outputs of one model version."""

    def __init__(self, reference: Reference, manifest: bundle.Manifest) -> None:
        self.name, self.version = reference
        self.manifest = manifest
        self.digest = manifest.digest
        self.schema = manifest.schema
        self.decision = manifest.decision
        self.encoder = RowEncoder(manifest.schema, manifest.plan)
        self.is_classifier = manifest.decision.task != "regression"
        self.has_probabilities = has_probabilities(manifest.output.kind, manifest.output.activation)
        self.is_own_export = {spec.name for spec in manifest.plan} <= {NUMBERS, TEXTS}
        """Whether Rowcast exported the graph; an imported graph can have any input tensors."""
        self.golden: bundle.GoldenRow | None = None
        """A golden row of the model, used in examples."""
        self.is_slow = False
        """Whether the model runs in a separate thread instead of on the event loop."""
        self.wire = self._compile_wire()
        self._class_numbers = {label: number for number, label in enumerate(manifest.decision.classes)}

    def _compile_wire(self) -> WireCodec | None:
        if self.manifest.wire is None:
            return None
        try:
            return compile_template(
                self.manifest.wire,
                model=self.name,
                version=self.version,
                schema=self.schema,
                decision=self.decision,
                parse_row=self.encoder.read,
                has_probabilities=self.has_probabilities,
            )
        except SettingsError as error:
            raise BundleError(f"{self.name}@{self.version} cannot be served: {error.message}") from None

    def number(self, score: Score) -> float:
        """Return a score as a single number: the index of the predicted class, or the predicted value."""
        return float(self._class_numbers[score.prediction] if self.is_classifier else score.prediction)

    def example(self) -> dict[str, Any]:
        """Return a valid example row, as a client would send it."""
        return {column.name: column.shown().example for column in self.schema.columns}

    def golden_example(self) -> dict[str, Any]:
        """Return the golden row with neutral values in the sensitive columns."""
        assert self.golden is not None  # a live model has been verified on its golden rows
        neutral = {column.name: column.shown().example for column in self.schema.columns if column.sensitive}
        return {name: neutral.get(name, cell) for name, cell in self.golden.row.items()}

    def sample(self) -> Any:
        """Return an example body for `/predict`, in the format of the wire template if the model has one."""
        return self.example() if self.wire is None else self.wire.example(self.example())
