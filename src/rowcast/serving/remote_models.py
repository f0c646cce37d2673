"""Models that workers score. A server with a queue loads neither their graphs nor ONNX Runtime."""

from __future__ import annotations

from rowcast.errors import BundleError
from rowcast.registry import bundle
from rowcast.registry.ports import Reference, RegistryReader
from rowcast.serving.interface import ModelInterface


class RemoteModel(ModelInterface):
    """A model without its graph. The batcher treats it as a slow model, because its scores arrive later."""

    def __init__(self, reference: Reference, opened: bundle.Bundle) -> None:
        super().__init__(reference, opened.manifest)
        self.golden = opened.golden[0]
        self.is_slow = True


def load_remote(reference: Reference, registry: RegistryReader) -> RemoteModel:
    """Open a published version and check its files. Workers verify the golden rows before they use the version."""
    opened = bundle.open(registry.folder(reference))
    if not opened.golden:
        raise BundleError(f"{reference} has no golden rows and cannot be verified")
    return RemoteModel(reference, opened)
