"""The health of a server process, and the replies of the health routes. Each part of the server registers a check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from rowcast.serving.fleet import ProcessStatus

HealthCheck = Callable[[], str | None]
"""Returns a description of the problem, or None if there is no problem."""
Verdict = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["ok", "degraded"]})]
AlwaysTrue = Annotated[bool, msgspec.Meta(extra_json_schema={"const": True})]


class HealthReport(msgspec.Struct, frozen=True):
    """The health of a server. `checks` maps each part to `ok` or to a description of the problem."""

    status: Verdict
    ready: bool
    models: tuple[str, ...] = ()
    checks: dict[str, str] = {}
    processes: tuple[ProcessStatus, ...] = ()


class Liveness(msgspec.Struct, frozen=True):
    """The liveness reply, which every responsive process sends."""

    live: AlwaysTrue = True


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """The readiness reply: whether the server can answer prediction requests and, if not, why."""

    ready: bool
    reason: str = ""


class Health:
    """The readiness and the health checks of this process."""

    def __init__(self) -> None:
        self._checks: dict[str, HealthCheck] = {}
        self._optional: set[str] = set()
        self._required: list[HealthCheck] = []
        self.is_ready = False
        """Whether the process is ready: set when the models are loaded, cleared when the process starts to drain."""

    def register(self, name: str, check: HealthCheck, *, is_optional: bool = False, is_required: bool = False) -> None:
        """Register the check for a part of the server.

        The server can answer requests without an optional part. It is not ready without a required part.
        """
        self._checks[name] = check
        if is_required:
            self._required.append(check)
        if is_optional:
            self._optional.add(name)

    def can_do_without(self, name: str) -> bool:
        """Return whether the server can answer all requests without this part."""
        return name in self._optional

    def unready_reason(self) -> str:
        """Return why a required part is not working, or an empty string if all required parts are working."""
        return next((reason for check in self._required if (reason := check())), "")

    def report(self) -> dict[str, str]:
        """Return `ok` or a description of the problem for each part."""
        return {name: check() or "ok" for name, check in self._checks.items()}
