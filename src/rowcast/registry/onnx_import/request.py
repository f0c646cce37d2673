"""The request and the result of an ONNX import."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rowcast.printable import markdown_text
from rowcast.registry.bundle import GoldenRow, Manifest
from rowcast.registry.onnx_import.signature import ObservedColumn

MATRIX: Final = "matrix"
NATIVE: Final = "native"


class ImportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The name and metadata of the model to import, and a sample of the user's table if there is one."""

    name: str
    metadata: dict[str, Any] = {}
    wire: dict[str, Any] | str | None = None
    """A wire template, `matrix` or `native`; None to derive the format from the metadata."""
    source: str = ""
    """The name of the imported file."""
    sha256: str = ""
    max_nodes: int = 0
    rows: list[dict[str, Any]] = []
    """Rows to score, with cells as text."""
    columns: list[str] = []
    """The names of the table's columns."""
    observed: dict[str, ObservedColumn] = {}


class ConvertedModel(msgspec.Struct, frozen=True):
    """The manifest and golden rows of a converted graph, with notes for the user."""

    manifest: Manifest
    golden: list[GoldenRow]
    notes: list[str]


def model_card(model: ConvertedModel) -> str:
    """Return the model card of an imported model as Markdown."""
    manifest = model.manifest
    origin = f"Imported from {markdown_text(manifest.training.table)}, sha256 `{manifest.training.sha256}`."
    lines = [
        f"# {manifest.name}",
        "",
        f"{origin} Rowcast did not train this model and has not measured its quality.",
        "",
        *[f"- {markdown_text(note)}" for note in model.notes],
        f"- Task: {manifest.decision.task}",
        f"- Columns: {markdown_text(', '.join(manifest.schema.names()))}",
    ]
    return "\n".join(lines) + "\n"
