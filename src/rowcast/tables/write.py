"""Put predictions beside the rows they belong to, and write a frame by the file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.domain.prediction import Decision
from rowcast.errors import TableError


def with_predictions(frame: pl.DataFrame, decision: Decision, output: NDArray[np.float32]) -> pl.DataFrame:
    """The frame, unchanged, with `prediction` and, for classes, `probability`, `score` and `probability.<label>`."""
    results = _results(decision, output)
    taken = [name for name in results if name in frame.columns]
    if taken:
        raise TableError(f"the table already has columns named {', '.join(taken)}; rename or drop them")
    return frame.with_columns([pl.Series(name, values) for name, values in results.items()])


def _results(decision: Decision, output: NDArray[np.float32]) -> Mapping[str, Any]:
    if decision.task == "regression":
        return {"prediction": output.reshape(-1).astype(np.float64)}
    winners = decision.winners(output)
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


WRITERS: Mapping[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".csv": pl.DataFrame.write_csv,
    ".parquet": pl.DataFrame.write_parquet,
    ".jsonl": pl.DataFrame.write_ndjson,
    ".ndjson": pl.DataFrame.write_ndjson,
    ".arrow": pl.DataFrame.write_ipc,
    ".feather": pl.DataFrame.write_ipc,
}


def check_name(path: str | Path) -> None:
    """TableError when the file's name does not say how to write it; asked before any work is done."""
    if Path(path).suffix.lower() not in WRITERS:
        raise TableError(f"{path} must end in {', '.join(WRITERS)} to say how to write it")


def write(frame: pl.DataFrame, path: str | Path) -> None:
    """Write a frame as CSV, Parquet, JSON Lines or Arrow, as the name's ending says."""
    path = Path(path)
    check_name(path)
    try:
        WRITERS[path.suffix.lower()](frame, path)
    except OSError as error:
        raise TableError(f"{path} cannot be written: {error.strerror or error}") from None
