"""A bundle as one file, `.rowcast`: a zip of its folder. What comes in one is trusted no more than any other file."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rowcast.app.models import registry
from rowcast.errors import BundleError, SettingsError
from rowcast.registry.import_model import MEBIBYTE, Imported, publish_proven
from rowcast.registry.ports import Reference

if TYPE_CHECKING:
    from rowcast.settings import Settings

MOST_FILES: Final = 20
MOST_OTHER_MB: Final = 256
"""Of all files but the graph, unpacked."""


def export_bundle(settings: Settings, reference: str, out: Path) -> Reference:
    """Write a published version into one file, whole or not at all."""
    from rowcast.registry import bundle
    from rowcast.registry.resolve import resolve

    if out.suffix != ".rowcast":
        raise SettingsError(f"{out} must end in .rowcast")
    models = registry(settings)
    found = resolve(reference, models)
    folder = models.folder(found)
    manifest = bundle.verify(folder)
    part = out.with_name(f".{out.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted([bundle.MANIFEST, *manifest.files]):
                archive.write(folder / name, name)
        part.replace(out)
    except OSError as error:
        raise BundleError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return found


def import_bundle(settings: Settings, path: Path, name: str | None) -> Imported:
    """Publish a bundle from a file as champion, once it is whole and was proven in a process of its own."""
    from rowcast.registry import bundle
    from rowcast.registry.names import check_name
    from rowcast.registry.onnx_import.inspect import inspect

    with tempfile.TemporaryDirectory(prefix="rowcast-import-") as scratch:
        folder = Path(scratch)
        files = _unpacked(path, folder, settings.max_model_mb)
        try:
            manifest = bundle.verify(folder)
        except BundleError as error:
            raise BundleError(f"{path}: {error.message.replace(f'{folder}/', '').replace(str(folder), 'it')}") from None
        stray = sorted(set(files) - {bundle.MANIFEST, *manifest.files})
        if stray:
            raise BundleError(f"{path} holds {', '.join(stray)[:200]}, which its {bundle.MANIFEST} does not name")
        chosen = check_name(name or manifest.name)
        inspect((folder / bundle.MODEL).read_bytes(), settings.max_model_nodes)
        reference, where = publish_proven(settings, path.name, folder, chosen)
    columns = manifest.schema.names()
    return Imported(reference.name, reference.version, manifest.digest, where, manifest.decision.task, columns, [])


def _unpacked(path: Path, folder: Path, model_mb: int) -> list[str]:
    """The files of the archive, in the folder; BundleError for names that lead out of it, and for bombs."""
    from lzma import LZMAError

    from rowcast.registry import bundle

    broken = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, zlib.error, LZMAError)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_FILES:
                raise BundleError(f"{path} holds {len(entries)} files; a bundle has fewer")
            left = {True: model_mb * MEBIBYTE, False: MOST_OTHER_MB * MEBIBYTE}
            for entry in entries:
                if entry.filename != Path(entry.filename).name or entry.filename in ("", ".", ".."):
                    raise BundleError(f"{path} holds {entry.filename[:80]!r}; the files of a bundle lie in no folder")
                is_model = entry.filename == bundle.MODEL
                with archive.open(entry) as file:
                    content = file.read(left[is_model] + 1)
                left[is_model] -= len(content)
                if left[is_model] < 0:
                    most = model_mb if is_model else MOST_OTHER_MB
                    raise BundleError(f"{path}: {entry.filename} is too large; at most {most} MB are unpacked")
                (folder / entry.filename).write_bytes(content)
    except broken as error:
        raise BundleError(f"{path} is no .rowcast file: {error}") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None
    return [entry.filename for entry in entries]
