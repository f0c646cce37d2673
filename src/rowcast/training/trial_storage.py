"""The trials of a search: in this process alone, or in a journal that outlives it and that others write to as well.

Every trial holds a slot, a number from 0 on. The slot decides what is tried, and the slots are the budget. The slot of
a process that died is free again, so that a search which goes on tries what an undisturbed one would have tried.
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
NOT_OF_THE_PROBLEM: Final = ("name", "trials", "timeout", "jobs", "cost", "refit", "storage", "alias")
"""Options that leave a trial and its score as they are."""
SCHEMES: Final = ("redis://", "rediss://", "unix://")
LOCK_SECONDS: Final = 10
"""A lock of the journal that nothing was written under for so long was left by a process that died."""
NAMELESS: Final = timedelta(minutes=1)
"""A trial is without the name of its process for milliseconds only."""
SLOT, BY, KIND, FOLD_SECONDS, NO_TIME = "slot", "by", "kind", "fold_seconds", "no_time"
"""Noted of a trial: its slot, `HOST PID TOKEN` of its process, the kind of model, what a fold took, no time left."""


Objective = Callable[[optuna.Trial], float]
AfterTrial = Callable[[optuna.Study, FrozenTrial], None]


class TrialJournal(BaseJournalBackend):
    """Entries of a journal, and trouble with it as one sentence."""

    def __init__(self, entries: BaseJournalBackend, where: str, troubles: tuple[type[Exception], ...]) -> None:
        self._entries = entries
        self._where = where
        self._troubles = troubles

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The entries from this number on."""
        try:
            for entry in self._entries.read_logs(log_number_from):
                if "op_code" not in entry:
                    raise ValueError
                yield entry
        except (ValueError, TypeError):  # not JSON, or not one of ours
            raise TrainingError(f"{self._where} holds something else than trials; name another file") from None
        except self._troubles as error:
            raise self._trouble(error) from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries, all or none."""
        try:
            self._entries.append_logs(logs)
        except self._troubles as error:
            raise self._trouble(error) from None

    def _trouble(self, error: Exception) -> Unavailable:
        reason = getattr(error, "strerror", None) or str(error)
        return Unavailable(f"the trials cannot be kept in {self._where}: {reason}")


class RedisTrialLog(BaseJournalBackend):
    """One Redis list: appending is atomic, and no pickled snapshot is ever read."""

    def __init__(self, client: Any, key: str) -> None:
        self._client = client
        self._key = key

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        for line in self._client.lrange(self._key, log_number_from, -1):
            yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._client.rpush(self._key, *(json.dumps(log, separators=(",", ":")) for log in logs))


class Study:
    """One search, whoever works on it."""

    def __init__(self, study: optuna.Study, seed: int, total: int) -> None:
        self.optuna = study
        self._seed = seed
        self._total = total
        self._by = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        for trial in self._trials():
            if _has_died(trial):
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def optimise(self, objective: Objective, after_trial: AfterTrial) -> None:
        """Ask for trials until one of the two stops the study, or every slot is taken."""

        def announce(study: optuna.Study, _trial: FrozenTrial) -> None:
            if not self._announced():
                study.stop()

        if self._announced():
            self.optuna.optimize(objective, callbacks=[after_trial, announce])

    def _announced(self) -> bool:
        """Whether there is a slot left. The next trial is written with its process: it may be killed right after it."""
        if not self.is_used_up:
            self.optuna.enqueue_trial({}, user_attrs={BY: self._by})
            return True
        return False

    def claim(self, trial: optuna.Trial) -> int | None:
        """The slot of a new trial, its sampler set; None when all slots are taken."""
        others = [each for each in self._holding() if each.number != trial.number]
        taken = {each.user_attrs[SLOT] for each in others if SLOT in each.user_attrs}
        # Who asked earlier and has not said yet which slot it is will take the first free one.
        ahead = sum(SLOT not in each.user_attrs for each in others if each.number < trial.number)
        slot = [place for place in range(len(taken) + ahead + 1) if place not in taken][ahead]
        if slot >= self._total:
            return None
        trial.set_user_attr(BY, self._by)  # another process may have announced it
        trial.set_user_attr(SLOT, slot)
        trial.study.sampler = self._sampler(slot)
        return slot

    def _sampler(self, slot: int) -> optuna.samplers.BaseSampler:
        """Each slot draws from a sequence of its own, so that no two processes ever draw alike."""
        seed = int(np.random.SeedSequence([self._seed, slot]).generate_state(1)[0])
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(5, self._total // 4))

    @property
    def done(self) -> int:
        """Finished trials, whoever ran them."""
        return sum(trial.state.is_finished() for trial in self._holding())

    @property
    def is_used_up(self) -> bool:
        """Whether every slot is taken."""
        return len(self._holding()) >= self._total

    def elsewhere(self, kind: str) -> list[FrozenTrial]:
        """Finished trials of this kind of model that another process ran."""
        finished = (trial for trial in self._holding() if trial.state.is_finished())
        return [trial for trial in finished if trial.user_attrs[BY] != self._by and trial.user_attrs[KIND] == kind]

    def _holding(self) -> list[FrozenTrial]:
        """Trials that hold their slot: not those that failed, nor those that an earlier run had no time for."""
        return [
            trial
            for trial in self._trials()
            if trial.state not in (TrialState.FAIL, TrialState.WAITING)
            and not (NO_TIME in trial.user_attrs and trial.user_attrs[BY] != self._by)
        ]

    def _trials(self) -> Sequence[FrozenTrial]:
        found: Sequence[FrozenTrial] = self.optuna.get_trials(deepcopy=False)
        return found


def _has_died(trial: FrozenTrial) -> bool:
    """Whether the process of a running trial is gone; of other machines that is not known."""
    if trial.state != TrialState.RUNNING:
        return False
    if BY not in trial.user_attrs:  # asked for by a process that somebody took the announced trial from
        return trial.datetime_start is None or datetime.now() - trial.datetime_start > NAMELESS  # noqa: DTZ005 - Optuna's
    host, pid, _ = str(trial.user_attrs[BY]).split(" ")
    if host != socket.gethostname():
        return False
    return int(pid) == os.getpid() or not _is_alive(int(pid))  # this process has not asked for any yet


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # there, and somebody else's
        return True
    return True


def study_name(sha256: str, metric: str, options: TrainingOptions) -> str:
    """What the trials of one problem have in common: table, target, and every option that moves a score."""
    said = msgspec.to_builtins(options)
    about = {name: value for name, value in said.items() if name not in NOT_OF_THE_PROBLEM}
    whole = {"format": FORMAT, "rowcast": VERSION, "table": sha256, **about, "metric": metric}
    return "rowcast-" + hashlib.sha256(msgspec.json.encode(whole, order="sorted")).hexdigest()[:32]


def open_study(options: TrainingOptions, sha256: str, metric: str, total: int) -> Study:
    """The study of this table and these options where `--storage` says, or one in memory."""
    name = study_name(sha256, metric, options)
    study = optuna.create_study(
        storage=None if options.storage is None else JournalStorage(_journal(options.storage, name)),
        study_name=name,
        direction="maximize" if metric in metrics.GREATER else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        load_if_exists=True,
    )
    return Study(study, options.seed, total)


def _journal(where: str, name: str) -> TrialJournal:
    if where.startswith(SCHEMES):
        return _redis(where, f"rowcast:trials:{name}")
    if "://" in where:
        raise SettingsError(f"--storage takes a file, or an address that begins with {', '.join(SCHEMES)}")
    path = str(Path(where).absolute())  # the lock is a link to it, which must hold from any folder
    try:
        entries = JournalFileBackend(path, JournalFileSymlinkLock(path, LOCK_SECONDS))
    except OSError as error:
        raise Unavailable(f"the trials cannot be kept in {where}: {error.strerror or error}") from None
    return TrialJournal(entries, where, (OSError,))


def _redis(url: str, key: str) -> TrialJournal:
    try:
        import redis
    except ModuleNotFoundError:
        raise SettingsError("trials in Redis need the redis package; install rowcast[redis]") from None
    try:
        client = redis.Redis.from_url(url, socket_timeout=30, socket_connect_timeout=5)
    except ValueError as error:
        raise SettingsError(f"--storage is not an address of a Redis: {error}") from None
    shown = f"{url.partition('://')[0]}://{url.partition('://')[2].rpartition('@')[2]}"  # without a password
    return TrialJournal(RedisTrialLog(client, key), shown, (redis.RedisError, OSError))
