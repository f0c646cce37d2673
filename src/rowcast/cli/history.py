"""`rowcast history`: list, verify, replay, export and erase recorded predictions."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.app import history
from rowcast.cli import output
from rowcast.errors import HistoryError, NotFound, RequestError
from rowcast.history.entry_filter import Selection, first_id, parse_time

if TYPE_CHECKING:
    from rowcast.history.erasure import ErasureResult
    from rowcast.history.records import Record
    from rowcast.history.replay import Replay
    from rowcast.history.service import History
    from rowcast.history.verification import Verification
    from rowcast.settings import Settings

OK, FAILED = 0, 1
ERASE_SECONDS = 10.0
CATCH_UP_SECONDS = 3.0
POLL_SECONDS = 0.1
MAX_ID_SHOWN = 64


def list_history(settings: Settings, filters: Selection, *, limit: int, cursor: str | None, as_json: bool) -> None:
    """Print one page of predictions, newest first."""
    page = _current_history(settings).page(limit, filters, cursor, max_bytes=sys.maxsize)
    if as_json:
        output.print_json(page)
        return
    rows = [_list_row(record) for record in page.predictions]
    output.print_table(["at", "model", "prediction", "probability", "id", "entity"], rows, whole=["id"])
    if not rows and filters == Selection() and cursor is None:
        output.say(
            "no predictions recorded yet; start a server with `rowcast serve`, then send a row with `rowcast call`"
        )
    elif not rows:
        output.say("no predictions match these filters; omit a filter to see more")


def show_prediction(settings: Settings, prediction_id: str, *, as_json: bool) -> None:
    """Print one recorded prediction with its row."""
    record = _current_history(settings).get(prediction_id.lower())
    if record is None:
        raise NotFound(
            f"unknown prediction {prediction_id[:MAX_ID_SHOWN]!r}; `rowcast history list` shows the recorded ids"
        )
    if as_json:
        output.print_json(record)
        return
    fields = msgspec.json.decode(msgspec.json.encode(record))
    fields["at"] = output.moment(record.at)
    rows = [[name, value if isinstance(value, str) else _to_json(value)] for name, value in fields.items()]
    output.print_table(["field", "value"], rows, wide=["value"])


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _list_row(record: Record) -> list[Any]:
    reply = msgspec.json.decode(record.prediction)
    probability = reply.get("probability")
    return [
        output.moment(record.at),
        f"{record.model}@{record.version}",
        reply["prediction"],
        "" if probability is None else f"{probability:.4f}",
        record.id,
        record.entity,
    ]


def _current_history(settings: Settings) -> History:
    """Wait briefly for the indexer to store the most recent predictions, then return the history."""
    current = history.history(settings)
    backlog = current.catch_up(CATCH_UP_SECONDS)
    if backlog:
        newer = output.counted(backlog, "newer prediction is", "newer predictions are")
        output.say(f"{newer} still in the journal and not shown yet; a running server moves predictions into the store")
    return current


def verify_history(settings: Settings, heads: Path | None, *, as_json: bool) -> int:
    """Verify every chain and check that the chains still contain the published heads."""
    from rowcast.history.heads import parse_heads

    try:
        published = parse_heads(heads.read_text(encoding="utf-8")) if heads is not None else []
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"cannot read the chain heads in {heads}: {error}") from None
    result = history.verify_history(settings, published)
    if as_json:
        output.print_json(result)
    else:
        _print_verification(result, len(published))
    return FAILED if result.broken else OK


def _print_verification(result: Verification, published: int) -> None:
    for broken in result.broken:
        output.print_status(f"BROKEN {broken['writer']} at entry {broken['seq']}: {broken['reason']}", output.BAD)
    parts = [f"{output.counted(len(result.broken), 'chain')} broken" if result.broken else "all chains verified"]
    if result.erased:
        unrecorded = f" ({result.unrecorded} without a recorded erasure)" if result.unrecorded else ""
        parts.append(f"{output.counted(result.erased, 'row')} erased{unrecorded}")
    if published:
        parts.append(f"{result.heads} of {output.counted(published, 'published head')} found")
    entries = output.counted(result.entries, "entry", "entries")
    summary = f"{entries} of {output.counted(result.writers, 'writer')}: {', '.join(parts)}"
    for warning in _verification_warnings(result, published):
        output.print_lines([f"warning: {warning}"])
    output.print_status(summary, output.BAD if result.broken else output.GOOD)


def _verification_warnings(result: Verification, published: int) -> Iterator[str]:
    """Yield a warning for everything that the verification could not prove."""
    if not published and result.entries and not result.broken:
        yield (
            "without published heads, a recomputed or truncated chain is not detected; see `rowcast history heads -h`"
        )
    if result.unsigned_heads:
        yield f"{output.counted(result.unsigned_heads, 'published head')} cannot be trusted without a valid signature"
    if result.unsigned_erasures:
        yield f"{output.counted(result.unsigned_erasures, 'erasure')} cannot be trusted without a valid signature"


def replay_history(settings: Settings, model: str | None, *, as_json: bool) -> int:
    """Rescore recorded rows and compare the new predictions with the recorded predictions."""

    result = history.replay_history(settings, model)
    if as_json:
        output.print_json(result)
    else:
        print_replay(result)
    return FAILED if result.different else OK


def print_replay(result: Replay) -> None:
    """Print the number of entries for each verdict, then the examples."""
    counts = [["equal", result.equal], ["borderline", result.borderline], ["different", result.different]]
    output.print_table(["replayed", "entries"], [*counts, ["not replayable", result.not_replayable]])
    for example in result.examples:
        output.print_lines([f"{example['id']}: {example['verdict']} {example.get('reason', '')}".rstrip()])


def show_heads(settings: Settings, *, as_json: bool) -> None:
    """Print the head of every chain."""
    heads = history.signed_heads(settings)
    if as_json:
        output.print_json({"heads": heads})
    else:
        output.print_table(
            ["writer", "seq", "link", "signature"],
            [[head.writer, head.seq, head.link, head.signature] for head in heads],
        )


def show_erasures(settings: Settings, *, as_json: bool) -> None:
    """Print the time, user, reason, row count and selection of every erasure."""
    from rowcast.history.chain import decode_erasure
    from rowcast.history.records import to_time

    erasures = [decode_erasure(sealed.head) for sealed in history.store(settings).erasures()]
    if as_json:
        documents: list[dict[str, Any]] = [
            {
                "at": to_time(erasure.at),
                "by": erasure.by,
                "reason": erasure.reason,
                "wanted": msgspec.Raw(erasure.selection),
                "rows": erasure.rows,
                "request": erasure.request,
            }
            for erasure in erasures
        ]
        output.print_json({"erasures": documents})
        return
    rows = [
        [output.moment(to_time(erasure.at)), erasure.by, erasure.reason, erasure.rows, erasure.selection.decode()]
        for erasure in erasures
    ]
    output.print_table(["at", "by", "reason", "rows", "selection"], rows)


def purge(settings: Settings, before: str, model: str | None, *, as_json: bool) -> None:
    """Erase the rows of all predictions made before a given time; a future time is treated as the current time."""
    try:
        end = first_id(parse_time(before))
    except (ValueError, OverflowError):
        raise RequestError(
            f"--before {before!r} is not a valid date or timestamp; "
            "expected a value such as 2026-01-31, 2026-01-31T09:30:00Z or 90d",
            slug="bad-option",
        ) from None
    now = first_id(int(time.time() * 1000))
    _erase(settings, Selection(model=model, end=min(end, now)), "purge", as_json=as_json)


def erase(settings: Settings, entity: str | None, ids: Sequence[str], *, as_json: bool) -> None:
    """Erase the rows of one entity or of individual predictions."""
    if (entity is None) == (not ids):
        raise RequestError("use either --entity or --id to select the rows to erase")
    if entity == "":
        raise RequestError("--entity must not be empty")
    recorded = history.history(settings)
    unknown = [prediction_id for prediction_id in ids if recorded.get(prediction_id.lower()) is None]
    if unknown:
        raise RequestError(f"unknown prediction {unknown[0][:MAX_ID_SHOWN]!r}; nothing was erased")
    filters = Selection(entity=entity, ids=tuple(prediction_id.lower() for prediction_id in ids))
    _erase(settings, filters, "erase", as_json=as_json)


def _erase(settings: Settings, filters: Selection, reason: str, *, as_json: bool) -> None:
    deadline = time.monotonic() + ERASE_SECONDS

    def wait() -> bool:
        time.sleep(POLL_SECONDS)  # the indexer runs in another process, so its progress must be polled
        return time.monotonic() < deadline

    _print_erased(history.erase_history(settings, filters, reason, wait), as_json=as_json)


def _print_erased(erased: ErasureResult, *, as_json: bool) -> None:
    if as_json:
        output.print_json(erased)
        return
    output.print_lines([f"{output.counted(erased.rows, 'row')} erased"])
    if erased.journals:
        journals = output.counted(len(erased.journals), "journal")
        output.say(
            f"{journals} may contain more of these rows: {', '.join(erased.journals)}; the indexer will move the rows "
            "into the store and then erase them"
        )
    if erased.damaged:
        output.say(
            f"damaged journals may contain more of these rows; delete the following files: {', '.join(erased.damaged)}"
        )


def export(settings: Settings, out: Path, filters: Selection, *, as_json: bool) -> None:
    """Write predictions to a file, newest first."""
    from rowcast.app.history_export import export_records

    count = export_records(_current_history(settings).select(filters), out)
    if as_json:
        output.print_json({"path": str(out), "entries": count})
    else:
        output.say(f"wrote {output.counted(count, 'entry', 'entries')} to {out}")
