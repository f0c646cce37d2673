"""Health checks for a server's dependencies. Each check returns the reason for a failure, or "" on success."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.setting_values import check_ray_address

if TYPE_CHECKING:
    from rowcast.serving.fleet import ProcessStatus
    from rowcast.settings import Settings

SECONDS = 5.0
CURRENT_RAY_CLUSTER = Path("/tmp/ray/ray_current_cluster")  # noqa: S108 - `ray start` writes this file


def running_servers(settings: Settings) -> dict[str, list[ProcessStatus]]:
    """Return the processes of each running server that uses this home folder, keyed by the server's folder name."""
    from rowcast.adapters.files import server_state

    return server_state.running_servers(settings.run_folder)


def store_failure(settings: Settings) -> str:
    """Check that the history store can accept entries, without creating or changing anything."""
    from rowcast.app.history import store
    from rowcast.errors import RowcastError

    try:
        store(settings).check()
    except RowcastError as error:
        return error.message
    return ""


def repeats_failure(settings: Settings) -> str:
    """Check that the idempotency store can be used, without creating or changing anything."""
    from rowcast.app.access import idempotency_store
    from rowcast.errors import RowcastError

    try:
        store, _ = idempotency_store(settings)
        store.check()
    except RowcastError as error:
        return error.message
    return ""


def push_failure(settings: Settings) -> str:
    """Check that the Pushgateway accepts requests, without pushing anything."""
    import httpx

    from rowcast.app.telemetry import push_target

    url, auth = push_target(settings)
    try:
        status = httpx.get(url, auth=auth, timeout=SECONDS).status_code
    except httpx.HTTPError as error:
        return f"{url} does not respond ({type(error).__name__})"
    # Most gateways answer a GET request with 405, which shows that the gateway is reachable.
    return f"{url} responds with {status}" if status in (401, 403, 407) or status >= 500 else ""


def otel_failure(settings: Settings) -> str:
    """Check that the collector accepts spans, without sending any."""
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        return "rowcast[otel] is not installed"
    import httpx

    from rowcast.adapters.telemetry.otel import traces_url

    url = traces_url(settings.otel_endpoint or "")
    try:
        reply = httpx.post(url, content=b"", headers={"content-type": "application/x-protobuf"}, timeout=SECONDS)
    except httpx.HTTPError as error:
        return f"{url} does not respond ({type(error).__name__})"
    return "" if reply.is_success else f"{url} responds with {reply.status_code}"


def ray_version() -> str | None:
    """Return the version of the ray package, or None if it is not installed."""
    return metadata.version("ray") if importlib.util.find_spec("ray") is not None else None


def ray_failure(address: str) -> str:
    """Check that the Ray cluster responds, without connecting this process to it."""
    from rowcast.adapters.ray.cluster import check_reachable
    from rowcast.errors import Unavailable

    check_ray_address(address)
    if address == "auto":
        found = CURRENT_RAY_CLUSTER.is_file()
        return "" if found else "no Ray cluster has been started on this machine"
    try:
        check_reachable(address)
    except Unavailable as error:
        return error.message
    return ""


def queue_state(settings: Settings, url: str) -> str:
    """Describe the queue; raise an error if it cannot be used, can lose messages or has no workers."""
    from rowcast.app.queueing import queue_admin
    from rowcast.errors import Unavailable
    from rowcast.setting_values import hide_credentials

    report = queue_admin(settings).report()
    policy = (
        f"policy {report.policy}"
        if report.policy
        else "policy unknown, because the Redis user is not allowed to run INFO"
    )
    says = f"{hide_credentials(url)} responds; {policy}; {report.messages} messages, {report.parked_count} parked"
    if not report.workers:
        raise Unavailable(f"{says}; no worker is live; start one with `rowcast worker`", slug="no-worker")
    return f"{says}; live workers: {len(report.workers)}"


def redis_state(settings: Settings, setting: str, url: str) -> str:
    """Describe the Redis server at the URL of a setting; raise SettingsError if Rowcast cannot use it."""
    from rowcast.adapters.redis.inspection import inspect
    from rowcast.adapters.redis.memory import MemoryLimits
    from rowcast.errors import SettingsError
    from rowcast.setting_values import hide_credentials

    shown = hide_credentials(url)
    try:
        state = inspect(url, SECONDS)
    except SettingsError as error:
        raise SettingsError(f"{shown} cannot be used: {error.message}") from None
    limit_ms, took_ms = settings.redis_timeout_ms, state.seconds * 1000
    if took_ms > limit_ms:
        raise SettingsError(f"{shown} takes {took_ms:.0f} ms to respond, more than redis_timeout_ms={limit_ms}")
    limit = f"{state.maxmemory / 1024**2:g} MiB" if state.maxmemory else "unlimited"
    says = f"{shown} (Redis {state.version}) responds; memory {limit}, policy {state.policy}"
    if setting == "quotas":
        evicts = state.maxmemory and state.policy != "noeviction"
        return f"{says}; if Redis runs out of memory, it may evict quota state" if evicts else says
    wanted = MemoryLimits(settings.redis_maxmemory, settings.redis_policy).differences(state.memory)
    changes = ", ".join(f"{parameter} {value}" for parameter, value in wanted.items())
    if wanted and not state.can_configure:
        raise SettingsError(f"{says}; Redis does not allow Rowcast to set {changes}")
    return f"{says}; a server sets {changes} when it starts" if wanted else says
