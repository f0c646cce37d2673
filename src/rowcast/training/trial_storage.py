"""Store trials in memory, or in a journal that outlives the process and can be shared by several processes.

Every trial occupies a slot. Slots are numbered from 0, and the number of slots is the maximum number of trials. The
slot determines the trial's configuration. If a process dies, its slots are released, so a resumed search tries the same
configurations as an uninterrupted search.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from rowcast.errors import SettingsError, TrainingError, Unavailable
from rowcast.training import metrics
from rowcast.training.options import TrainingOptions
from rowcast.version import VERSION

FORMAT: Final = 1
UNRELATED_OPTIONS: Final = (
    "name",
    "trials",
    "timeout",
    "jobs",
    "cost",
    "refit",
    "storage",
    "alias",
    "promote",
    "optional",
)
"""Options that affect neither a trial nor its score."""
SCHEMES: Final = ("redis://", "rediss://", "unix://")
LOCK_SECONDS: Final = 10
"""The age, in seconds, at which a lock is considered abandoned."""
RANDOM_TRIALS: Final = 20
"""The maximum number of trials with random parameters; later trials depend on the results so far."""
ANNOUNCEMENT_TIME: Final = timedelta(minutes=1)
"""The age at which a trial without an owner is considered abandoned. Most trials get an owner within milliseconds."""
SLOT, OWNER, KIND, FOLD_SECONDS, NO_TIME = "slot", "by", "kind", "fold_seconds", "no_time"
"""Trial attributes: the slot, the owner (`HOST PID TOKEN`), the candidate and the fold duration.

`NO_TIME` marks a trial that was pruned for lack of time.
"""


Objective = Callable[[optuna.Trial], float]
AfterTrial = Callable[[optuna.Study, FrozenTrial], None]


class TrialJournal(BaseJournalBackend):
    """A journal that converts storage failures into RowcastErrors."""

    def __init__(self, entries: BaseJournalBackend, location: str, failures: tuple[type[Exception], ...]) -> None:
        self._entries = entries
        self._location = location
        self._failures = failures

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the entries, starting with entry number `log_number_from`."""
        try:
            for entry in self._entries.read_logs(log_number_from):
                if "op_code" not in entry:
                    raise ValueError
                yield entry
        except (ValueError, TypeError):  # not JSON, or not an Optuna entry
            raise TrainingError(f"{self._location} does not contain trials; choose another file") from None
        except self._failures as error:
            raise self._unavailable(error) from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries atomically."""
        try:
            self._entries.append_logs(logs)
        except self._failures as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> Unavailable:
        reason = getattr(error, "strerror", None) or str(error)
        return Unavailable(f"cannot store trials in {self._location}: {reason}")


class RedisTrialLog(BaseJournalBackend):
    """A journal in a Redis list with atomic appends. Unlike Optuna's backend, it never reads pickled snapshots."""

    def __init__(self, client: Any, key: str) -> None:
        self._client = client
        self._key = key

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        for line in self._client.lrange(self._key, log_number_from, -1):
            yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._client.rpush(self._key, *(json.dumps(log, separators=(",", ":")) for log in logs))


class Study:
    """A search that several processes can share."""

    def __init__(self, study: optuna.Study, seed: int, total: int) -> None:
        self.optuna = study
        self._seed = seed
        self._total = total
        self._owner = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        for trial in self._trials():
            if _is_abandoned(trial):
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def optimise(self, objective: Objective, after_trial: AfterTrial) -> None:
        """Run trials until a callback stops the study or every slot is taken."""

        def announce(study: optuna.Study, _trial: FrozenTrial) -> None:
            if not self._announce():
                study.stop()

        if self._announce():
            try:
                self.optuna.optimize(objective, callbacks=[after_trial, announce])
            except UnboundLocalError as error:
                # Optuna raises this error if Ctrl-C arrives while it records the result of a trial.
                if not isinstance(error.__context__, KeyboardInterrupt):
                    raise
                raise KeyboardInterrupt from None

    def ask(self) -> tuple[optuna.Trial, int] | None:
        """Start a trial, which the caller must run; return it with its slot, or None if no slot is free."""
        if not self._announce():
            return None
        trial = self.optuna.ask()
        slot = self.claim(trial)
        if slot is None:
            self.abandon(trial)
            return None
        return trial, slot

    def abandon(self, trial: optuna.Trial) -> None:
        """Release the slot of a trial that `ask` started and that will not finish."""
        self.optuna.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def _announce(self) -> bool:
        """Enqueue the next trial and return True; return False if no slot is free.

        The owner is stored when the trial is enqueued, because the process may die right after the trial starts.
        """
        if not self.is_used_up:
            self.optuna.enqueue_trial({}, user_attrs={OWNER: self._owner})
            return True
        return False

    def claim(self, trial: optuna.Trial) -> int | None:
        """Assign a slot and a sampler to a new trial; return the slot, or None if all slots are taken."""
        others = [each for each in self._slot_holders() if each.number != trial.number]
        used_slots = {each.user_attrs[SLOT] for each in others if SLOT in each.user_attrs}
        # Earlier trials that have not claimed a slot yet get the lowest free slots.
        ahead = sum(SLOT not in each.user_attrs for each in others if each.number < trial.number)
        slot = [number for number in range(len(used_slots) + ahead + 1) if number not in used_slots][ahead]
        if slot >= self._total:
            return None
        trial.set_user_attr(OWNER, self._owner)  # another process may have enqueued the trial
        trial.set_user_attr(SLOT, slot)
        trial.study.sampler = self._sampler(slot)
        return slot

    def _sampler(self, slot: int) -> optuna.samplers.BaseSampler:
        """Return the sampler for a slot. Each slot has its own seed, so no two processes draw the same sequence."""
        seed = int(np.random.SeedSequence([self._seed, slot]).generate_state(1)[0])
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(max(5, self._total // 4), RANDOM_TRIALS))

    @property
    def finished_count(self) -> int:
        """The number of finished trials in all processes."""
        return sum(trial.state.is_finished() for trial in self._slot_holders())

    @property
    def is_used_up(self) -> bool:
        """Whether every slot is taken."""
        return len(self._slot_holders()) >= self._total

    def remote_trials(self, kind: str) -> list[FrozenTrial]:
        """Return a candidate's finished trials from other processes."""
        finished = (trial for trial in self._slot_holders() if trial.state.is_finished())
        return [
            trial for trial in finished if trial.user_attrs[OWNER] != self._owner and trial.user_attrs[KIND] == kind
        ]

    def _slot_holders(self) -> list[FrozenTrial]:
        """Return the trials that occupy a slot.

        Waiting trials, failed trials and trials that another process pruned for lack of time do not occupy a slot.
        """
        return [
            trial
            for trial in self._trials()
            if trial.state not in (TrialState.FAIL, TrialState.WAITING)
            and not (NO_TIME in trial.user_attrs and trial.user_attrs[OWNER] != self._owner)
        ]

    def _trials(self) -> Sequence[FrozenTrial]:
        trials: Sequence[FrozenTrial] = self.optuna.get_trials(deepcopy=False)
        return trials


def _is_abandoned(trial: FrozenTrial) -> bool:
    """Return whether a running trial's process has died. A process on another machine is assumed to be alive."""
    if trial.state != TrialState.RUNNING:
        return False
    if OWNER not in trial.user_attrs:  # another process took the enqueued trial, so this trial started without an owner
        age = None if trial.datetime_start is None else datetime.now() - trial.datetime_start  # noqa: DTZ005 - Optuna's
        return age is None or age > ANNOUNCEMENT_TIME
    host, pid, _ = str(trial.user_attrs[OWNER]).split(" ")
    if host != socket.gethostname():
        return False
    # This process has not started a trial yet, so a trial with the same process ID belongs to a dead process.
    return int(pid) == os.getpid() or not _is_alive(int(pid))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process belongs to another user
        return True
    return True


def study_name(sha256: str, metric: str, options: TrainingOptions) -> str:
    """Return the name of a study: a digest of the table and of every option that affects scores."""
    fields = msgspec.to_builtins(options)
    related = {name: value for name, value in fields.items() if name not in UNRELATED_OPTIONS}
    identity = {"format": FORMAT, "rowcast": VERSION, "table": sha256, **related, "metric": metric}
    return "rowcast-" + hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:32]


def open_study(options: TrainingOptions, sha256: str, metric: str, total: int) -> Study:
    """Open or create the study for this table and these options, in the configured storage or in memory."""
    name = study_name(sha256, metric, options)
    study = optuna.create_study(
        storage=None if options.storage is None else JournalStorage(_open_journal(options.storage, name)),
        study_name=name,
        direction="maximize" if metric in metrics.GREATER else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        load_if_exists=True,
    )
    return Study(study, options.seed, total)


def _open_journal(location: str, name: str) -> TrialJournal:
    if location.startswith(SCHEMES):
        return _open_redis(location, f"rowcast:trials:{name}")
    if "://" in location:
        raise SettingsError(f"option 'storage': expected a file or a URL that starts with {' or '.join(SCHEMES)}")
    path = str(Path(location).absolute())  # absolute, because the lock is a symbolic link to this path
    try:
        entries = JournalFileBackend(path, JournalFileSymlinkLock(path, LOCK_SECONDS))
    except OSError as error:
        raise Unavailable(f"cannot store trials in {location}: {error.strerror or error}") from None
    return TrialJournal(entries, location, (OSError,))


def _open_redis(url: str, key: str) -> TrialJournal:
    try:
        import redis
    except ModuleNotFoundError:
        raise SettingsError("storing trials in Redis requires the redis package; install rowcast[redis]") from None
    try:
        client = redis.Redis.from_url(url, socket_timeout=30, socket_connect_timeout=5)
    except ValueError as error:
        raise SettingsError(f"option 'storage': invalid Redis URL: {error}") from None
    shown = f"{url.partition('://')[0]}://{url.partition('://')[2].rpartition('@')[2]}"  # without the password
    return TrialJournal(RedisTrialLog(client, key), shown, (redis.RedisError, OSError))
