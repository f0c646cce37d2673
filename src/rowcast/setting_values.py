"""Checks the values of settings, and describes invalid values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from rowcast.errors import SettingsError
from rowcast.setting_aliases import ALIASES
from rowcast.suggestions import did_you_mean

CACHE_WORDS: Final = {
    **dict.fromkeys(("off", "false", "0", "no", "n", "f", ""), "off"),
    **dict.fromkeys(("memory", "on", "true", "1", "yes", "y", "t"), "memory"),
}
REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
REDIS_OPTIONS: Final[Mapping[str, Callable[[str], object]]] = {
    "db": re.compile("[0-9]{1,5}").fullmatch,
    "ssl_ca_certs": str,
    "ssl_cert_reqs": re.compile("none|optional|required").fullmatch,
    "ssl_certfile": str,
    "ssl_keyfile": str,
}
"""The options that a Redis URL can contain. Each option is mapped to a function that returns a truthy result if the
option has an allowed value."""
RedisPolicy = Literal[
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
]
_match_size = re.compile(r"(0|[1-9][0-9]{0,14})(b|kb?|mb?|gb?)?", re.IGNORECASE).fullmatch


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


def read_cache(value: object) -> object:
    """Return `off` or `memory` for a boolean or for a word such as `true` or `no`, and any other value unchanged."""
    if isinstance(value, bool):
        return "memory" if value else "off"
    return CACHE_WORDS.get(value.strip().lower(), value.strip()) if isinstance(value, str) else value


def check_ray_address(address: str) -> None:
    """Raise SettingsError unless the value is the address of a Ray cluster."""
    if address != "auto" and not re.fullmatch(r"(ray://)?[^\s/:@]+:[0-9]{1,5}", address):
        shown = hide_credentials(address)
        raise SettingsError(
            f"the address of a Ray cluster must be auto, HOST:PORT or ray://HOST:PORT, got {shown!r}",
            slug="ray-address",
        )


def check_redis_url(name: str, url: str, others: str = "") -> None:
    """Raise SettingsError unless the value is the URL of a Redis server. `others` names the other allowed values."""
    try:
        parts = urlsplit(url)
        port = parts.port
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise SettingsError(f"setting {name!r} is not a valid Redis URL: {hide_credentials(url)!r}") from None
    place = parts.path if parts.scheme == "unix" else parts.hostname
    has_database = parts.scheme == "unix" or re.fullmatch(r"/?[0-9]*", parts.path)
    if parts.scheme not in REDIS_SCHEMES or not place or port == 0 or not has_database:
        raise SettingsError(
            f"setting {name!r} must be {others}a Redis URL such as redis://HOST:6379/0, got {hide_credentials(url)!r}"
        )
    for option, value in options.items():
        if option not in REDIS_OPTIONS:
            known = ", ".join(REDIS_OPTIONS)
            raise SettingsError(f"setting {name!r}: unknown option {option!r} in the Redis URL; known options: {known}")
        if option != "db" and parts.scheme != "rediss":
            raise SettingsError(f"setting {name!r}: option {option!r} requires a URL that starts with rediss://")
        allowed = REDIS_OPTIONS[option]
        if not allowed(value):
            raise SettingsError(f"setting {name!r}: option {option!r} in the Redis URL cannot be {value!r}")


def check_memory_size(name: str, text: str) -> None:
    """Raise SettingsError unless the value is a size that Redis accepts."""
    if not _match_size(text):
        raise SettingsError(f"setting {name!r} must be a number of bytes or a size such as 256mb, got {text!r}")


_hide_parameters = re.compile(r"([?&][^=&]*(?:password|secret)=)[^&]*", re.IGNORECASE).sub


def hide_credentials(url: str) -> str:
    """Return a URL in which the user name, the password and secret parameters are hidden."""
    url = _hide_parameters(r"\1(hidden)", url)
    before, at, after = url.rpartition("@")
    scheme, slashes, _ = before.partition("//")
    return f"{scheme if slashes else ''}{slashes}(hidden)@{after}" if at else url


def describe_errors(
    problems: Sequence[Mapping[str, Any]],
    names: tuple[str, ...],
    aliased: Mapping[str, tuple[str, str]],
    prefix: str,
) -> str:
    """Describe pydantic's validation errors on a single line.

    `names` contains the names of all settings. `aliased` contains the value and the environment variable of each
    setting that comes from an alias, and `prefix` is the prefix of Rowcast's own environment variables.
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
            hint = f" (from {variable}; {prefix}{name.upper()} takes precedence over it{allowed})"
        sentences.append(f"setting {name!r} is {problem['input']!r}: {problem['msg']}{hint}")
    return "; ".join(sentences)
