"""Encode the frames of a file as chunks that can be stored and later joined into the file. Identical frames produce
identical chunks, and identical chunks produce identical files.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from rowcast.tables.write import COLUMNAR_WRITERS, LINE_WRITERS, extension, open_writer, prepare_frame


def encode_piece(frame: pl.DataFrame, suffix: str, *, first: bool) -> bytes:
    """Encode a frame as a chunk of a CSV or JSON Lines file or, if the format is columnar, as an Arrow file."""
    if suffix in COLUMNAR_WRITERS:
        buffer = io.BytesIO()
        frame.write_ipc(buffer)
        return buffer.getvalue()
    piece: bytes = prepare_frame(suffix, frame, first=first)
    return piece


def join_pieces(pieces: Iterable[bytes], path: Path) -> None:
    """Join chunks into a file, whose extension determines the format."""
    if extension(path) in LINE_WRITERS:
        with path.open("wb") as file:
            file.writelines(pieces)
        return
    with open_writer(path) as writer:
        for piece in pieces:
            writer.append(pl.read_ipc(io.BytesIO(piece)))
