"""The keys of a queue in Redis, its scripts, and the descriptions of its workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.resp import ReplyError, parse_info
from rowcast.adapters.redis.scripts import Script
from rowcast.errors import SettingsError
from rowcast.serving.ports import QueueStatus, WorkerInfo

FORMAT: Final = "queue1"
"""Part of every key. It changes with the format of the messages."""
GROUP: Final = "workers"
"""The consumer group to which all workers belong."""
LIFE_MS: Final = 3000
"""A worker that sends no heartbeat for this long is considered dead."""
REPLIES_MS: Final = 60_000
"""How long unread replies are retained."""
EVICTING: Final = "allkeys-"
"""The prefix of the eviction policies that can evict keys without an expiry time."""


class QueueKeys(msgspec.Struct, frozen=True):
    """The keys of one queue."""

    prefix: str
    """The prefix of all keys of this installation."""

    @property
    def messages(self) -> str:
        """The stream of unanswered messages."""
        return f"{self.prefix}:{FORMAT}:messages"

    @property
    def parked(self) -> str:
        """The stream of messages that cannot be scored."""
        return f"{self.prefix}:{FORMAT}:parked"

    @property
    def workers(self) -> str:
        """The hash that contains the description of each worker."""
        return f"{self.prefix}:{FORMAT}:workers"

    @property
    def alive(self) -> str:
        """The prefix of the workers' keys. A key exists as long as its worker is alive."""
        return f"{self.prefix}:{FORMAT}:alive:"

    def replies(self, sender: str) -> str:
        """The stream of replies to a server process."""
        return f"{self.prefix}:{FORMAT}:replies:{sender}"


_status = Script("queue_status.lua")
_decode_worker = msgspec.msgpack.Decoder(WorkerInfo).decode


def verify_queue(keys: QueueKeys) -> Callable[[RedisClient], Awaitable[None]]:
    """Return a function that checks the eviction policy and creates the queue if it does not exist."""

    async def verify(client: RedisClient) -> None:
        try:
            memory = parse_info(await client.execute("INFO", "memory"))
        except ReplyError as error:
            if error.code != "NOPERM":
                raise
            memory = {}  # `rowcast doctor` reports that the policy is not known
        check_policy(memory.get("maxmemory_policy", ""))
        try:
            await client.execute("XGROUP", "CREATE", keys.messages, GROUP, "0", "MKSTREAM")
        except ReplyError as error:
            if error.code != "BUSYGROUP":
                raise

    return verify


def check_policy(policy: str) -> None:
    """Raise SettingsError if the eviction policy allows Redis to evict messages."""
    if policy.startswith(EVICTING):
        raise SettingsError(
            f"setting 'queue': this Redis server has the eviction policy {policy} and can therefore evict messages; "
            "use a Redis server with the policy noeviction for the queue, and another Redis server for the cache",
            slug="queue-evicts",
        )


async def read_status(client: RedisClient, keys: QueueKeys) -> QueueStatus:
    """Return the status of a queue."""
    messages, age, _, workers = await _status.run(client, [keys.messages, keys.workers], [GROUP, keys.alive])
    return QueueStatus(int(messages), int(age) / 1000, tuple(_decode_worker(worker) for worker in workers))
