"""Training on a difficult table either succeeds or fails with a one-line error."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import RowcastError
from rowcast.registry import bundle
from rowcast.tables.read import read_table
from rowcast.training.options import TrainingOptions
from rowcast.training.result import TrainingResult
from rowcast.training.run import train

pytestmark = pytest.mark.usefixtures("small_models")

ROWS = 240
RNG = np.random.default_rng(1)
NUMBER = np.arange(ROWS)
LABEL = ["yes" if value > 0 else "no" for value in RNG.normal(size=ROWS)]
MIXED_DATES = [["2026-01-31", "31/12/2025", "5 Jan 2026", "02/03/2026"][index % 4] for index in range(ROWS)]
MANY_DATES = [["2026-01-31", "31/12/2025", "5 Jan 2026", "Mar-2018", "soon"][index % 5] for index in range(ROWS)]


def write_csv(path: Path, columns: dict[str, Any], encoding: str = "utf-8") -> Path:
    lines = [",".join(columns), *(",".join(map(str, cells)) for cells in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def train_table(path: Path) -> TrainingResult:
    return train(
        read_table(path),
        TrainingOptions(target="y", name="ugly", trials=2, candidates=("logistic", "tree")),
        open_graph=open_graph,
        registry=FolderRegistry(path.parent / "models"),
        now=datetime(2026, 11, 1, tzinfo=UTC),
        progress=lambda event: None,
    )


@pytest.mark.parametrize(
    ("columns", "kinds"),
    [
        ({f"c{index}": RNG.integers(0, 9, ROWS) for index in range(300)}, {"c299": "integer"}),
        ({"x": NUMBER % 9, "empty": [""] * ROWS, "gone": ["?"] * ROWS}, {"x": "integer"}),
        ({"x": NUMBER % 9, "account": 123456789012345678 + NUMBER}, {"x": "integer"}),
        ({"x": NUMBER % 9, "branch": 123456789012345678 + NUMBER % 12}, {"x": "integer", "branch": "category"}),
        (
            {"Zins (%) für Jahr": NUMBER % 9, "温度(°C)": NUMBER % 7},
            {"Zins (%) für Jahr": "integer", "温度(°C)": "integer"},
        ),
        ({"when": MIXED_DATES}, {"when": "datetime"}),
        ({"when": MANY_DATES}, {"when": "category"}),
        ({"text": [f"{index % 200} ünïcödé" for index in range(ROWS)]}, {"text": "category"}),
        ({"x": ["1e300" if index == 3 else "" for index in range(ROWS)], "z": NUMBER % 9}, None),
    ],
    ids=[
        "300 columns",
        "columns without values",
        "18-digit identifiers",
        "18-digit codes",
        "names in any script",
        "dates in three notations",
        "dates in too many notations",
        "many distinct strings",
        "a number beyond float32",
    ],
)
def test_training_on_a_difficult_table_succeeds_or_fails_with_a_one_line_error(
    tmp_path: Path, columns: dict[str, Any], kinds: Any
) -> None:
    path = write_csv(tmp_path / "t.csv", {**columns, "y": LABEL})

    if kinds is None:
        with pytest.raises(RowcastError, match="'x'") as caught:
            train_table(path)
        assert "\n" not in caught.value.message
        return
    result = train_table(path)

    columns_by_name = {column.name: column.kind for column in bundle.open(Path(result.path)).manifest.schema.columns}
    assert result.parity.label_flips == 0
    assert kinds.items() <= columns_by_name.items()
    assert len(columns_by_name) == len(kinds) or "c0" in columns_by_name


@pytest.mark.parametrize(
    "content",
    [
        b"a,y\n",
        b"a,y",
        b"y\n1\n",
        bytes(RNG.integers(0, 256, 5000, np.uint8)),
        b"\x1f\x8b\x08" + bytes(RNG.integers(0, 256, 5000, np.uint8)),
        b"a,y\n" + b"1,2\n" * 5,
        b"a,y\n" + b"1,yes\n" * 50,
        b"a,y\n" + b"".join(b"%d,\n" % index for index in range(50)),
        b"a,y\n" + b"".join(b"%d,name %d\n" % (index % 5, index) for index in range(50)),
        b"a,y\n" + b"".join(b"%d,%d,\n" % (index, index % 2) for index in range(50)),
    ],
    ids=[
        "header only",
        "header without a line ending",
        "target column only",
        "random bytes",
        "damaged archive",
        "five rows",
        "one class",
        "no labels",
        "one class per row",
        "an extra cell",
    ],
)
def test_an_unusable_table_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)

    with pytest.raises(RowcastError) as caught:
        train_table(tmp_path / "t.csv")

    assert caught.value.message
    assert "\n" not in caught.value.message
    assert not (tmp_path / "models" / "ugly").exists()
