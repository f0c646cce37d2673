"""Fixtures for the tests of the file adapters."""

from __future__ import annotations

import pytest

from rowcast.adapters.files import journal, segment


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reserve 4 KiB instead of 16 MiB for each journal segment."""
    monkeypatch.setattr(journal, "RESERVED_BYTES", 4096)
    monkeypatch.setattr(segment, "RESERVED_BYTES", 4096)
