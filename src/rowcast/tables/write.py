"""Put predictions beside the rows they belong to, and write frames by the file's name, piece by piece."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
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


def with_predictions(frame: pl.DataFrame, decision: Decision, output: NDArray[Any]) -> pl.DataFrame:
    """The frame, unchanged, with `prediction` and, for classes, `probability`, `score` and `probability.<label>`."""
    results = _results(decision, output)
    taken = [name for name in results if name in frame.columns]
    if taken:
        raise TableError(f"the table already has columns named {', '.join(taken)}; rename or drop them")
    return frame.with_columns([pl.Series(name, values) for name, values in results.items()])


def _results(decision: Decision, output: NDArray[Any]) -> Mapping[str, Any]:
    if decision.task == "regression":
        return {"prediction": output.reshape(-1).astype(np.float64)}
    if output.ndim == 1:  # a foreign graph that gives labels alone
        return {"prediction": pl.Series(decision.classes).gather(output.astype(np.int64))}
    winners = winning_classes(decision, output)
    exact = output.astype(np.float64)  # float32 shown as the double it is, as in JSON replies
    results: dict[str, Any] = {
        "prediction": pl.Series(decision.classes).gather(winners),
        "probability": np.take_along_axis(exact, winners[:, None], axis=1)[:, 0],
    }
    if decision.task == "binary":
        results["score"] = exact[:, decision.positive]
    for index, name in enumerate(decision.names()):
        results[f"probability.{name}"] = exact[:, index]
    return results


TEXTS: Mapping[str, Callable[[pl.DataFrame, IO[bytes], bool], Any]] = {
    ".csv": lambda frame, file, first: frame.write_csv(file, include_header=first),
    ".jsonl": lambda frame, file, first: frame.write_ndjson(file),
    ".ndjson": lambda frame, file, first: frame.write_ndjson(file),
}
SINKS: Mapping[str, Callable[[pl.LazyFrame, Path], Any]] = {
    ".parquet": lambda frames, path: frames.sink_parquet(path, row_group_size=ROW_GROUP),
    ".arrow": pl.LazyFrame.sink_ipc,
    ".feather": pl.LazyFrame.sink_ipc,
}
ROW_GROUP: Final = 131_072
WAITING: Final = 2
"""Frames that may wait for the sink."""


def check_name(path: str | Path) -> None:
    """TableError when the file's name does not say how to write it; asked before any work is done."""
    if Path(path).suffix.lower() not in {**TEXTS, **SINKS}:
        raise TableError(f"{path} must end in {', '.join([*TEXTS, *SINKS])} to say how to write it")


class Writer(Protocol):
    """Takes the frames of one file in order."""

    def prepare(self, frame: pl.DataFrame, *, first: bool) -> Any:
        """The costly part, on any thread."""
        ...

    def append(self, prepared: Any) -> None:
        """Write what `prepare` gave."""
        ...

    def close(self, *, whole: bool) -> None:
        """End the file, or give it up."""
        ...


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """A writer to a file that appears under its name when the block ends well, and not at all otherwise."""
    check_name(path)
    suffix = path.suffix.lower()
    part = path.with_name(f".{path.name}.{os.getpid()}.part{suffix}")
    try:
        writer = _Text(part, TEXTS[suffix]) if suffix in TEXTS else _Columns(part, SINKS[suffix])
        try:
            yield writer
        except BaseException:
            writer.close(whole=False)
            raise
        writer.close(whole=True)
        part.replace(path)
    except OSError as error:
        raise TableError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink()


class _Text:
    """A file of lines."""

    def __init__(self, path: Path, lines: Callable[[pl.DataFrame, IO[bytes], bool], Any]) -> None:
        self._file = path.open("wb")
        self._lines = lines

    def prepare(self, frame: pl.DataFrame, *, first: bool) -> bytes:
        buffer = io.BytesIO()
        self._lines(frame, buffer, first)
        return buffer.getvalue()

    def append(self, prepared: bytes) -> None:
        self._file.write(prepared)

    def close(self, *, whole: bool) -> None:
        self._file.close()


class _Columns:
    """A file that polars writes on a thread of its own while frames are handed to it."""

    def __init__(self, path: Path, sink: Callable[[pl.LazyFrame, Path], Any]) -> None:
        path.open("wb").close()  # a folder that cannot be written to is found now
        self._path = path
        self._sink = sink
        self._frames: Queue[pl.DataFrame | None] = Queue(WAITING)
        self._thread: Thread | None = None
        self._given_up = False
        self._error: Exception | None = None

    def prepare(self, frame: pl.DataFrame, *, first: bool) -> pl.DataFrame:
        return frame

    def append(self, prepared: pl.DataFrame) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._run, args=(prepared.schema,), daemon=True)
            self._thread.start()
        self._hand(prepared)

    def close(self, *, whole: bool) -> None:
        self._given_up = not whole
        if self._thread is not None:
            self._hand(None)
            self._thread.join()
        if whole and self._error is not None:
            raise OSError(str(self._error).strip().partition("\n")[0])

    def _hand(self, frame: pl.DataFrame | None) -> None:
        assert self._thread is not None
        while self._thread.is_alive():
            with suppress(Full):
                self._frames.put(frame, timeout=0.1)
                return
        if not self._given_up:
            raise OSError(str(self._error).strip().partition("\n")[0])

    def _run(self, schema: pl.Schema) -> None:
        try:
            self._sink(register_io_source(lambda *pushed: self._given(), schema=schema), self._path)
        except Exception as error:  # told to whoever hands over the next frame
            self._error = error

    def _given(self) -> Iterator[pl.DataFrame]:
        while (frame := self._frames.get()) is not None:
            yield frame


def write(frame: pl.DataFrame, path: str | Path) -> None:
    """Write a frame as CSV, Parquet, JSON Lines or Arrow, as the name's ending says."""
    with writing(Path(path)) as writer:
        writer.append(writer.prepare(frame, first=True))
