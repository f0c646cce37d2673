"""Read and write bundles as single files: a `.rowcast` archive is a zip file that contains a bundle's files.

Every archive is treated as untrusted input.
"""

from __future__ import annotations

import uuid
import zipfile
import zlib
from pathlib import Path
from typing import IO, Final

import msgspec

from rowcast.errors import BundleError, SettingsError
from rowcast.registry import bundle
from rowcast.registry.onnx_import.inspect import inspect

SUFFIX: Final = ".rowcast"
MEBIBYTE: Final = 1024 * 1024
MAX_FILES: Final = 20
MAX_OTHER_MB: Final = 256
"""The maximum total size of the report and the other unpacked files that do not affect predictions, in mebibytes."""
COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The accepted compression methods. Other methods can require gigabytes of memory to unpack."""
ZIP_ERRORS: Final = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, zlib.error)


def write_archive(folder: Path, path: Path) -> None:
    """Verify the bundle in `folder` and write it atomically to `path`."""
    if path.suffix != SUFFIX:
        raise SettingsError(f"{path}: the name of an archive must end in {SUFFIX}")
    manifest = bundle.verify(folder)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with zipfile.ZipFile(part, "x", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted([bundle.MANIFEST, *manifest.files]):
                archive.write(folder / name, name)
        part.replace(path)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def unpack_archive(path: Path, folder: Path, max_model_mb: int) -> None:
    """Unpack an archive into an empty folder; reject zip bombs and names that point outside the folder."""
    limits = {bundle.MODEL: max_model_mb, bundle.MANIFEST: bundle.MAX_JSON_MB, bundle.GOLDEN: bundle.MAX_JSON_MB}
    others = MAX_OTHER_MB * MEBIBYTE
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise BundleError(f"{path}: too many files: {len(entries)}; the limit is {MAX_FILES}", slug="too-large")
            for entry in entries:
                name = entry.filename
                if name != Path(name).name or name in ("", ".", ".."):
                    message = f"{path}: invalid file name {name[:80]!r}; an archive must not contain folders"
                    raise BundleError(message, slug="unsafe-name")
                if entry.compress_type not in COMPRESSIONS:
                    message = f"{path}: {name} is compressed with an unsupported method; use deflate"
                    raise BundleError(message, slug="bad-archive")
                limit = limits[name] * MEBIBYTE if name in limits else others
                with archive.open(entry) as file, (folder / name).open("xb") as target:
                    size = _copy(file, target, limit)
                if size > limit:
                    message = (
                        f"{path}: {name} is too large; the limit is {limits.get(name, MAX_OTHER_MB)} MB after unpacking"
                    )
                    raise BundleError(message, slug="too-large")
                others -= 0 if name in limits else size
    except FileExistsError:
        raise BundleError(f"{path}: the archive contains two files with the same name", slug="bad-archive") from None
    except ZIP_ERRORS as error:
        raise BundleError(f"{path}: not a valid {SUFFIX} archive: {error}", slug="bad-archive") from None
    except OSError as error:
        raise BundleError(f"cannot unpack {path}: {error.strerror or error}") from None


class ArchiveDescription(msgspec.Struct, frozen=True):
    """The parts of an unpacked archive's manifest that the importer needs."""

    name: str
    digest: str
    task: str
    columns: list[str]


def description(folder: Path, max_nodes: int) -> bytes:
    """Check an unpacked archive and inspect its graph; return an `ArchiveDescription` as JSON.

    Call this only in a child process with limited resources: decoding even a small JSON file can take a lot of memory.
    """
    try:
        manifest = bundle.verify(folder)
    except BundleError as error:
        message = error.message.replace(f"{folder}/", "").replace(str(folder), "the archive")
        raise BundleError(message, slug=error.slug) from None
    extra = sorted({path.name for path in folder.iterdir()} - {bundle.MANIFEST, *manifest.files})
    if extra:
        message = f"the archive contains files that {bundle.MANIFEST} does not list: {', '.join(extra)[:200]}"
        raise BundleError(message, slug="unexpected-file")
    inspect((folder / bundle.MODEL).read_bytes(), max_nodes)
    return msgspec.json.encode(
        ArchiveDescription(manifest.name, manifest.digest, manifest.decision.task, manifest.schema.names())
    )


def _copy(source: IO[bytes], target: IO[bytes], limit: int) -> int:
    """Copy a file in small chunks, and stop at most one chunk beyond the limit; return the number of bytes copied."""
    size = 0
    while size <= limit and (piece := source.read(min(MEBIBYTE, limit + 1 - size))):
        target.write(piece)
        size += len(piece)
    return size
