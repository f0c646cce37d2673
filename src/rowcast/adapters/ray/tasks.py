"""The functions that run on the nodes of a Ray cluster."""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import metadata
from typing import Any, Final, NamedTuple

import ray

from rowcast.errors import EngineUnavailable, RowcastError
from rowcast.version import VERSION

PACKAGES: Final = ("numpy", "polars", "onnxruntime", "scikit-learn", "lightgbm", "optuna")
"""Packages whose versions can affect results. Packages that the driver does not have are ignored."""


class Failure(NamedTuple):
    """An error in a task. It is returned as a value, because Ray prints the exceptions that tasks raise."""

    error: RowcastError


class SharedValue(NamedTuple):
    """A value in Ray's object store. Ray copies it to a process only when the process asks for it."""

    key: str
    reference: Any


_kept: dict[str, Any] = {}
"""Contains only the shared value that this process used most recently, under the value's key."""


def run_task(
    versions: Mapping[str, str], function: Callable[..., Any], value: SharedValue, arguments: tuple[Any, ...]
) -> Any:
    """Call the function, and return its result or a Failure."""
    try:
        check_versions(versions)
        if value.key not in _kept:
            _kept.clear()
            _kept[value.key] = ray.get(value.reference)
        return function(_kept[value.key], *arguments)
    except RowcastError as error:
        return Failure(error)


def check_versions(versions: Mapping[str, str]) -> None:
    """Raise EngineUnavailable if this node's packages differ from the driver's, because its results could differ."""
    own = installed_versions()
    for package, version in versions.items():
        if own.get(package) != version:
            raise EngineUnavailable(
                f"the Ray node {socket.gethostname()} has {package} {own.get(package, '(not installed)')}, but this "
                f"process has {package} {version}; install the same versions on every node",
                slug="engine-versions",
            )


@lru_cache(1)
def installed_versions() -> Mapping[str, str]:
    """Return the versions of Rowcast, Python and the installed packages in PACKAGES."""
    versions = {"rowcast": VERSION, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
