"""Resolve references such as `loans@3` to published versions.

The supervisor imports this module, so the module must not import heavy libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rowcast.errors import ModelNotFound
from rowcast.registry.ports import Reference, RegistryReader

CHAMPION = "champion"


def resolve(text: str, registry: RegistryReader) -> Reference:
    """Resolve `NAME`, `NAME@3` or `NAME@alias` to a published version. `NAME` refers to the champion."""
    name, separator, suffix = text.partition("@")
    if separator and not suffix:
        raise ModelNotFound(f"{text!r} lacks a version; write {name}, {name}@3 or {name}@{CHAMPION}")
    if suffix.isdecimal():
        reference = Reference(name, int(suffix))
        registry.folder(reference)  # raises ModelNotFound if the version does not exist
        return reference
    alias = suffix or CHAMPION
    aliases = registry.aliases(name)
    if alias not in aliases:
        available = ", ".join(sorted(aliases)) or "none"
        raise ModelNotFound(f"model {name!r} has no alias {alias!r}; available aliases: {available}")
    return Reference(name, aliases[alias])


def addresses(references: Iterable[str]) -> dict[str, str]:
    """Map each reference to the name under which it is served.

    The first reference to a model is mapped to the model's name. Any later reference to the same model is mapped to
    itself, for example to `loans@3`.
    """
    served_names: dict[str, str] = {}
    for text in references:
        name = text.partition("@")[0]
        served_names[text] = text if name in served_names.values() else name
    return served_names


def served(registry: RegistryReader, references: Sequence[str] = ()) -> dict[str, Reference]:
    """Map each reference to a published version. Without references, map the name of every model to its champion."""
    if references:
        return {text: resolve(text, registry) for text in references}
    return {
        name: Reference(name, aliases[CHAMPION])
        for name in registry.models()
        if CHAMPION in (aliases := registry.aliases(name))
    }
