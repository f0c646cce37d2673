"""Hot path. Creates ids, replies and history entries from scores, with one journal write per batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from rowcast.access.context import RequestContext
from rowcast.errors import NoAnswer
from rowcast.events import Listener, RowsScored
from rowcast.history.blocks import SEED_BYTES, Block, BlockColumn, BlockWarning
from rowcast.history.chain import SALT_BYTES, Draft, Entry, encode_head
from rowcast.history.commit_waiter import CommitWaiter
from rowcast.history.ports import Journal
from rowcast.schema.encoding import OUT_OF_RANGE, OUTSIDE
from rowcast.schema.identity import uuid7_randomness, uuid7s
from rowcast.schema.prediction import Score, encode_replies
from rowcast.schema.sensitive import Redactor
from rowcast.serving.interface import ModelInterface
from rowcast.serving.randomness import RandomBlocks
from rowcast.serving.rows import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rowcast.schema.range_checks import OutOfRange
    from rowcast.serving.live_models import LiveModel


class Recorder:
    """Writes predictions to the journal before they are returned to clients."""

    def __init__(
        self,
        journal: Journal,
        listen: Listener,
        *,
        redactor: Redactor | None = None,
        commits: CommitWaiter | None = None,
        counts_cache_hits: bool = False,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._journal = journal
        self._listen = listen
        self._redactor = redactor
        self._commits = commits
        self._counts_cache_hits = counts_cache_hits
        self._now = now
        self._random = RandomBlocks().take

    def record(
        self, model: ModelInterface, rows: Sequence[Row], contexts: Sequence[RequestContext], scores: Sequence[Score]
    ) -> list[bytes]:
        """Write one entry per row in a single journal write, and return the replies. Hot path."""
        count, digest, nanoseconds = len(rows), model.digest, self._now()
        at = nanoseconds // 1_000
        salts = count * SALT_BYTES
        random = self._random(salts + uuid7_randomness(count))
        ids = uuid7s(nanoseconds // 1_000_000, random[salts:])
        hits = [row.cached_score is not None for row in rows] if self._counts_cache_hits else repeat(False, count)
        warnings = [row.encoded.warnings for row in rows]
        replies = encode_replies(model.name, model.version, ids=ids, scores=scores, warnings=warnings, cached=hits)
        received, withheld = self._storable(model, rows)
        drafts = []
        start = 0
        for context, row, reply in zip(contexts, received, replies, strict=True):
            caller, end = context.caller, start + SALT_BYTES
            entry = Entry(
                at,
                digest,
                context.dialect,
                context.request_id,
                reply,
                caller.key_id,
                caller.tenant,
                context.entity,
                withheld,
            )
            drafts.append(Draft(encode_head(entry), random[start:end], row))
            start = end
        self._journal.append(drafts)
        return replies

    def record_block(
        self,
        model: LiveModel,
        output: NDArray[np.float32],
        columns: Sequence[BlockColumn],
        body: bytes,
        context: RequestContext,
        *,
        outside: Sequence[OutOfRange] = (),
    ) -> Block:
        """Write the predictions of one request as one block of columns. Hot path."""
        import numpy as np  # a server with a queue records no blocks and does not load numpy

        from rowcast.schema.scores import non_finite_rows

        if not np.isfinite(output).all():
            raise NoAnswer(non_finite_rows(output))
        block = Block(
            at=self._now(),
            digest=model.digest,
            source=context.dialect,
            request_id=context.request_id,
            key_id=context.caller.key_id,
            tenant=context.caller.tenant,
            entity=context.entity,
            model=model.name,
            version=model.version,
            decision=model.decision,
            rows=len(output),
            columns=tuple(columns),
            body=body,
            output=np.ascontiguousarray(output, "<f4").tobytes(),
            seed=self._random(SEED_BYTES),
            warnings=tuple(
                [BlockWarning(each.column, OUT_OF_RANGE, OUTSIDE, np.packbits(each.rows).tobytes()) for each in outside]
            ),
        )
        self._journal.append_block(block)
        labels, latest = model.tally(output)
        self._listen(RowsScored(model.name, model.version, block.rows, labels, latest))
        return block

    def can_record_blocks(self, model: ModelInterface) -> bool:
        """Return whether rows can be recorded in blocks, which support neither redaction nor durability=store."""
        return self._commits is None and (self._redactor is None or not self._redactor.withheld_columns(model.schema))

    def when_durable(self, done: Callable[[Exception | None], None]) -> None:
        """Call `done(None)` once all entries so far are as durable as configured, or `done(error)` on failure."""
        if self._commits is None:
            done(None)
        else:
            self._commits.when_stored(self._journal, done)

    def announce(self, model: ModelInterface, rows: Sequence[Row], scores: Sequence[Score]) -> None:
        """Emit an event for recorded rows. The replies do not wait for it."""
        hits = misses = 0
        if self._counts_cache_hits:
            hits = sum(row.cached_score is not None for row in rows)
            misses = sum(bool(row.cache_key) for row in rows) - hits
        labels = [score.prediction for score in scores] if model.is_classifier else []
        self._listen(RowsScored(model.name, model.version, len(rows), labels, model.number(scores[-1]), hits, misses))

    def _storable(self, model: ModelInterface, rows: Sequence[Row]) -> tuple[list[bytes], tuple[str, ...]]:
        """Return the rows with sensitive columns redacted, and the names of these columns."""
        withheld = self._redactor.withheld_columns(model.schema) if self._redactor is not None else ()
        if self._redactor is None or not withheld:
            return [row.received for row in rows], ()
        return [self._redactor.redact(model.schema, row.received) for row in rows], withheld
