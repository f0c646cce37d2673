"""Add predictions to tables, and write tables to files frame by frame.

The file name extension determines the format.
"""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import IO, Any, Final, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.io.plugins import register_io_source

from rowcast.errors import TableError
from rowcast.schema.prediction import Decision
from rowcast.schema.scores import winning_classes
from rowcast.tables.packed import unpacked_name


def with_predictions(frame: pl.DataFrame, decision: Decision, output: NDArray[Any]) -> pl.DataFrame:
    """Return the frame with a `prediction` column and, if available, probability columns.

    The probability columns are `probability`, `score` (binary models only) and one `probability.<label>` per class.
    """
    results = prediction_columns(decision, output)
    refuse_existing(frame, results)
    return frame.with_columns([pl.Series(name, values) for name, values in results.items()])


def refuse_existing(frame: pl.DataFrame, names: Iterable[str]) -> None:
    """Raise TableError if the frame already has a column with one of the names."""
    existing = [name for name in names if name in frame.columns]
    if existing:
        raise TableError(
            f"the table already has columns named {', '.join(existing)}; rename or remove them", slug="duplicate-column"
        )


def prediction_columns(decision: Decision, output: NDArray[Any]) -> Mapping[str, Any]:
    """Return the columns that `with_predictions` adds, by name."""
    if decision.task == "regression":
        return {"prediction": output.reshape(-1).astype(np.float64)}
    if output.ndim == 1:  # the graph returns only class indices
        return {"prediction": pl.Series(decision.classes).gather(output.astype(np.int64))}
    winners = winning_classes(decision, output)
    exact = output.astype(np.float64)  # the same doubles as in JSON replies
    results: dict[str, Any] = {
        "prediction": pl.Series(decision.classes).gather(winners),
        "probability": np.take_along_axis(exact, winners[:, None], axis=1)[:, 0],
    }
    if decision.task == "binary":
        results["score"] = exact[:, decision.positive]
    for index, name in enumerate(decision.names()):
        results[f"probability.{name}"] = exact[:, index]
    return results


LINE_WRITERS: Mapping[str, Callable[[pl.DataFrame, IO[bytes], bool], Any]] = {
    ".csv": lambda frame, file, first: frame.write_csv(file, include_header=first),
    ".csv.gz": lambda frame, file, first: frame.write_csv(file, include_header=first),
    ".jsonl": lambda frame, file, first: frame.write_ndjson(file),
    ".ndjson": lambda frame, file, first: frame.write_ndjson(file),
}
COLUMNAR_WRITERS: Mapping[str, Callable[[pl.LazyFrame, Path], Any]] = {
    ".parquet": lambda frames, path: frames.sink_parquet(path, row_group_size=ROW_GROUP),
    ".arrow": pl.LazyFrame.sink_ipc,
    ".feather": pl.LazyFrame.sink_ipc,
}
ROW_GROUP: Final = 131_072
MAX_WAITING: Final = 2
"""The maximum number of frames in the queue of a columnar writer."""


def check_extension(path: str | Path) -> None:
    """Raise TableError if the file name does not have the extension of a supported format."""
    if extension(path) not in {**LINE_WRITERS, **COLUMNAR_WRITERS}:
        extensions = ", ".join([*LINE_WRITERS, *COLUMNAR_WRITERS])
        message = f"cannot write {path}: unknown format; the file name must end in one of {extensions}"
        raise TableError(message, slug="unknown-extension")


def extension(path: str | Path) -> str:
    """Return the extension of a file name in lower case; `.csv.gz` is one extension."""
    path = Path(path)
    packed = path.suffix.lower() == ".gz"
    return (unpacked_name(path).suffix + path.suffix if packed else path.suffix).lower()


def prepare_frame(suffix: str, frame: pl.DataFrame, *, first: bool) -> Any:
    """Perform the expensive part of writing a frame to a file with this extension. Any thread or process can call this
    function.

    Identical frames produce identical bytes. Each chunk of a compressed file is a complete gzip member.
    """
    if suffix in COLUMNAR_WRITERS:
        return frame
    buffer = io.BytesIO()
    LINE_WRITERS[suffix](frame, buffer, first)
    return gzip.compress(buffer.getvalue(), 6, mtime=0) if suffix.endswith(".gz") else buffer.getvalue()


class TableWriter(Protocol):
    """Writes frames to one file, in order."""

    def prepare(self, frame: pl.DataFrame, *, first: bool) -> Any:
        """Call `prepare_frame` for the format of this file."""
        ...

    def append(self, prepared: Any) -> None:
        """Write the result of `prepare`."""
        ...

    def close(self, *, whole: bool) -> None:
        """Complete the file, or abandon it if `whole` is false."""
        ...


@contextmanager
def open_writer(path: Path) -> Iterator[TableWriter]:
    """Open a file for writing. The file appears only if the `with` block succeeds.

    Raise TableError if the file cannot be written.
    """
    check_extension(path)
    suffix = extension(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part{suffix}")
    try:
        writer = (
            _LineWriter(part, suffix) if suffix in LINE_WRITERS else _ColumnarWriter(part, COLUMNAR_WRITERS[suffix])
        )
        try:
            yield writer
        except BaseException:
            writer.close(whole=False)
            raise
        writer.close(whole=True)
        part.replace(path)
    except OSError as error:
        raise TableError(f"{path} cannot be written: {error.strerror or error}", slug="not-writable") from None
    finally:
        with suppress(OSError):
            part.unlink()


class _LineWriter:
    """Writes a CSV or JSON Lines file."""

    def __init__(self, path: Path, suffix: str) -> None:
        self._file = path.open("wb")
        self._suffix = suffix

    def prepare(self, frame: pl.DataFrame, *, first: bool) -> Any:
        return prepare_frame(self._suffix, frame, first=first)

    def append(self, prepared: bytes) -> None:
        self._file.write(prepared)

    def close(self, *, whole: bool) -> None:
        self._file.close()


class _ColumnarWriter:
    """Writes a columnar file. In a separate thread, polars pulls the frames from a queue."""

    def __init__(self, path: Path, sink: Callable[[pl.LazyFrame, Path], Any]) -> None:
        path.open("wb").close()  # fails immediately if the folder is not writable
        self._path = path
        self._sink = sink
        self._frames: Queue[pl.DataFrame | None] = Queue(MAX_WAITING)
        self._thread: Thread | None = None
        self._is_abandoned = False
        self._error: Exception | None = None

    def prepare(self, frame: pl.DataFrame, *, first: bool) -> pl.DataFrame:
        return frame

    def append(self, prepared: pl.DataFrame) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._run, args=(prepared.schema,), daemon=True)
            self._thread.start()
        self._enqueue(prepared)

    def close(self, *, whole: bool) -> None:
        self._is_abandoned = not whole
        if self._thread is not None:
            self._enqueue(None)
            self._thread.join()
        if whole and self._error is not None:
            raise OSError(str(self._error).strip().partition("\n")[0])

    def _enqueue(self, frame: pl.DataFrame | None) -> None:
        assert self._thread is not None
        while self._thread.is_alive():
            with suppress(Full):
                self._frames.put(frame, timeout=0.1)
                return
        if not self._is_abandoned:
            raise OSError(str(self._error).strip().partition("\n")[0])

    def _run(self, schema: pl.Schema) -> None:
        try:
            self._sink(register_io_source(lambda *pushed: self._queued(), schema=schema), self._path)
        except Exception as error:  # raised by the next call to `append` or `close`
            self._error = error

    def _queued(self) -> Iterator[pl.DataFrame]:
        while (frame := self._frames.get()) is not None:
            yield frame
