"""The queue between servers and workers, in Redis. Its adapters are not imported unless the setting `queue` is set."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from rowcast.errors import BundleError, SettingsError

if TYPE_CHECKING:
    from rowcast.adapters.redis.link import RedisLink
    from rowcast.adapters.redis.queue import RedisQueue
    from rowcast.adapters.redis.queue_admin import QueueAdmin
    from rowcast.adapters.redis.queue_reader import RedisQueueReader
    from rowcast.adapters.telemetry.metrics import Metrics
    from rowcast.events import Listener
    from rowcast.registry.ports import Reference, RegistryReader
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.health import Health
    from rowcast.serving.interface import ModelInterface
    from rowcast.serving.queue_scorer import QueueScorer
    from rowcast.settings import Settings

MIN_SECONDS: Final = 2.0
"""The minimum timeout of a call to Redis. It is longer than the cache's timeout, because no request can be answered
without the queue."""
CHECK_SECONDS: Final = 2.0
POLL_SECONDS: Final = 0.1


class QueueParts(NamedTuple):
    """The connection to the queue, and the server's side of the queue, in the order in which they start."""

    link: RedisLink
    queue: RedisQueue

    def scorer(self, deployment: Deployment[ModelInterface], health: Health, metrics: Metrics) -> QueueScorer:
        """Return the scorer; register its metrics and the health checks for the queue and the default model's
        workers."""
        from rowcast.serving.queue_scorer import QueueScorer

        def workers_problem() -> str | None:
            default = deployment.live.get(deployment.default or "")
            if default is None or self.queue.problem() or self.queue.is_served(default.digest):
                return None
            return f"no live worker serves {default.name}@{default.version}; start one with `rowcast worker`"

        health.register("queue", self.queue.problem)
        health.register("queue workers", workers_problem, is_required=True)
        metrics.watch_queue(lambda: self.queue.status)
        return QueueScorer(self.queue)

    def trial(self, settings: Settings, registry: RegistryReader) -> Callable[[Reference], None]:
        """Return a function that waits until a live worker has loaded a version, and raises BundleError if none does.

        As a result, a new version replaces the old version only if workers can score with it.
        """
        from rowcast.registry import bundle

        def wait_for_worker(reference: Reference) -> None:
            digest = bundle.read_manifest(registry.folder(reference)).digest
            end = time.monotonic() + settings.trial_seconds
            while self.queue.workers and not self.queue.is_served(digest):
                if time.monotonic() > end:
                    raise BundleError(f"no live worker loaded {reference} within {settings.trial_seconds:g} s")
                time.sleep(POLL_SECONDS)

        return wait_for_worker


class ReaderParts(NamedTuple):
    """A worker's side of the queue, and its connection."""

    reader: RedisQueueReader
    link: RedisLink


def queue_parts(settings: Settings, listen: Listener) -> QueueParts | None:
    """Return the server's side of the queue, or None if this server scores its own rows."""
    if settings.queue is None:
        return None
    from rowcast.adapters.redis.queue import RedisQueue

    link = _link(settings, settings.queue, listen, "rows cannot be scored")
    queue = RedisQueue(
        link,
        settings.redis_prefix,
        max_messages=settings.queue_max_messages,
        max_seconds=settings.max_wait_seconds,
    )
    return QueueParts(link, queue)


def reader_parts(settings: Settings, name: str, listen: Listener) -> ReaderParts:
    """Return a worker's side of the queue; raise SettingsError if there is no queue."""
    if settings.queue is None:
        raise SettingsError("a worker requires the setting 'queue', such as redis://HOST:6379/0")
    from rowcast.adapters.redis.queue_reader import RedisQueueReader

    link = _link(settings, settings.queue, listen, "the worker cannot take messages")
    return ReaderParts(RedisQueueReader(link, settings.redis_prefix, name, listen), link)


def queue_admin(settings: Settings) -> QueueAdmin:
    """Return the queue operations for commands; raise SettingsError if there is no queue."""
    if settings.queue is None:
        raise SettingsError("there is no queue; set 'queue' to the URL of a Redis server")
    from rowcast.adapters.redis.queue_admin import QueueAdmin

    return QueueAdmin(settings.queue, settings.redis_prefix)


def _link(settings: Settings, url: str, listen: Listener, fallback: str) -> RedisLink:
    from rowcast.adapters.redis.link import RedisLink
    from rowcast.adapters.redis.queue_keys import QueueKeys, verify_queue

    _refuse_eviction(url)
    return RedisLink(
        url,
        "queue",
        seconds=max(MIN_SECONDS, settings.redis_timeout_ms / 1000),
        verify=verify_queue(QueueKeys(settings.redis_prefix)),
        fallback=fallback,
        listen=listen,
    )


def _refuse_eviction(url: str) -> None:
    """Raise SettingsError if Redis may evict messages. If Redis does not respond, the check is repeated later."""
    from rowcast.adapters.redis.inspection import eviction_policy
    from rowcast.adapters.redis.queue_keys import check_policy

    check_policy(eviction_policy(url, CHECK_SECONDS))
