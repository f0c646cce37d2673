"""An archive is rejected unless it contains a complete bundle and no other files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import BundleError, SettingsError
from rowcast.registry import archive, bundle
from support import models

Files = dict[str, bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a published bundle."""
    registry = FolderRegistry(tmp_path / "models")
    graph, schema = models.sum_graph(2), models.number_columns(2)
    return registry.folder(models.publish(registry, "sum", graph, schema, models.REGRESSION, "values"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty folder."""
    path = tmp_path / "deep" / "target"
    path.mkdir(parents=True)
    return path


def contents(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def zipped(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def unpack(path: Path, target: Path) -> None:
    archive.unpack_archive(path, target, max_model_mb=1)
    archive.description(target, max_nodes=100)


def test_an_archive_unpacks_to_the_same_bundle(tmp_path: Path, folder: Path, target: Path) -> None:
    path = tmp_path / "sum.rowcast"

    archive.write_archive(folder, path)

    unpack(path, target)
    assert contents(target) == contents(folder)


def test_a_damaged_bundle_is_not_exported(tmp_path: Path, folder: Path) -> None:
    (folder / bundle.MODEL).write_bytes(b"other")

    with pytest.raises(BundleError) as caught:
        archive.write_archive(folder, tmp_path / "sum.rowcast")

    assert caught.value.slug == "digest-mismatch"
    assert not list(tmp_path.glob("*.rowcast*"))


def test_the_name_of_an_archive_must_end_with_the_archive_suffix(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SettingsError):
        archive.write_archive(folder, tmp_path / "sum.zip")


def test_an_archive_cannot_be_written_to_a_missing_folder(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BundleError):
        archive.write_archive(folder, tmp_path / "none" / "sum.rowcast")


@pytest.mark.parametrize(
    ("change", "slug"),
    [
        (lambda files: files | {"../evil": b"x"}, "unsafe-name"),
        (lambda files: files | {"folder/model.onnx": b"x"}, "unsafe-name"),
        (lambda files: files | {"evil.pkl": b"x"}, "unexpected-file"),
        (lambda files: files | {f"f{index}": b"" for index in range(30)}, "too-large"),
        (lambda files: files | {"model.onnx": bytes((1 << 20) + 1)}, "too-large"),
        (lambda files: files | {"REPORT": bytes(257 << 20)}, "too-large"),
        (lambda files: files | {"bundle.json": bytes((8 << 20) + 1)}, "too-large"),
        (lambda files: files | {"golden.json": bytes((8 << 20) + 1)}, "too-large"),
    ],
    ids=["parent", "folder", "unlisted", "many", "large-model", "large-file", "large-manifest", "large-golden-rows"],
)
def test_an_unsafe_archive_is_rejected(
    tmp_path: Path, folder: Path, target: Path, change: Callable[[Files], Files], slug: str
) -> None:
    path = zipped(tmp_path / "x.rowcast", change(contents(folder)))

    with pytest.raises(BundleError) as caught:
        unpack(path, target)

    assert caught.value.slug == slug
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files | {"model.onnx": files["model.onnx"][:-9]},
        lambda files: {name: files[name] for name in files if name != bundle.MANIFEST},
    ],
    ids=["changed", "incomplete"],
)
def test_an_invalid_bundle_is_rejected_without_naming_the_temporary_folder(
    tmp_path: Path, folder: Path, target: Path, change: Callable[[Files], Files]
) -> None:
    path = zipped(tmp_path / "x.rowcast", change(contents(folder)))

    with pytest.raises(BundleError) as caught:
        unpack(path, target)

    assert str(target) not in caught.value.message


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_corrupted_archive_is_rejected(tmp_path: Path, folder: Path, target: Path, compression: int) -> None:
    path = zipped(tmp_path / "x.rowcast", contents(folder), compression)
    content = bytearray(path.read_bytes())
    for position in range(60, len(content) // 2, 7):
        content[position] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(BundleError):
        unpack(path, target)


def test_a_file_that_is_not_a_zip_archive_is_rejected(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "x.rowcast"
    path.write_text("not a zip file")

    with pytest.raises(BundleError) as caught:
        unpack(path, target)

    assert caught.value.slug == "bad-archive"


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_unusual_compression_method_is_rejected(
    tmp_path: Path, folder: Path, target: Path, compression: int
) -> None:
    path = zipped(tmp_path / "x.rowcast", contents(folder), compression)

    with pytest.raises(BundleError) as caught:
        unpack(path, target)

    assert caught.value.slug == "bad-archive"


def test_an_archive_may_contain_exactly_the_maximum_number_of_files(tmp_path: Path) -> None:
    for count, fits in ((archive.MAX_FILES, True), (archive.MAX_FILES + 1, False)):
        path = zipped(tmp_path / f"{count}.rowcast", {f"file{number}": b"x" for number in range(count)})
        target = tmp_path / str(count)
        target.mkdir()
        if fits:
            archive.unpack_archive(path, target, max_model_mb=1)
            assert len(list(target.iterdir())) == count
        else:
            with pytest.raises(BundleError, match=f"too many files: {count}"):
                archive.unpack_archive(path, target, max_model_mb=1)


def test_the_limit_for_other_files_applies_to_their_total(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_OTHER_MB", 1)
    half = bytes(archive.MEBIBYTE // 2)
    archive.unpack_archive(zipped(tmp_path / "fits.rowcast", {"a": half, "b": half}), target, max_model_mb=1)
    (tmp_path / "other").mkdir()

    with pytest.raises(BundleError) as refused:
        archive.unpack_archive(
            zipped(tmp_path / "large.rowcast", {"a": half, "b": half, "c": b"x"}), tmp_path / "other", max_model_mb=1
        )

    assert refused.value.slug == "too-large"
