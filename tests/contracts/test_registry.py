"""What every registry keeps: `RegistryReader` and `RegistryWriter`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import ModelNotFound, RegistryError
from rowcast.registry.ports import Reference
from rowcast.registry.resolve import resolve, served
from support.waiting import eventually


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "models")


def published(registry: FolderRegistry, name: str, text: str = "content") -> Reference:
    return registry.publish(name, lambda folder: (folder / "file").write_text(text) and None)


def test_a_new_registry_is_empty(registry: FolderRegistry) -> None:
    assert registry.models() == {}
    with pytest.raises(ModelNotFound, match="rowcast train"):
        registry.folder(Reference("loans", 1))
    with pytest.raises(ModelNotFound, match="none yet"):
        registry.aliases("loans")


def test_versions_count_up_for_each_name(registry: FolderRegistry) -> None:
    found = [published(registry, name) for name in ("loans", "loans", "iris", "loans")]

    assert [str(reference) for reference in found] == ["loans@1", "loans@2", "iris@1", "loans@3"]
    assert {name: list(versions) for name, versions in registry.models().items()} == {"iris": [1], "loans": [1, 2, 3]}


def test_versions_are_in_order_of_numbers_not_of_texts(registry: FolderRegistry) -> None:
    for _ in range(11):
        published(registry, "loans")

    assert list(registry.models()["loans"]) == list(range(1, 12))


def test_what_was_published_can_be_read(registry: FolderRegistry) -> None:
    reference = published(registry, "loans", "hello")

    assert (registry.folder(reference) / "file").read_text() == "hello"


def test_nothing_stays_of_a_publication_that_fails(registry: FolderRegistry) -> None:
    published(registry, "loans")

    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        registry.publish("loans", broken)

    assert list(registry.models()["loans"]) == [1]
    assert sorted(path.name for path in (registry.root / "loans").iterdir()) == ["1"]


def test_an_alias_points_where_it_was_last_pointed(registry: FolderRegistry) -> None:
    first, second = published(registry, "loans"), published(registry, "loans")
    registry.point(first, "champion")
    registry.point(second, "challenger")
    before = registry.generation()
    registry.point(second, "champion")

    assert dict(registry.aliases("loans")) == {"challenger": 2, "champion": 2}
    assert registry.generation() > before


def test_an_alias_cannot_point_to_nothing(registry: FolderRegistry) -> None:
    published(registry, "loans")

    with pytest.raises(ModelNotFound, match="it has 1"):
        registry.point(Reference("loans", 2), "champion")
    with pytest.raises(ModelNotFound, match="models: loans"):
        registry.point(Reference("iris", 1), "champion")

    assert dict(registry.aliases("loans")) == {}


@pytest.mark.parametrize("name", ["", "Loans", "lo ans", "-loans", ".loans", "a" * 65, "../up", "a/b", "é", "a\n"])
def test_a_name_that_cannot_be_used_is_refused(registry: FolderRegistry, name: str) -> None:
    for attempt in (
        lambda: published(registry, name),
        lambda: registry.folder(Reference(name, 1)),
        lambda: registry.aliases(name),
    ):
        with pytest.raises(RegistryError, match="invalid model name"):
            attempt()


@pytest.mark.parametrize("name", ["info", "reload"])
def test_reserved_names_are_refused(registry: FolderRegistry, name: str) -> None:
    with pytest.raises(RegistryError, match="reserved"):
        published(registry, name)


@pytest.mark.parametrize("name", ["a", "0", "loan-status_v2.1", "a" * 64])
def test_names_of_every_allowed_kind_can_be_used(registry: FolderRegistry, name: str) -> None:
    published(registry, name)

    assert list(registry.models()) == [name]


@pytest.mark.parametrize("alias", ["", "Champion", "1", "a b", "-a", "a" * 33])
def test_an_alias_that_cannot_be_used_is_refused(registry: FolderRegistry, alias: str) -> None:
    reference = published(registry, "loans")

    with pytest.raises(RegistryError, match="cannot be an alias"):
        registry.point(reference, alias)


def test_publishing_at_once_gives_each_its_own_version(registry: FolderRegistry) -> None:
    found: list[int] = []
    barrier = threading.Barrier(8)

    def publish(number: int) -> None:
        barrier.wait()
        found.append(published(registry, "loans", str(number)).version)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == list(range(1, 9))
    contents = {(registry.folder(Reference("loans", version)) / "file").read_text() for version in found}
    assert contents == {str(number) for number in range(8)}


def test_pointing_at_once_loses_no_alias(registry: FolderRegistry) -> None:
    reference = published(registry, "loans")
    barrier = threading.Barrier(8)

    def point(number: int) -> None:
        barrier.wait()
        registry.point(reference, f"alias{number}")

    threads = [threading.Thread(target=point, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(registry.aliases("loans")) == 8
    assert registry.generation() == 8


DYING_PUBLISHER = """
import signal, sys
from pathlib import Path
from rowcast.adapters.files.registry import FolderRegistry

def slowly(folder):
    (folder / "half").write_text("half")
    print("writing", flush=True)
    signal.pause()

FolderRegistry(Path(sys.argv[1])).publish("loans", slowly)
"""


def test_readers_see_nothing_of_a_publisher_that_died(registry: FolderRegistry) -> None:
    publisher = subprocess.Popen(
        [sys.executable, "-c", DYING_PUBLISHER, str(registry.root)], stdout=subprocess.PIPE, text=True
    )
    assert publisher.stdout is not None
    assert publisher.stdout.readline() == "writing\n"
    os.kill(publisher.pid, signal.SIGKILL)
    publisher.wait(10)
    publisher.stdout.close()
    eventually(lambda: publisher.poll() is not None)

    assert registry.models() == {}
    assert published(registry, "loans").version == 1
    assert [path.name for path in (registry.root / "loans").iterdir()] == ["1"]


def test_the_folder_of_a_living_publisher_stays(registry: FolderRegistry) -> None:
    def slowly(folder: Path) -> None:
        (folder / "file").write_text("slow")
        published(registry, "loans", "quick")

    slow = registry.publish("loans", slowly)

    assert slow.version == 2
    assert (registry.folder(slow) / "file").read_text() == "slow"
    assert sorted(path.name for path in (registry.root / "loans").iterdir()) == ["1", "2"]


def test_what_dead_writers_of_aliases_left_is_removed(registry: FolderRegistry) -> None:
    reference = published(registry, "loans")
    left = [
        registry.root / "loans" / ".aliases.json-x",
        registry.root / ".generation-x",
        registry.root / "loans/.new-x",
    ]
    left[0].write_text("half")
    left[1].write_text("half")
    left[2].mkdir()

    registry.point(reference, "champion")
    published(registry, "loans")

    assert not [path for path in left if path.exists()]


def test_a_version_whose_alias_cannot_be_moved_is_withdrawn(registry: FolderRegistry) -> None:
    registry.publish("loans", lambda folder: (folder / "file").write_text("first") and None, "champion")
    (registry.root / "loans" / "aliases.json").write_text("damaged")

    with pytest.raises(RegistryError, match="damaged"):
        registry.publish("loans", lambda folder: (folder / "file").write_text("second") and None, "champion")

    assert list(registry.models()["loans"]) == [1]


def test_a_first_publication_that_fails_leaves_no_name(registry: FolderRegistry) -> None:
    def broken(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RegistryError, match="No space left on device; nothing was published"):
        registry.publish("loans", broken)

    assert [path.name for path in registry.root.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "damaged"),
        ('{"format":2,"aliases":{}}', "registry format 2"),
        ('{"format":1}', "damaged"),
        ("", "damaged"),
    ],
)
def test_aliases_that_cannot_be_read_are_named(registry: FolderRegistry, content: str, says: str) -> None:
    published(registry, "loans")
    (registry.root / "loans" / "aliases.json").write_text(content)

    with pytest.raises(RegistryError, match=f"aliases.json.*{says}"):
        registry.aliases("loans")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(RegistryError, match="cannot be written"):
        published(FolderRegistry(tmp_path / "file"), "loans")


def test_other_things_in_the_folder_are_no_models(registry: FolderRegistry) -> None:
    published(registry, "loans")
    (registry.root / "README").write_text("hello")
    (registry.root / "empty").mkdir()
    (registry.root / "Upper" / "1").mkdir(parents=True)
    (registry.root / "loans" / "notes").mkdir()

    assert {name: list(versions) for name, versions in registry.models().items()} == {"loans": [1]}


# References, as people write them.


def test_a_reference_is_a_name_a_version_or_an_alias(registry: FolderRegistry) -> None:
    published(registry, "loans")
    registry.point(Reference("loans", 1), "champion")
    registry.point(published(registry, "loans"), "challenger")

    found = [resolve(text, registry) for text in ("loans", "loans@2", "loans@champion", "loans@challenger")]

    assert [reference.version for reference in found] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("loans@9", "no version 9"),
        ("loans@best", "no alias 'best'"),
        ("iris", "no model 'iris'"),
        ("iris@1", "no model"),
    ],
)
def test_a_reference_to_nothing_says_what_there_is(registry: FolderRegistry, text: str, says: str) -> None:
    published(registry, "loans")
    registry.point(Reference("loans", 1), "champion")

    with pytest.raises(ModelNotFound, match=says):
        resolve(text, registry)


@pytest.mark.parametrize("text", ["", "@1", "loans@", "LOANS", "loans@1@2", "loans@-1"])
def test_what_is_no_reference_is_refused(registry: FolderRegistry, text: str) -> None:
    published(registry, "loans")

    with pytest.raises(RegistryError):
        resolve(text, registry)


def test_champions_are_served_unless_others_are_named(registry: FolderRegistry) -> None:
    registry.point(published(registry, "loans"), "champion")
    published(registry, "loans")
    published(registry, "waiting")

    assert served(registry) == {"loans": Reference("loans", 1)}
    assert served(registry, ["loans@2", "waiting@1"]) == {
        "loans@2": Reference("loans", 2),
        "waiting@1": Reference("waiting", 1),
    }
