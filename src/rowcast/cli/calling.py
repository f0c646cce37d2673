"""`rowcast call`: ask a running server about the rows that were typed, piped or named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.cli import output
from rowcast.errors import RowcastError

if TYPE_CHECKING:
    from rowcast.client import Prediction
    from rowcast.client.errors import RowsRefused
    from rowcast.settings import Settings

OK, NO = 0, 1
RETRIES = 3
STYLES = {"prediction": "bold green", "warning": "yellow"}


def run(settings: Settings, words: Sequence[str], seconds: float, *, as_json: bool) -> int:
    """Ask and show; 1 when the rows do not fit."""
    from rowcast.client import Client
    from rowcast.client.errors import Refused, RowsRefused, Unreachable

    model, rows, alone = _asked(words)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    with Client(settings.server_url, key, timeout=seconds, retries=RETRIES) as client:
        try:
            found = [client.predict(rows[0], model)] if alone else client.predict_many(rows, model)
        except RowsRefused as refused:
            return _refused(refused, as_json=as_json)
        except Refused as refused:  # what the server says of values may be seen by whoever typed them
            raise RowcastError(refused.detail or refused.message) from None
        except Unreachable as error:
            hint = "start one with `rowcast serve`, or say with --url or ROWCAST_URL where it is"
            raise RowcastError(f"{error.message}; {hint}") from None
    if as_json:
        output.print_json(_plain(found[0]) if alone else {"predictions": [_plain(one) for one in found]})
    elif alone:
        _print_one(found[0])
    else:
        _print_many(found)
    return OK


def _asked(words: Sequence[str]) -> tuple[str | None, list[msgspec.Raw], bool]:
    """The model, the rows as they were written, and whether it is one alone."""
    if len(words) > 2:
        raise RowcastError(
            "give a model and a row, or the row alone: rowcast call [MODEL] ROW; quote the row: '{\"a\": 1}'"
        )
    model = words[0] if len(words) == 2 and words[0] != "-" else None
    text = _text(words[-1])
    rows, alone = _rows(text)
    if not rows:
        raise RowcastError("there are no rows in it; give at least one")
    return model, rows, alone


def _text(word: str) -> str:
    try:
        if word == "-":
            return sys.stdin.read()
        if word.startswith("@"):
            return Path(word[1:]).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RowcastError(f"{word[1:] or 'standard input'} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RowcastError(f"{word[1:] or 'standard input'} is not text in UTF-8") from None
    if word.lstrip()[:1] not in ("{", "["):
        raise RowcastError("the row must be JSON such as '{\"age\": 30}', @FILE, or - for standard input")
    return word


def _rows(text: str) -> tuple[list[msgspec.Raw], bool]:
    """The objects in a text: one, a list, `{"rows": [...]}`, or one a line."""
    try:
        whole = msgspec.json.decode(text, type=dict[str, msgspec.Raw] | list[msgspec.Raw])
    except msgspec.ValidationError:
        raise RowcastError("a row must be a JSON object, column to value") from None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            reason = "it is no text" if isinstance(error, UnicodeEncodeError) else str(error)
            raise RowcastError(f"the row is not JSON: {reason}") from None
        return [_line(number, line) for number, line in enumerate(lines, 1)], False
    if isinstance(whole, list):
        return whole, False
    if whole.keys() == {"rows"}:
        try:
            return msgspec.json.decode(whole["rows"], type=list[msgspec.Raw]), False
        except msgspec.ValidationError:
            raise RowcastError('`rows` must be a list: {"rows": [{...}, ...]}') from None
    return [msgspec.Raw(text.strip().encode())], True


def _line(number: int, line: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        raise RowcastError(f"line {number} is no JSON object; give JSON, or one object a line") from None
    return msgspec.Raw(line.strip().encode())


def _refused(refused: RowsRefused, *, as_json: bool) -> int:
    """Every problem on a line of its own."""
    if as_json:
        output.print_json({"errors": refused.problems, "request_id": refused.request_id})
        return NO
    for problem in refused.problems:
        output.say(str(problem))
    return NO


def _plain(found: Prediction) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not None}


def _print_one(found: Prediction) -> None:
    lines = [("prediction", found.prediction), ("probability", found.probability), ("score", found.score)]
    lines += [("warning", f"{warned.column}: {warned.message}") for warned in found.warnings]
    lines += [("model", f"{found.model}@{found.version}"), ("id", found.id)]
    shown = [(name, _written(value)) for name, value in lines if value is not None]
    if not sys.stdout.isatty():
        output.print_lines(f"{name}\t{value}" for name, value in shown)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for name, value in shown:
        console.print(Text.assemble((f"{name:<12}", "dim"), (value, STYLES.get(name, ""))), soft_wrap=True)


def _print_many(found: Sequence[Prediction]) -> None:
    headings = ("row", "prediction", "probability", "score", "warnings", "id")
    rows = [
        (
            number,
            _written(one.prediction),
            _written(one.probability),
            _written(one.score),
            ", ".join(warned.column for warned in one.warnings),
            one.id,
        )
        for number, one in enumerate(found)
    ]
    output.print_table(headings, rows, whole=("id",))


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
