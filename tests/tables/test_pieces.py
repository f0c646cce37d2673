"""Chunks of a file: identical frames produce identical bytes, and the joined file contains all frames."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rowcast.tables.pieces import encode_piece, join_pieces
from rowcast.tables.read import read_table

FRAMES = [pl.DataFrame({"a": [n, n + 1], "b": ["x", None]}) for n in range(5)]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet"])
def test_the_joined_file_contains_the_rows_of_all_frames(tmp_path: Path, ending: str) -> None:
    pieces = [encode_piece(frame, f".{ending}", first=index == 0) for index, frame in enumerate(FRAMES)]

    join_pieces(pieces, tmp_path / f"out.{ending}")
    join_pieces(pieces, tmp_path / f"again.{ending}")

    frame = read_table(tmp_path / f"out.{ending}").frame
    assert frame.cast({"a": pl.Int64}).equals(pl.concat(FRAMES))
    assert (tmp_path / f"out.{ending}").read_bytes() == (tmp_path / f"again.{ending}").read_bytes()


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".jsonl", ".parquet"])
def test_identical_frames_have_identical_chunks(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encode_piece(FRAMES[0], ending, first=True)
    monkeypatch.setattr("time.time", lambda: 1e9)  # a gzip header can contain the time

    assert encode_piece(FRAMES[0].clone(), ending, first=True) == first
