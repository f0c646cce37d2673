"""Keeps the live models up to date with the registry.

A new version is tested in a child process, loaded alongside the old version, verified, and only then swapped in. If the
new version cannot be served, the old version stays live and the reason is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic

import msgspec

from rowcast.errors import ModelNotFound, RowcastError
from rowcast.events import Listener, ModelLoaded, ReloadFinished
from rowcast.registry.ports import Reference, RegistryReader
from rowcast.registry.resolve import addresses, served
from rowcast.schema.encoding import RowLimits
from rowcast.serving.deployment import M


class FollowResult(msgspec.Struct, Generic[M], frozen=True):
    """The models to serve, by name, and the errors for the models that could not be loaded."""

    models: Mapping[str, M]
    errors: list[str]
    temporary_default: str = ""
    """If no default model is configured, the model to use as the default until the next reload."""

    @property
    def error(self) -> str:
        """All errors on one line; empty if every published model is live."""
        return "; ".join(self.errors)


class ServedVersions(msgspec.Struct, frozen=True):
    """Reads and writes the record of the most recently served versions, which survives a restart."""

    recall: Callable[[], Mapping[str, int]]
    record: Callable[[Mapping[str, int]], None]


class RegistryFollower(Generic[M]):
    """Loads the published models with `load`, which also verifies them.

    All methods block; while the server is running, call them in a thread.
    """

    def __init__(
        self,
        registry: RegistryReader,
        names: Sequence[str],
        load: Callable[[Reference], M],
        listen: Listener,
        *,
        trial: Callable[[Reference], None],
        served_versions: ServedVersions,
        unloaded: Callable[[], Collection[str]] = frozenset,
        temporary_default: Callable[[], str] = str,
        limits: RowLimits | None = None,
    ) -> None:
        self._registry = registry
        self._names = names
        self._load_model = load
        self._listen = listen
        self._trial = trial
        self._served_versions = served_versions
        self._unloaded = unloaded
        self._temporary_default = temporary_default
        self._limits = limits
        self.load_seconds: dict[str, float] = {}
        """How long each model took to load, in seconds."""

    def published(self) -> list[Reference]:
        """Return every version in the registry that belongs to this server, including versions of unloaded models."""
        return list(served(self._registry, self._names).values())

    def load_all(self) -> FollowResult[M]:
        """Load every model. If a new version cannot be served, load the most recently served version instead."""
        published = served(self._registry, self._names)
        if not published:
            names = ", ".join(self._registry.models())
            if names:
                raise ModelNotFound(
                    f"no model has a champion to serve; promote a version with `rowcast models promote NAME@VERSION`; "
                    f"models: {names}"
                )
            raise ModelNotFound("the registry has no model to serve; train one with `rowcast train`")
        published = self._without_unloaded(published)
        last = self._served_versions.recall()
        models: dict[str, M] = {}
        errors: list[str] = []
        for text, address in addresses(published).items():
            reference = published[text]
            version = last.get(text, reference.version)
            if version == reference.version:
                models[address] = _find(reference, models) or self._load(reference)
                continue
            try:
                models[address] = _find(reference, models) or self._try(reference)
            except RowcastError as error:
                fallback = Reference(reference.name, version)
                models[address] = _find(fallback, models) or self._load(fallback)
                errors.append(f"cannot serve {reference} (version {version} is served instead): {error.message}")
        self._record(published, models)
        return FollowResult(models, errors, self._temporary_default())

    def follow(self, live: Mapping[str, M]) -> FollowResult[M]:
        """Return the models that should replace `live`. Versions that are already loaded are reused."""
        try:
            published = served(self._registry, self._names)
            if not published:
                raise ModelNotFound("the registry no longer has a model to serve; the current models stay live")
        except RowcastError as error:
            self._listen(ReloadFinished(error.message))
            return FollowResult(live, [error.message], self._temporary_default())
        published = self._without_unloaded(published)
        models: dict[str, M] = {}
        errors: list[str] = []
        for text, address in addresses(published).items():
            reference, old = published[text], live.get(address)
            loaded = _find(reference, live) or _find(reference, models)
            if loaded is not None:
                models[address] = loaded
                continue
            try:
                models[address] = self._try(reference)
            except RowcastError as error:
                fallback_text = f"version {old.version} stays live" if old else "no other version is live"
                errors.append(f"cannot serve {reference} ({fallback_text}): {error.message}")
                if old is not None:
                    models[address] = old
        result = FollowResult(models, errors, self._temporary_default())
        self._record(published, models)
        self._listen(ReloadFinished(result.error))
        return result

    def _without_unloaded(self, published: Mapping[str, Reference]) -> dict[str, Reference]:
        unloaded = self._unloaded()
        return {text: reference for text, reference in published.items() if reference.name not in unloaded}

    def _try(self, reference: Reference) -> M:
        self._trial(reference)
        return self._load(reference)

    def _load(self, reference: Reference) -> M:
        started = time.perf_counter()
        model = self._load_model(reference)
        if self._limits is not None:
            model.encoder.limit(self._limits)
        self.load_seconds[model.name] = time.perf_counter() - started
        self._listen(ModelLoaded(model.name, model.version, model.digest, self.load_seconds[model.name]))
        return model

    def _record(self, published: Mapping[str, Reference], models: Mapping[str, M]) -> None:
        by_text = addresses(published)
        self._served_versions.record(
            {text: models[by_text[text]].version for text in published if by_text[text] in models}
        )


def _find(reference: Reference, models: Mapping[str, M]) -> M | None:
    """Return the loaded model with exactly this version, or None."""
    return next((model for model in models.values() if (model.name, model.version) == reference), None)
