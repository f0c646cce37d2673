"""The live models follow the registry: a new version is tried apart, loaded beside the old one, proven, and only then
handed over. What cannot be served leaves the old version where it is, and is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from rowcast.errors import ModelNotFound, RowcastError
from rowcast.events import Listener, ModelLoaded, ReloadFinished
from rowcast.registry.ports import OpenGraph, Reference, RegistryReader
from rowcast.registry.resolve import addresses, served
from rowcast.serving.live_models import LiveModel, load


class Followed(msgspec.Struct, frozen=True):
    """The models to serve from now on, by the name under which they answer, and what could not be followed."""

    models: Mapping[str, LiveModel]
    errors: list[str]
    meant: str = ""
    """The model that is the default for now, where nobody chose one for good."""

    @property
    def error(self) -> str:
        """All of it in one line; empty when everything is as the registry says."""
        return "; ".join(self.errors)


class LastGood(msgspec.Struct, frozen=True):
    """Which version was served last of each model that was asked for, over the life of servers."""

    recall: Callable[[], Mapping[str, int]]
    keep: Callable[[Mapping[str, int]], None]


class Follower:
    """Loads what the registry says. Every call blocks: make it on a thread once the server runs."""

    def __init__(
        self,
        registry: RegistryReader,
        names: Sequence[str],
        open_graph: OpenGraph,
        listen: Listener,
        *,
        trial: Callable[[Reference], None],
        last_good: LastGood,
        put_away: Callable[[], Collection[str]] = frozenset,
        meant: Callable[[], str] = str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._registry = registry
        self._names = names
        self._open_graph = open_graph
        self._listen = listen
        self._trial = trial
        self._last_good = last_good
        self._put_away = put_away
        self._meant = meant
        self._clock = clock
        self.seconds: dict[str, float] = {}
        """How long loading took, by model."""

    def wanted(self) -> list[Reference]:
        """Every version that the registry has for this server, those that were put away among them."""
        return list(served(self._registry, self._names).values())

    def begin(self) -> Followed:
        """Load everything, or raise for the first that cannot be served and has no version that was good before."""
        wanted = served(self._registry, self._names)
        if not wanted:
            raise ModelNotFound("no model in the registry has a champion; train one with `rowcast train`")
        wanted = self._left(wanted)
        good = self._last_good.recall()
        models: dict[str, LiveModel] = {}
        errors: list[str] = []
        for text, address in addresses(wanted).items():
            reference = wanted[text]
            before = good.get(text, reference.version)
            if before == reference.version:
                models[address] = _held(reference, models) or self._load(reference)
                continue
            try:
                models[address] = _held(reference, models) or self._tried(reference)
            except RowcastError as error:
                kept = Reference(reference.name, before)
                models[address] = _held(kept, models) or self._load(kept)
                errors.append(f"{reference} is not served, version {before} is: {error.message}")
        self._keep(wanted, models)
        return Followed(models, errors, self._meant())

    def follow(self, live: Mapping[str, LiveModel]) -> Followed:
        """What should be served in place of `live`; what has not changed is the same object."""
        try:
            wanted = served(self._registry, self._names)
            if not wanted:
                raise ModelNotFound("no model in the registry has a champion any more; what is served stays")
        except RowcastError as error:
            self._listen(ReloadFinished(error.message))
            return Followed(live, [error.message], self._meant())
        wanted = self._left(wanted)
        models: dict[str, LiveModel] = {}
        errors: list[str] = []
        for text, address in addresses(wanted).items():
            reference, old = wanted[text], live.get(address)
            found = _held(reference, live) or _held(reference, models)
            if found is not None:
                models[address] = found
                continue
            try:
                models[address] = self._tried(reference)
            except RowcastError as error:
                stays = f"version {old.version} stays" if old else "there is no other version"
                errors.append(f"{reference} is not served, {stays}: {error.message}")
                if old is not None:
                    models[address] = old
        followed = Followed(models, errors, self._meant())
        self._keep(wanted, models)
        self._listen(ReloadFinished(followed.error))
        return followed

    def _left(self, wanted: Mapping[str, Reference]) -> dict[str, Reference]:
        away = self._put_away()
        return {text: reference for text, reference in wanted.items() if reference.name not in away}

    def _tried(self, reference: Reference) -> LiveModel:
        self._trial(reference)
        return self._load(reference)

    def _load(self, reference: Reference) -> LiveModel:
        started = self._clock()
        model = load(reference, self._registry, self._open_graph)
        self.seconds[model.name] = self._clock() - started
        self._listen(ModelLoaded(model.name, model.version, model.digest, self.seconds[model.name]))
        return model

    def _keep(self, wanted: Mapping[str, Reference], models: Mapping[str, LiveModel]) -> None:
        found = addresses(wanted)
        self._last_good.keep({text: models[found[text]].version for text in wanted if found[text] in models})


def _held(reference: Reference, models: Mapping[str, LiveModel]) -> LiveModel | None:
    """This very version, when it is loaded already."""
    return next((model for model in models.values() if (model.name, model.version) == reference), None)
