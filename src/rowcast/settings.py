"""Settings: command line > environment > `.env` > `rowcast.toml` > default. Only this file reads the environment."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rowcast.access.keys_and_quotas import read_quota
from rowcast.errors import SettingsError

PREFIX = "ROWCAST_"
SHORTEST_KEY = 8
MEBIBYTE = 1024 * 1024


class Alias(NamedTuple):
    """A variable of another system, taken for one of our settings."""

    setting: str
    words: Mapping[str, str] | None = None
    """What each of its values means here; None where a value is taken as it is."""


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
}
"""Names that other systems gave to what is a setting here. Our own name wins, wherever it is given but in a file
rowcast.toml; an empty variable is none. The table in docs/reference/settings.md is made from this one."""
OLD_PUSH_JOB = "loan_model"
"""What the system of `PROM_PUSHGATEWAY` calls its job when nobody says."""


class AliasSource(PydanticBaseSettingsSource):
    """The variables of `ALIASES`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """What a setting is called elsewhere says of it."""
        return _aliased().get(field_name, (None, ""))[0], field_name, False

    def __call__(self) -> dict[str, Any]:
        """The settings that are given under other names."""
        found: dict[str, Any] = {setting: value for setting, (value, _) in _aliased().items()}
        if "push_gateway" in found and "push_gateway" not in self.current_state:
            found.setdefault("push_job", OLD_PUSH_JOB)
        return found


def _aliased() -> dict[str, tuple[str, str]]:
    """Setting to its value and the variable that says so."""
    found = {}
    for variable, alias in ALIASES.items():
        given = os.environ.get(variable, "").strip()
        # To a POSIX shell, ENV is the path of a file that it reads when it starts.
        if given and not (variable == "ENV" and "/" in given):
            value = given if alias.words is None else alias.words.get(given.lower(), given)
            found[alias.setting] = value, variable
    return found


class OwnDotEnv(DotEnvSettingsSource):
    """The `.env` of a folder that other programs share: only names with our prefix are ours to judge."""

    def __call__(self) -> dict[str, Any]:
        """The settings found; an unknown one with our prefix stays, to be refused."""
        fields = self.settings_cls.model_fields
        return {
            key: value for key, value in super().__call__().items() if key in fields or key.startswith(PREFIX.lower())
        }


class Settings(BaseSettings):
    """Every setting with its default; each is `ROWCAST_<NAME>` in the environment and `<name>` in rowcast.toml."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        toml_file="rowcast.toml",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=False,
    )

    home: Path = Field(Path(".rowcast"), description="Folder for everything that has no place of its own.")
    registry: Path | None = Field(None, description="Folder of the published models; HOME/models.")
    journal: Path | None = Field(None, description="Folder of the journals, on a local disk; HOME/journal.")
    store: str | None = Field(None, description="Where history is kept, as a URL; sqlite:///HOME/history.db.")
    durability: Literal["process", "disk", "store"] = Field(
        "process",
        description="What an answered prediction survives: the death of any process, or of the machine; or it waits "
        "until the store has it.",
    )
    retention_days: int | None = Field(None, ge=1, description="Rows older than this are erased; none are.")
    min_free_mb: int = Field(
        200, ge=0, description="Predictions are refused while fewer MiB are free where history is kept."
    )
    sensitive: Literal["keep", "hash", "drop"] = Field(
        "keep", description="What becomes of sensitive columns before a row is kept in history."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(1, ge=1, le=256, description="Processes that answer; above 1 a supervisor looks after them.")
    drain_seconds: float = Field(
        30.0, ge=0, description="Told to stop, how long requests already received may take to be answered."
    )
    insecure: bool = Field(False, description="Listen beyond this machine without any key.")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Models to serve, by comma: NAME, NAME@3 or NAME@alias; every champion."
    )
    default_model: str | None = Field(None, description="What POST /predict means; the only model, or the first named.")
    root_path: str = Field(
        "", pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="Prefix of every address behind a proxy, such as /api."
    )
    api_key: SecretStr | None = Field(
        None, description="One key that may do everything, beside those of `rowcast keys`."
    )
    quota: str | None = Field(
        None,
        description="Rows that each key without a quota of its own may ask for, or each address where no key is "
        "needed, such as 100/60s.",
    )
    url: str | None = Field(
        None, description="Where `rowcast call` finds the server; http://127.0.0.1:PORT and the prefix."
    )
    open_metrics: bool = Field(False, description="Show /metrics without a key.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may ask, by comma, such as https://app.example.com; `*` for all."
    )
    max_body_bytes: int = Field(4 * MEBIBYTE, ge=1024, description="Largest request body.")
    max_rows: int = Field(10_000, ge=1, description="Most rows in one request.")
    max_waiting_rows: int = Field(20_000, ge=1, description="Rows that may wait before new requests get 503.")
    max_wait_seconds: float = Field(
        10.0, gt=0, description="A request that has waited longer gets 503 and is not scored."
    )
    max_connections: int = Field(20_000, ge=1, description="Open connections; idle ones give way to new ones.")
    receive_seconds: float = Field(30.0, gt=0, description="For a whole request to arrive, from its first byte.")
    idle_seconds: float = Field(75.0, gt=0, description="A connection may wait for its next request.")
    idempotency_seconds: float = Field(
        86_400.0, gt=0, description="Replies to requests with an Idempotency-Key are kept."
    )
    cache: bool = Field(False, description="Remember outcomes by row; pays for slow models.")
    cache_entries: int = Field(100_000, ge=1, description="Outcomes that each worker remembers, about 0.5 KB each.")
    cache_seconds: float = Field(3600.0, gt=0, description="An outcome is remembered.")
    models_dir: Path | None = Field(
        None,
        description="Folder whose ONNX files with metadata are imported at the start and by reload.",
    )
    max_model_mb: int = Field(512, ge=1, description="Largest model graph that a running server takes up.")
    max_model_nodes: int = Field(10_000, ge=1, description="Most nodes of a graph that is imported.")
    trial_memory_mb: int = Field(
        2048, ge=128, description="Memory that a new version may use when it is tried in a process of its own."
    )
    trial_seconds: float = Field(60.0, gt=0, description="Time that this trial may take.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level to log.")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else JSON.")
    access_log: bool = Field(False, description="Log a line a request: its route, status and time, never its content.")
    metrics_aliases: bool = Field(
        False, description="Export the metric names of the systems that Rowcast replaces beside ours."
    )
    push_gateway: str | None = Field(
        None,
        description="Prometheus Pushgateway that metrics are pushed to: its address, or a whole URL with "
        "/metrics/job/... that is posted to as it is.",
    )
    push_username: str | None = Field(None, description="Name to give to the Pushgateway.")
    push_password: SecretStr | None = Field(None, description="Password to give to the Pushgateway.")
    push_job: str = Field(
        "rowcast", pattern=r"^[^/\s]+$", description="Job in the Pushgateway, where `push_gateway` names none."
    )
    push_seconds: float = Field(15.0, gt=0, description="Time between two pushes.")
    otel_endpoint: str | None = Field(
        None, description="OpenTelemetry collector that gets a span a request over OTLP/HTTP; needs rowcast[otel]."
    )
    otel_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of requests that get a span, unless their caller's trace decides."
    )

    @field_validator("models", "cors_origins", mode="before")
    @classmethod
    def split(cls, value: object) -> object:
        """A list by comma, as a variable holds it."""
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
        """The order in which the sources win."""
        own = init_settings, env_settings, OwnDotEnv(settings_cls)
        return *own, AliasSource(settings_cls), TomlConfigSettingsSource(settings_cls)

    @property
    def registry_folder(self) -> Path:
        """Where the published models are."""
        return (self.registry or self.home / "models").absolute()

    @property
    def listens_locally(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def server_url(self) -> str:
        """Where the server of these settings is asked from this machine."""
        anywhere = self.host in ("0.0.0.0", "::", "")  # noqa: S104 - asked, not listened on
        host = "127.0.0.1" if anywhere else f"[{self.host}]" if ":" in self.host else self.host
        return self.url or f"http://{host}:{self.port}{self.root_path}"

    @property
    def keys_file(self) -> Path:
        """Where the API keys are."""
        return self.home / "keys.json"

    @property
    def repeats_file(self) -> Path:
        """Where replies to repeated requests are kept: in the store's folder."""
        scheme, _, path = self.store_url.partition(":///")
        return (Path(path).parent if scheme == "sqlite" and path else self.home) / "repeats.db"

    @property
    def journal_folder(self) -> Path:
        """Where the journals are."""
        return self.journal or self.home / "journal"

    @property
    def run_folder(self) -> Path:
        """Where running servers keep what their workers share."""
        return (self.home / "run").absolute()

    @property
    def store_url(self) -> str:
        """Where history is kept."""
        return self.store or f"sqlite:///{(self.home / 'history.db').absolute()}"

    @property
    def history_key_file(self) -> Path:
        """The secret with which sensitive columns are hashed."""
        return self.home / "history.key"

    def for_child(self) -> dict[str, str]:
        """An environment in which a child process comes to the same history."""
        retention = {} if self.retention_days is None else {f"{PREFIX}RETENTION_DAYS": str(self.retention_days)}
        return {
            **os.environ,
            **retention,
            f"{PREFIX}DURABILITY": self.durability,
            f"{PREFIX}HOME": str(self.home.absolute()),
            f"{PREFIX}REGISTRY": str(self.registry_folder),
            f"{PREFIX}JOURNAL": str(self.journal_folder.absolute()),
            f"{PREFIX}STORE": self.store_url,
            f"{PREFIX}LOG_FORMAT": self.log_format,
            f"{PREFIX}LOG_LEVEL": self.log_level,
        }


def load(**given: Any) -> Settings:
    """The settings that hold now; `given` are those of the command line, None meaning not given."""
    _refuse_unknown_variables()
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(_explained(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"rowcast.toml cannot be read: {error}") from None
    except ValueError as error:  # a variable that is no JSON where JSON is needed
        raise SettingsError(f"the settings cannot be read: {error}") from None
    _judge(settings)
    return settings


def _judge(settings: Settings) -> None:
    """What no single field can know."""
    for name, folder in (("home", settings.home), ("registry", settings.registry), ("journal", settings.journal)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise SettingsError(f"setting {name!r} is {str(folder)!r}, which is a file; it must be a folder")
    if settings.quota is not None:
        read_quota(settings.quota)
    for name, url in (("push_gateway", settings.push_gateway), ("otel_endpoint", settings.otel_endpoint)):
        if url is not None:
            _expect_address(name, url)
    if (settings.push_username is None) != (settings.push_password is None):
        raise SettingsError("settings 'push_username' and 'push_password' are only good together; give both")
    if settings.api_key is not None and len(settings.api_key.get_secret_value()) < SHORTEST_KEY:
        raise SettingsError(f"setting 'api_key' is shorter than {SHORTEST_KEY} characters; choose a longer one")


def origins(**given: Any) -> dict[str, str]:
    """Where each setting that is not left at its default was said, in the order in which sources win."""
    from_dotenv, from_toml = (
        {name.lower().removeprefix(PREFIX.lower()) for name in source(Settings)()}
        for source in (OwnDotEnv, TomlConfigSettingsSource)
    )
    variables = {name.lower(): name for name, value in os.environ.items()}
    aliased = _aliased()
    found = {}
    for name in Settings.model_fields:
        if given.get(name) is not None:
            found[name] = "the command line"
        elif f"{PREFIX}{name}".lower() in variables:
            found[name] = variables[f"{PREFIX}{name}".lower()]
        elif name in from_dotenv:
            found[name] = ".env"
        elif name in aliased:
            found[name] = aliased[name][1]
        elif name in from_toml:
            found[name] = "rowcast.toml"
    return found


def _expect_address(name: str, url: str) -> None:
    shown = repr(url.rpartition("@")[2])  # what stands before an @ may be a password
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SettingsError(f"setting {name!r} is {shown}, which is no address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SettingsError(f"setting {name!r} is {shown}: it must be http://HOST:PORT or https://HOST")
    if parts.username or parts.password:
        raise SettingsError(f"setting {name!r} carries a name or password; give them apart, they would be logged")


def _refuse_unknown_variables() -> None:
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(
            f"unknown setting {', '.join(unknown)} in the environment; known are {', '.join(sorted(known))}"
        )


def _explained(error: ValidationError) -> str:
    sentences = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            sentences.append(f"unknown setting {name!r}")
            continue
        hint = ""
        if name == "port" and str(problem["input"]).startswith("tcp://"):
            hint = " (Kubernetes injects it for a Service named rowcast: set enableServiceLinks: false)"
        if name in _aliased() and problem["input"] == _aliased()[name][0]:
            variable = _aliased()[name][1]
            words = ALIASES[variable].words
            choice = f"; it may be {', '.join(words)}" if words else ""
            hint = f" (from {variable}{choice}; {PREFIX}{name.upper()} is asked first)"
        sentences.append(f"setting {name!r} is {problem['input']!r}: {problem['msg']}{hint}")
    return "; ".join(sentences)
