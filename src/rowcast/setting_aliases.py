"""Environment variables of the systems that Rowcast replaces, and the corresponding settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Alias(NamedTuple):
    """The setting that another system's environment variable sets."""

    setting: str
    values: Mapping[str, str] | None = None
    """Maps the variable's values to the setting's values. If this is None, the values are used unchanged."""


ALIASES: Mapping[str, Alias] = {
    "API_KEY": Alias("api_key"),
    "MODEL_PATH": Alias("models_dir"),
    "LOG_LEVEL": Alias(
        "log_level",
        {
            **dict.fromkeys(("debug", "trace"), "debug"),
            **dict.fromkeys(("info", "notice"), "info"),
            **dict.fromkeys(("warning", "warn"), "warning"),
            **dict.fromkeys(("error", "critical", "fatal"), "error"),
        },
    ),
    "ENV": Alias(
        "log_format",
        {
            **dict.fromkeys(("production", "prod", "staging"), "json"),
            **dict.fromkeys(("development", "dev", "local", "test"), "text"),
        },
    ),
    "PROM_PUSHGATEWAY": Alias("push_gateway"),
    "PROM_USERNAME": Alias("push_username"),
    "PROM_API_KEY": Alias("push_password"),
    "PROM_PUSHJOB": Alias("push_job"),
    "OTEL_EXPORTER_OTLP_ENDPOINT": Alias("otel_endpoint"),
    "RAY_ADDRESS": Alias("ray_address"),
    "REDIS_URL": Alias("cache"),
    "REDIS_MAXMEMORY": Alias("redis_maxmemory"),
    "REDIS_POLICY": Alias("redis_policy"),
}
"""Environment variables of the systems that Rowcast replaces, and the corresponding settings.

An alias overrides `rowcast.toml`, but not the setting's own name in `.env`, in the environment or on the command line.
Empty variables are ignored.
"""
ALIAS_PUSH_JOB = "loan_model"
"""The default Pushgateway job name in the system that used the variable `PROM_PUSHGATEWAY`."""


def aliased_values(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the value and the environment variable of each setting that comes from an alias."""
    values = {}
    for variable, alias in ALIASES.items():
        text = environ.get(variable, "").strip()
        # POSIX shells use ENV for the path of a startup file.
        if text and not (variable == "ENV" and "/" in text):
            value = text if alias.values is None else alias.values.get(text.lower(), text)
            values[alias.setting] = value, variable
    return values
