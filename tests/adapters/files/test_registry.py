"""The registry in a folder: file modes, flushing, files left by dead writers, races and error messages."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from rowcast.adapters.files import registry as registry_module
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.files.replacement import replace_file
from rowcast.errors import ModelNotFound, RegistryError
from rowcast.registry.ports import Reference


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    return FolderRegistry(tmp_path / "models")


def publish(registry: FolderRegistry, name: str = "loans", alias: str | None = None) -> Reference:
    return registry.publish(name, lambda folder: (folder / "file").write_text("content") and None, alias)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def flushed_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that receives the name of each file or folder when it is flushed."""
    names: list[str] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        names.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    return names


def open_files(folder: Path) -> list[str]:
    """Return the files in a folder that this process has open."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of this iteration
            paths.append(str(descriptor.readlink()))
    return [path for path in paths if path.startswith(str(folder))]


@pytest.mark.parametrize(("root", "folder", "file"), [(0o700, 0o700, 0o600), (0o755, 0o755, 0o644)])
def test_the_users_who_can_read_the_registry_can_read_its_bundles_and_files(
    registry: FolderRegistry, root: int, folder: int, file: int
) -> None:
    publish(registry, "first")
    assert mode(registry.root) == 0o700
    registry.root.chmod(root)

    reference = publish(registry, "loans", "champion")

    home = registry.root / "loans"
    assert mode(home) == mode(registry.folder(reference)) == folder
    paths = [home / "1" / "file", home / "aliases.json", home / "aliases.log", home / "last_version"]
    assert {mode(path) for path in (*paths, registry.root / "generation")} == {file}


def test_a_bundle_is_flushed_before_and_after_it_becomes_visible(
    registry: FolderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry)
    names = flushed_files(monkeypatch)

    publish(registry)

    assert [name.partition("-")[0] for name in names] == ["file", ".new", ".last_version", "loans"]


def test_a_deletion_is_flushed(registry: FolderRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = publish(registry)
    names = flushed_files(monkeypatch)

    registry.delete(reference)

    assert names[-1] == "loans"


def test_the_number_of_a_deleted_version_is_not_reused_if_an_earlier_release_published_it(
    registry: FolderRegistry,
) -> None:
    for _ in range(2):
        publish(registry)
    (registry.root / "loans" / "last_version").unlink()

    registry.delete(Reference("loans", 2))

    assert publish(registry).version == 3


def test_a_version_from_a_release_that_does_not_lock_the_folder_is_not_replaced(
    registry: FolderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry)
    replace = registry_module.replace_file

    def publish_meanwhile(path: Path, content: bytes, mode: int) -> None:
        replace(path, content, mode)
        if content == b"2":
            (path.parent / "2").mkdir()
            (path.parent / "2" / "other").write_text("other")

    monkeypatch.setattr(registry_module, "replace_file", publish_meanwhile)

    assert publish(registry).version == 3
    assert (registry.root / "loans" / "last_version").read_text() == "3"
    assert [path.name for path in (registry.root / "loans" / "2").iterdir()] == ["other"]


def test_a_damaged_version_number_is_reported(registry: FolderRegistry) -> None:
    publish(registry)
    path = registry.root / "loans" / "last_version"
    path.write_text("many")

    with pytest.raises(RegistryError) as refused:
        publish(registry)

    assert str(path) in refused.value.message
    assert list(registry.models()["loans"]) == [1]


class WatchedRegistry(FolderRegistry):
    """A registry that sets an event after each lookup of a version."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.checked = threading.Event()

    def folder(self, reference: Reference) -> Path:
        folder = super().folder(reference)
        self.checked.set()
        return folder


def test_an_alias_cannot_be_moved_to_a_version_that_another_process_is_deleting(
    registry: FolderRegistry,
) -> None:
    publish(registry)
    second = publish(registry)
    watched = WatchedRegistry(registry.root)
    errors: list[Exception] = []

    def point() -> None:
        try:
            watched.point(second, "champion")
        except ModelNotFound as error:
            errors.append(error)

    with (registry.root / "loans" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=point)
        thread.start()
        assert watched.checked.wait(20)
        shutil.rmtree(registry.root / "loans" / "2")
    thread.join(20)

    assert len(errors) == 1
    assert dict(registry.aliases("loans")) == {}


def test_only_the_files_of_dead_writers_are_removed(registry: FolderRegistry) -> None:
    publish(registry)
    home = registry.root / "loans"
    for name in ("a", "b", "c"):
        (home / f".new-{name}").mkdir()
        (home / f".new-{name}" / "half").write_text("half")
        (home / f".new-{name}.lock").write_text("")
    (home / ".new-d").mkdir()
    (home / ".last_version-x").write_text("half")
    (home / ".newer").mkdir()
    with (home / ".new-b.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        publish(registry)

    hidden = sorted(path.name for path in home.iterdir() if path.name.startswith("."))
    assert hidden == [".lock", ".new-b", ".new-b.lock", ".newer"]


def test_no_file_descriptor_stays_open(registry: FolderRegistry) -> None:
    publish(registry, alias="champion")
    publish(registry, alias="champion")
    registry.ready("loans")
    registry.delete(Reference("loans", 1))

    assert open_files(registry.root) == []


def test_a_temporary_folder_is_empty_and_deleted_afterward(registry: FolderRegistry) -> None:
    with registry.scratch() as folder:
        assert list(folder.iterdir()) == []
        (folder / "file").write_text("content")
        publish(registry)

    assert sorted(path.name for path in registry.root.iterdir()) == [".lock", "loans"]


def test_checking_whether_a_model_can_be_published_creates_no_model(registry: FolderRegistry) -> None:
    registry.ready("loans")

    assert [path.name for path in registry.root.iterdir()] == [".lock"]
    with pytest.raises(RegistryError):
        registry.ready("Not A Name")


def test_the_generation_counts_alias_changes(registry: FolderRegistry) -> None:
    assert registry.generation() == 0
    reference = publish(registry)
    assert registry.generation() == 0
    for expected in (1, 2):
        registry.point(reference, "champion")
        assert registry.generation() == expected


def test_the_time_of_a_move_includes_milliseconds(registry: FolderRegistry) -> None:
    publish(registry, alias="champion")

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", registry.log("loans")[0].time)


def test_a_move_that_cannot_be_logged_at_once_is_logged_later(
    registry: FolderRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = publish(registry), publish(registry)
    registry.point(first, "champion")
    log = registry.root / "loans" / "aliases.log"
    before = log.read_bytes()

    def fail(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name == "aliases.log":
            os.ftruncate(handle, len(before))
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        registry.point(second, "champion")

    assert dict(registry.aliases("loans")) == {"champion": 2}
    assert [move.target for move in registry.log("loans")] == [1, 2]
    registry.point(first, "champion")
    assert len(log.read_bytes().splitlines()) == 3


def test_the_error_for_an_unknown_model_suggests_a_similar_name(registry: FolderRegistry) -> None:
    with pytest.raises(ModelNotFound) as unknown:
        registry.aliases("loans")
    assert "available models: none (train one with `rowcast train`)" in unknown.value.message
    for name in ("loans", "iris"):
        publish(registry, name)
    publish(registry, "loans")

    with pytest.raises(ModelNotFound) as similar:
        registry.folder(Reference("loan", 1))
    with pytest.raises(ModelNotFound) as missing:
        registry.folder(Reference("loans", 3))

    assert f"unknown model 'loan' in {registry.root}" in similar.value.message
    assert "did you mean 'loans'?" in similar.value.message
    assert "available models: iris, loans" in similar.value.message
    assert missing.value.message == "model 'loans' has no version 3; available versions: 1, 2"


def test_the_error_for_a_moved_alias_says_where_it_points_now(registry: FolderRegistry) -> None:
    reference = publish(registry)

    with pytest.raises(RegistryError, match="no longer exists"):
        registry.point(reference, "champion", expected=1)
    registry.point(reference, "champion", expected=0)
    with pytest.raises(RegistryError, match="now points to version 1"):
        registry.point(reference, "champion", expected=2)


def test_a_deletion_is_refused_with_the_command_that_moves_the_alias(registry: FolderRegistry) -> None:
    reference = publish(registry, alias="challenger")
    registry.point(reference, "champion")

    with pytest.raises(RegistryError) as refused:
        registry.delete(reference)

    assert "challenger, champion" in refused.value.message
    assert "`rowcast models promote loans@VERSION --alias challenger`" in refused.value.message
    registry.point(publish(registry), "challenger")
    with pytest.raises(RegistryError) as refused:
        registry.require_unused(reference)
    assert "points to it: champion;" in refused.value.message


def test_an_unreadable_generation_is_reported(registry: FolderRegistry) -> None:
    publish(registry, alias="champion")
    (registry.root / "generation").write_text("x")

    with pytest.raises(RegistryError) as refused:
        registry.generation()
    assert "generation" in refused.value.message


def test_an_unreadable_log_is_reported(registry: FolderRegistry) -> None:
    publish(registry)
    (registry.root / "loans" / "aliases.log").mkdir()

    with pytest.raises(RegistryError) as refused:
        registry.log("loans")
    assert f"cannot read {registry.root / 'loans' / 'aliases.log'}" in refused.value.message


@pytest.mark.parametrize("moved", [False, True])
def test_a_version_is_kept_only_if_its_alias_has_moved(
    registry: FolderRegistry, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    publish(registry, alias="champion")

    def full_disk(path: Path, content: bytes, mode: int) -> None:
        if path.name != "aliases.json":
            replace_file(path, content, mode)
        else:
            if moved:
                replace_file(path, content, mode)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rowcast.adapters.files.registry.replace_file", full_disk)
    with pytest.raises(RegistryError) as refused:
        publish(registry, alias="champion")

    assert "No space left on device" in refused.value.message
    assert ("nothing was published" in refused.value.message) is not moved
    assert registry.models() == {"loans": [1, 2] if moved else [1]}
    assert registry.aliases("loans") == {"champion": 2 if moved else 1}


def test_a_registry_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(RegistryError) as refused:
        FolderRegistry(tmp_path / "file").ready("loans")
    assert refused.value.message == f"cannot write to the registry {tmp_path / 'file'}: File exists"


def test_a_lock_that_cannot_be_opened_is_reported(registry: FolderRegistry) -> None:
    reference = publish(registry)
    lock = registry.root / "loans" / ".lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()

    with pytest.raises(RegistryError, match="cannot write to the registry"):
        registry.point(reference, "champion")
    with pytest.raises(RegistryError, match="cannot delete loans@1"):
        registry.delete(reference)
    with pytest.raises(RegistryError, match="nothing was published"):
        publish(registry)

    assert dict(registry.models()) == {"loans": [1]}


def test_a_temporary_folder_that_another_process_deletes_is_not_an_error(registry: FolderRegistry) -> None:
    with registry.scratch() as folder:
        folder.with_name(f"{folder.name}.lock").unlink()
        folder.rmdir()

    assert [path.name for path in registry.root.iterdir()] == [".lock"]
