"""`rowcast call`: how its arguments are parsed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rowcast import settings
from rowcast.cli import calling
from rowcast.errors import RowcastError, SettingsError
from rowcast.settings import Settings

ROW = '{"a": 1.50}'


def parse(*words: str) -> tuple[str | None, list[bytes], bool]:
    model, rows, is_single = calling.parse(words)
    return model, [bytes(row) for row in rows], is_single


@pytest.mark.parametrize(
    ("words", "model"), [(("loans", ROW), "loans"), (("loans@2", ROW), "loans@2"), (("-", ROW), None), ((ROW,), None)]
)
def test_the_model_is_optional(words: tuple[str, ...], model: str | None) -> None:
    assert parse(*words) == (model, [ROW.encode()], True)


@pytest.mark.parametrize(
    "text", [f"[{ROW}, {ROW}]", f'{{"rows": [{ROW}, {ROW}]}}', f"{ROW}\n\n{ROW}\n", f"\n[\n{ROW},\n{ROW}\n]\n"]
)
def test_several_rows_can_be_given_as_a_list_an_object_or_json_lines(text: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(text)

    assert parse(f"@{tmp_path / 'rows.json'}") == (None, [ROW.encode(), ROW.encode()], False)


def test_a_list_with_one_row_is_sent_as_a_batch() -> None:
    assert parse(f"[{ROW}]") == (None, [ROW.encode()], False)


@pytest.mark.parametrize(
    "words",
    [
        ("a", "b", ROW),
        ("loans",),
        ("[]",),
        ("[1]", ROW, ROW),
        ("{",),
        ('{"rows": 1}',),
        ("@/no/such/file",),
        (f"{ROW}\n[1]",),
        ('{"a": "\ud800"}',),
    ],
)
def test_the_error_for_invalid_rows_is_a_single_line(words: tuple[str, ...]) -> None:
    with pytest.raises(RowcastError) as failed:
        parse(*words)

    assert "\n" not in failed.value.message


def test_a_file_that_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(b"\xff\xfe")

    with pytest.raises(RowcastError):
        parse(f"@{tmp_path / 'rows.json'}")


def test_the_error_for_an_unreachable_server_includes_a_hint() -> None:
    with pytest.raises(RowcastError) as failed:
        calling.run(Settings(url="http://127.0.0.1:9"), {}, [ROW], 0.01, as_json=True)

    assert "--url" in failed.value.message


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and a key in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROWCAST_API_KEY", "secret-key")
    return tmp_path


def access(**options: str) -> tuple[str, str | None]:
    return calling.server_access(settings.load(**options), settings.origins(**options))


@pytest.mark.parametrize(
    "line", ["ROWCAST_URL=http://attacker.example", "ROWCAST_PORT=9", "ROWCAST_HOST=10.0.0.1", "ROWCAST_ROOT_PATH=/x"]
)
@pytest.mark.parametrize("has_key", [True, False])
def test_a_dotenv_file_does_not_choose_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, has_key: bool
) -> None:
    (folder / ".env").write_text(f"{line}\n")
    if not has_key:
        monkeypatch.delenv("ROWCAST_API_KEY")

    with pytest.raises(SettingsError) as refused:
        access()

    assert f"--url {settings.load().server_url}" in refused.value.message


def test_the_address_in_a_dotenv_file_can_be_confirmed_or_overridden(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("ROWCAST_PORT=9\n")

    assert access(url="http://127.0.0.1:9") == ("http://127.0.0.1:9", "secret-key")
    monkeypatch.setenv("ROWCAST_URL", "http://10.0.0.1")
    assert access() == ("http://10.0.0.1", "secret-key")


def test_a_key_is_not_sent_to_another_machine_named_in_a_config_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "rowcast.toml").write_text('url = "http://attacker.example"\n')
    with pytest.raises(SettingsError):
        access()

    monkeypatch.delenv("ROWCAST_API_KEY")
    assert access() == ("http://attacker.example", None)
    (folder / "rowcast.toml").write_text("port = 9000\n")
    monkeypatch.setenv("ROWCAST_API_KEY", "secret-key")
    assert access() == ("http://127.0.0.1:9000", "secret-key")


def test_the_key_of_another_service_is_not_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROWCAST_API_KEY")
    monkeypatch.setenv("API_KEY", "key-of-another-service")

    assert access() == ("http://127.0.0.1:8000", None)


def test_rows_are_sent_unchanged() -> None:
    _, rows, _ = calling.parse([ROW])

    assert msgspec.json.encode({"rows": rows}) == b'{"rows":[{"a": 1.50}]}'
