"""Open the bundle that a command names, and score a table with it.

A command names a published version, a bundle folder or an archive.

A folder or an archive may come from another machine, so Rowcast first tests its model in the sandbox.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rowcast.app import imports
from rowcast.app.engines import LOCAL, check_engine, open_engine
from rowcast.app.models import registry
from rowcast.errors import BundleError
from rowcast.registry import bundle
from rowcast.registry.archive import SUFFIX, unpack_archive
from rowcast.registry.ports import Reference
from rowcast.registry.resolve import resolve

if TYPE_CHECKING:
    from rowcast.jobs.table_scoring import ScoringOptions, Summary
    from rowcast.registry.bundle import Bundle
    from rowcast.settings import Settings


class NamedBundle(NamedTuple):
    """An open bundle, and the name and version of its model."""

    name: str
    version: int | None
    """The published version; None for a folder or an archive."""
    opened: Bundle


@contextmanager
def open_bundle(settings: Settings, model: str) -> Iterator[NamedBundle]:
    """Open a bundle: `NAME`, `NAME@3`, `NAME@alias`, a folder (a path that contains a slash) or an archive.

    Raise BundleError if the bundle is damaged or its model fails the test in the sandbox.
    """
    path = Path(model)
    if path.suffix == SUFFIX and (path.exists() or os.sep in model):
        with tempfile.TemporaryDirectory(prefix="rowcast-") as folder:
            unpack_archive(path, Path(folder), settings.max_model_mb)
            try:
                imports.sandbox(settings).describe_archive(Path(folder), settings.max_model_nodes)
            except BundleError as error:
                raise BundleError(f"{path}: {error.message}", slug=error.slug) from None
            yield _tested(settings, Path(folder), str(path))
    elif os.sep in model:
        yield _tested(settings, path, model)
    else:
        models = registry(settings)
        reference = resolve(model, models)
        yield NamedBundle(reference.name, reference.version, bundle.open(models.folder(reference)))


def _tested(settings: Settings, folder: Path, source: str) -> NamedBundle:
    manifest = bundle.verify(folder)
    try:
        imports.sandbox(settings).verify_bundle(folder, Reference(manifest.name, 1))
    except BundleError as error:
        raise BundleError(f"cannot use {source}: {error.message}", slug=error.slug) from None
    return NamedBundle(manifest.name, None, bundle.open(folder))


def score_table(
    settings: Settings, model: str, options: ScoringOptions, *, engine: str = LOCAL, slots: int | None = None
) -> Summary:
    """Score the rows in a table file, and write the predictions to another file."""
    from rowcast.adapters.onnxruntime.graph import open_graph
    from rowcast.jobs.chunk_scoring import GraphSource
    from rowcast.jobs.table_scoring import check_outputs, score_file

    check_engine(engine)
    check_outputs(options)
    with open_bundle(settings, model) as named, open_engine(settings, engine, slots) as running:
        manifest = named.opened.manifest
        graphs = GraphSource(named.opened.model, manifest.output.name, open_graph)
        return score_file(named.name, named.version, manifest, graphs=graphs, engine=running, options=options)
