"""`rowcast call`: how its arguments are parsed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rowcast.cli import calling
from rowcast.errors import RowcastError
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
    settings = Settings(url="http://127.0.0.1:9")

    with pytest.raises(RowcastError) as failed:
        calling.run(settings, [ROW], 0.01, as_json=True)

    assert "--url" in failed.value.message


def test_rows_are_sent_unchanged() -> None:
    _, rows, _ = calling.parse([ROW])

    assert msgspec.json.encode({"rows": rows}) == b'{"rows":[{"a": 1.50}]}'
