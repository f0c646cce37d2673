"""The contract of `FileStore`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowcast.adapters.files.job_files import FolderFileStore
from rowcast.adapters.memory.jobs import MemoryFileStore
from rowcast.errors import NotFound
from rowcast.jobs.ports import FileStore
from support import s3


@pytest.fixture(params=["memory", "folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileStore]:
    if request.param == "memory":
        yield MemoryFileStore()
    elif request.param == "folder":
        yield FolderFileStore(tmp_path / "a" / "files")
    else:
        from rowcast.adapters.objects.job_files import ObjectFileStore

        with s3.serving() as server:
            for name, value in server.variables.items():
                monkeypatch.setenv(name, value)
            yield ObjectFileStore(f"s3://{s3.BUCKET}/some/path")


def content(files: FileStore, name: str) -> bytes:
    return b"".join(files.read(name))


def test_a_file_has_the_content_that_was_stored(files: FileStore) -> None:
    files.put("j/chunks/d", b"abc")
    files.put("j/chunks/d", b"abc")

    assert content(files, "j/chunks/d") == b"abc"
    with files.local("j/chunks/d") as path:
        assert path.read_bytes() == b"abc"


def test_a_created_file_appears_only_when_it_is_complete(files: FileStore) -> None:
    with files.create("j/input.csv") as path:
        path.write_bytes(bytes(range(256)) * 60_000)
        with pytest.raises(NotFound):
            files.read("j/input.csv")

    assert content(files, "j/input.csv") == bytes(range(256)) * 60_000


def test_a_created_file_replaces_an_earlier_one(files: FileStore) -> None:
    for text in (b"1", b"2"):
        with files.create("j/result.csv") as path:
            path.write_bytes(text)

    assert content(files, "j/result.csv") == b"2"


def test_an_abandoned_file_never_appears(files: FileStore, tmp_path: Path) -> None:
    def abandon() -> None:
        with files.create("j/input.csv") as path:
            path.write_bytes(b"a")
            raise KeyError

    with pytest.raises(KeyError):
        abandon()

    with pytest.raises(NotFound):
        files.read("j/input.csv")
    assert not [each for each in tmp_path.rglob("*input*") if each.is_file()]


def test_the_name_of_a_created_file_keeps_its_extension(files: FileStore) -> None:
    with files.create("j/result.csv.gz") as path:
        assert path.name.endswith("result.csv.gz")
        path.write_bytes(b"")


def test_a_missing_file_raises_not_found(files: FileStore) -> None:
    with pytest.raises(NotFound):
        files.read("j/no")
    with pytest.raises(NotFound), files.local("j/no"):
        pass


def test_a_file_or_all_files_of_a_job_can_be_deleted(files: FileStore) -> None:
    for name in ("j/a", "j/b", "j/chunks/1", "jj/a"):
        files.put(name, b"x")

    files.delete("j/a")
    files.delete("j/a")
    with pytest.raises(NotFound):
        files.read("j/a")
    assert content(files, "j/b") == b"x"
    files.delete("j/chunks")
    files.delete("j")
    files.delete("j")

    assert files.jobs() == ["jj"]


def test_the_place_of_a_store_does_not_change(files: FileStore) -> None:
    place = files.place
    files.put("j/a", b"x")

    assert files.place == place


def test_a_usable_store_passes_its_check_and_stays_empty(files: FileStore) -> None:
    files.check()

    assert files.jobs() == []
