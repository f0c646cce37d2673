"""Operations on models for the commands and the Python API: find, load, train and score."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.app.engines import LOCAL, check_engine, open_engine
from rowcast.errors import BundleError, ModelNotFound, SettingsError
from rowcast.registry.ports import Reference, RegistryWriter

if TYPE_CHECKING:
    from rowcast.serving.live_models import LiveModel
    from rowcast.settings import Settings
    from rowcast.tables.table import Table
    from rowcast.training.events import TrainingEvent
    from rowcast.training.options import TrainingOptions
    from rowcast.training.result import TableCheck, TrainingResult

DATA_CHECK_NAME = "check"
"""A placeholder for the model name in a data check, which does not publish a model."""


def registry(settings: Settings) -> RegistryWriter:
    """Return the configured registry."""
    from rowcast.adapters.files.registry import FolderRegistry

    return FolderRegistry(settings.registry_folder, current_user())


def current_user() -> str:
    """Return this process's user and host in the form `USER@HOST`, for logs."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # containers often run as a user id without a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def has_models(settings: Settings) -> bool:
    """Return whether every model named in the settings is published.

    If the settings name no model, return whether any model is published.
    """
    from rowcast.registry import resolve

    try:
        return bool(resolve.served(registry(settings), settings.models))
    except ModelNotFound:
        return False


def name_to_train(settings: Settings) -> str:
    """Return the name of the only model in the settings; raise SettingsError if the settings name several models."""
    names = {reference.partition("@")[0] for reference in settings.models}
    if len(names) > 1:
        raise SettingsError(f"cannot train several models on one table: {', '.join(sorted(names))}")
    return names.pop()


def served(settings: Settings) -> list[Reference]:
    """Return the versions that a server serves at startup if it uses these settings."""
    from rowcast.registry import resolve

    return list(resolve.served(registry(settings), settings.models).values())


def default_model(settings: Settings, names: Collection[str]) -> str | None:
    """Return the default model: the configured model, the first model named in the settings, or the only served model.

    The configured model might not be served; the caller checks this.
    """
    return settings.default_model or (next(iter(names)) if settings.models or len(names) == 1 else None)


def live_model(settings: Settings, reference: str) -> LiveModel:
    """Load a published model and check its golden rows."""
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.registry.resolve import resolve
    from rowcast.serving.live_models import load

    models = registry(settings)
    return load(resolve(reference, models), models, open_graph)


def model_by_digest(settings: Settings) -> Callable[[Reference, str], LiveModel]:
    """Return a function that loads a version, and raises ModelNotFound if the digest does not match."""
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.serving.live_models import load

    models = registry(settings)

    def load_exactly(reference: Reference, digest: str) -> LiveModel:
        model = load(reference, models, open_graph)
        if model.digest != digest:
            raise ModelNotFound(f"{reference} now has a different digest: {model.digest}")
        return model

    return load_exactly


def report(settings: Settings, reference: str) -> tuple[Reference, Path]:
    """Return the version and the path of its training report; raise BundleError if the bundle has no report."""
    from rowcast.registry import bundle
    from rowcast.registry.resolve import resolve

    models = registry(settings)
    resolved = resolve(reference, models)
    path = models.folder(resolved) / bundle.REPORT
    if not path.is_file():
        raise BundleError(f"{resolved} has no report; only models trained by Rowcast have a report")
    return resolved, path


def predict(model: LiveModel, data: Any) -> Any:
    """Return the predictions for rows in memory, in the format in which the rows were passed."""
    from rowcast.jobs import memory_scoring

    return memory_scoring.predict(model, data)


def predict_proba(model: LiveModel, data: Any) -> Any:
    """Return the class probabilities for rows in memory, in the format in which the rows were passed."""
    from rowcast.jobs import memory_scoring

    return memory_scoring.predict_proba(model, data)


def train(
    settings: Settings,
    data: Any,
    *,
    target: str | None = None,
    name: str | None = None,
    target_file: str | Path | None = None,
    onnx_out: str | Path | None = None,
    progress: Callable[[TrainingEvent], None] = lambda event: None,
    engine: str = LOCAL,
    **options: Any,
) -> TrainingResult:
    """Train a model on a file or on data in memory, and publish it. If `onnx_out` is given, write the graph to it."""
    started = monotonic()
    check_engine(engine)
    try:
        from rowcast.training import run
    except ModuleNotFoundError as missing:
        raise SettingsError(f"training requires {missing.name}; install rowcast[train]") from None
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.registry import bundle

    table, training_options = _training_data(data, target, name, target_file, options)
    models, now = registry(settings), datetime.now(UTC)

    def run_training() -> TrainingResult:
        with nullcontext() if engine == LOCAL else open_engine(settings, engine) as running:
            return run.train(
                table,
                training_options,
                open_graph=open_graph,
                registry=models,
                now=now,
                progress=progress,
                reading_seconds=monotonic() - started,
                engine=running,
            )

    if onnx_out is None:
        return run_training()
    with bundle.graph_writer(Path(onnx_out), inputs=[data, target_file]) as write_graph:
        result = run_training()
        write_graph(Path(result.path))
    return msgspec.structs.replace(result, onnx=str(onnx_out))


def check_table(
    data: Any, *, target: str | None = None, target_file: str | Path | None = None, **options: Any
) -> TableCheck:
    """Run the data check on a table without training."""
    from rowcast.training.problem import run_data_check

    return run_data_check(*_training_data(data, target, DATA_CHECK_NAME, target_file, options))


def _training_data(
    data: Any, target: str | None, name: str | None, target_file: str | Path | None, options: Mapping[str, Any]
) -> tuple[Table, TrainingOptions]:
    """Read the table, its target and any options given as files."""
    from rowcast.app.documents import read_document
    from rowcast.registry.names import check_name, name_from
    from rowcast.tables.read import read_table, table_from_memory
    from rowcast.tables.table import with_target
    from rowcast.training import cost
    from rowcast.training.options import TrainingOptions

    if target is None and target_file is None:
        raise SettingsError(
            "target is required: pass the name of the column to predict, or pass a file of target values as target_file"
        )
    is_file = isinstance(data, str | Path)
    model_name = check_name(name or name_from(Path(data).stem if is_file else target or "model"))
    table = read_table(data) if is_file else table_from_memory(data, model_name)
    if target_file is not None:
        table, target = with_target(table, read_table(target_file), target)
    if options.get("cost") is not None:
        options = {**options, "cost": cost.parse(options["cost"])}
    if options.get("wire") is not None:
        options = {**options, "wire": read_document(options["wire"])}
    return table, TrainingOptions(target=str(target), name=model_name, **options)
