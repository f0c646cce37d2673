"""Settings: sources, precedence, and errors for unknown names and invalid values."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast import settings
from rowcast.errors import SettingsError
from rowcast.setting_aliases import ALIASES


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder and remove all settings from the environment."""
    import os

    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_setting_has_a_default() -> None:
    loaded = settings.load()

    assert (loaded.host, loaded.port, loaded.durability, loaded.insecure) == ("127.0.0.1", 8000, "process", False)
    assert loaded.registry_folder.absolute() == Path.cwd() / ".rowcast" / "models"
    assert loaded.journal_folder.absolute() == Path.cwd() / ".rowcast" / "journal"
    assert loaded.store_url == f"sqlite:///{Path.cwd()}/.rowcast/history.db"


def test_each_source_of_settings_overrides_the_previous_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "rowcast.toml").write_text("port = 1\n")
    assert settings.load().port == 1
    (folder / ".env").write_text("ROWCAST_PORT=2\n")
    assert settings.load().port == 2
    monkeypatch.setenv("ROWCAST_PORT", "3")
    assert settings.load().port == 3
    assert settings.load(port=4).port == 4
    assert settings.load(port=None).port == 3


def test_folders_can_be_outside_the_home_folder() -> None:
    loaded = settings.load(home=Path("/h"), registry=Path("/r"), store="sqlite:////s.db")

    assert (loaded.registry_folder, loaded.journal_folder, loaded.store_url) == (
        Path("/r"),
        Path("/h/journal"),
        "sqlite:////s.db",
    )


@pytest.mark.parametrize("name", ["ROWCAST_PROT", "rowcast_prot", "ROWCAST_"])
def test_an_unknown_variable_is_rejected(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")

    with pytest.raises(SettingsError, match=name):
        settings.load()


def test_an_unknown_key_in_toml_is_rejected(folder: Path) -> None:
    (folder / "rowcast.toml").write_text("prot = 1\n")

    with pytest.raises(SettingsError, match="'prot'"):
        settings.load()


def test_an_unknown_name_in_a_dotenv_file_is_rejected(folder: Path) -> None:
    (folder / ".env").write_text("ROWCAST_PROT=1\n")

    with pytest.raises(SettingsError, match=r"(?i)rowcast_prot"):
        settings.load()


def test_a_dotenv_file_can_contain_variables_of_other_programs(folder: Path) -> None:
    (folder / ".env").write_text("DATABASE_PASSWORD=swordfish\nROWCAST_PORT=2\n")

    assert settings.load().port == 2


def test_all_errors_are_reported_on_one_line(folder: Path) -> None:
    (folder / "rowcast.toml").write_text('port = "high"\ndurability = "forever"\nprot = 1\n')

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert all(name in caught.value.message for name in ("'port'", "'durability'", "'prot'"))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("max_body_bytes", 10),
        ("max_rows", 0),
        ("log_level", "loud"),
        ("log_format", "xml"),
    ],
)
def test_the_error_for_an_invalid_value_names_the_setting(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"'{name}'"):
        settings.load(**{name: value})


def test_the_error_for_a_port_variable_injected_by_kubernetes_explains_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROWCAST_PORT", "tcp://10.1.2.3:8000")

    with pytest.raises(SettingsError, match="enableServiceLinks"):
        settings.load()


def test_invalid_toml_is_rejected(folder: Path) -> None:
    (folder / "rowcast.toml").write_text("port: 1\n")

    with pytest.raises(SettingsError, match=r"rowcast\.toml"):
        settings.load()


def test_a_child_process_uses_the_same_history_as_its_parent(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    parent = settings.load(home=Path("relative"), log_level="error", ray_address="ray://head:10001")

    environment = parent.for_child()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    child = settings.load()

    assert child.journal_folder == folder / "relative" / "journal"
    assert child.store_url == f"sqlite:///{folder}/relative/history.db"
    assert child.log_level == "error"
    assert child.ray_address == "ray://head:10001"


def test_settings_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings.load().port = 1


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in settings.Settings.model_fields.items() if not field.description] == []


def test_model_names_in_a_variable_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_MODELS", "loans@2, churn")

    assert settings.load().models == ("loans@2", "churn")


@pytest.mark.parametrize("prefix", ["api", "/api/", "/a b", "//"])
def test_an_invalid_root_path_is_rejected(prefix: str) -> None:
    with pytest.raises(SettingsError, match="root_path"):
        settings.load(root_path=prefix)


@pytest.fixture
def no_aliases(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Remove all aliases from the environment."""
    for name in ALIASES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variable", "value", "setting", "expected"),
    [
        ("LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("LOG_LEVEL", "warn", "log_level", "warning"),
        ("ENV", "production", "log_format", "json"),
        ("ENV", "Development", "log_format", "text"),
        ("PROM_PUSHGATEWAY", "https://push.example.com/x", "push_gateway", "https://push.example.com/x"),
        ("PROM_PUSHJOB", "nightly", "push_job", "nightly"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318", "otel_endpoint", "http://otel:4318"),
        ("REDIS_URL", "redis://redis:6379/0", "cache", "redis://redis:6379/0"),
        ("REDIS_MAXMEMORY", "256mb", "redis_maxmemory", "256mb"),
        ("REDIS_POLICY", "allkeys-lru", "redis_policy", "allkeys-lru"),
    ],
)
def test_variables_of_other_systems_are_aliases_of_settings(
    no_aliases: pytest.MonkeyPatch, variable: str, value: str, setting: str, expected: str
) -> None:
    no_aliases.setenv(variable, value)

    assert getattr(settings.load(), setting) == expected
    assert settings.origins()[setting] == variable


def test_every_alias_refers_to_a_setting() -> None:
    assert {alias.setting for alias in ALIASES.values()} <= settings.Settings.model_fields.keys()


def test_the_rowcast_variable_of_a_setting_overrides_its_alias(no_aliases: pytest.MonkeyPatch, folder: Path) -> None:
    no_aliases.setenv("LOG_LEVEL", "error")
    (folder / "rowcast.toml").write_text('log_level = "info"\n')
    assert settings.load().log_level == "error"
    (folder / ".env").write_text("ROWCAST_LOG_LEVEL=debug\n")
    assert (settings.load().log_level, settings.origins()["log_level"]) == ("debug", ".env")
    no_aliases.setenv("ROWCAST_LOG_LEVEL", "warning")
    assert (settings.load().log_level, settings.origins()["log_level"]) == ("warning", "ROWCAST_LOG_LEVEL")
    no_aliases.setenv("LOG_LEVEL", "nonsense")
    assert settings.load(log_level="info").log_level == "info"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [("ENV", "moon", "production, prod"), ("LOG_LEVEL", "loud", "debug, trace")],
)
def test_an_invalid_value_of_an_alias_is_rejected(
    no_aliases: pytest.MonkeyPatch, variable: str, value: str, allowed: str
) -> None:
    no_aliases.setenv(variable, value)

    with pytest.raises(
        SettingsError, match=f"'{value}'.*from {variable}; .* takes precedence over it; allowed values: {allowed}"
    ):
        settings.load()


def test_an_empty_alias_is_ignored(no_aliases: pytest.MonkeyPatch) -> None:
    no_aliases.setenv("API_KEY", "")
    no_aliases.setenv("ENV", " ")  # shells use ENV for the path of a startup file
    assert settings.load().log_format == "auto"
    no_aliases.setenv("ENV", "/etc/shrc")

    assert (settings.load().api_key, settings.load().log_format) == (None, "auto")


def test_the_api_key_variable_without_the_prefix_is_an_alias(no_aliases: pytest.MonkeyPatch) -> None:
    def key() -> str:
        secret = settings.load().api_key
        assert secret is not None
        return secret.get_secret_value()

    no_aliases.setenv("API_KEY", "old-api-key")
    assert key() == "old-api-key"
    no_aliases.setenv("ROWCAST_API_KEY", "new-api-key")
    assert key() == "new-api-key"


def test_only_the_alias_of_the_push_gateway_setting_changes_the_default_push_job(
    no_aliases: pytest.MonkeyPatch,
) -> None:
    no_aliases.setenv("PROM_PUSHGATEWAY", "http://old:9091")
    assert settings.load().push_job == "loan_model"
    assert settings.load(push_job="nightly").push_job == "nightly"
    no_aliases.setenv("ROWCAST_PUSH_GATEWAY", "http://ours:9091")
    assert (settings.load().push_gateway, settings.load().push_job) == ("http://ours:9091", "rowcast")


@pytest.mark.parametrize("url", ["push:9091", "ftp://push", "http://", "http://push:no", "http://push:0"])
@pytest.mark.parametrize("name", ["push_gateway", "otel_endpoint"])
def test_an_invalid_url_is_rejected(no_aliases: pytest.MonkeyPatch, name: str, url: str) -> None:
    with pytest.raises(SettingsError, match=name):
        settings.load(**{name: url})


def test_a_password_in_a_url_is_rejected_and_not_shown_in_the_error(no_aliases: pytest.MonkeyPatch) -> None:
    for url in ("http://me:swordfish@push:9091", "ftp://me:swordfish@push"):
        with pytest.raises(SettingsError) as caught:
            settings.load(push_gateway=url)
        assert "swordfish" not in caught.value.message


@pytest.mark.parametrize("variable", ["ROWCAST_PUSH_PASSWORD", "PROM_API_KEY"])
def test_a_dotenv_file_does_not_choose_who_receives_the_push_password(
    tmp_path: Path, no_aliases: pytest.MonkeyPatch, variable: str
) -> None:
    no_aliases.chdir(tmp_path)
    no_aliases.setenv(variable, "swordfish")
    no_aliases.setenv("ROWCAST_PUSH_USERNAME", "me")
    (tmp_path / ".env").write_text("ROWCAST_PUSH_GATEWAY=http://attacker.example:9091\n")

    with pytest.raises(SettingsError, match=r"\.env"):
        settings.load()

    no_aliases.setenv("ROWCAST_PUSH_GATEWAY", "http://push:9091")
    assert settings.load().push_gateway == "http://push:9091"


def test_a_user_name_without_a_password_is_rejected(no_aliases: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="push_password"):
        settings.load(push_username="me")


@pytest.mark.parametrize(
    ("text", "cache"),
    [
        ("true", "memory"),
        ("1", "memory"),
        ("ON", "memory"),
        ("memory", "memory"),
        ("false", "off"),
        ("0", "off"),
        ("no", "off"),
        ("off", "off"),
        ("redis://h", "redis://h"),
        ("rediss://user:pass@h:6380/1?ssl_ca_certs=/ca.pem", "rediss://user:pass@h:6380/1?ssl_ca_certs=/ca.pem"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
    ],
)
def test_the_cache_is_off_in_memory_or_in_redis(
    no_aliases: pytest.MonkeyPatch, folder: Path, text: str, cache: str
) -> None:
    no_aliases.setenv("ROWCAST_CACHE", text)
    assert settings.load().cache == cache
    no_aliases.delenv("ROWCAST_CACHE")
    (folder / "rowcast.toml").write_text(f"cache = {text}\n" if text in ("true", "false") else f'cache = "{text}"\n')
    assert settings.load().cache == cache


def test_the_redis_alias_applies_only_to_the_cache(no_aliases: pytest.MonkeyPatch) -> None:
    no_aliases.setenv("REDIS_URL", "redis://h")

    assert (settings.load().cache, settings.load().quotas) == ("redis://h", None)


@pytest.mark.parametrize("name", ["cache", "quotas"])
@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis://",
        "redis://:s3cret@h:port",
        "redis://:s3cret@h/x",
        "redis://:s3c/s3cret@h",
        "redis://h?password=x",
        "redis://h?db=one",
        "redis://h?ssl_ca_certs=/ca.pem",
        "rediss://h?ssl_cert_reqs=maybe",
        "redis:s3cret@h",
        "s3cret@h",
        "unix://",
        "yess",
        "redis://:s3cret@h:0",
    ],
)
def test_an_invalid_redis_url_is_rejected_without_its_password(
    no_aliases: pytest.MonkeyPatch, name: str, url: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        settings.load(**{name: url})

    assert repr(name) in refused.value.message
    assert "s3c" not in refused.value.message


def test_the_text_form_of_the_settings_contains_no_redis_url(no_aliases: pytest.MonkeyPatch) -> None:
    assert "s3cret" not in repr(settings.load(cache="redis://:s3cret@h", quotas="redis://:s3cret@h"))


@pytest.mark.parametrize("size", ["", "many", "-1", "1.5gb", "256 mb", "1tb"])
def test_an_invalid_memory_limit_is_rejected(no_aliases: pytest.MonkeyPatch, size: str) -> None:
    with pytest.raises(SettingsError, match="redis_maxmemory"):
        settings.load(redis_maxmemory=size)
