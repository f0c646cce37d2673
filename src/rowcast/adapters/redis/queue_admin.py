"""Implements the queue commands: inspects a queue in Redis, and retries or drops its parked messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Final

import msgspec

from rowcast.adapters.redis.blocking import BlockingClient, connected
from rowcast.adapters.redis.link import describe
from rowcast.adapters.redis.queue_keys import GROUP, QueueKeys, check_policy
from rowcast.adapters.redis.resp import RedisError, ReplyError, parse_entries, parse_info
from rowcast.errors import Unavailable
from rowcast.serving.ports import WorkerInfo

CALL_SECONDS: Final = 5.0
RETRY_MS: Final = 60_000
"""How long a retried message can wait for a worker."""
MAX_SHOWN: Final = 1000

_status = files(__package__).joinpath("queue_status.lua").read_text(encoding="utf-8")
_requeue = files(__package__).joinpath("queue_requeue.lua").read_text(encoding="utf-8")


class ParkedMessage(msgspec.Struct, frozen=True):
    """A message that no worker can score."""

    id: str
    digest: str
    bytes: int
    reason: str


class QueueReport(msgspec.Struct, frozen=True):
    """The state of a queue."""

    messages: int
    """The number of unanswered messages."""
    waiting_seconds: float
    """The age of the oldest message that no worker has taken."""
    workers: list[WorkerInfo]
    """The live workers."""
    parked: list[ParkedMessage]
    parked_count: int
    policy: str = ""
    """The eviction policy of Redis; empty if the Redis user may not read it."""


class QueueAdmin:
    """The queue of one installation."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._keys = QueueKeys(prefix)

    def report(self) -> QueueReport:
        """Return the state; raise SettingsError if Redis may evict messages, or Unavailable if Redis does not
        respond.
        """
        with self._connected() as client:
            policy = _policy(client)
            check_policy(policy)
            exists = client.execute("EXISTS", self._keys.messages)
            arguments = [self._keys.messages, self._keys.workers, GROUP, self._keys.alive]
            messages, age, _, workers = client.execute("EVAL", _status, 2, *arguments) if exists else (0, 0, 0, [])
            parked = parse_entries(client.execute("XRANGE", self._keys.parked, "-", "+", "COUNT", MAX_SHOWN))
            return QueueReport(
                int(messages),
                int(age) / 1000,
                [msgspec.msgpack.decode(worker, type=WorkerInfo) for worker in workers],
                [_parked(entry, fields) for entry, fields in parked],
                int(client.execute("XLEN", self._keys.parked)),
                policy,
            )

    def retry(self, ids: Sequence[str]) -> int:
        """Requeue these parked messages, or all parked messages if `ids` is empty; return how many were requeued."""
        with self._connected() as client:
            keys = [self._keys.parked, self._keys.messages]
            return sum(
                int(client.execute("EVAL", _requeue, 2, *keys, each, RETRY_MS)) for each in ids or self._all(client)
            )

    def drop(self, ids: Sequence[str]) -> int:
        """Delete these parked messages, or all parked messages if `ids` is empty; return how many were deleted."""
        with self._connected() as client:
            chosen = list(ids or self._all(client))
            return int(client.execute("XDEL", self._keys.parked, *chosen)) if chosen else 0

    def _all(self, client: BlockingClient) -> list[str]:
        return [entry.decode() for entry, _ in client.execute("XRANGE", self._keys.parked, "-", "+")]

    @contextmanager
    def _connected(self) -> Iterator[BlockingClient]:
        try:
            with connected(self._url, CALL_SECONDS) as client:
                yield client
        except (RedisError, OSError) as error:
            raise Unavailable(
                f"the queue is not available: {describe(error, self._url)}", slug="queue-unavailable"
            ) from None


def _policy(client: BlockingClient) -> str:
    try:
        return parse_info(client.execute("INFO", "memory")).get("maxmemory_policy", "")
    except ReplyError as error:
        if error.code != "NOPERM":
            raise
        return ""


def _parked(entry: bytes, fields: dict[bytes, bytes]) -> ParkedMessage:
    texts = {name: fields.get(name, b"").decode(errors="replace") for name in (b"digest", b"reason")}
    return ParkedMessage(entry.decode(), texts[b"digest"], len(fields.get(b"body", b"")), texts[b"reason"])
