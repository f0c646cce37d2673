"""Wire templates and metadata as people write them: a mapping in memory, JSON text, or a YAML, TOML or JSON file."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rowcast.errors import SettingsError

MOST_BYTES: Final = 1024 * 1024
MOST_VALUES, MOST_DEPTH = 100_000, 64
MOST_INTEGER: Final = 2**63
# YAML 1.2's core schema: what JSON writes without quotes is no text; `no`, `on` and 0420 are.
SCALARS: Final = (
    ("tag:yaml.org,2002:null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", list("tf")),
    ("tag:yaml.org,2002:int", r"^-?(?:0|[1-9][0-9]*)$", list("-0123456789")),
    ("tag:yaml.org,2002:float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", list("-0123456789")),
)


def read(source: str | Path | Mapping[str, Any], what: str = "wire template") -> dict[str, Any]:
    """The content; SettingsError names the file and what is wrong with it."""
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return _mapping(_parsed(json.loads, source, what), what, what)
    path = Path(source)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise SettingsError(f"{path} must end in {', '.join(READERS)} to be read as a {what}")
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise SettingsError(f"{path} is no file")
        if found.st_size > MOST_BYTES:
            raise SettingsError(f"{path} is larger than {MOST_BYTES} bytes; that is no {what}")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8") from None
    return _mapping(_parsed(reader, text, str(path)), str(path), what)


def _parsed(reader: Callable[[str], Any], text: str, what: str) -> Any:
    try:
        return reader(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{what}: {error}") from None


def _mapping(found: Any, where: str, what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise SettingsError(f"{where} must be a mapping of names to values")
    for count, (value, depth) in enumerate(_values(found)):
        if count > MOST_VALUES or depth > MOST_DEPTH:
            raise SettingsError(
                f"{where} holds more than {MOST_VALUES} values, or is more than {MOST_DEPTH} deep; that is no {what}"
            )
        wrong = _wrong(value)
        if wrong:
            raise SettingsError(f"{where}: {wrong}")
    return found


def _values(whole: Any) -> Iterator[tuple[Any, int]]:
    """Every name and value with its depth, as often as it would be written out: a YAML alias may hold itself."""
    waiting = [(whole, 0)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        below = [each for pair in value.items() for each in pair] if isinstance(value, dict) else value
        if isinstance(below, list):
            waiting += [(each, depth + 1) for each in below]


def _wrong(value: Any) -> str:
    """Why JSON cannot hold this; empty when it can."""
    if isinstance(value, dict):
        name = next((name for name in value if not isinstance(name, str)), "")
        return "" if name == "" else f"the name {name!r} must be text; put it in quotes"
    if isinstance(value, str):
        return f"{value[:80]!r} is no Unicode text" if any("\ud800" <= sign <= "\udfff" for sign in value) else ""
    if isinstance(value, int) and not -MOST_INTEGER <= value < MOST_INTEGER:
        return "a whole number has more than 64 bits; put it in quotes"
    if value is None or isinstance(value, bool | int | float | list):
        return ""
    return f"{str(value)[:80]!r} is a {type(value).__name__}; put it in quotes"


def from_yaml(text: str, loader: Callable[[Any], Any]) -> Any:
    """What a YAML text holds, read by the loader that is made of the library; ValueError says where it is wrong."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise SettingsError("a YAML file needs PyYAML; install rowcast[train], or write TOML or JSON") from None
    try:
        return yaml.load(text, loader(yaml))  # noqa: S506 - every loader here makes plain values and nothing else
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "it is not YAML"
        raise ValueError(f"line {mark.line + 1}: {problem}" if mark else str(problem)) from None


def _like_json(yaml: Any) -> Any:
    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        """Plain scalars as JSON means them."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - yaml wants it here

    for tag, pattern, first in SCALARS:
        Loader.add_implicit_resolver(tag, re.compile(pattern), first)
    return Loader


def _yaml(text: str) -> Any:
    return from_yaml(text, _like_json)


READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".toml": tomllib.loads,
    ".json": json.loads,
}
