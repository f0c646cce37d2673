"""What the registry needs from the world: published bundles, and a runtime that opens graphs.

Every implementation passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Graph(Protocol):
    """A loaded model graph. Safe to call from one thread at a time."""

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Probabilities [N, k] or values [N]; of foreign graphs what `schema/outputs.py` makes these of. A row's answer
        does not depend on its companions, to the last bit."""
        ...


class GraphTensor(NamedTuple):
    """An input or output of a graph, as the runtime tells it; a dimension that may vary is None."""

    name: str
    type: str
    shape: Sequence[int | None]

    def __str__(self) -> str:
        sizes = ", ".join("N" if size is None else str(size) for size in self.shape)
        name = self.name if self.name.isprintable() else repr(self.name)  # a file's text must not steer a terminal
        return f"{name} ({self.type}, [{sizes}])"


class UnknownGraph(Protocol):
    """A graph of which nothing is known yet."""

    @property
    def inputs(self) -> Sequence[GraphTensor]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> Sequence[GraphTensor]:
        """What it gives."""
        ...

    def run(self, output: str, tensors: Mapping[str, NDArray[Any]]) -> Any:
        """One output as it comes, an array or a list of maps; BundleError when the graph cannot be run."""
        ...


OpenGraph = Callable[[bytes, str], Graph]
"""(model bytes, output name) -> graph. BundleError when the bytes are not a graph that can be run."""


class Reference(NamedTuple):
    """One published version."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Drop(msgspec.Struct, frozen=True):
    """A file in the models folder, and what became of it: a published version, or an error."""

    file: str
    model: str = ""
    version: int = 0
    error: str = ""


class RegistryReader(Protocol):
    """Published bundles and their aliases. A version never changes once it can be seen."""

    def models(self) -> Mapping[str, Sequence[int]]:
        """Every name with its versions, ascending."""
        ...

    def aliases(self, name: str) -> Mapping[str, int]:
        """Alias to version; ModelNotFound for an unknown name."""
        ...

    def folder(self, reference: Reference) -> Path:
        """Where the bundle lies on this machine; ModelNotFound when there is none."""
        ...

    def generation(self) -> int:
        """A number that grows with every change of an alias; cheap enough to be asked every second."""
        ...


class RegistryWriter(RegistryReader, Protocol):
    """Publishing is atomic: readers see the whole new version or nothing, whoever dies meanwhile."""

    def ready(self, name: str) -> None:
        """RegistryError when `name` could not be published to; nothing stays of the attempt."""
        ...

    def publish(self, name: str, fill: Callable[[Path], None], alias: str | None = None) -> Reference:
        """Call `fill` with an empty folder, then make it the next version of `name`, and the alias's if one is given.

        Nothing stays if `fill` raises or the alias cannot be moved; what a dead publisher left goes with the next one.
        """
        ...

    def point(self, reference: Reference, alias: str) -> None:
        """Let `alias` name this version from now on; bumps the generation that servers watch."""
        ...
