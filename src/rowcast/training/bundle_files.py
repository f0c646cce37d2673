"""The bundle files that are derived from the data: golden rows, a reference sample and hashes of the training rows."""

from __future__ import annotations

import io
import secrets
from typing import Any, Final

import msgspec
import numpy as np

from rowcast.registry.bundle import GoldenRow
from rowcast.registry.ports import Graph
from rowcast.schema.encoding import NUMBERS, TEXTS, RowEncoder
from rowcast.schema.prediction import Decision
from rowcast.schema.scores import score_rows
from rowcast.schema.stacking import stack_rows
from rowcast.training import row_hashes
from rowcast.training.problem import LearningProblem, client_value

GOLDEN_ROWS: Final = 32
REFERENCE_ROWS: Final = 10_000
UNSEEN_TEXT: Final = "never seen in training"


def golden_rows(problem: LearningProblem, graph: Graph, decision: Decision, seed: int) -> list[GoldenRow]:
    """Return rows as a client would send them, each with its score from the served graph. Most are training rows. In
    one row, every value that can be missing is missing. In another, every category column that allows unseen values
    contains an unseen value.
    """
    rows = _client_rows(problem, seed)
    encoder = RowEncoder(problem.schema, problem.plan)
    encoded = [encoder.read(msgspec.json.encode(row)) for row in rows]
    scores = score_rows(decision, graph.run(stack_rows(encoder.plan, encoded)))
    return [GoldenRow(row, score) for row, score in zip(rows, scores, strict=True)]


def _client_rows(problem: LearningProblem, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng([seed, 4])
    columns = problem.schema.columns
    count = len(problem.training)
    places = problem.training.places[rng.permutation(count)[: GOLDEN_ROWS - 2]]
    sample = problem.frame[places.tolist()].to_dicts()
    rows = [{column.name: client_value(column, cells[column.name]) for column in columns} for cells in sample]
    gaps = {column.name: None for column in columns if column.missing}
    unseen = {column.name: UNSEEN_TEXT for column in columns if column.kind == "category" and not column.closed}
    return [*rows, *[{**rows[0], **changes} for changes in (gaps, unseen) if changes]]


def reference_sample(problem: LearningProblem, seed: int) -> bytes:
    """Return a sample of the training rows and their targets as Parquet. Drift is measured against this sample."""
    places = problem.training.places
    if len(places) > REFERENCE_ROWS:
        places = np.sort(np.random.default_rng([seed, 5]).choice(places, REFERENCE_ROWS, replace=False))
    file = io.BytesIO()
    rows = problem.frame.select([*problem.schema.names(), problem.target])[places.tolist()]
    rows.write_parquet(file, compression="zstd")
    return file.getvalue()


def training_row_hashes(problem: LearningProblem, decision: Decision) -> bytes:
    """Return salted hashes of all training rows, so that these rows can be recognized in other tables."""
    rows = problem.training
    salt = secrets.token_bytes(row_hashes.SALT_BYTES)
    labels = row_hashes.label_bytes(decision, rows.target)
    tensors = {NUMBERS: rows.numbers, TEXTS: rows.texts}
    return row_hashes.encode(salt, row_hashes.hash_rows(tensors, labels, problem.schema, problem.plan, salt))
