"""Compatibility with files written by older releases; `v1/` comes from Rowcast 0.1."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.history import chain
from support import apps, servers
from support.commands import rowcast

V1 = Path(__file__).parent / "v1"
BLOCKS = Path(__file__).parent / "journal-2"
ANSWERS: list[dict[str, Any]] = json.loads((V1 / "answers.json").read_text())
STORED = 30


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of the old home."""
    return Path(shutil.copytree(V1, tmp_path / "home"))


def schema_of(home: Path) -> int:
    with closing(sqlite3.connect(home / "history.db")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_an_old_home_is_verified_and_replayed_without_migration(home: Path) -> None:
    verification = json.loads(rowcast("verify", "--json", "--home", home, cwd=home).stdout)
    replay = json.loads(rowcast("replay", "--json", "--home", home, cwd=home).stdout)

    assert (verification["writers"], verification["entries"], verification["broken"]) == (2, 40, [])
    assert (replay["equal"], replay["different"], replay["not_replayable"]) == (40, 0, 0)
    assert schema_of(home) == 1


async def test_an_old_home_is_served_with_its_history(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    async with apps.serving(home=home) as client:
        for answer in ANSWERS:
            entry = (await client.get(f"/predictions/{answer['id']}")).json()
            assert entry["prediction"] == answer
            again = (await client.post("/predict", json=entry["row"])).json()
            assert again["probability"] == pytest.approx(answer["probability"], abs=1e-6)


def test_a_server_migrates_an_old_store_and_moves_old_journal_entries_into_it(home: Path) -> None:
    with servers.running(home):
        pass

    listed = json.loads(rowcast("history", "list", "--limit", "100", "--json", "--home", home, cwd=home).stdout)
    predictions = {entry["id"]: entry["prediction"] for entry in listed["predictions"]}
    verification = json.loads(rowcast("verify", "--json", "--home", home, cwd=home).stdout)

    assert predictions == {answer["id"]: answer for answer in ANSWERS}
    assert (verification["entries"], verification["broken"]) == (40, [])
    assert list((home / "journal").glob("*.journal")) == []
    assert schema_of(home) > 1


def test_blocks_written_by_an_older_release_expand_into_the_same_entries(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BLOCKS, tmp_path / "journal"))
    expected = json.loads((folder / "entries.json").read_text())
    store = MemoryStore()

    FolderJournalReader(folder).drain(store)

    entries = list(store.chain(expected["writer"]))
    assert [json.loads(entry.row or b"") for entry in entries] == [entry["row"] for entry in expected["entries"]]
    replies = [json.loads(chain.decode_head(entry.head).reply) for entry in entries]
    assert replies == [entry["reply"] for entry in expected["entries"]]
    assert entries[-1].link.hex() == expected["last_link"]
    assert list(chain.verify(expected["writer"], entries)) == []
