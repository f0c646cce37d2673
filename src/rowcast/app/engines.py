"""Open the engine that a command selects: threads of this process, or a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from rowcast.engines import Engine, ThreadEngine
from rowcast.errors import SettingsError
from rowcast.setting_values import check_ray_address

if TYPE_CHECKING:
    from rowcast.settings import Settings

LOCAL: Final = "local"
RAY: Final = "ray"


def usable_cores() -> int:
    """Return the number of cores that this process can use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def check_engine(engine: str) -> None:
    """Raise SettingsError if there is no such engine, or if its package is not installed."""
    if engine == LOCAL:
        return
    if engine != RAY and not engine.startswith(f"{RAY}://"):
        raise SettingsError(f"unknown engine {engine!r}; expected local, ray or ray://HOST:PORT", slug="unknown-engine")
    if importlib.util.find_spec("ray") is None:
        raise SettingsError("the engine 'ray' requires the ray package; install rowcast[ray]", slug="missing-package")


@contextmanager
def open_engine(settings: Settings, engine: str, slots: int | None = None) -> Iterator[Engine]:
    """Open an engine: `local`, `ray` or `ray://HOST:PORT`. At most `slots` tasks run at the same time (by default, one
    per core).

    `ray` is the cluster in the setting `ray_address`; without this setting, a cluster is started on this machine.
    Raise SettingsError if there is no such engine. Raise Unavailable if it cannot be used.
    """
    check_engine(engine)
    if engine == LOCAL:
        with closing(ThreadEngine(slots or usable_cores())) as threads:
            yield threads
        return
    address = settings.ray_address if engine == RAY else engine
    if address is not None:
        check_ray_address(address)
    from rowcast.adapters.ray import cluster

    with cluster.open_engine(address, cores=usable_cores(), slots=slots) as running:
        yield running
