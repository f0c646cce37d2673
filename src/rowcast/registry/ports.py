"""Ports of the registry: stored bundles, graph runtimes and the sandbox for untrusted models.

The adapters for registries and graphs must pass the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rowcast.registry.alias_log import AliasMove


class Graph(Protocol):
    """A loaded model graph. Only one thread at a time may use it."""

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return probabilities [N, k] or values [N].

        An imported graph may return any output that `schema/outputs.py` can read. A row's result is bit-identical
        regardless of the other rows in the batch.
        """
        ...


OpenGraph = Callable[[bytes, str], Graph]
"""Loads a graph, given a model's bytes and the name of the output to read; raises BundleError if loading fails."""


class GraphTensor(NamedTuple):
    """An input or output of a graph, as the runtime reports it. The size of a variable dimension is None."""

    name: str
    type: str
    shape: Sequence[int | None]

    def __str__(self) -> str:
        sizes = ", ".join("N" if size is None else str(size) for size in self.shape)
        name = self.name if self.name.isprintable() else repr(self.name)  # escapes control characters
        return f"{name} ({self.type}, [{sizes}])"


class ForeignGraph(Protocol):
    """A graph from another tool. Its inputs and outputs have not been interpreted yet."""

    @property
    def inputs(self) -> Sequence[GraphTensor]:
        """The input tensors."""
        ...

    @property
    def outputs(self) -> Sequence[GraphTensor]:
        """The output tensors."""
        ...

    def run(self, output: str, tensors: Mapping[str, NDArray[Any]]) -> Any:
        """Run the graph and return one output as an array or a list of maps; raise BundleError if the run fails."""
        ...


OpenForeignGraph = Callable[[bytes], ForeignGraph]
"""Loads a graph from a model's bytes; raises BundleError if loading fails."""


class Reference(NamedTuple):
    """One published version of a model."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class ImportResult(msgspec.Struct, frozen=True):
    """The result of importing a file from the models folder: a published version, or an error."""

    file: str
    model: str = ""
    version: int = 0
    error: str = ""


class Sandbox(Protocol):
    """Opens untrusted models in a child process with limited memory and time.

    If the child crashes, runs out of memory or exceeds the time limit, the method raises BundleError with the reason.
    """

    def describe_onnx(self, folder: Path) -> bytes:
        """Convert the graph that `onnx_import.exchange` wrote into this folder; return the child's output."""
        ...

    def describe_archive(self, folder: Path, max_nodes: int) -> bytes:
        """Check the unpacked archive in this folder; return `archive.description`."""
        ...

    def verify_bundle(self, folder: Path, reference: Reference) -> None:
        """Load a bundle and check its golden rows as a server would; `reference` identifies the bundle in messages."""
        ...


class RegistryReader(Protocol):
    """Reads published bundles and their aliases. A published version never changes."""

    def models(self) -> Mapping[str, Sequence[int]]:
        """Return every model name with its versions in ascending order."""
        ...

    def aliases(self, name: str) -> Mapping[str, int]:
        """Return the version of each alias; raise ModelNotFound for an unknown name."""
        ...

    def log(self, name: str) -> Sequence[AliasMove]:
        """Return every move of the model's aliases, oldest first; raise ModelNotFound for an unknown name."""
        ...

    def folder(self, reference: Reference) -> Path:
        """Return the local folder of a bundle; raise ModelNotFound if the version does not exist."""
        ...

    def generation(self) -> int:
        """Return a number that increases whenever an alias changes. Servers poll it several times a second."""
        ...


class RegistryWriter(RegistryReader, Protocol):
    """Publishes bundles atomically: readers see either a complete version or none, even if the publisher dies."""

    def ready(self, name: str) -> None:
        """Raise RegistryError if publishing under `name` would fail. The check makes no lasting changes."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """Yield an empty folder for temporary files, and delete it afterward.

        If the process is killed before it deletes the folder, the next call to any method that writes deletes it.
        """
        ...

    def publish(
        self,
        name: str,
        fill: Callable[[Path], None],
        alias: str | None = None,
        *,
        reason: str = "",
        expected: int | None = None,
    ) -> Reference:
        """Call `fill` with an empty folder and publish that folder as the next version.

        A version number is never used again, even if the version is deleted. If `alias` is given, point it at the new
        version as `point` does. If `fill` raises an exception or the alias cannot be changed, leave nothing behind. The
        next call removes anything left behind by a publisher that was killed.
        """
        ...

    def point(
        self,
        reference: Reference,
        alias: str,
        *,
        reason: str = "",
        expected: int | None = None,
        rollback: bool = False,
    ) -> None:
        """Point `alias` at this version, append the move to the log and increment the generation.

        The alias and the log always agree, even if the process is killed. `expected` is the version that the alias must
        currently point at; 0 means that the alias must not exist. If this is not the case, change nothing and raise
        RegistryError with the slug `alias-moved`. If the alias already points at the new version, the log does not
        change.
        """
        ...

    def require_unused(self, reference: Reference) -> None:
        """Raise RegistryError with the slug `version-in-use` if an alias points at this version."""
        ...

    def delete(self, reference: Reference) -> None:
        """Delete this version. Raise RegistryError with the slug `version-in-use` if an alias points at it."""
        ...
