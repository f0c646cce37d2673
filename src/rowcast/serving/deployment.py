"""The live models by name. This module uses only the interface of a model, so it needs neither the graph nor numpy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

from rowcast.errors import ModelNotFound
from rowcast.serving.interface import ModelInterface
from rowcast.suggestions import did_you_mean

M = TypeVar("M", bound=ModelInterface)


class Deployment(Generic[M]):
    """Live models by name and by `NAME@VERSION`, and the default model for `/predict`."""

    def __init__(self, models: Mapping[str, M], default: str | None = None, temporary_default: str = "") -> None:
        self._configured_default = default
        self.swap(models, temporary_default)

    def swap(self, models: Mapping[str, M], temporary_default: str = "") -> None:
        """Replace the live models; requests in progress finish with the old models. Call this on the event loop.

        If the model `temporary_default` is live, it is the default until the next swap.
        """
        self.live = dict(models)
        """The live models, keyed by the names under which they are served."""
        versions = {f"{model.name}@{model.version}": model for model in models.values()}
        self._models = {**versions, **models}
        names = {model.name for model in models.values()}
        self.default = self._configured_default or (next(iter(models)) if len(names) == 1 else None)
        if temporary_default in models:
            self.default = temporary_default

    def addresses(self) -> list[str]:
        """Return every name that `get` accepts."""
        return list(self._models)

    def is_default(self, model: ModelInterface) -> bool:
        """Return whether `/predict` uses this model."""
        return self.default is not None and self._models.get(self.default) is model

    def restricted_to(self, names: Collection[str]) -> Deployment[M]:
        """Return a view of the models with these names, or the whole deployment if `names` is empty."""
        if not names:
            return self
        view = Deployment({address: model for address, model in self.live.items() if model.name in names})
        view.default = self.default if self.default in view.live else None
        return view

    def get(self, name: str | None, visible: Collection[str] = ()) -> M:
        """Return the live model with this name, or the default model if `name` is None.

        Raise ModelNotFound, which lists the `visible` models, if there is no such model.
        """
        address = self.default if name is None else name
        model = self._models.get(address)  # type: ignore[arg-type]
        if model is not None:
            return model
        names = tuple(self.restricted_to(visible).live)
        available = ", ".join(names) or "none"
        if address is None:
            raise ModelNotFound(f"no default model is set; name one of the available models: {available}")
        hint = " ".join(filter(None, [did_you_mean(address, names), f"available models: {available}"]))
        raise ModelNotFound(f"unknown model {address!r}; {hint}")

    def models(self) -> list[M]:
        """Return every live version, ordered by name and version."""
        versions = {(model.name, model.version): model for model in self.live.values()}
        return [versions[key] for key in sorted(versions)]
