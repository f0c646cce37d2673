"""`make drill-history`: check that disk, clock, store and journal failures cause no loss of acknowledged predictions.

    python bench/drill_history.py                                 all scenarios at full length
    python bench/drill_history.py --quick --only "locked store"   a single scenario, in seconds

Each scenario has its own home, and its own server under constant load. At the end, every acknowledged prediction must
be in the history exactly once and match its reply. The only exceptions are the predictions in a destroyed frame; their
loss must be reported. To add a scenario, write a function that takes a `Drill` and yields `Check`s, and add it to
SCENARIOS. The two disk scenarios mount a small disk, which requires root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from requirements import Check, record, show
from rich.console import Console

from rowcast import settings
from rowcast.access.context import RequestContext
from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.app import history as app_history
from rowcast.app import models as app_models
from rowcast.history.chain import decode_head
from rowcast.history.service import History
from rowcast.registry.ports import Reference
from rowcast.serving.recorder import Recorder
from rowcast.serving.rows import Row
from rowcast.tables import examples

ROWCAST = [sys.executable, "-m", "rowcast.cli"]
PATIENCE = 60.0
MEBIBYTE = 1024 * 1024


class Drill:
    """The home and server of one scenario, and a client that sends requests continuously."""

    def __init__(self, home: Path, models: Path, *, quick: bool) -> None:
        self.home = home
        self.quick = quick
        self.answered: dict[str, dict[str, Any]] = {}
        self.statuses: dict[int, int] = {}
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", models, home / "models"], check=True)
        columns = {name: cells for name, cells in examples.loans(200, 7).items() if name != "loan_status"}
        self.rows = [
            json.dumps(dict(zip(columns, cells, strict=True))).encode() for cells in zip(*columns.values(), strict=True)
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._client: threading.Thread | None = None
        self.address = ""

    def start(self, **variables: str) -> None:
        """Start a server and a client."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROWCAST_")}
        log = (self.home / "server.log").open("ab")
        self._process = subprocess.Popen(
            [*ROWCAST, "serve", "--json", "--port", "0", "--home", str(self.home)],
            env={**environment, "ROWCAST_LOG_FORMAT": "json", **variables},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        log.close()
        output = b""
        assert self._process.stdout is not None
        while not output.rstrip().endswith(b"\n}"):
            line = self._process.stdout.readline()
            assert line, (self.home / "server.log").read_text()
            output += line
        self.address = json.loads(output)["address"]
        until(lambda: self.get("/health/live")[0] == 200)
        self._ending.clear()
        self._client = threading.Thread(target=self._ask)
        self._client.start()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the client and the server; if the signal is SIGKILL, also kill the indexer."""
        self._ending.set()
        if self._client is not None:
            self._client.join()
            self._client = None
        if self._process is not None:
            indexers = self.indexers() if how == signal.SIGKILL else []
            self._process.send_signal(how)
            for pid in indexers:
                os.kill(pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
            self._process = None

    def indexers(self) -> list[int]:
        """Return this server's indexer processes."""
        assert self._process is not None
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True, check=False
        )
        return [int(word) for word in listed.stdout.split()]

    def get(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request and return the status and body of the reply; the status is 0 if the server does not
        respond."""
        request = urllib.request.Request(self.address + path, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def _ask(self) -> None:
        number = 0
        while not self._ending.is_set():
            status, body = self.get("/predict", self.rows[number % len(self.rows)])
            self.statuses[status] = self.statuses.get(status, 0) + 1
            number += 1
            if status == 200:
                reply = json.loads(body)
                self.answered[reply["id"]] = reply
            else:
                self._ending.wait(0.05)  # wait, as a client would after `Retry-After`

    def until_answered(self, more: int) -> None:
        """Wait until `more` additional predictions have been acknowledged."""
        goal = len(self.answered) + more
        until(lambda: len(self.answered) >= goal)

    def history(self) -> History:
        """Open the history of this home."""
        return app_history.history(settings.load(home=self.home))

    def check_history(self, lost: int = 0) -> Iterator[Check]:
        """Yield the checks that every scenario must pass."""
        counts: dict[str, int] = {}
        wrong = 0
        for _, sealed in self.history().entries():
            reply = json.loads(decode_head(sealed.head).reply)
            counts[reply["id"]] = counts.get(reply["id"], 0) + 1
            wrong += self.answered.get(reply["id"], reply) != reply
        yield Check("acknowledged predictions", len(self.answered), least=1)
        missing = len(self.answered.keys() - counts.keys())
        yield Check("acknowledged predictions missing from the history", missing, most=lost, least=lost)
        yield Check("duplicate history entries", sum(count > 1 for count in counts.values()), most=0)
        yield Check("history entries that differ from the reply", wrong, most=0)
        broken = self.history().verify().broken
        yield Check("broken chains reported by verify", len(broken), most=1 if lost else 0, least=1 if lost else 0)
        yield Check("remaining journals", len(list((self.home / "journal").glob("*.journal"))), most=0)
        status = subprocess.run(["grep", "-c", "Traceback", self.home / "server.log"], capture_output=True, check=False)
        yield Check("tracebacks in the log", int(status.stdout or 0), most=0)


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> float:
    """Wait until the condition holds; return the elapsed seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError("the server did not recover")
        time.sleep(0.02)
    return time.monotonic() - began


def nearly_full_disk(drill: Drill) -> Iterator[Check]:
    """Fill the disk up to the watermark, then free the space."""
    yield from _fill(drill, "40", (60 - 30) * MEBIBYTE, 503)


def full_disk(drill: Drill) -> Iterator[Check]:
    """Fill the disk completely, without a watermark; the journal must detect the full disk."""
    yield from _fill(drill, "0", 0, 503)


def _fill(drill: Drill, least: str, leave: int, expected: int) -> Iterator[Check]:
    drill.start(ROWCAST_MIN_FREE_MB=least)
    drill.until_answered(50)
    ballast = drill.home / "ballast"
    with ballast.open("wb") as file:
        disk = os.statvfs(drill.home)
        os.posix_fallocate(file.fileno(), 0, max(4096, (disk.f_bavail - 2) * disk.f_frsize - leave))
    if leave:
        until(lambda: drill.statuses.get(expected))
    else:
        big = b'{"rows":[' + b",".join(drill.rows * 40) + b"]}"
        until(lambda: drill.get("/predict", big)[0] == expected)
    refused = time.monotonic()
    ballast.unlink()
    answered = len(drill.answered)
    yield Check("time until predictions succeed again, s", until(lambda: len(drill.answered) > answered), most=10)
    yield Check("time since the last rejected prediction, s", time.monotonic() - refused, most=30)
    drill.until_answered(50)
    drill.stop()
    yield from drill.check_history()


def locked_store(drill: Drill) -> Iterator[Check]:
    """Lock the database; the journals buffer the entries."""
    seconds = 5 if drill.quick else 150
    drill.start()
    drill.until_answered(20)
    until(lambda: drill.history().store.count() > 0)
    with contextlib.closing(sqlite3.connect(drill.home / "history.db", timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        before = drill.history().store.count()
        answered = len(drill.answered)
        time.sleep(seconds)  # hold the lock for the duration of the scenario
        yield Check(
            "predictions acknowledged while the store was locked", len(drill.answered) - answered, least=seconds
        )
        rejected = sum(count for status, count in drill.statuses.items() if status != 200)
        yield Check("requests rejected while the store was locked", rejected, most=0)
        yield Check("entries stored while the store was locked", drill.history().store.count() - before, most=0)
        waiting = len(drill.answered)
        connection.execute("ROLLBACK")
    yield Check("time until everything is stored, s", until(lambda: drill.history().store.count() >= waiting), most=40)
    drill.stop()
    yield from drill.check_history()


def damaged_journal(drill: Drill) -> Iterator[Check]:
    """Destroy a frame in the middle of a journal before the journal is indexed."""
    drill.start(ROWCAST_STORE="sqlite:////proc/none/history.db")
    drill.until_answered(100)
    drill.stop(signal.SIGKILL)
    (segment,) = (drill.home / "journal").glob("*.journal")
    content = segment.read_bytes()
    place = content.index(list(drill.answered)[50].encode())
    segment.write_bytes(content[:place] + bytes(8) + content[place + 8 :])
    drill.start()
    indexers = drill.indexers()
    until(lambda: drill.history().store.count() >= 99)
    drill.until_answered(50)
    yield Check("indexers that crashed", len(set(indexers) - set(drill.indexers())), most=0)
    drill.stop()
    log = (drill.home / "server.log").read_text()
    yield Check("log lines that report the lost entry", log.count("entry 50 is lost"), least=1, most=1)
    (broken,) = drill.history().verify().broken
    yield Check("entry reported by verify", broken["seq"], least=50, most=50)
    yield from drill.check_history(lost=1)


def changing_clock(drill: Drill) -> Iterator[Check]:
    """Record predictions with a clock that jumps forward and backward by up to two days."""
    model = app_models.live_model(settings.load(home=drill.home), "loans")
    jumps = [0, 7_200, -7_200, 86_400, -86_400, 0, 0, -3_600]
    moment = iter(range(10**9))
    folder = drill.home / "journal"
    journal = FileJournal(folder, lambda: "drill")
    recorder = Recorder(
        journal, lambda event: None, now=lambda: time.time_ns() + jumps[next(moment) % len(jumps)] * 10**9
    )
    for number in range(400):
        body = drill.rows[number % len(drill.rows)]
        row = Row(model.encoder.read(body), body)
        (reply,) = recorder.record(model, [row], [RequestContext("drill", "r")], model.score([row.encoded]))
        prediction = json.loads(reply)
        drill.answered[prediction["id"]] = prediction
    journal.close()
    with contextlib.closing(SqliteStore(drill.home / "history.db")) as store:
        FolderJournalReader(folder).drain(store)
    paged: list[str] = []
    cursor: str | None = None
    while True:
        page = drill.history().page(37, cursor=cursor)
        paged += [entry.id for entry in page.predictions]
        cursor = page.next
        if cursor is None:
            break
    yield Check("entries listed more than once", len(paged) - len(set(paged)), most=0)
    yield Check("entries never listed", len(drill.answered.keys() - set(paged)), most=0)
    (drill.home / "server.log").touch()
    yield from drill.check_history()


SCENARIOS: dict[str, Callable[[Drill], Iterator[Check]]] = {
    "nearly full disk": nearly_full_disk,
    "full disk": full_disk,
    "locked store": locked_store,
    "damaged journal": damaged_journal,
    "changing clock": changing_clock,
}
ON_A_SMALL_DISK = ("nearly full disk", "full disk")


@contextlib.contextmanager
def place(name: str) -> Iterator[Path]:
    """Yield a folder for a scenario's home, on a separate 120 MiB disk if the scenario fills the disk."""
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        if name not in ON_A_SMALL_DISK:
            yield Path(folder)
            return
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def train(folder: Path) -> Path:
    """Train a model on the loan example and return the registry folder."""
    loaded = settings.load(home=folder)
    app_models.train(
        loaded,
        examples.loans(400),
        target="loan_status",
        name="loans",
        candidates=("logistic",),
        trials=1,
        progress=lambda event: None,
    )
    assert Reference("loans", 1) in [Reference("loans", n) for n in app_models.registry(loaded).models()["loans"]]
    return loaded.registry_folder


def main() -> int:
    """Run the scenarios and print all checks; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SCENARIOS)
    parser.add_argument("--quick", action="store_true", help="run for seconds instead of minutes")
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    arguments = parser.parse_args()
    console, results = Console(width=110), dict[str, list[Check]]()
    with tempfile.TemporaryDirectory(prefix="drill-models-") as scratch:
        models = train(Path(scratch))
        for name in [arguments.only] if arguments.only else SCENARIOS:
            with place(name) as folder:
                drill = Drill(folder / "home", models, quick=arguments.quick)
                try:
                    began = time.monotonic()
                    results[name] = list(SCENARIOS[name](drill))
                    show(console, results[name], f"{name} ({time.monotonic() - began:.0f} s)")
                finally:
                    drill.stop()
    kept = all(check.kept for checks in results.values() for check in checks)
    if not arguments.no_record:
        scenarios = {name: {check.name: check.value for check in checks} for name, checks in results.items()}
        record("drill history", quick=arguments.quick, scenarios=scenarios, kept=kept)
    print("all requirements met" if kept else "SOME REQUIREMENTS NOT MET")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
