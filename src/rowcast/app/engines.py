"""Open the engine that a command selects: threads of this process, or a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from rowcast.engines import Engine, ThreadEngine
from rowcast.errors import EngineUnavailable, SettingsError
from rowcast.setting_values import check_ray_address

if TYPE_CHECKING:
    from rowcast.jobs.job import JobEngine
    from rowcast.settings import Settings

LOCAL: Final = "local"
RAY: Final = "ray"


def usable_cores() -> int:
    """Return the number of cores that this process can use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def check_engine(engine: str) -> None:
    """Raise SettingsError if the engine is unknown, or if the package that it requires is not installed."""
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

    `ray` uses the cluster that the setting `ray_address` specifies, or starts a cluster on this machine if the setting
    is empty. Raise SettingsError if the engine is unknown, and EngineUnavailable if it cannot be used.
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


def ray_problem(settings: Settings) -> str:
    """Return why jobs cannot use a Ray cluster, or an empty string if they can. Does not connect to the cluster.

    Unlike a command, a job never starts a cluster: a cluster on a single machine would only slow the job down.
    """
    if settings.ray_address is None:
        return "the server has no Ray cluster; set `ray_address` (or RAY_ADDRESS) on the server"
    try:
        check_engine(RAY)
        check_ray_address(settings.ray_address)
    except SettingsError as error:
        return error.message
    return ""


@contextmanager
def open_job_engine(settings: Settings, engine: JobEngine) -> Iterator[Engine]:
    """Open the engine for a job; raise EngineUnavailable if the engine cannot be used."""
    problem = ray_problem(settings) if engine == RAY else ""
    if problem:
        raise EngineUnavailable(problem)
    with open_engine(settings, engine) as running:
        yield running
