"""An archive is rejected unless it contains a complete bundle and no other files."""

from __future__ import annotations

import json
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


def test_an_export_does_not_touch_the_temporary_file_of_another_export_and_leaves_none_of_its_own(
    tmp_path: Path, folder: Path
) -> None:
    out = tmp_path / "out"
    (out / "folder.rowcast").mkdir(parents=True)
    other = out / ".sum.rowcast.part"
    other.write_bytes(b"unfinished")

    archive.write_archive(folder, out / "sum.rowcast")
    with pytest.raises(BundleError):  # a folder cannot be replaced with a file
        archive.write_archive(folder, out / "folder.rowcast")

    assert other.read_bytes() == b"unfinished"
    assert {path.name for path in out.iterdir()} == {"folder.rowcast", other.name, "sum.rowcast"}


def test_an_archive_cannot_be_written_to_a_missing_folder(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BundleError):
        archive.write_archive(folder, tmp_path / "none" / "sum.rowcast")


@pytest.mark.parametrize(
    ("change", "slug"),
    [
        (lambda files: files | {"../evil": b"x"}, "unsafe-name"),
        (lambda files: files | {"..": b"x"}, "unsafe-name"),
        (lambda files: files | {".": b"x"}, "unsafe-name"),
        (lambda files: files | {"folder/model.onnx": b"x"}, "unsafe-name"),
        (lambda files: files | {"evil.pkl": b"x"}, "unexpected-file"),
        (lambda files: files | {f"f{index}": b"" for index in range(30)}, "too-large"),
        (lambda files: files | {"model.onnx": bytes((1 << 20) + 1)}, "too-large"),
        (lambda files: files | {"REPORT": bytes(257 << 20)}, "too-large"),
        (lambda files: files | {"bundle.json": bytes((8 << 20) + 1)}, "too-large"),
        (lambda files: files | {"golden.json": bytes((8 << 20) + 1)}, "too-large"),
    ],
    ids=[
        "parent",
        "dots",
        "dot",
        "folder",
        "unlisted",
        "many",
        "large-model",
        "large-file",
        "large-manifest",
        "large-golden-rows",
    ],
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
    for count, fits in ((20, True), (21, False)):
        path = zipped(tmp_path / f"{count}.rowcast", {f"file{number}": b"x" for number in range(count)})
        target = tmp_path / str(count)
        target.mkdir()
        if fits:
            archive.unpack_archive(path, target, max_model_mb=1)
            assert len(list(target.iterdir())) == count
        else:
            with pytest.raises(BundleError, match=f"too many files: {count}"):
                archive.unpack_archive(path, target, max_model_mb=1)


def test_the_limit_for_other_files_applies_to_their_total_size(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_OTHER_MB", 1)
    half = bytes(archive.MEBIBYTE // 2)
    fitting = {bundle.MODEL: half, bundle.MANIFEST: half, "a": half, "b": half}
    archive.unpack_archive(zipped(tmp_path / "fits.rowcast", fitting), target, max_model_mb=1)
    (tmp_path / "other").mkdir()

    with pytest.raises(BundleError) as refused:
        archive.unpack_archive(
            zipped(tmp_path / "large.rowcast", {"a": half, "b": half, "c": b"x"}), tmp_path / "other", max_model_mb=1
        )

    assert refused.value.slug == "too-large"
    assert "c is too large; the limit is 1 MB" in refused.value.message


def test_unpacking_stops_one_byte_beyond_the_limit(tmp_path: Path, target: Path) -> None:
    path = zipped(tmp_path / "x.rowcast", {bundle.MODEL: bytes(5 << 20)})

    with pytest.raises(BundleError) as refused:
        archive.unpack_archive(path, target, max_model_mb=2)

    assert "model.onnx is too large; the limit is 2 MB" in refused.value.message
    assert (target / bundle.MODEL).stat().st_size == (2 << 20) + 1


def test_a_large_file_is_unpacked_completely(tmp_path: Path, target: Path) -> None:
    content = bytes(range(256)) * (3 << 12)

    archive.unpack_archive(zipped(tmp_path / "x.rowcast", {bundle.MODEL: content}), target, max_model_mb=3)

    assert (target / bundle.MODEL).read_bytes() == content


def test_an_archive_with_two_files_of_the_same_name_is_rejected(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "x.rowcast"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "1")
        file.writestr("b", "2")
    path.write_bytes(path.read_bytes().replace(b"b", b"a"))

    with pytest.raises(BundleError) as refused:
        archive.unpack_archive(path, target, max_model_mb=1)

    assert (refused.value.slug, "same name" in refused.value.message) == ("bad-archive", True)


def test_a_failed_export_leaves_no_partial_file(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "sum.rowcast").mkdir()

    with pytest.raises(BundleError, match="Is a directory"):
        archive.write_archive(folder, tmp_path / "sum.rowcast")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "sum.rowcast"]


def test_an_archive_contains_the_files_of_the_bundle_in_alphabetical_order(tmp_path: Path, folder: Path) -> None:
    (folder / "unlisted").write_text("x")
    archive.write_archive(folder, tmp_path / "sum.rowcast")

    with zipfile.ZipFile(tmp_path / "sum.rowcast") as file:
        assert file.namelist() == ["bundle.json", "golden.json", "model.onnx"]
        assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_DEFLATED}


def test_errors_show_at_most_80_characters_of_a_name_and_200_of_a_list(tmp_path: Path, folder: Path) -> None:
    for name, files, shown in (
        ("folder", {"d/" + "x" * 100: b""}, repr("d/" + "x" * 78) + ";"),
        ("extra", contents(folder) | {f"{number}{'x' * 60}": b"" for number in range(4)}, "x" * 10),
    ):
        target = tmp_path / name
        target.mkdir()
        with pytest.raises(BundleError) as refused:
            unpack(zipped(tmp_path / f"{name}.rowcast", files), target)
        assert shown in refused.value.message
    assert len(refused.value.message.partition("does not list: ")[2]) == 200


def test_an_archive_is_described_by_its_manifest(tmp_path: Path, folder: Path, target: Path) -> None:
    archive.write_archive(folder, tmp_path / "sum.rowcast")
    archive.unpack_archive(tmp_path / "sum.rowcast", target, max_model_mb=1)

    described = json.loads(archive.description(target, max_nodes=100))

    digest = bundle.read_manifest(folder).digest
    assert described == {"name": "sum", "digest": digest, "task": "regression", "columns": ["x0", "x1"]}
