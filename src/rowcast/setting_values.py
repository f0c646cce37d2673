"""Checks the values of settings, and describes invalid values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from rowcast.errors import SettingsError
from rowcast.setting_aliases import ALIASES
from rowcast.suggestions import did_you_mean


def check_url(name: str, url: str) -> None:
    """Raise SettingsError unless the value is the URL of an HTTP server, without credentials."""
    shown = repr(url.rpartition("@")[2])  # the part before the @ may contain a password
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SettingsError(f"setting {name!r} is not a valid URL: {shown}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SettingsError(f"setting {name!r} must be http://HOST:PORT or https://HOST, got {shown}")
    if parts.username or parts.password:
        raise SettingsError(f"setting {name!r} must not contain a user name or password, because URLs are logged")


def describe_errors(
    problems: Sequence[Mapping[str, Any]],
    names: tuple[str, ...],
    aliased: Mapping[str, tuple[str, str]],
    prefix: str,
) -> str:
    """Describe pydantic's validation errors on a single line.

    `names` are all settings. `aliased` contains the value and the environment variable of each setting that comes from
    an alias, and `prefix` is the prefix of Rowcast's own environment variables.
    """
    sentences = []
    for problem in problems:
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            hint = did_you_mean(name, names)
            sentences.append(f"unknown setting {name!r}" + (f"; {hint}" if hint else ""))
            continue
        hint = ""
        if name == "port" and str(problem["input"]).startswith("tcp://"):
            hint = " (Kubernetes injects this variable for a Service named rowcast; set enableServiceLinks: false)"
        value, variable = aliased.get(name, (None, ""))
        if variable and problem["input"] == value:
            choices = ALIASES[variable].values
            allowed = f"; allowed values: {', '.join(choices)}" if choices else ""
            hint = f" (from {variable}, which {prefix}{name.upper()} overrides{allowed})"
        sentences.append(f"setting {name!r} is {problem['input']!r}: {problem['msg']}{hint}")
    return "; ".join(sentences)
