"""What the workers of one server know of each other: a folder in HOME/run with a slot for each worker.

A slot is one small file. Its worker holds a lock on it, which the kernel drops with the process: that is how a death is
seen at once. A heartbeat shows that the event loop turns; it is monotonic time, which all processes of a machine share
and no clock change moves. The folder goes when its server ends; what a killed server left, the next one takes away.

    slot      heartbeat f64, rows that wait u32, seconds that the oldest has waited f32, then at byte 16: u32 length,
              u32 crc32, JSON of `WorkerReport`; little-endian
    reload    how often a reload was asked for
    default   the default model
    trials    what the trial of a version found, so that one worker tries for all

HOME/run itself keeps `good`, the versions that were served last: what a server falls back on when it starts and finds a
champion that cannot be served.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from rowcast.adapters.files.locks import is_unlocked
from rowcast.errors import SettingsError

STALE_SECONDS = 3.0
"""An event loop that gave no sign for so long is stuck, or its process is stopped."""
SLOT_BYTES = 1024 * 1024
READS, READ_AGAIN_SECONDS = 5, 0.001
RECORD = struct.Struct("<II")
RECORD_AT = 16
HEARTBEAT = struct.Struct("<d")
QUEUE = struct.Struct("<If")
QUEUE_AT = 8

State = Literal["starting", "ready", "draining", "stale", "dead"]


class LoadedModel(msgspec.Struct, frozen=True):
    """A version that a worker answers with."""

    model: str
    version: int
    digest: str
    seconds: float
    """That loading and proving it took."""


class WorkerReport(msgspec.Struct, frozen=True):
    """What a worker says of itself."""

    pid: int
    state: State = "starting"
    models: tuple[LoadedModel, ...] = ()
    generation: int = -1
    """Of the registry, that it has followed."""
    asked: int = 0
    """Requests for a reload, that it has followed."""
    reload_error: str = ""


class WorkerStatus(msgspec.Struct, frozen=True):
    """What the board shows of one worker."""

    worker: int
    state: State
    pid: int | None = None
    models: tuple[LoadedModel, ...] = ()
    generation: int = -1
    asked: int = 0
    reload_error: str = ""
    silent_seconds: float = 0.0
    waiting: int = 0
    """Rows that wait to be answered."""
    waiting_seconds: float = 0.0
    """How long the oldest of them has."""


class ServerFolder:
    """One server's folder below `HOME/run`, made by whoever starts the server."""

    def __init__(self, runs: Path, workers: int) -> None:
        self.workers_wanted = workers
        self._runs = runs
        self.folder = runs / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            runs.mkdir(parents=True, exist_ok=True)
            with _locked(runs / ".lock"):
                for left in runs.iterdir():
                    if left.is_dir() and _is_free(left / "server"):
                        shutil.rmtree(left, ignore_errors=True)
                self.folder.mkdir(mode=0o700)
                # Held by this process and by the workers it forks: the folder stays while one of them lives.
                self._mine = _hold(self.folder / "server")
        except OSError as error:
            raise SettingsError(f"the folder {runs} cannot be written: {error.strerror}") from None

    def slot(self, number: int) -> WorkerSlot:
        """Take a worker's place; it is given up when this process ends."""
        return WorkerSlot(self.folder / f"worker-{number}")

    def workers(self) -> list[WorkerStatus]:
        """Every worker that there should be, as it is now."""
        return [_look(self.folder / f"worker-{number}", number) for number in range(self.workers_wanted)]

    def request_reload(self) -> int:
        """Ask every worker to follow the registry; a worker has when its `asked` is at least this number."""
        with _locked(self.folder / ".lock"):
            number = self.reload_requests() + 1
            _replace(self.folder / "reload", str(number).encode())
            return number

    def reload_requests(self) -> int:
        """How often a reload was asked for."""
        try:
            return int((self.folder / "reload").read_bytes())
        except FileNotFoundError:
            return 0

    def unloaded_models(self) -> frozenset[str]:
        """The models that this server is not to serve, whatever the registry says."""
        try:
            return msgspec.json.decode((self.folder / "away").read_bytes(), type=frozenset[str])
        except FileNotFoundError:
            return frozenset()

    def set_unloaded(self, model: str, *, unloaded: bool) -> None:
        """Put a model away, or take it out again; workers see it when they follow the registry next."""
        with _locked(self.folder / ".lock"):
            found = self.unloaded_models() - {model}
            _replace(self.folder / "away", msgspec.json.encode(found | {model} if unloaded else found))

    @contextmanager
    def trial_results(self) -> Iterator[dict[str, str]]:
        """What trials found, kept for all workers when the block ends; one worker is in here at a time."""
        path = self.folder / "trials"
        with _locked(self.folder / ".trials.lock"):
            found: dict[str, str] = {}
            with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
                found = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
            yield found
            _replace(path, msgspec.json.encode(found))

    def agree_default_model(self, choose: Callable[[], str | None]) -> str | None:
        """What the first worker of this server chose as the default model: it holds for all of them and for good,
        whichever models appear later."""
        path = self.folder / "default"
        with _locked(self.folder / ".lock"):
            if not path.exists():
                _replace(path, msgspec.json.encode(choose()))
            return msgspec.json.decode(path.read_bytes(), type=str | None)

    def last_served(self) -> dict[str, int]:
        """The versions that were served last from this home, by what was asked for; outlives servers."""
        try:
            return msgspec.json.decode((self._runs / "good").read_bytes(), type=dict[str, int])
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}

    def record_served(self, versions: Mapping[str, int]) -> None:
        """These are served now."""
        with _locked(self._runs / ".lock"):
            known = self.last_served()
            if known != {**known, **versions}:
                _replace(self._runs / "good", msgspec.json.encode({**known, **versions}))

    def remove(self) -> None:
        """The server has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._mine)


def running_servers(runs: Path) -> dict[str, list[WorkerStatus]]:
    """The servers that run now, by the name of their folder, each with the workers that it has had."""
    found = {}
    for folder in sorted(runs.glob("*-*")):
        if folder.is_dir() and not _is_free(folder / "server"):
            numbers = sorted(int(path.name.partition("-")[2]) for path in folder.glob("worker-*") if not path.suffix)
            found[folder.name] = [_look(folder / f"worker-{number}", number) for number in numbers]
    return found


class WorkerSlot:
    """A worker's own place on the board."""

    def __init__(self, path: Path) -> None:
        self._fd = _hold(path)
        self.status = WorkerReport(os.getpid())
        self.beat()
        self.report()

    def beat(self) -> None:
        """The event loop turns."""
        os.pwrite(self._fd, HEARTBEAT.pack(time.monotonic()), 0)

    def report(self, **changes: Any) -> None:
        """Show this of the worker from now on."""
        self.status = msgspec.structs.replace(self.status, **changes)
        content = msgspec.json.encode(self.status)
        os.pwrite(self._fd, RECORD.pack(len(content), zlib.crc32(content)) + content, RECORD_AT)

    def report_queue(self, rows: int, seconds: float) -> None:
        """So many rows wait, the oldest for so long; nothing once the place is given up."""
        if self._fd >= 0:
            os.pwrite(self._fd, QUEUE.pack(rows, seconds), QUEUE_AT)

    def close(self) -> None:
        """Give the place up."""
        fd, self._fd = self._fd, -1
        os.close(fd)


def _look(path: Path, number: int) -> WorkerStatus:
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return WorkerStatus(number, "starting")
    with file:
        if is_unlocked(file):
            return WorkerStatus(number, "dead")
        silent, (waiting, waited), status = _read(file)
    return WorkerStatus(
        number,
        "stale" if silent > STALE_SECONDS and status.state != "starting" else status.state,
        status.pid,
        status.models,
        status.generation,
        status.asked,
        status.reload_error,
        round(silent, 3),
        waiting,
        round(waited, 3),
    )


def _read(file: IO[bytes]) -> tuple[float, tuple[int, float], WorkerReport]:
    """Seconds since the heartbeat, the queue, and the status; read again when the worker is writing this moment."""
    for _ in range(READS):
        found = os.pread(file.fileno(), SLOT_BYTES, 0)
        if len(found) >= RECORD_AT + RECORD.size:
            length, mark = RECORD.unpack_from(found, RECORD_AT)
            content = found[RECORD_AT + RECORD.size :][:length]
            if zlib.crc32(content) == mark:
                silent = max(0.0, time.monotonic() - HEARTBEAT.unpack_from(found)[0])
                return silent, QUEUE.unpack_from(found, QUEUE_AT), msgspec.json.decode(content, type=WorkerReport)
        time.sleep(READ_AGAIN_SECONDS)
    return 0.0, (0, 0.0), WorkerReport(0)


def _hold(path: Path) -> int:
    """A locked file, until it is closed by every process that has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _is_free(path: Path) -> bool:
    """Whether nobody holds this file, or it is not there."""
    try:
        with path.open("rb") as file:
            return is_unlocked(file)
    except FileNotFoundError:
        return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _replace(path: Path, content: bytes) -> None:
    """Readers see the old content or the new."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)
