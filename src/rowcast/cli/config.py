"""`--config FILE`: the options of a command from a YAML, TOML or JSON file, by their long names.

The file's values become the defaults of the command line: whatever is typed wins. Every scalar is read as it is
written, as if it were typed: in YAML `no` is the label no and `0420` keeps its zero. What does not fit is refused.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, Final

import typer

from rowcast.app.documents import read_document
from rowcast.errors import SettingsError
from rowcast.wire.document import parse_yaml

URL: Final = "://"
Parameter = Any
"""An option or argument as typer keeps it."""


def fill(context: typer.Context, path: Path | None) -> Path | None:
    """The callback of an eager `--config`: what the file says becomes the defaults of this command."""
    if path is not None:
        context.default_map = read(path, context)
    return path


def read(path: Path, context: typer.Context) -> dict[str, Any]:
    """Parameter name to value; SettingsError names the file, the key and what may stand there."""
    known = {_name(option.name): option for option in context.command.params if option.name not in ("config", "help")}
    found: dict[str, Any] = {}
    for key, value in _content(path).items():
        option = known.get(_name(key))
        if option is None:
            raise SettingsError(f"{path}: unknown key {key!r}; {_meant(_name(key), known)}")
        if option.name in found:
            raise SettingsError(f"{path}: key {key!r} is there twice, with a dash and with an underscore")
        found[option.name] = _checked(path, key, value, option, context)
    return found


def _name(key: str) -> str:
    return key.strip().replace("_", "-")


def _meant(wanted: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(wanted, names, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"


def _checked(path: Path, key: str, value: Any, option: Parameter, context: typer.Context) -> Any:
    """The value as the command line would hand it to the command, proven to be acceptable."""
    if option.name == "wire" and isinstance(value, Mapping):  # a template within: its numbers are no texts
        return json.dumps(read_document(path)[key])
    try:
        given = _relative(_typed(value, option), option, path.parent)
        option.get_runtime_param().coerce(given, param=option, ctx=context)
    except (typer.BadParameter, ValueError):
        raise SettingsError(f"{path}: {key!r} must be {_allowed(option)}, not {_shown(value)}") from None
    return given


def _typed(value: Any, option: Parameter) -> Any:
    """One word as typed, or a list of them; ValueError where the shape does not fit the option."""
    if isinstance(value, Mapping):
        if not _takes_pairs(option):
            raise ValueError
        value = [f"{_word(name)}={_word(each)}" for name, each in value.items()]
    if option.multiple:
        return [_word(each) for each in value] if isinstance(value, list) else [_word(value)]
    if isinstance(value, list):
        if "," not in (option.metavar or ""):
            raise ValueError
        return ",".join(_word(each) for each in value)
    return _word(value)


def _takes_pairs(option: Parameter) -> bool:
    return "=" in (option.metavar or "")


def _word(value: Any) -> str:
    """A scalar as it would be typed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float | date | time) and value != "":
        return str(value)
    raise ValueError


def _relative(given: Any, option: Parameter, folder: Path) -> Any:
    """Paths are meant from the folder of the file that names them."""
    names_file = option.type_descriptor.is_path or "FILE" in (option.metavar or "")
    if not names_file or not isinstance(given, str) or URL in given:
        return given
    return str(folder / Path(given).expanduser())


def _allowed(option: Parameter) -> str:
    kind, low, high = option.type_descriptor.annotation, option.min, option.max
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        bounds = [f"of at least {low}"] * (low is not None) + [f"of at most {high}"] * (high is not None)
        return " ".join(["a whole number" if kind is int else "a number", " and ".join(bounds)]).strip()
    one = "a path" if option.type_descriptor.is_path else "text"
    if _takes_pairs(option):
        return f"{option.metavar}, a list of them or a mapping"
    return f"{one} or a list" if option.multiple or "," in (option.metavar or "") else one


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "nothing; leave the key out"
    return f"{value!r}" if isinstance(value, str) else json.dumps(value, default=str)


def _content(path: Path) -> Mapping[str, Any]:
    """The keys and values of a file; SettingsError when it cannot be read as what its name says."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise SettingsError(f"{path} must end in {', '.join(READERS)} to say how it is written")
    try:
        found = reader(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # also of a text that is not UTF-8
        raise SettingsError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise SettingsError(f"{path} must hold keys with values, such as `target: loan_status`")
    return found


def _yaml(text: str) -> Any:
    return parse_yaml(text, _as_written)


def _as_written(yaml: Any) -> Any:
    class Loader(yaml.BaseLoader):  # type: ignore[misc]  # yaml has no types
        """Scalars stay as they are written; a key may not be repeated."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            pairs = [(self.construct_object(key, True), self.construct_object(each, deep)) for key, each in node.value]
            return _once(pairs)

    return Loader


def _once(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """The pairs as a mapping; ValueError when a key is not a text or comes twice."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError("a key must be text")
        if key in found:
            raise ValueError(f"key {key!r} is there twice")
        found[key] = value
    return found


READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".toml": tomllib.loads,
    ".json": lambda text: json.loads(text, object_pairs_hook=_once),
}
