"""`--config FILE`: read a command's options from a YAML, TOML or JSON file. The keys are the options' long names.

The values in the file become the command's defaults, so options on the command line override them. In YAML, every
scalar is read as a string, as on the command line: `no` is the string "no", and `0420` keeps its leading zero.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, Final

import typer

from rowcast.app.documents import read_document
from rowcast.errors import SettingsError
from rowcast.suggestions import did_you_mean
from rowcast.wire.document import parse_yaml

URL_MARK: Final = "://"
Parameter = Any
"""A Typer option or argument. Typer has no public type for either."""


def apply(context: typer.Context, path: Path | None) -> Path | None:
    """Use the values in the file as the command's defaults. This is the callback of the eager option `--config`."""
    if path is not None:
        context.default_map = read(path, context)
    return path


def read(path: Path, context: typer.Context) -> dict[str, Any]:
    """Read each parameter's value from the file; raise SettingsError for an unknown key or an invalid value."""
    known = {_dashed(option.name): option for option in context.command.params if option.name not in ("config", "help")}
    values: dict[str, Any] = {}
    for key, value in _parse_file(path).items():
        option = known.get(_dashed(key))
        if option is None:
            raise SettingsError(f"{path}: unknown key {key!r}; {_suggestion(_dashed(key), known)}")
        if option.name in values:
            raise SettingsError(
                f"{path}: duplicate key {key!r}; it is written once with a dash and once with an underscore"
            )
        values[option.name] = _checked(path, key, value, option, context)
    return values


def _dashed(key: str) -> str:
    return key.strip().replace("_", "-")


def _suggestion(key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    return did_you_mean(key, tuple(names)) or f"available keys: {', '.join(names)}"


def _checked(path: Path, key: str, value: Any, option: Parameter, context: typer.Context) -> Any:
    """Return the value as a user would type it; raise SettingsError if Typer does not accept it."""
    if option.name == "wire" and isinstance(value, Mapping):
        return json.dumps(read_document(path)[key])  # in an inline wire template, numbers remain numbers
    try:
        text = _resolve_path(_as_typed(value, option), option, path.parent)
        option.get_runtime_param().coerce(text, param=option, ctx=context)
    except (typer.BadParameter, ValueError):
        raise SettingsError(f"{path}: {key!r} must be {_expected(option)}, got {_describe(value)}") from None
    return text


def _as_typed(value: Any, option: Parameter) -> Any:
    """Return what a user would type (a string or a list of strings); raise ValueError for any other value."""
    if isinstance(value, Mapping):
        if not _takes_pairs(option):
            raise ValueError
        value = [f"{_scalar_text(name)}={_scalar_text(item)}" for name, item in value.items()]
    if option.multiple:
        return [_scalar_text(item) for item in value] if isinstance(value, list) else [_scalar_text(value)]
    if isinstance(value, list):
        if "," not in (option.metavar or ""):
            raise ValueError
        return ",".join(_scalar_text(item) for item in value)
    return _scalar_text(value)


def _takes_pairs(option: Parameter) -> bool:
    return "=" in (option.metavar or "")


def _scalar_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float | date | time) and value != "":
        return str(value)
    raise ValueError


def _resolve_path(text: Any, option: Parameter, folder: Path) -> Any:
    """Resolve a path relative to the config file's folder."""
    is_path = option.type_descriptor.is_path or "FILE" in (option.metavar or "")
    if not is_path or not isinstance(text, str) or URL_MARK in text:
        return text
    return str(folder / Path(text).expanduser())


def _expected(option: Parameter) -> str:
    kind, low, high = option.type_descriptor.annotation, option.min, option.max
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return ("an integer" if kind is int else "a number") + _describe_range(low, high)
    scalar = "a path" if option.type_descriptor.is_path else "text"
    if _takes_pairs(option):
        return f"{option.metavar}, a list or a mapping"
    return f"{scalar} or a list" if option.multiple or "," in (option.metavar or "") else scalar


def _describe_range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return "" if high is None else f" of at most {high}"


def _describe(value: Any) -> str:
    if value is None or value == "":
        return "no value; remove the key to use the default"
    return f"{value!r}" if isinstance(value, str) else json.dumps(value, default=str)


def _parse_file(path: Path) -> Mapping[str, Any]:
    parse = PARSERS.get(path.suffix.lower())
    if parse is None:
        raise SettingsError(f"cannot read {path}: unknown format; the file name must end in {', '.join(PARSERS)}")
    try:
        document = parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # a syntax error, or text that is not UTF-8
        raise SettingsError(f"cannot read {path}: {error}") from None
    if not isinstance(document, dict):
        raise SettingsError(f"{path} must map keys to values, for example `target: loan_status`")
    return document


def _parse_yaml(text: str) -> Any:
    return parse_yaml(text, _text_loader)


def _text_loader(yaml: Any) -> Any:
    class TextLoader(yaml.BaseLoader):  # type: ignore[misc]  # yaml has no types
        """A YAML loader that reads scalars as strings and rejects duplicate keys."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            return _without_duplicates(
                (self.construct_object(key, True), self.construct_object(item, deep)) for key, item in node.value
            )

    return TextLoader


def _without_duplicates(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return the pairs as a mapping; raise ValueError if a key is not a string or appears twice."""
    mapping: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError("keys must be strings")
        if key in mapping:
            raise ValueError(f"duplicate key {key!r}")
        mapping[key] = value
    return mapping


PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".toml": tomllib.loads,
    ".json": lambda text: json.loads(text, object_pairs_hook=_without_duplicates),
}
