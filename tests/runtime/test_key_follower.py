"""If the keys are stored on another machine, a server keeps a copy of the keys up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rowcast.access.keys import Key
from rowcast.adapters.files.keys import FileKeys
from rowcast.adapters.memory.keys import MemoryKeys
from rowcast.errors import Unavailable
from rowcast.runtime.key_follower import KeyFollower
from support.access import new_key
from support.waiting import eventually


class RemoteKeys(MemoryKeys):
    """Keys in a database that a test can make unavailable."""

    is_away = False

    def all(self) -> Sequence[Key]:
        if self.is_away:
            raise Unavailable("the database is unavailable")
        return super().all()

    def revision(self) -> object:
        if self.is_away:
            raise Unavailable("the database is unavailable")
        return super().revision()


@pytest.fixture
def keys() -> RemoteKeys:
    return RemoteKeys([new_key("a")])


@pytest.fixture
def follow(keys: RemoteKeys, tmp_path: Path) -> Iterator[Callable[[], KeyFollower]]:
    """Return a function that starts a follower, as a server does at startup."""
    followers: list[KeyFollower] = []

    def start() -> KeyFollower:
        follower = KeyFollower(keys, FileKeys(tmp_path / "copy.json"))
        follower.open()
        followers.append(follower)
        return follower

    yield start
    for follower in followers:
        follower.close()


def test_a_change_is_noticed_within_a_second(keys: RemoteKeys, follow: Callable[[], KeyFollower]) -> None:
    follower = follow()
    first = follower.revision()
    keys.change(lambda present: [])

    eventually(lambda: list(follower.all()) == [], 1)
    assert follower.revision() != first


def test_the_last_known_keys_stay_valid_while_the_keys_are_unavailable(
    keys: RemoteKeys, follow: Callable[[], KeyFollower]
) -> None:
    with capture_logs() as logs:
        follower = follow()
        keys.is_away = True
        eventually(lambda: logs)
        assert [key.id for key in follower.all()] == ["a"]
    keys.is_away = False
    keys.change(lambda present: [])

    eventually(lambda: list(follower.all()) == [])


def test_a_server_can_start_with_the_copied_keys_and_read_the_current_keys_later(
    keys: RemoteKeys, follow: Callable[[], KeyFollower]
) -> None:
    follow().close()
    keys.is_away = True

    follower = follow()

    assert [key.id for key in follower.all()] == ["a"]
    keys.change(lambda present: [new_key("b")])
    keys.is_away = False
    eventually(lambda: [key.id for key in follower.all()] == ["b"])


def test_a_server_does_not_start_without_keys_and_without_a_copy(
    keys: RemoteKeys, follow: Callable[[], KeyFollower]
) -> None:
    keys.is_away = True

    with pytest.raises(Unavailable):
        follow()


def test_an_empty_copy_of_the_keys_is_valid(keys: RemoteKeys, follow: Callable[[], KeyFollower]) -> None:
    keys.change(lambda present: [])
    follow().close()
    keys.is_away = True

    assert list(follow().all()) == []
