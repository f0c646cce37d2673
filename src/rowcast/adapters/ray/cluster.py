"""Connects this process to a Ray cluster, or starts a cluster on this machine.

A cluster runs the code of everyone who can connect to it. Therefore, a cluster that Rowcast starts uses the loopback
interface and requires a token, which is available only to this process and to the cluster's processes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import site
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rowcast.errors import EngineUnavailable

if TYPE_CHECKING:
    from rowcast.adapters.ray.engine import RayEngine

FOLDER_OF_SOCKETS: Final = "/tmp"  # noqa: S108 - the path of a Unix socket must be shorter than 108 bytes
REACH_SECONDS: Final = 5.0
GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The start of an HTTP/2 connection: the preface and an empty SETTINGS frame. A gRPC server answers with SETTINGS."""
FRAME_HEAD_BYTES: Final = 9
SETTINGS_FRAME: Final = 4
CLUSTER_CONFIG: Final = "ray_bootstrap_config.yaml"
CONNECT_ATTEMPTS: Final = 3
CLIENT_SERVER_DIED: Final = "Starting Ray client server failed"
"""The error at a `ray://` address if the process that the cluster started for this client has died. The usual cause is
a race: gRPC can crash when its process forks. Another attempt then succeeds."""
PRIVATE: Final[Mapping[str, str]] = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the only switch for the loopback interface, on every platform
}
"""The environment of a cluster that only this process can use. Ray reads these variables when it is imported."""
SYSTEM: Final[Mapping[str, Any]] = {"worker_niceness": 0}
"""Tasks run at normal priority, because a user is waiting for their results. By default, Ray gives them a low
priority.
"""
QUIET: Final[dict[str, Any]] = {"log_to_driver": False, "logging_level": "ERROR"}

_imported_privately = False
"""Whether Ray was imported with the variables in PRIVATE. An application may have imported Ray without them."""


@contextmanager
def open_engine(address: str | None, *, cores: int, slots: int | None) -> Iterator[RayEngine]:
    """Connect to the cluster at the address, or start a cluster with this number of cores if there is no address.

    If this process is already connected to a cluster, use that cluster. Raise EngineUnavailable if no cluster can be
    used.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield _engine(slots)
        return
    if address is None:
        with _local_cluster(cores):
            yield _engine(slots)
        return
    check_reachable(address)
    with _connection(f"at {address}", address=address):
        yield _engine(slots)


def check_reachable(address: str) -> None:
    """Raise EngineUnavailable unless a gRPC server responds at HOST:PORT or ray://HOST:PORT.

    Without this check, Ray would wait for minutes, or forever if a process accepts connections without responding.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=REACH_SECONDS) as connection:
            is_server = _uses_tls() or _answers_greeting(connection)
    except (OSError, OverflowError) as error:
        reason = f"{address} does not respond ({type(error).__name__})"
        raise EngineUnavailable(reason) from None
    if not is_server:
        raise EngineUnavailable(f"{address} is not the address of a Ray cluster")


def _answers_greeting(connection: socket.socket) -> bool:
    """Return whether the server replies in HTTP/2, as a Ray cluster's processes do."""
    connection.sendall(GREETING)
    head = b""
    while len(head) < FRAME_HEAD_BYTES and (part := connection.recv(FRAME_HEAD_BYTES - len(head))):
        head += part
    return len(head) == FRAME_HEAD_BYTES and head[3] == SETTINGS_FRAME


def _uses_tls() -> bool:
    """Return whether Ray encrypts its connections. If so, a server does not reply to an unencrypted greeting."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")  # noqa: TID251 - Ray has no other setting


@contextmanager
def _local_cluster(cores: int) -> Iterator[None]:
    """Start a cluster on this machine; stop it and remove its files at the end."""
    global _imported_privately
    folder = Path(tempfile.mkdtemp(prefix="rowcast-ray-", dir=FOLDER_OF_SOCKETS))
    # Without this file, Ray asks the metadata services of cloud providers where it runs, even if reports are disabled.
    (folder / CLUSTER_CONFIG).write_text("{}\n", encoding="utf-8")
    variables = {"HOME": str(folder), "PYTHONUSERBASE": site.getuserbase()}
    _imported_privately = _imported_privately or "ray" not in sys.modules
    try:
        with (
            _environment({**variables, **(PRIVATE if _imported_privately else {})}),
            _connection(
                "on this machine",
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                _temp_dir=str(folder),
                _system_config=dict(SYSTEM),
            ),
        ):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _connection(place: str, **options: Any) -> Iterator[None]:
    import ray

    try:
        try:
            _connect(options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            text = str(error).strip() or type(error).__name__
            reason = text.splitlines()[-1] if "Traceback" in text else " ".join(text.split())
            raise EngineUnavailable(f"cannot use a Ray cluster {place}: {reason.strip()[:500]}") from None
        yield
    finally:
        ray.shutdown()


def _connect(options: Mapping[str, Any]) -> None:
    """Connect to a cluster; try again if the cluster has failed to start a process for this client."""
    import ray

    for attempt in range(1, CONNECT_ATTEMPTS + 1):
        try:
            ray.init(**options, **QUIET)
        except (ConnectionError, RuntimeError) as error:
            if attempt == CONNECT_ATTEMPTS or CLIENT_SERVER_DIED not in str(error):
                raise
            ray.shutdown()
        else:
            return


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that Ray starts, and restore the previous values at the end."""
    environ = os.environ  # noqa: TID251 - `ray.init` has no argument for the environment of the processes it starts
    previous = {name: environ.get(name) for name in variables}
    environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value


def _engine(slots: int | None) -> RayEngine:
    import ray

    from rowcast.adapters.ray.engine import RayEngine

    cores = int(ray.cluster_resources().get("CPU", 0))
    if not cores:
        raise EngineUnavailable("the Ray cluster has no cores for tasks")
    return RayEngine(min(slots or cores, cores))
