"""Commands about what was answered: list, export, verify, replay, heads, purge, erase."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.app import indexer as app_history
from rowcast.app import models as app_models
from rowcast.cli import output
from rowcast.errors import HistoryError, RequestError, TableError
from rowcast.history.entry_filter import Selection, first_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rowcast.history.erasure import Erased
    from rowcast.history.service import History, Record
    from rowcast.settings import Settings

OK, NO = 0, 1
PATIENCE_SECONDS = 10.0
CATCH_UP_SECONDS = 3.0
LOOK_EVERY_SECONDS = 0.1


def list_history(settings: Settings, limit: int, cursor: str | None, wanted: Selection, *, as_json: bool) -> None:
    """Predictions, newest first."""
    page = _caught_up(settings).page(limit, wanted, cursor)
    if as_json:
        output.print_json(page)
        return
    rows = []
    for entry in page.predictions:
        reply = msgspec.json.decode(entry.prediction)
        probability = reply.get("probability")
        shown = "" if probability is None else f"{probability:.4f}"
        rows.append(
            [
                output.moment(entry.at),
                f"{entry.model}@{entry.version}",
                reply["prediction"],
                shown,
                entry.id,
                entry.entity,
            ]
        )
    output.print_table(["at", "model", "prediction", "probability", "id", "entity"], rows, whole=["id"])


def _caught_up(settings: Settings) -> History:
    """History that shows what was answered before the command, as long as somebody stores it."""
    history = app_history.history(settings)
    left = history.catch_up(CATCH_UP_SECONDS)
    if left:
        newer = output.counted(left, "newer answer is", "newer answers are")
        output.say(f"{newer} still in the journal and not shown; a running server moves them into the store")
    return history


def verify_history(settings: Settings, heads: Path | None, *, as_json: bool) -> int:
    """Check every chain, and that published heads stand in their places."""
    from rowcast.history.service import read_heads

    try:
        published = read_heads(heads.read_text(encoding="utf-8")) if heads is not None else []
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"the heads in {heads} cannot be read: {error}") from None
    verdict = app_history.history(settings).verify(published)
    if as_json:
        output.print_json(verdict)
    else:
        for broken in verdict.broken:
            output.print_lines([f"BROKEN {broken['writer']} at entry {broken['seq']}: {broken['reason']}"])
        word = "chains are broken" if verdict.broken else "every chain verifies"
        entries = output.counted(verdict.entries, "entry", "entries")
        erased = f", {output.counted(verdict.erased, 'row')} erased" if verdict.erased else ""
        erased += f" ({verdict.unrecorded} of them by hand, without a record)" if verdict.unrecorded else ""
        found = f", {verdict.heads} of {output.counted(len(published), 'head')} found" if published else ""
        output.print_lines([f"{entries} of {output.counted(verdict.writers, 'writer')}: {word}{erased}{found}"])
    return NO if verdict.broken else OK


def replay_history(settings: Settings, model: str | None, *, as_json: bool) -> int:
    """Score the past again."""
    from rowcast.history.replay import replay

    found = replay(app_history.history(settings), app_models.model_by_digest(settings), model)
    if as_json:
        output.print_json(found)
    else:
        counts = [["equal", found.equal], ["borderline", found.borderline], ["different", found.different]]
        output.print_table(["replayed", "entries"], [*counts, ["not replayable", found.not_replayable]])
        for example in found.examples:
            output.print_lines([f"{example['id']}: {example['verdict']} {example.get('reason', '')}".rstrip()])
    return NO if found.different else OK


def show_heads(settings: Settings, *, as_json: bool) -> None:
    """The last entry of every chain."""
    heads = app_history.history(settings).heads()
    if as_json:
        output.print_json({"heads": heads})
    else:
        output.print_table(["writer", "seq", "link"], [[head.writer, head.seq, head.link] for head in heads])


def show_erasures(settings: Settings, *, as_json: bool) -> None:
    """Who erased what, when."""
    from rowcast.history.chain import decode_erasure

    found = [decode_erasure(sealed.head) for sealed in app_history.store(settings).erasures()]
    if as_json:
        shown: list[dict[str, Any]] = [
            {**msgspec.structs.asdict(one), "wanted": msgspec.Raw(one.wanted)} for one in found
        ]
        output.print_json({"erasures": shown})
        return
    rows = [[output.moment(one.at), one.by, one.reason, one.rows, one.wanted.decode()] for one in found]
    output.print_table(["at", "by", "reason", "rows", "what"], rows)


def purge(settings: Settings, before: str, model: str | None, *, as_json: bool) -> None:
    """Erase the rows of everything older than a moment; one in the future means now."""
    from rowcast.history.service import selection

    wanted = selection(until=before, model=model)
    now = first_id(int(time.time() * 1000))
    _erase(settings, msgspec.structs.replace(wanted, end=min(wanted.end or now, now)), "purge", as_json=as_json)


def erase(settings: Settings, entity: str | None, ids: Sequence[str], *, as_json: bool) -> None:
    """Erase the rows of one entity, or of these predictions."""
    if (entity is None) == (not ids):
        raise RequestError("say which rows: --entity E, or --id ID (once for each)")
    if entity == "":
        raise RequestError("--entity is empty; name the entity whose rows are to be erased")
    history = app_history.history(settings)
    unknown = [found for found in ids if history.get(found.lower()) is None]
    if unknown:
        raise RequestError(f"there is no prediction {unknown[0][:64]!r} in history; nothing was erased")
    _erase(settings, Selection(entity=entity, ids=tuple(i.lower() for i in ids)), "erase", as_json=as_json)


def _erase(settings: Settings, wanted: Selection, reason: str, *, as_json: bool) -> None:
    until = time.monotonic() + PATIENCE_SECONDS

    def wait() -> bool:
        time.sleep(LOOK_EVERY_SECONDS)  # the indexer is another process
        return time.monotonic() < until

    _say_erased(app_history.erase_history(settings, wanted, reason, wait), as_json=as_json)


def _say_erased(erased: Erased, *, as_json: bool) -> None:
    if as_json:
        output.print_json(erased)
        return
    output.print_lines([f"{output.counted(erased.rows, 'row')} erased"])
    if erased.journals:
        output.say(
            f"{output.counted(len(erased.journals), 'journal')} not moved yet may hold more: "
            f"the indexer erases them as soon as it can ({', '.join(erased.journals)})"
        )
    if erased.damaged:
        output.say(f"damaged journals are kept and may hold such rows; delete them: {', '.join(erased.damaged)}")


def export(settings: Settings, out: Path, wanted: Selection, *, as_json: bool) -> None:
    """Write entries to a file, in constant memory."""
    from rowcast.history.export import TEXTS

    records = _caught_up(settings).select(wanted)
    counted = _Counted(records)
    kind = out.suffix.lower().lstrip(".")
    if kind == "parquet":
        _write_parquet(out, counted)
    elif kind in TEXTS:
        _write(out, TEXTS[kind](counted))
    else:
        raise TableError(f"{out} must end in .csv, .jsonl or .parquet to say how to write it")
    if as_json:
        output.print_json({"path": str(out), "entries": counted.count})
    else:
        output.say(f"wrote {output.counted(counted.count, 'entry', 'entries')} to {out}")


class _Counted:
    """Records that are counted as they pass."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self.count = 0

    def __iter__(self) -> Iterator[Record]:
        for found in self._records:
            self.count += 1
            yield found


def _write(out: Path, pieces: Iterator[bytes]) -> None:
    """The file appears whole or not at all, readable to its owner: it holds what people sent."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - a mode at birth
            file.writelines(pieces)
        part.replace(out)
    except OSError as error:
        raise TableError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink()


def _write_parquet(out: Path, records: _Counted) -> None:
    import polars as pl

    from rowcast import tables
    from rowcast.history.export import COLUMNS, flat, pieces

    kinds = {"at": pl.Int64, "version": pl.Int64, "seq": pl.Int64, "probability": pl.Float64, "score": pl.Float64}
    schema = {name: kinds.get(name, pl.String) for name in COLUMNS}

    def frame(piece: list[Record]) -> pl.DataFrame:
        return pl.DataFrame([flat(found) for found in piece], schema=schema).with_columns(
            pl.col("at").cast(pl.Datetime("us", "UTC"))
        )

    with tables.writing(out) as writer:
        first = True
        for piece in pieces(records):
            writer.append(writer.prepare(frame(piece), first=first))
            first = False
        if first:
            writer.append(writer.prepare(frame([]), first=True))
