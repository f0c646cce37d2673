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
