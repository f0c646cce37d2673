"""Compare the output shown in the documentation with the actual output of a command.

Text, words and whole numbers must be equal. Line breaks and column widths are ignored. The following differences are
allowed:

- values that differ between runs: see `VARIABLE`, `VARIABLE_FIELDS` and `VARIABLE_COLUMNS`;
- decimal numbers: by at most `TOLERANCE`, or by the tolerance in a comment before the block:
  `<!-- tolerance: 0.1 -->`;
- `…` in the output shown stands for any text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

TOLERANCE: Final = 0.01
VARIABLE: Final = (
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>"),
    (r'"A[A-Za-z0-9_-]{26}"', "<cursor>"),
    (r"\brb1-[0-9a-f]+", "<digest>"),
    (r"\b[0-9a-f]{32}\b", "<writer>"),
    (r"\b[0-9a-f]{12}-[0-9a-f]+\b", "<request>"),
    (r"\b\d{4}-\d\d-\d\dT[0-9:.]+(Z|\+00:00)", "<time>"),
    (r"\bin \d+\.\d+ s\b", "<duration>"),
    (r"\btime per row: \d+ µs", "<duration>"),
    (r"\([\d,]+ rows/s\)", "<rate>"),
    (r"\bdifference \d\.\de-\d\d\b", "<difference>"),
)
VARIABLE_FIELDS: Final = ("at", "pid", "seconds", "silent_seconds", "waiting_seconds", "prediction_time")
"""Fields of JSON documents whose numbers differ between runs."""
VARIABLE_COLUMNS: Final = ("seconds",)
"""Columns of tables whose cells differ between runs."""
EDGES: Final = "│┃"
LINES: Final = frozenset(" ┏━┳┓┡╇┩└─┴┘├┼┤")
NUMBER: Final = r"(?<![\w.])-?\d[\d,]*\.\d+(?:e[-+]?\d+)?(?![\w.])"
FENCE: Final = re.compile(
    r"^(?:<!-- (?P<note>tolerance|not compared): (?P<reason>[^\n]+) -->\n\n?)?"
    r"^```(?P<language>\w*) ?(?P<tag>[^\n]*)\n(?P<text>.*?)^```$|^#+ (?P<heading>[^\n]+)$",
    re.MULTILINE | re.DOTALL,
)
COMMANDS: Final = ("sh", "python")
OUTPUTS: Final = ("", "text", "json", "console")


class Block(NamedTuple):
    """A code block: `run` and `serve` blocks are executed; `shows` blocks contain the expected output."""

    language: str
    tag: str
    text: str
    tolerance: float
    start: int


def blocks(document: str) -> list[Block]:
    """Return the tagged blocks of a document, in order."""
    return [
        Block(
            match["language"],
            match["tag"],
            match["text"],
            float(match["reason"]) if match["note"] == "tolerance" else TOLERANCE,
            match.start("text"),
        )
        for match in FENCE.finditer(document)
        if match["tag"] in ("run", "serve", "shows")
    ]


def unchecked(document: str) -> list[str]:
    """Return all outputs of commands that are neither compared nor marked with a reason for not being compared."""
    found, after_command = [], False
    for match in FENCE.finditer(document):
        is_output = match["heading"] is None and match["language"] in OUTPUTS
        if is_output and after_command and match["tag"] != "shows" and match["note"] != "not compared":
            found.append(match["text"])
        after_command = match["language"] in COMMANDS or (is_output and after_command)
    return found


def replaced(document: str, outputs: Sequence[tuple[Block, str]]) -> str:
    """Return the document with new text in these blocks. A block that contains `…` keeps its text."""
    for block, actual in reversed(outputs):
        if "…" not in block.text:
            lines = "".join(f"{line.rstrip()}\n" for line in actual.strip().splitlines())
            document = document[: block.start] + lines + document[block.start + len(block.text) :]
    return document


def difference(shown: str, actual: str, tolerance: float = TOLERANCE) -> str:
    """Describe the first difference between two outputs; return an empty string if they agree."""
    left, right = _parts(shown), _parts(actual)
    for expected, found in zip(left, right, strict=False):
        if not _agree(expected, found, tolerance):
            return f"expected {expected!r}, got {found!r}"
    if len(left) != len(right):
        return f"expected {len(left)} lines and columns, got {len(right)}"
    return ""


def _parts(output: str) -> list[str]:
    """Return the lines of an output. The lines of a table are replaced with its columns."""
    parts: list[str] = []
    table: list[list[str]] = []
    for line in [*output.strip().splitlines(), ""]:
        if line and set(line) <= LINES:
            continue
        if line[:1] and line[0] in EDGES:
            table.append([cell.strip() for cell in re.split(f"[{EDGES}]", line)[1:-1]])
            continue
        parts += _columns(table)
        table = []
        parts += [_masked(" ".join(line.split()))] if line.strip() else []
    return parts


def _columns(table: list[list[str]]) -> Iterator[str]:
    """Yield the text of each column, so that column widths and line breaks do not matter."""
    for name, *cells in zip(*table, strict=True):
        if name in VARIABLE_COLUMNS:
            yield f"{name}: {sum(map(bool, cells))} cells"
        else:
            yield _masked(f"{name}: {' '.join(filter(None, cells))}")


def _masked(text: str) -> str:
    for pattern, name in VARIABLE:
        text = re.sub(pattern, name, text)
    return re.sub(rf'("(?:{"|".join(VARIABLE_FIELDS)})": ?)-?[\d.]+(?:e-?\d+)?', r"\1<number>", text)


def _agree(shown: str, actual: str, tolerance: float) -> bool:
    """Compare two lines: first everything except decimal numbers, then the decimal numbers."""
    if "…" in shown:
        return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), actual) is not None
    if re.sub(NUMBER, "<decimal>", shown) != re.sub(NUMBER, "<decimal>", actual):
        return False
    pairs = zip(*(map(_number, re.findall(NUMBER, text)) for text in (shown, actual)), strict=True)
    return all(math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance) for left, right in pairs)


def _number(text: str) -> float:
    return float(text.replace(",", ""))
