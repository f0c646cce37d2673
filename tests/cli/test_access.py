"""`rowcast keys`: its output and its changes to the key file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rowcast import settings
from rowcast.cli import access
from rowcast.cli.access import KeyOptions
from rowcast.errors import RowcastError

OPTIONS = KeyOptions("backend", "predict,read", "acme", ("loans",), "90d", "100/60s")


class Keys:
    """Runs the commands with `--json` and parses their output."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.settings = settings.load(home=home)
        self._capsys = capsys

    def document(self) -> Any:
        return json.loads(self._capsys.readouterr().out)

    def create(self, options: KeyOptions = OPTIONS) -> Any:
        access.create(self.settings, options, as_json=True)
        return self.document()

    def list(self) -> Any:
        access.show(self.settings, as_json=True)
        return self.document()["keys"]


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.chdir(tmp_path)
    return Keys(tmp_path / "home", capsys)


def test_a_created_key_is_listed_with_its_options_but_without_its_secret(keys: Keys) -> None:
    created = keys.create()
    (listed,) = keys.list()

    assert created["key"].startswith(f"rk_{created['id']}_")
    assert (listed["name"], listed["scopes"], listed["tenant"]) == ("backend", ["predict", "read"], "acme")
    assert (listed["models"], listed["quota"], listed["state"]) == (["loans"], "100/60s", "active")
    assert listed.items() == {name: value for name, value in created.items() if name != "key"}.items()


def test_only_the_secret_is_printed_to_standard_output(keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    access.create(keys.settings, OPTIONS, as_json=False)

    printed = capsys.readouterr()
    assert printed.out.startswith("rk_")
    assert printed.out.count("\n") == 1
    assert "backend" in printed.err


def test_a_key_can_be_revoked_by_name(keys: Keys) -> None:
    created = keys.create()

    access.revoke(keys.settings, "backend", as_json=True)

    assert keys.document() == {"id": created["id"], "name": "backend", "state": "revoked"}
    assert [key["state"] for key in keys.list()] == ["revoked"]


def test_a_rotated_key_has_a_new_secret_and_the_same_id(keys: Keys) -> None:
    created = keys.create()

    access.rotate(keys.settings, created["id"], "1h", as_json=True)
    rotated = keys.document()

    assert rotated["id"] == created["id"]
    assert rotated["key"] != created["key"]
    assert rotated["old_key_until"] is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"scopes": "write"},
        {"tenant": "A B"},
        {"models": ("Not a name",)},
        {"expires": "soon"},
        {"quota": "many"},
        {"name": ""},
    ],
)
def test_no_key_is_created_if_an_option_is_invalid(keys: Keys, changes: dict[str, Any]) -> None:
    with pytest.raises(RowcastError):
        access.create(keys.settings, OPTIONS._replace(**changes), as_json=True)

    assert keys.list() == []
