"""Render `MODEL_CARD.md`, a Markdown summary of `bundle.json` and the data check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rowcast.registry.bundle import Manifest
from rowcast.schema.prediction import label_text
from rowcast.tables.table import Finding
from rowcast.templates import render
from rowcast.training.report.training_sections import ColumnRow, columns_section


@dataclass(frozen=True)
class CardMember:
    """A single model, or a member of an ensemble, with its settings as text."""

    candidate: str
    weight: str
    """The weight of a member in the average; empty for a single model."""
    settings: str


@dataclass(frozen=True)
class ModelCard:
    """The context of `model_card.md`."""

    manifest: Manifest
    versions: str
    holdout_share: float
    options: dict[str, Any]
    """The options of the training run."""
    members: tuple[CardMember, ...]
    classes: tuple[str, ...]
    """The labels of the classes; empty for regression."""
    positive: str
    """The positive class; empty unless the target is binary."""
    columns: tuple[ColumnRow, ...]
    findings: tuple[Finding, ...]


def render_model_card(manifest: Manifest, findings: Sequence[Finding]) -> str:
    """Render the model card."""
    training, decision = manifest.training, manifest.decision
    is_regression, is_binary = decision.task == "regression", decision.task == "binary"
    card = ModelCard(
        manifest=manifest,
        versions=", ".join(f"{package} {version}" for package, version in manifest.versions.items()),
        holdout_share=training.options.get("holdout", 0),
        options={
            name: training.options.get(name) for name in ("refit", "time", "group", "weight", "class_weight", "cost")
        },
        members=tuple(_members(training.candidate, training.params)),
        classes=() if is_regression else tuple(decision.names()),
        positive=label_text(decision.classes[decision.positive]) if is_binary else "",
        columns=columns_section(manifest.schema).columns,
        findings=tuple(findings),
    )
    return render(__package__, "model_card.md", card=card)


def _members(candidate: str, params: dict[str, Any]) -> list[CardMember]:
    members = params.get("members")
    if members is None:
        return [CardMember(candidate, "", _format_settings(params))]
    return [
        CardMember(member["candidate"], _format_setting(member["weight"]), _format_settings(member["params"]))
        for member in members
    ]


def _format_settings(params: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {_format_setting(value)}" for name, value in params.items())


def _format_setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
