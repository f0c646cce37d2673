"""Tables on standard input and standard output, written as `-` on the command line."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rowcast.errors import RowcastError

STREAM = Path("-")
READ_BYTES = 1024 * 1024


@contextmanager
def input_table(path: Path) -> Iterator[Path]:
    """Yield the path of a table. Standard input is first saved in a temporary file, because a table is read twice."""
    if path != STREAM:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="rowcast-") as folder:
        first = sys.stdin.buffer.read(READ_BYTES)
        is_json = first.lstrip()[:1] in (b"{", b"[")
        saved = Path(folder) / f"standard-input{'.jsonl' if is_json else '.csv'}"
        with saved.open("wb") as file:
            file.write(first)
            shutil.copyfileobj(sys.stdin.buffer, file, READ_BYTES)
        yield saved


@contextmanager
def output_table(path: Path) -> Iterator[Path]:
    """Yield the path of an output file. For standard output, write the finished file as CSV."""
    if path != STREAM:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="rowcast-") as folder:
        finished = Path(folder) / "standard-output.csv"
        yield finished
        try:
            with finished.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer, READ_BYTES)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise RowcastError(f"cannot write to standard output: {error.strerror or error}") from None
