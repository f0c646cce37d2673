"""Which versions are meant: references resolved against the registry. Imports nothing heavy; for supervisors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rowcast.errors import ModelNotFound
from rowcast.registry.ports import Reference, RegistryReader

CHAMPION = "champion"


def resolve(text: str, registry: RegistryReader) -> Reference:
    """`NAME`, `NAME@3` or `NAME@alias` to a published version; a bare name means its champion."""
    name, mark, tail = text.partition("@")
    if mark and not tail:
        raise ModelNotFound(f"{text!r} names no version: write {name}, {name}@3 or {name}@{CHAMPION}")
    if tail.isdecimal():
        reference = Reference(name, int(tail))
        registry.folder(reference)
        return reference
    alias = tail or CHAMPION
    aliases = registry.aliases(name)
    if alias not in aliases:
        known = ", ".join(sorted(aliases)) or "none"
        raise ModelNotFound(f"{name} has no alias {alias!r} (it has: {known})")
    return Reference(name, aliases[alias])


def addresses(wanted: Iterable[str]) -> dict[str, str]:
    """By what was asked for, the name under which it answers: the first of each model under the model's own name, each
    further one as it was written, such as `loans@3`."""
    found: dict[str, str] = {}
    for text in wanted:
        name = text.partition("@")[0]
        found[text] = text if name in found.values() else name
    return found


def served(registry: RegistryReader, names: Sequence[str] = ()) -> dict[str, Reference]:
    """The versions to serve by what was asked for: those named, else every model's champion."""
    if names:
        return {name: resolve(name, registry) for name in names}
    return {
        name: Reference(name, aliases[CHAMPION])
        for name in registry.models()
        if CHAMPION in (aliases := registry.aliases(name))
    }
