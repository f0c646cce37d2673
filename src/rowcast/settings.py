"""The settings, from these sources in order of precedence: command line, environment, `.env`, `rowcast.toml`, defaults.

No other module reads the environment.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rowcast.access.addresses import parse_hosts, parse_networks
from rowcast.access.quotas import parse_quota
from rowcast.errors import SettingsError
from rowcast.setting_aliases import aliased_values
from rowcast.setting_paths import SettingPaths
from rowcast.setting_sources import AliasSource, SharedDotEnvSource
from rowcast.setting_values import (
    RedisPolicy,
    check_memory_size,
    check_redis_url,
    check_url,
    describe_errors,
    read_cache,
)
from rowcast.suggestions import did_you_mean

PREFIX = "ROWCAST_"
MIN_KEY_LENGTH = 8
MEBIBYTE = 1024 * 1024


class Settings(SettingPaths, BaseSettings):
    """All settings with their defaults, named `ROWCAST_<NAME>` in the environment and `<name>` in `rowcast.toml`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        toml_file="rowcast.toml",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=False,
    )

    home: Path = Field(Path(".rowcast"), description="Folder for all data whose location is not set separately.")
    registry: Path | None = Field(None, description="Folder of the model registry. Default: `HOME/models`.")
    journal: Path | None = Field(
        None, description="Folder of the journals; must be on a local disk. Default: `HOME/journal`."
    )
    store: str | None = Field(
        None,
        description="URL of the history store: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`. "
        "Default: `sqlite:///HOME/history.db`.",
    )
    durability: Literal["process", "disk", "store"] = Field(
        "process",
        description="When a reply is sent: after the prediction is written to the journal (`process`: predictions "
        "survive a crash of any process), after the journal is synced to disk (`disk`: predictions survive a crash of "
        "the machine), or after the store commits the prediction (`store`).",
    )
    retention_days: int | None = Field(
        None, ge=1, description="Erase rows from the history after this many days. Default: never."
    )
    min_free_mb: int = Field(
        200,
        ge=0,
        description="Minimum free disk space (MiB) for the journal and the store; below this limit, predictions are "
        "rejected.",
    )
    signing_key_file: Path | None = Field(
        None,
        description="File with the key for signing chain heads and erasures; anyone who can read it can forge "
        "signatures. Default: `signing.key` in the folder of a SQLite store, otherwise in HOME.",
    )
    sensitive: Literal["keep", "hash", "drop"] = Field(
        "keep", description="How the history records the values of sensitive columns: unchanged, hashed or not at all."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free port.")
    workers: int = Field(1, ge=1, le=256, description="Number of server processes.")
    drain_seconds: float = Field(30.0, ge=0, description="Time limit for finishing open requests during shutdown.")
    insecure: bool = Field(False, description="Answer clients on other machines even if there is no API key.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated hosts that a request without an API key can name in its `Host` header, in "
        "addition to the loopback names; `*` allows all. With `insecure`, the default is `*`.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated addresses or networks of the proxies whose `X-Forwarded-For` and `Forwarded` "
        "headers are trusted, for example `127.0.0.1,10.0.0.0/8`.",
    )
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Models to serve, separated by commas: NAME, NAME@3 or NAME@alias. Default: the champion of each "
        "model.",
    )
    default_model: str | None = Field(
        None,
        description="Model that `POST /predict` uses. Default: the only served model, or the first model in `models`.",
    )
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Path prefix under which a proxy exposes the server, for example `/api`.",
    )
    api_key: SecretStr | None = Field(
        None, description="An API key with every scope, in addition to the keys created with `rowcast keys`."
    )
    quota: str | None = Field(
        None,
        description="Default quota in rows or requests, for example `100/60s` or `20 requests/60s`. It applies to each "
        "API key without its own quota, or to each client address if no key is required.",
    )
    quota_predict: str | None = Field(
        None,
        description="Default quota for predictions. If it is set, `quota` applies only to all other requests. "
        "Neither applies to an API key with its own quota, which covers all of the key's requests.",
    )
    url: str | None = Field(
        None, description="Server URL that `rowcast call` uses. Default: derived from `host`, `port` and `root_path`."
    )
    open_metrics: bool = Field(False, description="Serve `/metrics` without an API key.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Allowed CORS origins, separated by commas, for example `https://app.example.com`; `*` allows all.",
    )
    max_body_bytes: int = Field(4 * MEBIBYTE, ge=1024, description="Maximum size of a request body.")
    max_rows: int = Field(10_000, ge=1, description="Maximum number of rows in one request.")
    max_row_bytes: int = Field(
        256 * 1024, ge=1024, description="Maximum size of one row in JSON. Models with many columns accept larger rows."
    )
    max_text_characters: int = Field(
        10_000,
        ge=1,
        description="Maximum number of characters in a string. The limit is higher if a category in the training data "
        "is longer.",
    )
    max_waiting_rows: int = Field(
        20_000, ge=1, description="Maximum number of queued rows; if the queue is full, new requests fail with 503."
    )
    max_wait_seconds: float = Field(
        10.0,
        gt=0,
        description="Maximum time in the queue; requests whose rows wait longer fail with 503.",
    )
    max_connections: int = Field(
        20_000,
        ge=1,
        description="Maximum number of open connections; idle connections are closed to admit new connections.",
    )
    receive_seconds: float = Field(30.0, gt=0, description="Time limit for receiving a whole request.")
    idle_seconds: float = Field(75.0, gt=0, description="Time after which an idle connection is closed.")
    busy_poll_us: int = Field(
        100, ge=0, le=10_000, description="How long (microseconds) to poll for the next request from a single client."
    )
    idempotency_seconds: float = Field(
        86_400.0, gt=0, description="How long replies to requests with an Idempotency-Key are kept."
    )
    idempotency_mb: int = Field(
        256,
        ge=1,
        description="Maximum total size (MiB) of the replies kept for Idempotency-Keys; beyond that, the oldest "
        "replies of the tenants with the most data are deleted early.",
    )
    files: str | None = Field(
        None,
        description="Where the uploads and results of jobs are stored: a folder or `s3://BUCKET/PATH`, which requires "
        "`rowcast[s3]`. Default: `HOME/files`.",
    )
    job_days: float = Field(7.0, gt=0, description="How long a job and its files are kept after it has ended (days).")
    job_upload_mb: int = Field(1024, ge=1, description="Maximum size (MiB) of a table that is uploaded for a job.")
    max_jobs: int = Field(100, ge=1, description="Maximum number of queued and running jobs per tenant.")
    cache: str = Field(
        "off",
        repr=False,
        description="Where scores are cached by row, which is useful for slow models: `off`, `memory` (separately in "
        "each server process) or the URL of a Redis server that all servers share, such as `redis://HOST:6379/0`.",
    )
    cache_entries: int = Field(
        100_000,
        ge=1,
        description="Maximum number of scores that each server process caches in memory, about 0.5 KB each.",
    )
    cache_seconds: float = Field(3600.0, gt=0, description="Lifetime of a cached score.")
    quotas: str | None = Field(
        None,
        repr=False,
        description="URL of the Redis server on which all servers track quota usage. Default: each server "
        "process enforces an equal share of every quota.",
    )
    queue: str | None = Field(
        None,
        repr=False,
        description="URL of the Redis server through which servers send rows to `rowcast worker` processes. Default: "
        "each server process scores its own rows.",
    )
    queue_max_messages: int = Field(
        10_000, ge=1, description="Maximum number of messages in the queue; if it is full, new requests fail with 503."
    )
    worker_port: int = Field(
        8001,
        ge=0,
        le=65535,
        description="Port on which a worker serves health checks and metrics; 0 picks a free port.",
    )
    worker_concurrency: int = Field(
        2, ge=1, le=64, description="Maximum number of batches that a worker processes at the same time."
    )
    redis_timeout_ms: int = Field(
        50,
        ge=1,
        le=10_000,
        description="Maximum time (milliseconds) that a request waits for Redis. If Redis takes longer or fails, the "
        "server works without Redis until Redis responds again.",
    )
    redis_prefix: str = Field(
        "rowcast",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Prefix of every key in Redis. Systems that share a Redis database but not their API keys "
        "need different prefixes.",
    )
    redis_maxmemory: str | None = Field(
        None, description="Memory limit that the server sets on the cache's Redis server, such as `256mb`."
    )
    redis_policy: RedisPolicy | None = Field(
        None, description="Eviction policy that the server sets on the cache's Redis server."
    )
    models_dir: Path | None = Field(
        None,
        description="Folder of ONNX files and their metadata, which are imported at startup and on reload.",
    )
    max_model_mb: int = Field(512, ge=1, description="Maximum size (MiB) of a graph that a running server loads.")
    max_model_nodes: int = Field(10_000, ge=1, description="Maximum number of nodes in an imported graph.")
    trial_memory_mb: int = Field(
        2048, ge=128, description="Memory limit (MiB) for the process that tests a version before it is served."
    )
    trial_seconds: float = Field(60.0, gt=0, description="Time limit (seconds) for testing a new version.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of logged messages."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Log format; `auto` means text on a terminal and JSON elsewhere."
    )
    access_log: bool = Field(
        False, description="Log a line for each request with its route, status and duration, but without its content."
    )
    metrics_aliases: bool = Field(
        False, description="Also export metrics under the names used by the systems that Rowcast replaces."
    )
    push_gateway: str | None = Field(
        None,
        description="URL of the Prometheus Pushgateway: a base URL, or a full URL with `/metrics/job/...`, which is "
        "used unchanged.",
    )
    push_username: str | None = Field(None, description="User name for the Pushgateway.")
    push_password: SecretStr | None = Field(None, description="Password for the Pushgateway.")
    push_job: str = Field(
        "rowcast", pattern=r"^[^/\s]+$", description="Pushgateway job, unless the URL in `push_gateway` contains a job."
    )
    push_seconds: float = Field(15.0, gt=0, description="Interval between pushes (seconds).")
    ray_address: str | None = Field(
        None,
        description="Ray cluster that `--engine ray` uses. Default: commands start a cluster on this machine, and jobs "
        "cannot use Ray.",
    )
    otel_endpoint: str | None = Field(
        None,
        description="URL of the OpenTelemetry collector that receives spans over OTLP/HTTP; requires `rowcast[otel]`.",
    )
    otel_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Fraction of requests to trace. If a request has a trace context, the caller's sampling decision "
        "applies.",
    )

    @field_validator("cache", mode="before")
    @classmethod
    def accept_booleans(cls, value: object) -> object:
        """Accept the booleans that earlier releases used."""
        return read_cache(value)

    @field_validator("models", "cors_origins", "allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def split(cls, value: object) -> object:
        """Split a comma-separated list."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, highest precedence first."""
        own = init_settings, env_settings, SharedDotEnvSource(settings_cls, PREFIX)
        return *own, AliasSource(settings_cls, aliased_values(os.environ)), TomlConfigSettingsSource(settings_cls)

    @property
    def listens_locally(self) -> bool:
        """Whether only clients on this machine can connect."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def server_url(self) -> str:
        """The URL at which this machine can reach the server."""
        is_wildcard = self.host in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if is_wildcard else f"[{self.host}]" if ":" in self.host else self.host
        return self.url or f"http://{host}:{self.port}{self.root_path}"

    def for_child(self) -> dict[str, str]:
        """Return the environment for a child process that must use the same registry, journal and store."""
        optional = {"RETENTION_DAYS": self.retention_days, "RAY_ADDRESS": self.ray_address}
        return {
            **os.environ,
            **{f"{PREFIX}{name}": str(value) for name, value in optional.items() if value is not None},
            f"{PREFIX}DURABILITY": self.durability,
            f"{PREFIX}HOME": str(self.home.absolute()),
            f"{PREFIX}REGISTRY": str(self.registry_folder),
            f"{PREFIX}JOURNAL": str(self.journal_folder.absolute()),
            f"{PREFIX}STORE": self.store_url,
            f"{PREFIX}FILES": self.files or str((self.home / "files").absolute()),
            f"{PREFIX}JOB_UPLOAD_MB": str(self.job_upload_mb),
            f"{PREFIX}SENSITIVE": self.sensitive,
            f"{PREFIX}SIGNING_KEY_FILE": str(self.signing_key_path.absolute()),
            f"{PREFIX}LOG_FORMAT": self.log_format,
            f"{PREFIX}LOG_LEVEL": self.log_level,
        }


def load(**options: Any) -> Settings:
    """Load the settings; `options` come from the command line, and None means that an option was not given."""
    _reject_unknown_variables()
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(
            describe_errors(error.errors(), tuple(Settings.model_fields), aliased_values(os.environ), PREFIX)
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"cannot read rowcast.toml: {error}") from None
    except ValueError as error:  # pydantic-settings could not decode an environment variable
        raise SettingsError(f"cannot read the settings: {error}") from None
    _validate(settings)
    if settings.push_password is not None:
        _refuse_redirected_password(origins(**options))
    return settings


def _refuse_redirected_password(sources: Mapping[str, str]) -> None:
    """Raise SettingsError if a file in the working folder would decide where the password is sent."""
    where = sources.get("push_gateway")
    if where == ".env" and sources.get("push_password") != ".env":
        raise SettingsError(
            "setting 'push_gateway' comes from the file .env, but 'push_password' does not; set both in the same place"
        )


def _validate(settings: Settings) -> None:
    """Check the rules that involve the file system or more than one field."""
    for name, folder in (("home", settings.home), ("registry", settings.registry), ("journal", settings.journal)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise SettingsError(f"setting {name!r} must be a folder, but {str(folder)!r} is a file")
    for quota in (settings.quota, settings.quota_predict):
        if quota is not None:
            parse_quota(quota)
    _validate_redis(settings)
    parse_hosts(settings.allowed_hosts)
    parse_networks(settings.trusted_proxies)
    for name, url in (("push_gateway", settings.push_gateway), ("otel_endpoint", settings.otel_endpoint)):
        if url is not None:
            check_url(name, url)
    if (settings.push_username is None) != (settings.push_password is None):
        raise SettingsError("settings 'push_username' and 'push_password' must be set together")
    if settings.api_key is not None and len(settings.api_key.get_secret_value()) < MIN_KEY_LENGTH:
        raise SettingsError(f"setting 'api_key' is too short; use at least {MIN_KEY_LENGTH} characters")


def _validate_redis(settings: Settings) -> None:
    if settings.cache not in ("off", "memory"):
        check_redis_url("cache", settings.cache, "off, memory or ")
    if settings.quotas is not None:
        check_redis_url("quotas", settings.quotas)
    if settings.queue is not None:
        check_redis_url("queue", settings.queue)
    if settings.redis_maxmemory is not None:
        check_memory_size("redis_maxmemory", settings.redis_maxmemory)


def is_color_allowed() -> bool:
    """Return whether commands may use colors in a terminal; `NO_COLOR` (https://no-color.org) disables them."""
    return not os.environ.get("NO_COLOR")


def origins(**options: Any) -> dict[str, str]:
    """Return the source of each setting that is set explicitly; `options` are the same as for `load`."""
    dotenv_names, toml_names = (
        {name.lower().removeprefix(PREFIX.lower()) for name in source()}
        for source in (SharedDotEnvSource(Settings, PREFIX), TomlConfigSettingsSource(Settings))
    )
    variables = {name.lower(): name for name, value in os.environ.items()}
    aliased = aliased_values(os.environ)
    sources = {}
    for name in Settings.model_fields:
        if options.get(name) is not None:
            sources[name] = "the command line"
        elif f"{PREFIX}{name}".lower() in variables:
            sources[name] = variables[f"{PREFIX}{name}".lower()]
        elif name in dotenv_names:
            sources[name] = ".env"
        elif name in aliased:
            sources[name] = aliased[name][1]
        elif name in toml_names:
            sources[name] = "rowcast.toml"
    return sources


def _reject_unknown_variables() -> None:
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        names = tuple(sorted(known))
        hint = did_you_mean(unknown[0].upper(), names) or f"available settings: {', '.join(names)}"
        raise SettingsError(f"unknown setting {', '.join(unknown)} in the environment; {hint}")
