"""Health of a server process. Each part registers a check when it is composed."""

from __future__ import annotations

from collections.abc import Callable

HealthCheck = Callable[[], str | None]
"""Returns what is wrong, or None."""


class Health:
    """Whether the process is ready, and what is wrong with its parts."""

    def __init__(self) -> None:
        self._checks: dict[str, HealthCheck] = {}
        self.is_ready = False
        """Set once the models are loaded; unset when the process drains."""

    def register(self, name: str, check: HealthCheck) -> None:
        """Add the check of a part."""
        self._checks[name] = check

    def report(self) -> dict[str, str]:
        """Return `ok` or what is wrong, by part."""
        return {name: check() or "ok" for name, check in self._checks.items()}
