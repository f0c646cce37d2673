"""`rowcast call`: send rows from the command line, a file or standard input to a running server."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from rowcast.access.addresses import is_loopback_host
from rowcast.cli import output
from rowcast.errors import RowcastError, SettingsError
from rowcast.printable import printable

if TYPE_CHECKING:
    from rowcast.client import PredictionReply
    from rowcast.client.errors import RowsRejected
    from rowcast.settings import Settings

OK, REJECTED = 0, 1
RETRIES = 3
STYLES = {"prediction": "bold green", "warning": "yellow"}


def run(settings: Settings, sources: Mapping[str, str], words: Sequence[str], seconds: float, *, as_json: bool) -> int:
    """Send the rows and print the predictions; return 1 if the server rejects the rows.

    `sources` contains the source of each setting: see `settings.origins`.
    """
    from rowcast.client import Client
    from rowcast.client.errors import ErrorReply, RowsRejected, Unreachable

    model, rows, is_single = parse(words)
    url, key = server_access(settings, sources)
    with Client(url, key, timeout=seconds, retries=RETRIES) as client:
        try:
            predictions = [client.predict(rows[0], model)] if is_single else client.predict_many(rows, model)
        except RowsRejected as error:
            return _print_problems(error, as_json=as_json)
        except ErrorReply as error:
            # The detail can contain row values. Printing them is safe, because this user sent the rows.
            raise RowcastError(error.detail or error.message) from None
        except Unreachable as error:
            hint = "start a server with `rowcast serve`, or set the URL of a running server with --url or ROWCAST_URL"
            raise RowcastError(f"{error.message}; {hint}") from None
    if as_json:
        documents = [_to_document(prediction) for prediction in predictions]
        output.print_json(documents[0] if is_single else {"predictions": documents})
    elif is_single:
        _print_prediction(predictions[0])
    else:
        _print_table(predictions)
    return OK


def server_access(settings: Settings, sources: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the server's URL and the key to send.

    Raise SettingsError if a file in the working folder would determine which server receives the rows or the user's
    key, because a downloaded folder can contain such a file. A key for other services (`API_KEY`) is never sent.
    """
    names = ("url",) if "url" in sources else ("host", "port", "root_path")
    chosen_by = {sources[name] for name in names if name in sources}
    url = settings.server_url
    if ".env" in chosen_by:
        raise SettingsError(f"the server's address comes from the file .env; confirm it with --url {url}")
    key = settings.api_key.get_secret_value() if settings.api_key and sources.get("api_key") != "API_KEY" else None
    if key and "rowcast.toml" in chosen_by and not is_loopback_host(urlsplit(url).hostname or ""):
        raise SettingsError(
            f"the server's address comes from the file rowcast.toml, and the API key would be sent to another machine; "
            f"confirm the address with --url {url}"
        )
    return url, key


def parse(words: Sequence[str]) -> tuple[str | None, list[msgspec.Raw], bool]:
    """Return the model, the unparsed rows, and whether the input is a single row."""
    if len(words) > 2:
        raise RowcastError("too many arguments; expected [MODEL] ROW. Enclose the row in quotes: '{\"a\": 1}'")
    model = words[0] if len(words) == 2 and words[0] != "-" else None
    rows, is_single = _parse_rows(_read_text(words[-1]))
    if not rows:
        raise RowcastError("no rows to send: the list is empty")
    return model, rows, is_single


def _read_text(word: str) -> str:
    source = word[1:] or "standard input"
    try:
        if word == "-":
            return sys.stdin.read()
        if word.startswith("@"):
            return Path(word[1:]).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RowcastError(f"cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RowcastError(f"cannot read {source}: not valid UTF-8") from None
    if word.lstrip()[:1] not in ("{", "["):
        raise RowcastError("ROW must be JSON such as '{\"age\": 30}', @FILE, or - for standard input")
    return word


def _parse_rows(text: str) -> tuple[list[msgspec.Raw], bool]:
    """Split the text into rows. The text is one object, a list, `{"rows": [...]}`, or one object per line."""
    try:
        document = msgspec.json.decode(text, type=dict[str, msgspec.Raw] | list[msgspec.Raw])
    except msgspec.ValidationError:
        raise RowcastError("a row must be a JSON object that maps column names to values") from None
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            reason = "not valid Unicode" if isinstance(error, UnicodeEncodeError) else str(error)
            raise RowcastError(f"the row is not valid JSON: {reason}") from None
        return [_parse_line(number, line) for number, line in enumerate(lines, 1)], False
    if isinstance(document, list):
        return document, False
    if document.keys() == {"rows"}:
        try:
            return msgspec.json.decode(document["rows"], type=list[msgspec.Raw]), False
        except msgspec.ValidationError:
            raise RowcastError("'rows' must be a list: {\"rows\": [{...}, ...]}") from None
    return [msgspec.Raw(text.strip().encode())], True


def _parse_line(number: int, line: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        raise RowcastError(
            f"line {number} is not a JSON object; expected one JSON document, or one object per line"
        ) from None
    return msgspec.Raw(line.strip().encode())


def _print_problems(error: RowsRejected, *, as_json: bool) -> int:
    if as_json:
        output.print_json({"errors": error.problems, "request_id": error.request_id})
        return REJECTED
    for problem in error.problems:
        output.say(str(problem))
    return REJECTED


def _to_document(prediction: PredictionReply) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(prediction).items() if value is not None}


def _print_prediction(prediction: PredictionReply) -> None:
    lines = [
        ("prediction", prediction.prediction),
        ("probability", prediction.probability),
        ("score", prediction.score),
        *(("warning", f"{warning.column}: {warning.message}".removeprefix(": ")) for warning in prediction.warnings),
        ("model", f"{prediction.model}@{prediction.version}"),
        ("id", prediction.id),
    ]
    texts = [(name, _format(value)) for name, value in lines if value is not None]
    if not sys.stdout.isatty():
        output.print_lines(f"{name}\t{text}" for name, text in texts)
        return
    from rich.text import Text

    terminal = output.console()
    for name, text in texts:
        terminal.print(Text.assemble((f"{name:<12}", "dim"), (printable(text), STYLES.get(name, ""))), soft_wrap=True)


def _print_table(predictions: Sequence[PredictionReply]) -> None:
    headings = ("row", "prediction", "probability", "score", "warnings", "id")
    rows = [
        (
            number,
            _format(prediction.prediction),
            _format(prediction.probability),
            _format(prediction.score),
            ", ".join(warning.column for warning in prediction.warnings),
            prediction.id,
        )
        for number, prediction in enumerate(predictions)
    ]
    output.print_table(headings, rows, whole=("id",))


def _format(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
