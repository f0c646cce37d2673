"""Documents are read from mappings, JSON strings and regular files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rowcast.app.documents import MAX_BYTES, read_document
from rowcast.errors import DocumentError


def test_a_document_can_be_a_mapping_or_a_json_string_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "w.YAML"
    path.write_text("\ufeffreply: 1", encoding="utf-8")

    assert read_document({"reply": 1}) == read_document('{"reply": 1}') == read_document(path) == {"reply": 1}


@pytest.mark.parametrize(
    ("name", "content", "slug"),
    [
        ("w.txt", b"", "unknown-suffix"),
        ("w.json", b"\xff", "not-utf-8"),
        ("w.toml", b"#" * (MAX_BYTES + 1), "too-large"),
        ("w.json", b"[1]", "not-a-mapping"),
    ],
)
def test_an_unsupported_or_invalid_file_is_rejected(tmp_path: Path, name: str, content: bytes, slug: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DocumentError) as caught:
        read_document(path)

    assert caught.value.slug == slug
    assert str(path) in str(caught.value)


def test_a_missing_file_is_reported_as_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as caught:
        read_document(tmp_path / "none.json")

    assert caught.value.slug == "unreadable"


def test_reading_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model_metadata.json")

    with pytest.raises(DocumentError) as caught:
        read_document(tmp_path / "model_metadata.json", "metadata document")

    assert caught.value.slug == "not-a-file"
