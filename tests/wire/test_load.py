"""Wire templates and metadata as files: what JSON cannot hold, and what would never end, is refused in a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rowcast.errors import SettingsError
from rowcast.wire import load as template
from rowcast.wire.shape import Shape

ALIASES = "a0: &a0 [1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)  # 9^11 values when written out


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("bomb.yaml", ALIASES, "holds more than 100000 values"),
        ("itself.yaml", "reply: &a {x: *a}", "more than 64 deep"),
        ("deep.json", '{"reply": ' + "[" * 900 + "]" * 900 + "}", "more than 64 deep"),
        ("half.json", r'{"reply": {"x": "\ud800"}}', "is no Unicode text"),
        ("half_name.json", r'{"reply": {"\ud800": 1}}', "is no Unicode text"),
        ("number.yaml", "labels: {1: yes}", "the name 1 must be text; put it in quotes"),
        ("huge.json", '{"class_index": {"a": ' + "9" * 400 + "}}", "more than 64 bits"),
        ("date.toml", "[reply]\nx = 1979-05-27", "is a date; put it in quotes"),
        ("set.yaml", "reply: !!set {a}", "is a set"),
    ],
)
def test_what_no_template_can_be_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=said):
        template.read(tmp_path / name)


def test_an_alias_that_ends_is_written_out(tmp_path: Path) -> None:
    (tmp_path / "wire.yaml").write_text("reply: &a {label: $label}\nbatch_reply: [*a, *a]\n")

    assert template.read(tmp_path / "wire.yaml")["batch_reply"] == [{"label": "$label"}] * 2


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model_metadata.json")
    with pytest.raises(SettingsError, match="is no file"):
        template.read(tmp_path / "model_metadata.json")


def test_a_path_has_an_end() -> None:
    with pytest.raises(SettingsError, match="16 at most"):
        Shape(".".join("a" * 3000), "", "", "", matrix=False, lax=False)
