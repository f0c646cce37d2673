"""Findings in the output of `rowcast train` and `rowcast check`."""

from __future__ import annotations

import shlex

from rowcast.cli import training
from rowcast.tables.table import Finding, Override


def test_the_override_flag_of_a_finding_can_be_pasted_into_a_shell() -> None:
    finding = Finding("constant", "Region's name", "is 'x' in every row", "left out", Override("keep", "Region's name"))

    document = training.finding_document(finding)

    assert shlex.split(document["flag"]) == ["--keep", "Region's name"]
    assert "override" not in document


def test_a_finding_without_an_override_has_no_flag() -> None:
    assert "flag" not in training.finding_document(Finding("encoding", "", "not UTF-8", "read as cp1252"))
