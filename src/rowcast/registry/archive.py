"""Read and write bundles as single files: a `.rowcast` archive is a zip file that contains a bundle's files.

Every archive is treated as untrusted input.
"""

from __future__ import annotations

import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path
from typing import Final

from rowcast.errors import BundleError, SettingsError
from rowcast.registry import bundle
from rowcast.registry.bundle import Manifest

SUFFIX: Final = ".rowcast"
MEBIBYTE: Final = 1024 * 1024
MAX_FILES: Final = 20
MAX_OTHER_MB: Final = 256
"""The maximum total size of all unpacked files except the graph, in mebibytes."""
ZIP_ERRORS: Final = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, zlib.error, LZMAError)


def write_archive(folder: Path, path: Path) -> None:
    """Verify the bundle in `folder` and write it atomically to `path`."""
    if path.suffix != SUFFIX:
        raise SettingsError(f"{path}: the name of an archive must end in {SUFFIX}")
    manifest = bundle.verify(folder)
    part = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted([bundle.MANIFEST, *manifest.files]):
                archive.write(folder / name, name)
        part.replace(path)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def unpack_archive(path: Path, folder: Path, max_model_mb: int) -> Manifest:
    """Unpack an archive into an empty folder and verify the bundle; return its manifest."""
    names = _unpack_files(path, folder, max_model_mb)
    try:
        manifest = bundle.verify(folder)
    except BundleError as error:
        message = error.message.replace(f"{folder}/", "").replace(str(folder), "the archive")
        raise BundleError(f"{path}: {message}") from None
    extra = sorted(set(names) - {bundle.MANIFEST, *manifest.files})
    if extra:
        message = f"{path} contains files that {bundle.MANIFEST} does not list: {', '.join(extra)[:200]}"
        raise BundleError(message, slug="unexpected-file")
    return manifest


def _unpack_files(path: Path, folder: Path, max_model_mb: int) -> list[str]:
    """Unpack the files and return their names; reject zip bombs and names that point outside the folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise BundleError(f"{path}: too many files: {len(entries)}; the limit is {MAX_FILES}", slug="too-large")
            budgets = {True: max_model_mb * MEBIBYTE, False: MAX_OTHER_MB * MEBIBYTE}
            for entry in entries:
                name = entry.filename
                if name != Path(name).name or name in ("", ".", ".."):
                    message = f"{path}: invalid file name {name[:80]!r}; an archive must not contain folders"
                    raise BundleError(message, slug="unsafe-name")
                is_model = name == bundle.MODEL
                with archive.open(entry) as file:
                    content = file.read(budgets[is_model] + 1)
                budgets[is_model] -= len(content)
                if budgets[is_model] < 0:
                    limit = max_model_mb if is_model else MAX_OTHER_MB
                    raise BundleError(
                        f"{path}: {name} is too large; the limit is {limit} MB after unpacking", slug="too-large"
                    )
                (folder / name).write_bytes(content)
    except ZIP_ERRORS as error:
        raise BundleError(f"{path}: not a valid {SUFFIX} archive: {error}", slug="bad-archive") from None
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from None
    return [entry.filename for entry in entries]
