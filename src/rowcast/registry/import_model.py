"""Models that others made: imported by a command, or taken up from a folder by a server."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rowcast.app.documents import read_document
from rowcast.app.models import registry
from rowcast.errors import BundleError, RegistryError, RowcastError, SettingsError
from rowcast.registry.ports import Drop, Reference

if TYPE_CHECKING:
    from rowcast.registry.onnx_import.convert import Adopted, Ask
    from rowcast.settings import Settings

MEBIBYTE: Final = 1024 * 1024
ASK, MODEL = "ask.json", "model.onnx"
TAKEN: Final = ".imports.json"
SHARED: Final = "model_metadata.json"
MOST_LEVELS: Final = 1000


class Imported(msgspec.Struct, frozen=True):
    """What `rowcast models import --json` prints."""

    model: str
    version: int
    digest: str
    path: str
    task: str
    columns: list[str]
    notes: list[str]


def import_model(
    settings: Settings,
    path: Path,
    *,
    metadata: Path | None = None,
    name: str | None = None,
    wire: str | Path | Mapping[str, Any] | None = None,
    data: Path | None = None,
) -> Imported:
    """Publish a foreign model as champion; the error says what it must not have or what has to be known of it."""
    if path.suffix.lower() == ".rowcast":
        from rowcast.registry.archive import import_bundle

        if metadata is not None or wire is not None or data is not None:
            raise SettingsError(f"{path} says all of itself: --metadata, --wire and --data are for ONNX files")
        return import_bundle(settings, path, name)
    if path.suffix.lower() != ".onnx":
        raise SettingsError(f"{path} must end in .onnx or .rowcast to be imported")
    content = read_model(path, settings.max_model_mb)
    return import_onnx(settings, path.name, content, _metadata(metadata), name=name, wire=wire, data=data)


def import_onnx(
    settings: Settings,
    source: str,
    content: bytes,
    metadata: Mapping[str, Any],
    *,
    name: str | None = None,
    wire: str | Path | Mapping[str, Any] | None = None,
    data: Path | None = None,
) -> Imported:
    """Publish an ONNX graph as champion: described and tried in a process of its own, packed by this one."""
    from rowcast.registry import bundle
    from rowcast.registry.names import check_name, name_from
    from rowcast.registry.onnx_import.convert import MATRIX, NATIVE, Ask, card

    given = metadata.get("model_name")
    chosen = check_name(name or name_from(given if isinstance(given, str) and given else Path(source).stem))
    ask = Ask(
        name=chosen,
        metadata=dict(metadata),
        wire=wire if wire is None or wire in (MATRIX, NATIVE) else read_document(wire),
        source=source,
        sha256=hashlib.sha256(content).hexdigest(),
        max_nodes=settings.max_model_nodes,
        **({} if data is None else _shown(data)),
    )
    adopted = _apart(settings, content, ask)
    manifest = msgspec.structs.replace(adopted.manifest, created=datetime.now(UTC).isoformat(timespec="seconds"))
    files = {
        bundle.MODEL: content,
        bundle.GOLDEN: msgspec.json.encode(adopted.golden),
        bundle.CARD: card(adopted).encode(),
    }
    with tempfile.TemporaryDirectory(prefix="rowcast-import-") as scratch:
        packed = bundle.pack(Path(scratch), manifest, files)
        reference, where = publish_proven(settings, source, Path(scratch), chosen)
    columns = manifest.schema.names()
    return Imported(
        reference.name, reference.version, packed.digest, where, manifest.decision.task, columns, adopted.notes
    )


def publish_proven(settings: Settings, source: str, folder: Path, name: str) -> tuple[Reference, str]:
    """Publish the bundle in this folder as champion, once a process of its own has opened and proven it as a server
    does."""
    from rowcast.adapters.sandbox import SandboxLimits, run_trial

    limits = SandboxLimits(settings.max_model_mb, settings.trial_memory_mb, settings.trial_seconds)
    command = [sys.executable, "-m", "rowcast.app.verify_bundle"]
    error = run_trial(command, folder, Reference(name, 1), limits, settings.for_child())
    if error:
        raise BundleError(f"{source} is not imported: {error}")

    def fill(staging: Path) -> None:
        for file in folder.iterdir():
            (staging / file.name).write_bytes(file.read_bytes())

    models = registry(settings)
    reference = models.publish(name, fill, "champion")
    return reference, str(models.folder(reference))


def take_up(settings: Settings, *, again: bool = False) -> list[Drop]:
    """Import what lies in the models folder and was not imported yet; `again` also tries what failed before.

    One process at a time, and each content once for all of them: what was taken up is remembered beside the registry.
    """
    folder = settings.models_dir
    if folder is None:
        return []
    root = settings.registry_folder
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".onnx" and path.name[0] != ".")
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".imports.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = _remembered(root / TAKEN)
            found = [_taken(settings, path, files, known=known, again=again) for path in files]
            _remember(root / TAKEN, known)
    except OSError as error:
        return [Drop(str(folder), error=f"{error.filename or folder} cannot be used: {error.strerror}")]
    except RegistryError as error:
        return [Drop(str(folder), error=error.message)]
    return found


def meant(settings: Settings) -> str:
    """The model that the folder's page of metadata names, unless somebody chose a default; else nothing.

    Whoever drops a graph with such a page means: serve this one. What is wrong with the page, `take_up` says.
    """
    if settings.models_dir is None or settings.default_model or settings.models:
        return ""
    from rowcast.registry.names import name_from

    try:
        given = _metadata(settings.models_dir / SHARED).get("model_name")
    except RowcastError:
        return ""
    return name_from(given) if isinstance(given, str) and given else ""


def _taken(settings: Settings, path: Path, files: Sequence[Path], *, known: dict[str, Drop], again: bool) -> Drop:
    try:
        content = read_model(path, settings.max_model_mb)
        beside = _beside(path, files)
        metadata = b"" if beside is None else read_model(beside, 1)
        # The same graph under another name may be another model.
        graph = hashlib.sha256(hashlib.sha256(content).digest() + path.stem.encode())
        key, described = hashlib.sha256(graph.digest() + metadata).hexdigest(), f"described {graph.hexdigest()}"
        if beside is None and described in known:  # the folder's page is another graph's now: this one stays as it was
            return msgspec.structs.replace(known[described], file=path.name)
        before = known.get(key)
        if before is not None and not (again and before.error):
            return msgspec.structs.replace(before, file=path.name)
        known[key] = drop = _imported(settings, path, content, beside)
        if beside is not None and not drop.error:
            known[described] = drop
    except RowcastError as error:
        return Drop(path.name, error=error.message)
    return drop


def _imported(settings: Settings, path: Path, content: bytes, beside: Path | None) -> Drop:
    try:
        found = import_onnx(settings, path.name, content, _metadata(beside))
    except RowcastError as error:
        return Drop(path.name, error=error.message)
    return Drop(path.name, found.model, found.version)


def _beside(path: Path, files: Sequence[Path]) -> Path | None:
    """The metadata of a dropped graph: its own, else the folder's where that is meant for it; SettingsError when nobody
    can tell."""
    own, shared = path.with_name(f"{path.stem}_metadata.json"), path.with_name(SHARED)
    if own.exists():
        return own
    if not shared.exists():
        return None
    meant = _metadata(shared).get("model_name")
    if meant == path.stem or files == [path]:
        return shared
    if meant not in [file.stem for file in files]:
        raise SettingsError(
            f"{shared.name} is for the model {meant!r}, and there are {len(files)} graphs; rename it to {own.name}, or "
            "say its model_name"
        )
    return None


def _remembered(path: Path) -> dict[str, Drop]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Drop])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise RegistryError(f"{path} is damaged: {error}; delete it to import everything again") from None


def _remember(path: Path, known: Mapping[str, Drop]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(msgspec.json.encode(known))
    part.replace(path)


def describe_foreign(folder: Path, memory_mb: int, seconds: float) -> bytes:
    """The adopted model as JSON; looked at, loaded and scored in this process, which gets bounds and may die of it."""
    from rowcast.adapters.sandbox import limit_this_process

    limit_this_process(memory_mb, seconds)
    from rowcast.registry.onnx_import.convert import Ask, adopt
    from rowcast.registry.onnx_import.inspect import inspect

    ask = msgspec.json.decode((folder / ASK).read_bytes(), type=Ask)
    content = (folder / MODEL).read_bytes()
    inspect(content, ask.max_nodes)
    from rowcast.adapters.onnxruntime.graph import Unknown

    return msgspec.json.encode(adopt(Unknown(content), ask))


def read_model(path: Path, most_mb: int) -> bytes:
    """The bytes of a regular file; BundleError when it is none, or too large."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe must not wait for a writer
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BundleError(f"{path} is no file")
            if found.st_size > most_mb * MEBIBYTE:
                raise BundleError(f"{path} is larger than {most_mb} MB (setting max_model_mb)")
            return file.read(most_mb * MEBIBYTE)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None


def _metadata(path: Path | None) -> dict[str, Any]:
    return {} if path is None else read_document(path, "page of metadata")


def _apart(settings: Settings, content: bytes, ask: Ask) -> Adopted:
    from rowcast.adapters.sandbox import SandboxLimits, run_sandboxed
    from rowcast.registry.onnx_import.convert import Adopted

    limits = SandboxLimits(settings.max_model_mb, settings.trial_memory_mb, settings.trial_seconds)
    with tempfile.TemporaryDirectory(prefix="rowcast-import-") as scratch:
        folder = Path(scratch)
        (folder / MODEL).write_bytes(content)
        (folder / ASK).write_bytes(msgspec.json.encode(ask))
        command = [
            sys.executable,
            "-m",
            "rowcast.app.describe_onnx",
            scratch,
            str(limits.memory_mb),
            str(limits.seconds),
        ]
        ended = run_sandboxed(command, limits, settings.for_child())
    if ended.error:
        raise BundleError(f"{ask.source} is not imported: {ended.error}")
    return msgspec.json.decode(ended.printed, type=Adopted)


def _shown(path: Path) -> dict[str, Any]:
    """What a table shows: its columns with their ranges, and rows to try."""
    import polars as pl

    from rowcast import tables
    from rowcast.registry.onnx_import.convert import ROWS
    from rowcast.registry.onnx_import.signature import SeenColumn
    from rowcast.schema.values import canonical_text

    frame = tables.read(path).frame
    seen = {}
    for name in frame.columns:
        texts = frame[name].cast(pl.String)
        numbers = texts.cast(pl.Float64, strict=False)
        if numbers.null_count() == texts.null_count() and numbers.len() > numbers.null_count():
            low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
            seen[name] = SeenColumn(low=low, high=high)
        else:
            common = texts.drop_nulls().value_counts(sort=True)[name][:MOST_LEVELS].to_list()
            seen[name] = SeenColumn(levels=tuple(dict.fromkeys(canonical_text(text) for text in common)))
    chosen = frame.sample(min(ROWS, frame.height), seed=0) if frame.height else frame
    rows = chosen.select(pl.all().cast(pl.String)).to_dicts()
    return {"rows": rows, "columns": frame.columns, "seen": seen}
