"""The contract of `RegistryReader` and `RegistryWriter`, and how a folder registry handles crashes and damage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import ModelNotFound, RegistryError
from rowcast.registry.ports import Reference
from support.waiting import eventually


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "models")


def publish(registry: FolderRegistry, name: str, text: str = "content") -> Reference:
    return registry.publish(name, lambda folder: (folder / "file").write_text(text) and None)


def visible_files(registry: FolderRegistry, name: str) -> list[str]:
    """Return the names of a model's files, except its lock."""
    return sorted(path.name for path in (registry.root / name).iterdir() if path.name != ".lock")


def test_a_new_registry_is_empty(registry: FolderRegistry) -> None:
    assert registry.models() == {}
    with pytest.raises(ModelNotFound):
        registry.folder(Reference("loans", 1))
    with pytest.raises(ModelNotFound):
        registry.aliases("loans")
    with pytest.raises(ModelNotFound):
        registry.log("loans")


def test_versions_are_numbered_separately_for_each_model(registry: FolderRegistry) -> None:
    references = [publish(registry, name) for name in ("loans", "loans", "iris", "loans")]

    assert [str(reference) for reference in references] == ["loans@1", "loans@2", "iris@1", "loans@3"]
    assert {name: list(versions) for name, versions in registry.models().items()} == {"iris": [1], "loans": [1, 2, 3]}


def test_versions_are_sorted_numerically(registry: FolderRegistry) -> None:
    for _ in range(11):
        publish(registry, "loans")

    assert list(registry.models()["loans"]) == list(range(1, 12))


def test_a_published_bundle_can_be_read(registry: FolderRegistry) -> None:
    reference = publish(registry, "loans", "hello")

    assert (registry.folder(reference) / "file").read_text() == "hello"


def test_a_failed_publication_leaves_no_files_behind(registry: FolderRegistry) -> None:
    publish(registry, "loans")

    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        registry.publish("loans", broken)

    assert list(registry.models()["loans"]) == [1]
    assert visible_files(registry, "loans") == ["1", "last_version"]


def test_an_alias_can_be_moved_to_another_version(registry: FolderRegistry) -> None:
    first, second = publish(registry, "loans"), publish(registry, "loans")
    registry.point(first, "champion")
    registry.point(second, "challenger")
    before = registry.generation()
    registry.point(second, "champion")

    assert dict(registry.aliases("loans")) == {"challenger": 2, "champion": 2}
    assert registry.generation() > before


def test_an_alias_requires_an_existing_version(registry: FolderRegistry) -> None:
    publish(registry, "loans")

    with pytest.raises(ModelNotFound):
        registry.point(Reference("loans", 2), "champion")
    with pytest.raises(ModelNotFound):
        registry.point(Reference("iris", 1), "champion")

    assert dict(registry.aliases("loans")) == {}


@pytest.mark.parametrize("name", ["", "Loans", "lo ans", "-loans", ".loans", "a" * 65, "../up", "a/b", "é", "a\n"])
def test_an_invalid_name_is_rejected(registry: FolderRegistry, name: str) -> None:
    for attempt in (
        lambda: publish(registry, name),
        lambda: registry.folder(Reference(name, 1)),
        lambda: registry.aliases(name),
    ):
        with pytest.raises(RegistryError):
            attempt()


@pytest.mark.parametrize("name", ["info", "reload"])
def test_reserved_names_are_rejected(registry: FolderRegistry, name: str) -> None:
    with pytest.raises(RegistryError):
        publish(registry, name)


@pytest.mark.parametrize("name", ["a", "0", "loan-status_v2.1", "a" * 64])
def test_valid_names_are_accepted(registry: FolderRegistry, name: str) -> None:
    publish(registry, name)

    assert list(registry.models()) == [name]


@pytest.mark.parametrize("alias", ["", "Champion", "1", "a b", "-a", "a" * 33])
def test_an_invalid_alias_is_rejected(registry: FolderRegistry, alias: str) -> None:
    reference = publish(registry, "loans")

    with pytest.raises(RegistryError):
        registry.point(reference, alias)


def test_concurrent_publications_get_different_versions(registry: FolderRegistry) -> None:
    versions: list[int] = []
    barrier = threading.Barrier(8)

    def publish_one(number: int) -> None:
        barrier.wait()
        versions.append(publish(registry, "loans", str(number)).version)

    threads = [threading.Thread(target=publish_one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(versions) == list(range(1, 9))
    contents = {(registry.folder(Reference("loans", version)) / "file").read_text() for version in versions}
    assert contents == {str(number) for number in range(8)}


def test_no_alias_is_lost_in_concurrent_changes(registry: FolderRegistry) -> None:
    reference = publish(registry, "loans")
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


def test_files_left_by_a_killed_publisher_are_ignored_and_then_removed(registry: FolderRegistry) -> None:
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
    assert publish(registry, "loans").version == 1
    assert visible_files(registry, "loans") == ["1", "last_version"]


def test_the_temporary_folder_of_a_live_publisher_is_not_removed(registry: FolderRegistry) -> None:
    def slowly(folder: Path) -> None:
        (folder / "file").write_text("slow")
        publish(registry, "loans", "quick")

    slow = registry.publish("loans", slowly)

    assert slow.version == 2
    assert (registry.folder(slow) / "file").read_text() == "slow"
    assert visible_files(registry, "loans") == ["1", "2", "last_version"]


def test_temporary_files_of_dead_writers_are_removed(registry: FolderRegistry) -> None:
    reference = publish(registry, "loans")
    leftovers = [
        registry.root / "loans" / ".aliases.json-x",
        registry.root / ".generation-x",
        registry.root / "loans/.new-x",
    ]
    leftovers[0].write_text("half")
    leftovers[1].write_text("half")
    leftovers[2].mkdir()

    registry.point(reference, "champion")
    publish(registry, "loans")

    assert not [path for path in leftovers if path.exists()]


def test_a_publication_is_rolled_back_if_the_alias_cannot_be_changed(registry: FolderRegistry) -> None:
    registry.publish("loans", lambda folder: (folder / "file").write_text("first") and None, "champion")
    (registry.root / "loans" / "aliases.json").write_text("damaged")

    with pytest.raises(RegistryError):
        registry.publish("loans", lambda folder: (folder / "file").write_text("second") and None, "champion")

    assert list(registry.models()["loans"]) == [1]


def test_a_failed_first_publication_leaves_no_model_behind(registry: FolderRegistry) -> None:
    def broken(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RegistryError):
        registry.publish("loans", broken)

    assert [path.name for path in registry.root.iterdir()] == [".lock"]


def test_every_move_of_an_alias_is_logged(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path, "alice@here")
    first = registry.publish("loans", lambda folder: (folder / "file").write_text("1") and None, "champion")
    second = publish(registry, "loans")
    before = datetime.now(UTC)
    registry.point(second, "champion", reason="better recall")
    registry.point(second, "champion", reason="again")
    registry.point(first, "champion", rollback=True)
    registry.point(second, "challenger")

    moves = registry.log("loans")
    assert [(move.number, move.alias, move.source, move.target, move.reason, move.rollback) for move in moves] == [
        (1, "champion", None, 1, "", False),
        (2, "champion", 1, 2, "better recall", False),
        (3, "champion", 2, 1, "", True),
        (4, "challenger", None, 2, "", False),
    ]
    assert {move.who for move in moves} == {"alice@here"}
    assert abs(datetime.fromisoformat(moves[1].time) - before) < timedelta(seconds=30)
    assert publish(registry, "iris").version == 1
    assert registry.log("iris") == []


def test_the_log_has_one_json_object_per_line(registry: FolderRegistry) -> None:
    registry.point(publish(registry, "loans"), "champion", reason="the first\nversion")

    (line,) = (registry.root / "loans" / "aliases.log").read_bytes().splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "format": 1,
        "number": 1,
        "who": "unknown",
        "alias": "champion",
        "from": None,
        "to": 1,
        "reason": "the first\nversion",
    }


def test_a_move_is_not_lost_if_its_writer_dies_before_appending_it(registry: FolderRegistry) -> None:
    for _ in range(3):
        registry.point(publish(registry, "loans"), "champion")
    log = registry.root / "loans" / "aliases.log"
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    log.write_bytes(lines[0] + lines[1] + lines[2][:10])

    assert [move.target for move in registry.log("loans")] == [1, 2, 3]
    registry.point(Reference("loans", 1), "champion")

    assert [move.target for move in registry.log("loans")] == [1, 2, 3, 1]
    assert log.read_bytes().startswith(whole)


def test_a_model_with_aliases_but_without_a_log_can_be_used(registry: FolderRegistry) -> None:
    for _ in range(2):
        publish(registry, "loans")
    (registry.root / "loans" / "aliases.json").write_text('{"format":1,"aliases":{"champion":1}}')

    assert registry.log("loans") == []
    registry.point(Reference("loans", 2), "champion")

    assert [(move.number, move.source, move.target) for move in registry.log("loans")] == [(1, 1, 2)]


PROMOTER = """
import itertools, sys
from pathlib import Path
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.registry.ports import Reference

registry = FolderRegistry(Path(sys.argv[1]))
for number in itertools.count():
    registry.point(Reference("loans", 1 + number % 2), "champion")
"""


def test_the_log_and_the_aliases_agree_after_writers_were_killed(registry: FolderRegistry) -> None:
    for _ in range(2):
        publish(registry, "loans")
    for _ in range(6):
        known = len(registry.log("loans"))
        promoter = subprocess.Popen([sys.executable, "-c", PROMOTER, str(registry.root)])
        eventually(lambda seen=known: len(registry.log("loans")) > seen + 2)  # type: ignore[misc]
        promoter.kill()
        promoter.wait(10)

        moves = registry.log("loans")
        assert registry.aliases("loans") == {"champion": moves[-1].target}
        assert [move.number for move in moves] == list(range(1, len(moves) + 1))
        assert [move.source for move in moves] == [None, *(move.target for move in moves[:-1])]


def test_a_version_is_kept_if_its_alias_was_moved_before_an_error(registry: FolderRegistry) -> None:
    registry.point(publish(registry, "loans"), "champion")
    (registry.root / "generation").write_text("damaged")

    with pytest.raises(RegistryError):
        registry.publish("loans", lambda folder: (folder / "file").write_text("2") and None, "champion")

    assert registry.aliases("loans") == {"champion": 2}
    assert (registry.folder(Reference("loans", 2)) / "file").read_text() == "2"


@pytest.mark.parametrize("line", ["{", '{"format":2}', '{"format":1}', "\xff"])
def test_the_error_for_an_unreadable_log_names_the_file_and_the_line(registry: FolderRegistry, line: str) -> None:
    registry.point(publish(registry, "loans"), "champion")
    with (registry.root / "loans" / "aliases.log").open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")

    with pytest.raises(RegistryError) as refused:
        registry.log("loans")
    assert "aliases.log, line 2" in refused.value.message


def test_each_move_is_flushed_to_disk(registry: FolderRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = publish(registry, "loans")
    synced: list[str] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    registry.point(reference, "champion")

    assert synced[0].startswith(".aliases.json-")
    assert synced[1:3] == ["aliases.log", "loans"]


def test_an_alias_that_another_process_moved_is_not_changed(registry: FolderRegistry) -> None:
    first, second = publish(registry, "loans"), publish(registry, "loans")
    registry.point(first, "champion", expected=0)

    for expected in (0, 2):
        with pytest.raises(RegistryError) as refused:
            registry.point(second, "champion", expected=expected)
        assert refused.value.slug == "alias-moved"
    with pytest.raises(RegistryError):
        registry.publish("loans", lambda folder: (folder / "file").write_text("3") and None, "champion", expected=2)

    assert dict(registry.aliases("loans")) == {"champion": 1}
    assert list(registry.models()["loans"]) == [1, 2]
    assert publish(registry, "loans").version == 3
    registry.point(second, "champion", expected=1)
    assert dict(registry.aliases("loans")) == {"champion": 2}


def test_a_deleted_version_is_gone_and_its_number_is_never_used_again(registry: FolderRegistry) -> None:
    for _ in range(3):
        publish(registry, "loans")

    for version in (3, 2, 1):
        registry.delete(Reference("loans", version))
        with pytest.raises(ModelNotFound):
            registry.folder(Reference("loans", version))
        with pytest.raises(ModelNotFound):
            registry.delete(Reference("loans", version))

    assert registry.models() == {}
    assert visible_files(registry, "loans") == ["last_version"]
    assert publish(registry, "loans").version == 4


@pytest.mark.parametrize("removed", [(3,), (1,), (1, 2), (1, 2, 3)])
def test_the_number_of_a_version_that_was_removed_by_hand_is_not_used_again(
    registry: FolderRegistry, removed: tuple[int, ...]
) -> None:
    for _ in range(3):
        publish(registry, "loans")
    for version in removed:
        shutil.rmtree(registry.root / "loans" / str(version))

    assert publish(registry, "loans").version == 4


def test_versions_from_a_release_that_did_not_record_the_last_version_are_counted(registry: FolderRegistry) -> None:
    for _ in range(2):
        publish(registry, "loans")
    (registry.root / "loans" / "last_version").unlink()
    shutil.rmtree(registry.root / "loans" / "1")

    assert publish(registry, "loans").version == 3


@pytest.mark.parametrize("alias", ["champion", "older"])
def test_a_version_with_an_alias_cannot_be_deleted(registry: FolderRegistry, alias: str) -> None:
    registry.point(publish(registry, "loans"), alias)

    for attempt in (registry.require_unused, registry.delete):
        with pytest.raises(RegistryError) as refused:
            attempt(Reference("loans", 1))
        assert refused.value.slug == "version-in-use"
        assert alias in refused.value.message

    assert (registry.folder(Reference("loans", 1)) / "file").exists()


@pytest.mark.parametrize("content", ["{", '{"format":2,"aliases":{}}', '{"format":1}', ""])
def test_the_error_for_unreadable_aliases_names_the_file(registry: FolderRegistry, content: str) -> None:
    publish(registry, "loans")
    (registry.root / "loans" / "aliases.json").write_text(content)

    with pytest.raises(RegistryError) as refused:
        registry.aliases("loans")
    assert "aliases.json" in refused.value.message


def test_an_error_is_raised_if_the_folder_for_a_publication_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(RegistryError):
        publish(FolderRegistry(tmp_path / "file"), "loans")


def test_unrelated_files_in_a_registry_folder_are_ignored(registry: FolderRegistry) -> None:
    publish(registry, "loans")
    (registry.root / "README").write_text("hello")
    (registry.root / "empty").mkdir()
    (registry.root / "Upper" / "1").mkdir(parents=True)
    (registry.root / "loans" / "notes").mkdir()

    assert {name: list(versions) for name, versions in registry.models().items()} == {"loans": [1]}
