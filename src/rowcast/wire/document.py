"""Parse small YAML, TOML and JSON documents, such as wire templates and model metadata.

The result contains only values that JSON can represent. This module does no IO; `app/documents.py` reads the files.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rowcast.errors import DocumentError, SettingsError

MAX_VALUES, MAX_DEPTH = 100_000, 64
INTEGER_LIMIT: Final = 2**63
SHOWN_CHARACTERS: Final = 80
# The core schema of YAML 1.2, limited to JSON literals and `~`. All other unquoted scalars are strings,
# including `no`, `on` and `0420`.
SCALARS: Final = (
    ("tag:yaml.org,2002:null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", list("tf")),
    ("tag:yaml.org,2002:int", r"^-?(?:0|[1-9][0-9]*)$", list("-0123456789")),
    ("tag:yaml.org,2002:float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", list("-0123456789")),
)


def parse_document(text: str, suffix: str, source: str) -> dict[str, Any]:
    """Parse a document whose format is determined by `suffix`, a key of PARSERS.

    Raise DocumentError, with `source` as the document's name, if the document has a syntax error, is not a mapping or
    contains values that JSON cannot represent.
    """
    try:
        document = PARSERS[suffix](text)
    except (ValueError, RecursionError) as error:
        raise DocumentError(source, "", str(error), slug="syntax-error") from None
    if not isinstance(document, dict):
        raise DocumentError(source, "", "expected a mapping from names to values", slug="not-a-mapping")
    for count, (value, depth) in enumerate(_walk(document)):
        if count > MAX_VALUES:
            raise DocumentError(source, "", f"too many values; the limit is {MAX_VALUES}", slug="too-many-values")
        if depth > MAX_DEPTH:
            raise DocumentError(source, "", f"nested too deeply; the limit is {MAX_DEPTH} levels", slug="too-deep")
        _check_value(value, source)
    return document


def parse_yaml(text: str, make_loader: Callable[[Any], Any]) -> Any:
    """Parse YAML; raise ValueError with the line number of a syntax error.

    `make_loader` receives the yaml module and returns a loader class, which must construct only plain values.
    """
    try:
        import yaml
    except ModuleNotFoundError:
        raise SettingsError("reading YAML requires PyYAML; install rowcast[train], or use TOML or JSON") from None
    try:
        return yaml.load(text, make_loader(yaml))  # noqa: S506 - the loaders construct only plain values
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "invalid YAML"
        raise ValueError(f"line {mark.line + 1}: {problem}" if mark else str(problem)) from None


def _walk(document: Any) -> Iterator[tuple[Any, int]]:
    """Yield every key and value with its depth. YAML aliases are followed at each use and can be recursive."""
    pending = [(document, 0)]
    while pending:
        value, depth = pending.pop()
        yield value, depth
        children = [item for pair in value.items() for item in pair] if isinstance(value, dict) else value
        if isinstance(children, list):
            pending += [(child, depth + 1) for child in children]


def _check_value(value: Any, source: str) -> None:
    """Raise DocumentError if JSON cannot represent the value."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise DocumentError(source, "", f"the key {name!r} must be a string; put it in quotes", slug="bad-key")
    elif isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise DocumentError(
                source, "", f"{value[:SHOWN_CHARACTERS]!r} is not valid Unicode text", slug="not-unicode"
            )
    elif isinstance(value, int) and not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise DocumentError(source, "", "an integer exceeds 64 bits; put it in quotes", slug="integer-too-large")
    elif value is not None and not isinstance(value, bool | int | float | list):
        message = f"{str(value)[:SHOWN_CHARACTERS]!r} is a {type(value).__name__}; put it in quotes"
        raise DocumentError(source, "", message, slug="unsupported-type")


def _json_like_loader(yaml: Any) -> Any:
    class JsonLikeLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        """Reads plain scalars as JSON values where possible, and as strings otherwise."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML expects this class attribute

    for tag, pattern, first_characters in SCALARS:
        JsonLikeLoader.add_implicit_resolver(tag, re.compile(pattern), first_characters)
    return JsonLikeLoader


def _parse_json_like_yaml(text: str) -> Any:
    return parse_yaml(text, _json_like_loader)


PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    ".yaml": _parse_json_like_yaml,
    ".yml": _parse_json_like_yaml,
    ".toml": tomllib.loads,
    ".json": json.loads,
}
