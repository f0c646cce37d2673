"""The state that the processes of one server share: a folder in HOME/run with one small file per process.

Each server process holds a lock on its file. The kernel releases the lock when the process exits, so the death of a
process is detected immediately. A heartbeat shows that the event loop is running. Each heartbeat is a timestamp from
the monotonic clock: all processes on a machine share this clock, and setting the system time does not change it. A
server deletes its folder when it shuts down; the next server deletes the folders of killed servers.

    process-N  heartbeat f64, waiting rows u32, age of the oldest row in seconds f32, then at byte 16: u32 length,
               u32 crc32, JSON of `ProcessReport`; little-endian
    reload     the number of requested reloads
    default    the default model
    away       the unloaded models
    trials     the results of loading new versions in a sandbox, so that only one process tests each version

HOME/run itself contains the file `good`, which lists the most recently served versions. A server falls back to these
versions if a champion cannot be loaded at startup.
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
from typing import IO, Any

import msgspec

from rowcast.adapters.files.locks import is_unlocked
from rowcast.adapters.files.shared_counters import SharedCounters
from rowcast.errors import SettingsError
from rowcast.private_files import locked, make_private_folder
from rowcast.serving.fleet import ProcessReport, ProcessStatus

STALE_SECONDS = 3.0
"""The maximum age of a heartbeat, in seconds. If the heartbeat is older, the event loop or the process is blocked."""
TRIAL_SECONDS = 900.0
"""The maximum time to wait for another process to finish testing a model, in seconds."""
SLOT_BYTES = 1024 * 1024
READS, READ_AGAIN_SECONDS = 5, 0.001
RECORD = struct.Struct("<II")
RECORD_AT = 16
HEARTBEAT = struct.Struct("<d")
QUEUE = struct.Struct("<If")
QUEUE_AT = 8


class ServerFolder:
    """The folder of one server in `HOME/run`, created by the process that starts the server."""

    def __init__(self, runs: Path, processes: int) -> None:
        self.process_count = processes
        self._runs = runs
        self.folder = runs / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            make_private_folder(runs)
            with locked(runs / ".lock"):
                for folder in runs.iterdir():
                    if folder.is_dir() and _is_free(folder / "server"):
                        shutil.rmtree(folder, ignore_errors=True)
                self.folder.mkdir(mode=0o700)
                # This process and the server processes that it forks hold the lock, so the folder is kept until all of
                # them have exited.
                self._server_lock = _open_locked(self.folder / "server")
        except OSError as error:
            raise SettingsError(f"cannot write to the folder {runs}: {error.strerror}") from None

    def slot(self, number: int) -> SlotFile:
        """Claim a server process's slot, and hold it until the calling process exits."""
        return SlotFile(self.folder / f"process-{number}")

    def counters(self, number: int) -> SharedCounters:
        """Return the counters of a server process, which the other processes can read."""
        return SharedCounters(self.folder, number)

    def processes(self) -> list[ProcessStatus]:
        """Return the state of every expected server process."""
        return [_read_status(self.folder / f"process-{number}", number) for number in range(self.process_count)]

    def request_reload(self) -> int:
        """Ask every process to reload. A process has reloaded once its `asked` field reaches the returned number."""
        with locked(self.folder / ".lock"):
            number = self.reload_requests() + 1
            _replace(self.folder / "reload", str(number).encode())
            return number

    def reload_requests(self) -> int:
        """Return how many reloads have been requested."""
        try:
            return int((self.folder / "reload").read_bytes())
        except FileNotFoundError:
            return 0

    def unloaded_models(self) -> frozenset[str]:
        """Return the models that this server must not serve, regardless of the registry."""
        try:
            return msgspec.json.decode((self.folder / "away").read_bytes(), type=frozenset[str])
        except FileNotFoundError:
            return frozenset()

    def set_unloaded(self, model: str, *, unloaded: bool) -> None:
        """Unload a model or load it again; processes apply the change at their next reload."""
        with locked(self.folder / ".lock"):
            others = self.unloaded_models() - {model}
            _replace(self.folder / "away", msgspec.json.encode(others | {model} if unloaded else others))

    @contextmanager
    def trial_results(self) -> Iterator[dict[str, str]]:
        """Yield the sandbox results to one process at a time, and save all changes when the `with` block ends."""
        path = self.folder / "trials"
        with locked(self.folder / ".trials.lock", TRIAL_SECONDS):
            results: dict[str, str] = {}
            with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
                results = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
            yield results
            _replace(path, msgspec.json.encode(results))

    def agree_default_model(self, choose: Callable[[], str | None]) -> str | None:
        """Return the default model. The first process of the server chooses it; the choice never changes."""
        path = self.folder / "default"
        with locked(self.folder / ".lock"):
            if not path.exists():
                _replace(path, msgspec.json.encode(choose()))
            return msgspec.json.decode(path.read_bytes(), type=str | None)

    def last_served(self) -> dict[str, int]:
        """For each reference, return the version that this server or an earlier server served most recently."""
        try:
            return msgspec.json.decode((self._runs / "good").read_bytes(), type=dict[str, int])
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}

    def record_served(self, versions: Mapping[str, int]) -> None:
        """Save the versions that are currently served."""
        with locked(self._runs / ".lock"):
            known = self.last_served()
            if known != {**known, **versions}:
                _replace(self._runs / "good", msgspec.json.encode({**known, **versions}))

    def remove(self) -> None:
        """Delete the folder when the server shuts down."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._server_lock)


def running_servers(runs: Path) -> dict[str, list[ProcessStatus]]:
    """Return the status of the processes of each running server, keyed by the name of the server's folder."""
    servers = {}
    for folder in sorted(runs.glob("*-*")):
        if folder.is_dir() and not _is_free(folder / "server"):
            numbers = sorted(int(path.name.partition("-")[2]) for path in folder.glob("process-*") if not path.suffix)
            servers[folder.name] = [_read_status(folder / f"process-{number}", number) for number in numbers]
    return servers


class SlotFile:
    """The file in which a server process reports its state."""

    def __init__(self, path: Path) -> None:
        self._fd = _open_locked(path)
        self.status = ProcessReport(os.getpid())
        self.beat()
        self.report()

    def beat(self) -> None:
        """Write a heartbeat."""
        os.pwrite(self._fd, HEARTBEAT.pack(time.monotonic()), 0)

    def report(self, **changes: Any) -> None:
        """Update the given fields of the report."""
        self.status = msgspec.structs.replace(self.status, **changes)
        content = msgspec.json.encode(self.status)
        os.pwrite(self._fd, RECORD.pack(len(content), zlib.crc32(content)) + content, RECORD_AT)

    def report_queue(self, rows: int, seconds: float) -> None:
        """Report the number of waiting rows and the age of the oldest row; do nothing once the slot is closed."""
        if self._fd >= 0:
            os.pwrite(self._fd, QUEUE.pack(rows, seconds), QUEUE_AT)

    def close(self) -> None:
        """Release the slot."""
        fd, self._fd = self._fd, -1
        os.close(fd)


def _read_status(path: Path, number: int) -> ProcessStatus:
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return ProcessStatus(number, "starting")
    with file:
        if is_unlocked(file):
            return ProcessStatus(number, "dead")
        silent, (waiting, waited), status = _read_slot(file)
    return ProcessStatus(
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


def _read_slot(file: IO[bytes]) -> tuple[float, tuple[int, float], ProcessReport]:
    """Return the heartbeat's age, the state of the queue and the report. Retry while the process is writing."""
    for _ in range(READS):
        content = os.pread(file.fileno(), SLOT_BYTES, 0)
        if len(content) >= RECORD_AT + RECORD.size:
            length, checksum = RECORD.unpack_from(content, RECORD_AT)
            report = content[RECORD_AT + RECORD.size :][:length]
            if zlib.crc32(report) == checksum:
                silent = max(0.0, time.monotonic() - HEARTBEAT.unpack_from(content)[0])
                return silent, QUEUE.unpack_from(content, QUEUE_AT), msgspec.json.decode(report, type=ProcessReport)
        time.sleep(READ_AGAIN_SECONDS)
    return 0.0, (0, 0.0), ProcessReport(0)


def _open_locked(path: Path) -> int:
    """Open and lock a file. The lock is released once all processes that share this descriptor have closed it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _is_free(path: Path) -> bool:
    """Return whether this file is missing or unlocked."""
    try:
        with path.open("rb") as file:
            return is_unlocked(file)
    except FileNotFoundError:
        return True


def _replace(path: Path, content: bytes) -> None:
    """Replace a file atomically: readers see either the old or the new content."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.replace(path)
