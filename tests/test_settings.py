"""Settings: where they come from, which one wins, and that no typo is swallowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast import settings
from rowcast.errors import SettingsError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in: no rowcast.toml, no .env, no variables."""
    import os

    for name in [name for name in os.environ if name.startswith(settings.PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_the_defaults_hold() -> None:
    found = settings.load()

    assert (found.host, found.port, found.durability, found.insecure) == ("127.0.0.1", 8000, "process", False)
    assert found.registry_folder.absolute() == Path.cwd() / ".rowcast" / "models"
    assert found.journal_folder.absolute() == Path.cwd() / ".rowcast" / "journal"
    assert found.store_url == f"sqlite:///{Path.cwd()}/.rowcast/history.db"


def test_each_source_wins_over_the_one_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "rowcast.toml").write_text("port = 1\n")
    assert settings.load().port == 1
    (folder / ".env").write_text("ROWCAST_PORT=2\n")
    assert settings.load().port == 2
    monkeypatch.setenv("ROWCAST_PORT", "3")
    assert settings.load().port == 3
    assert settings.load(port=4).port == 4
    assert settings.load(port=None).port == 3


def test_parts_can_be_moved_out_of_the_home() -> None:
    found = settings.load(home=Path("/h"), registry=Path("/r"), store="sqlite:////s.db")

    assert (found.registry_folder, found.journal_folder, found.store_url) == (
        Path("/r"),
        Path("/h/journal"),
        "sqlite:////s.db",
    )


@pytest.mark.parametrize("name", ["ROWCAST_PROT", "rowcast_prot", "ROWCAST_"])
def test_an_unknown_variable_is_a_mistake(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")

    with pytest.raises(SettingsError, match=f"unknown setting {name}.*ROWCAST_PORT"):
        settings.load()


def test_an_unknown_key_is_a_mistake(folder: Path) -> None:
    (folder / "rowcast.toml").write_text("prot = 1\n")

    with pytest.raises(SettingsError, match="'prot'"):
        settings.load()


def test_an_unknown_name_in_dotenv_is_a_mistake(folder: Path) -> None:
    (folder / ".env").write_text("ROWCAST_PROT=1\n")

    with pytest.raises(SettingsError, match=r"(?i)rowcast_prot"):
        settings.load()


def test_dotenv_may_hold_what_other_programs_read(folder: Path) -> None:
    (folder / ".env").write_text("DATABASE_PASSWORD=swordfish\nROWCAST_PORT=2\n")

    assert settings.load().port == 2


def test_every_mistake_is_told_at_once(folder: Path) -> None:
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
def test_a_value_out_of_bounds_is_named(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"'{name}'"):
        settings.load(**{name: value})


def test_the_variable_that_kubernetes_injects_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_PORT", "tcp://10.1.2.3:8000")

    with pytest.raises(SettingsError, match="enableServiceLinks"):
        settings.load()


def test_toml_that_is_none_is_named(folder: Path) -> None:
    (folder / "rowcast.toml").write_text("port: 1\n")

    with pytest.raises(SettingsError, match=r"rowcast\.toml"):
        settings.load()


def test_a_child_process_comes_to_the_same_history(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    ours = settings.load(home=Path("relative"), log_level="error")

    child = ours.for_child()
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    for name, value in child.items():
        monkeypatch.setenv(name, value)
    theirs = settings.load()

    assert theirs.journal_folder == folder / "relative" / "journal"
    assert theirs.store_url == f"sqlite:///{folder}/relative/history.db"
    assert theirs.log_level == "error"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings.load().port = 1


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in settings.Settings.model_fields.items() if not field.description] == []


def test_models_in_a_variable_are_a_list_by_comma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_MODELS", "loans@2, churn")

    assert settings.load().models == ("loans@2", "churn")


@pytest.mark.parametrize("prefix", ["api", "/api/", "/a b", "//"])
def test_a_prefix_that_is_no_path_is_a_mistake(prefix: str) -> None:
    with pytest.raises(SettingsError, match="root_path"):
        settings.load(root_path=prefix)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable of another system is set."""
    for name in settings.ALIASES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variable", "value", "setting", "meant"),
    [
        ("LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("LOG_LEVEL", "warn", "log_level", "warning"),
        ("ENV", "production", "log_format", "json"),
        ("ENV", "Development", "log_format", "text"),
        ("PROM_PUSHGATEWAY", "https://push.example.com/x", "push_gateway", "https://push.example.com/x"),
        ("PROM_PUSHJOB", "nightly", "push_job", "nightly"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318", "otel_endpoint", "http://otel:4318"),
    ],
)
def test_names_of_other_systems_are_taken(
    plain: pytest.MonkeyPatch, variable: str, value: str, setting: str, meant: str
) -> None:
    plain.setenv(variable, value)

    assert getattr(settings.load(), setting) == meant
    assert settings.origins()[setting] == variable


def test_every_other_name_means_a_setting() -> None:
    assert {alias.setting for alias in settings.ALIASES.values()} <= settings.Settings.model_fields.keys()


def test_our_own_name_wins_over_that_of_another_system(plain: pytest.MonkeyPatch, folder: Path) -> None:
    plain.setenv("LOG_LEVEL", "error")
    (folder / "rowcast.toml").write_text('log_level = "info"\n')
    assert settings.load().log_level == "error"
    (folder / ".env").write_text("ROWCAST_LOG_LEVEL=debug\n")
    assert (settings.load().log_level, settings.origins()["log_level"]) == ("debug", ".env")
    plain.setenv("ROWCAST_LOG_LEVEL", "warning")
    assert (settings.load().log_level, settings.origins()["log_level"]) == ("warning", "ROWCAST_LOG_LEVEL")
    plain.setenv("LOG_LEVEL", "nonsense")
    assert settings.load(log_level="info").log_level == "info"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("ENV", "moon", "production, prod"), ("LOG_LEVEL", "loud", "debug, trace")],
)
def test_a_value_that_another_systems_name_cannot_have_is_named(
    plain: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    plain.setenv(variable, value)

    with pytest.raises(SettingsError, match=f"'{value}'.*from {variable}; it may be {words}"):
        settings.load()


def test_an_empty_variable_of_another_system_is_none(plain: pytest.MonkeyPatch) -> None:
    plain.setenv("API_KEY", "")
    plain.setenv("ENV", " ")  # and a path is for the shell, which reads that file
    assert settings.load().log_format == "auto"
    plain.setenv("ENV", "/etc/shrc")

    assert (settings.load().api_key, settings.load().log_format) == (None, "auto")


def test_a_key_is_taken_by_its_old_name_unless_ours_is_given(plain: pytest.MonkeyPatch) -> None:
    def key() -> str:
        found = settings.load().api_key
        assert found is not None
        return found.get_secret_value()

    plain.setenv("API_KEY", "of-the-old-system")
    assert key() == "of-the-old-system"
    plain.setenv("ROWCAST_API_KEY", "of-this-system")
    assert key() == "of-this-system"


def test_the_old_gateway_brings_the_old_job_and_ours_does_not(plain: pytest.MonkeyPatch) -> None:
    plain.setenv("PROM_PUSHGATEWAY", "http://old:9091")
    assert settings.load().push_job == "loan_model"
    assert settings.load(push_job="nightly").push_job == "nightly"
    plain.setenv("ROWCAST_PUSH_GATEWAY", "http://ours:9091")
    assert (settings.load().push_gateway, settings.load().push_job) == ("http://ours:9091", "rowcast")


@pytest.mark.parametrize("url", ["push:9091", "ftp://push", "http://", "http://push:no", "http://push:0"])
@pytest.mark.parametrize("name", ["push_gateway", "otel_endpoint"])
def test_an_address_that_is_none_is_a_mistake(plain: pytest.MonkeyPatch, name: str, url: str) -> None:
    with pytest.raises(SettingsError, match=name):
        settings.load(**{name: url})


def test_a_password_in_an_address_is_refused_and_not_repeated(plain: pytest.MonkeyPatch) -> None:
    for url in ("http://me:swordfish@push:9091", "ftp://me:swordfish@push"):
        with pytest.raises(SettingsError) as caught:
            settings.load(push_gateway=url)
        assert "swordfish" not in caught.value.message


def test_half_of_a_login_is_a_mistake(plain: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="give both"):
        settings.load(push_username="me")
