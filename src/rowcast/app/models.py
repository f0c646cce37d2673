"""Models: the registry, training into it, and what is done with one published model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.errors import BundleError, ModelNotFound, SettingsError
from rowcast.registry.ports import Reference, RegistryWriter

if TYPE_CHECKING:
    from rowcast.jobs.table_scoring import Job, Summary
    from rowcast.serving.live_models import LiveModel
    from rowcast.settings import Settings
    from rowcast.tables import Table
    from rowcast.training.events import TrainingEvent
    from rowcast.training.options import TrainingOptions
    from rowcast.training.result import TableCheck, TrainingResult


def registry(settings: Settings) -> RegistryWriter:
    """The published models."""
    from rowcast.adapters.files.registry import FolderRegistry

    return FolderRegistry(settings.registry_folder)


def has_models(settings: Settings) -> bool:
    """Whether everything that is to be served is published."""
    from rowcast.registry.resolve import served

    try:
        return bool(served(registry(settings), settings.models))
    except ModelNotFound:
        return False


def name_to_train(settings: Settings) -> str:
    """The name of the one model that is to be served; SettingsError when training one cannot be enough."""
    names = {name.partition("@")[0] for name in settings.models}
    if len(names) > 1:
        raise SettingsError(f"one table trains one model, and {', '.join(sorted(names))} are to be served")
    return names.pop()


def served(settings: Settings) -> list[Reference]:
    """The versions that a server of these settings begins with."""
    from rowcast.registry import resolve as selection

    return list(selection.served(registry(settings), settings.models).values())


def live_model(settings: Settings, reference: str) -> LiveModel:
    """One published model, loaded and proven."""
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.registry.resolve import resolve
    from rowcast.serving.live_models import load

    models = registry(settings)
    return load(resolve(reference, models), models, open_graph)


def model_by_digest(settings: Settings) -> Callable[[Reference, str], LiveModel]:
    """Loads the bundle that history names, and only that one."""
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.serving.live_models import load

    models = registry(settings)

    def load_exactly(reference: Reference, digest: str) -> LiveModel:
        model = load(reference, models, open_graph)
        if model.digest != digest:
            raise ModelNotFound(f"{reference} is another model now: its digest is {model.digest}")
        return model

    return load_exactly


def report(settings: Settings, reference: str) -> tuple[Reference, Path]:
    """The report of a published model; BundleError when it was packed without one."""
    from rowcast.registry import bundle
    from rowcast.registry.resolve import resolve

    models = registry(settings)
    resolved = resolve(reference, models)
    path = models.folder(resolved) / bundle.REPORT
    if not path.is_file():
        raise BundleError(f"{resolved} has no report; it was packed without one. Train it again to get one")
    return resolved, path


def score_table(settings: Settings, reference: str, job: Job) -> Summary:
    """Score a table from disk to disk."""
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.jobs import table_scoring as batch
    from rowcast.registry import bundle
    from rowcast.registry.resolve import resolve

    models = registry(settings)
    resolved = resolve(reference, models)
    opened = bundle.open(models.folder(resolved))
    graphs = [open_graph(opened.model, opened.manifest.output.name) for _ in range(job.jobs)]
    return batch.score_file(resolved, opened.manifest, graphs, job)


def train(
    settings: Settings,
    data: Any,
    *,
    target: str | None = None,
    name: str | None = None,
    target_file: str | Path | None = None,
    onnx_out: str | Path | None = None,
    progress: Callable[[TrainingEvent], None] = lambda event: None,
    **options: Any,
) -> TrainingResult:
    """Train on a file or on data in memory, and publish."""
    try:
        from rowcast.training.run import train as run
    except ModuleNotFoundError as missing:
        raise SettingsError(f"training needs {missing.name}; install rowcast[train]") from None
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.registry import bundle

    table, chosen = _training_data(data, target, name, target_file, options)
    models, now = registry(settings), datetime.now(UTC)
    if onnx_out is None:
        return run(table, chosen, open_graph=open_graph, registry=models, now=now, progress=progress)
    _spare([data, target_file], Path(onnx_out))
    with bundle.graph_writer(Path(onnx_out)) as write_graph:
        result = run(table, chosen, open_graph=open_graph, registry=models, now=now, progress=progress)
        write_graph(Path(result.path))
    return msgspec.structs.replace(result, onnx=str(onnx_out))


def _spare(read: Sequence[Any], written: Path) -> None:
    """SettingsError when the graph would be written over what it was learnt from."""
    for source in read:
        if isinstance(source, str | Path) and Path(source).resolve() == written.resolve():
            raise SettingsError(f"onnx_out must not overwrite the training data: {written}")


def check_table(
    data: Any, *, target: str | None = None, target_file: str | Path | None = None, **options: Any
) -> TableCheck:
    """The data check of a table, nothing trained."""
    from rowcast.training.problem import run_data_check

    return run_data_check(*_training_data(data, target, "check", target_file, options))


def _training_data(
    data: Any, target: str | None, name: str | None, target_file: str | Path | None, options: Mapping[str, Any]
) -> tuple[Table, TrainingOptions]:
    """The table with its target, and the options of the training."""
    from rowcast import tables
    from rowcast.app.documents import read_document
    from rowcast.registry.names import check_name, name_from
    from rowcast.training import cost
    from rowcast.training.options import TrainingOptions

    if target is None and target_file is None:
        raise SettingsError("target is required: the column to predict, or target_file with its values")
    is_file = isinstance(data, str | Path)
    chosen = check_name(name or name_from(Path(data).stem if is_file else target or "model"))
    table = tables.read(data) if is_file else tables.from_memory(data, chosen)
    if target_file is not None:
        table, target = tables.with_target(table, tables.read(target_file), target)
    if options.get("cost") is not None:
        options = {**options, "cost": cost.parse(options["cost"])}
    if options.get("wire") is not None:
        options = {**options, "wire": read_document(options["wire"])}
    return table, TrainingOptions(target=str(target), name=chosen, **options)
