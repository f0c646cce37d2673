"""Decide whether a new version replaces the champion.

A new version replaces the champion only if it has the same target and schema and is not worse. Both versions score
those rows of the new holdout on which the champion was not trained. The new version is worse if the 95% interval of the
difference lies below zero (decision 0054).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rowcast.errors import ModelNotFound, RowcastError
from rowcast.registry import bundle
from rowcast.registry.bundle import Manifest
from rowcast.registry.compatibility import find_difference
from rowcast.registry.lifecycle import CHALLENGER
from rowcast.registry.names import check_alias
from rowcast.registry.ports import OpenGraph, Reference, RegistryReader
from rowcast.registry.resolve import CHAMPION
from rowcast.schema.scores import non_finite_rows
from rowcast.serving.live_models import LiveModel, load
from rowcast.tables.encode import encode_all
from rowcast.training import metrics, row_hashes
from rowcast.training.events import Progress, TrainingEvent
from rowcast.training.metrics import DecidedOutput
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import LearningProblem
from rowcast.training.result import Comparison, Promotion

FEWEST_ROWS: Final = 20
"""The minimum number of new rows for a comparison."""
MOST_ROWS: Final = 20_000
"""The maximum number of holdout rows for a comparison. If the holdout is larger, a random sample is used."""
ROWS_PER_RUN: Final = 1000
TIME_LIMIT: Final = 60.0
"""The maximum time in which the champion must score the rows, in seconds."""
ROUNDING: Final = 1e-9
"""The largest loss that is treated as a rounding error."""


class NotComparable(RowcastError):
    """The versions cannot be compared; the message gives the reason."""


@dataclass(frozen=True)
class NewVersion:
    """A trained model that has not been published yet."""

    manifest: Manifest
    problem: LearningProblem
    """The learning problem of the new model. The champion must score its holdout."""
    output: NDArray[np.float32]
    """The model's output for the holdout. The model was not trained on these rows."""
    interrupted: bool


@dataclass(frozen=True)
class PromotionRule:
    """Decides which alias a new version gets."""

    registry: RegistryReader
    open_graph: OpenGraph
    options: TrainingOptions
    progress: Progress
    clock: Callable[[], float] = time.monotonic

    def champion(self) -> Reference | None:
        """Return the current champion, or None; raise RegistryError if the new version's alias is not valid."""
        if self.options.alias is not None:
            check_alias(self.options.alias)
        try:
            version = self.registry.aliases(self.options.name).get(CHAMPION)
        except ModelNotFound:
            return None
        return None if version is None else Reference(self.options.name, version)

    def decide(self, new: NewVersion) -> Promotion:
        """Return the alias for the new version, with the reason."""
        champion = self.champion()
        live = None if champion is None else champion.version
        if self.options.alias != CHAMPION:
            return Promotion(self.options.alias, live)
        if self.options.promote is not None:
            reason = "promotion was requested" if self.options.promote else "promotion was not requested"
            return Promotion(CHAMPION if self.options.promote else CHALLENGER, live, reason)
        if new.interrupted:
            return Promotion(CHALLENGER, live, "the search was interrupted")
        if champion is None:
            return Promotion(CHAMPION, None)
        try:
            comparison = self._compare(champion, new)
        except ModelNotFound:
            return Promotion(CHALLENGER, live, f"the files of version {live} are missing")
        except RowcastError as error:
            return Promotion(CHALLENGER, live, " ".join(error.message.split()))
        is_worse = comparison.difference.high < -ROUNDING
        relation = "worse" if is_worse else "not worse"
        reason = f"it is {relation} than version {live} on {comparison.rows} rows: {comparison.text()}"
        return Promotion(CHALLENGER if is_worse else CHAMPION, live, reason, comparison)

    def _compare(self, champion: Reference, new: NewVersion) -> Comparison:
        manifest = bundle.read_manifest(self.registry.folder(champion))
        if change := find_difference(manifest, new.manifest):
            raise NotComparable(f"compared to version {champion.version}, {change}")
        self.progress(TrainingEvent(stage="publish", message=f"comparing with {champion}"))
        holdout = new.problem.holdout
        rows = np.arange(len(holdout))
        if len(rows) > MOST_ROWS:
            rows = np.sort(np.random.default_rng([self.options.seed, 6]).choice(rows, MOST_ROWS, replace=False))
        salt, known = self._training_rows(champion, manifest)
        encoded = encode_all(new.problem.frame[holdout.places[rows].tolist()], manifest.schema, manifest.plan)
        labels = row_hashes.label_bytes(manifest.decision, holdout.target[rows])
        hashes = row_hashes.hash_rows(encoded.tensors, labels, manifest.schema, manifest.plan, salt)
        used = np.isin(hashes, known)
        kept = np.flatnonzero(~used & ~encoded.rejected())
        if len(kept) < FEWEST_ROWS:
            few = f"only {len(kept)} of the {len(rows)} holdout rows are" if len(kept) else "no holdout rows are"
            raise NotComparable(
                f"{few} new to version {champion.version} and accepted by it; a comparison needs at least {FEWEST_ROWS}"
            )
        rows = rows[kept]
        model = load(champion, self.registry, self.open_graph)
        output = self._score(model, {name: tensor[kept] for name, tensor in encoded.tensors.items()}, len(rows))
        if output.shape != new.output[rows].shape:
            raise NotComparable(f"{champion} returns scores of the shape {list(output.shape)}")
        difference = metrics.compare(
            new.manifest.metric,
            DecidedOutput(new.manifest.decision, new.output[rows]),
            DecidedOutput(manifest.decision, output),
            holdout.target[rows],
            seed=self.options.seed,
            weight=None if holdout.weight is None else holdout.weight[rows],
            group=None if holdout.group is None else holdout.group[rows],
        )
        if difference is None:
            raise NotComparable(f"the metric {new.manifest.metric} has no value on the {len(rows)} new rows")
        return Comparison(new.manifest.metric, len(rows), difference)

    def _training_rows(self, champion: Reference, manifest: Manifest) -> tuple[bytes, row_hashes.Hashes]:
        """Return the salt and the hashes of the champion's training rows. An imported model has no hashes, so it is
        never run for a comparison.
        """
        if bundle.TRAINING_ROWS not in manifest.files:
            raise NotComparable(
                f"version {champion.version} does not record its training rows, because it was imported or trained by "
                "an earlier release"
            )
        return row_hashes.decode(bundle.read_file(self.registry.folder(champion), bundle.TRAINING_ROWS, manifest))

    def _score(self, model: LiveModel, tensors: row_hashes.Tensors, count: int) -> NDArray[np.float32]:
        """Return the champion's output for all rows; raise NotComparable if the time limit is exceeded."""
        deadline = self.clock() + TIME_LIMIT
        outputs = []
        for start in range(0, count, ROWS_PER_RUN):
            outputs.append(
                model.output({name: tensor[start : start + ROWS_PER_RUN] for name, tensor in tensors.items()})
            )
            if self.clock() > deadline:
                raise NotComparable(f"{model.name}@{model.version} did not score {count} rows in {TIME_LIMIT:.0f} s")
        output = np.concatenate(outputs)
        if len(non_finite_rows(output)):
            raise NotComparable(f"{model.name}@{model.version} returns no finite score for some of the rows")
        return output
