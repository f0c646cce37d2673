"""`make drill`: what a server with two workers promises while processes die, models change and people stop it.

    python bench/drill.py --rounds 50                     everything, as often as promised
    python bench/drill.py --rounds 3 --only reload        one scenario, quickly

Each scenario has a home and a server of its own, under constant load, and checks of its own. At the end of each, every
acknowledged prediction must be in history exactly once, as it was answered, and every chain must verify. To add a
scenario, write a function that takes a `Drill` and yields `Check`s, and put it into SCENARIOS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from pressure import Pressure, Tally
from promises import Check, record, show
from rich.console import Console

from rowcast import settings
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.app import indexer as app_history
from rowcast.history.chain import decode_head
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import load
from rowcast.tables import examples

HERE = Path(__file__).resolve().parent
ROWCAST = [sys.executable, "-m", "rowcast.cli"]
WORKERS = 2
ROWS = 400
PORT = 18301
PATIENCE = 180.0
"""Seconds after which something that should come back by itself has not."""


@dataclass(frozen=True)
class Models:
    """Two trained models, whose answers to all rows are known."""

    folders: dict[str, Path]
    rows: list[bytes]
    expected: dict[str, list[Score]]


class Drill:
    """One scenario's home, server and load."""

    def __init__(self, home: Path, models: Models, rounds: int) -> None:
        self.home = home
        self.rounds = rounds
        self.registry = FolderRegistry(home / "models")
        self.kinds: dict[int, str] = {}
        """Which model a good version is; answers of any other version are wrong."""
        self._models = models
        self._process: subprocess.Popen[bytes] | None = None
        self.publish("first")
        self.pressure = Pressure(PORT, models.rows, self._right)
        self.tally: Tally = self.pressure.tally

    def _right(self, version: int, row: int, found: dict[str, Any]) -> bool:
        kind = self.kinds.get(version)
        if kind is None:
            return False
        outcome = msgspec.convert({key: found[key] for key in Score.__struct_fields__ if key in found}, Score)
        return outcome == self._models.expected[kind][row]

    # The server, as an init system would keep it.
    def start(self) -> float:
        """Start until it is healthy, again when it cannot; the seconds that took."""
        began = time.monotonic()
        while True:
            with (self.home / "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*ROWCAST, "serve", "--workers", str(WORKERS), "--port", str(PORT), "--home", str(self.home)],
                    cwd=self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            while self._process.poll() is None:
                status, body = self.health()
                if status == 200 and set(pids(body)) <= set(children(self._process.pid)):  # not the one before it
                    return time.monotonic() - began
                self._in_time(began, "the server did not become healthy")
                time.sleep(0.05)
            self._in_time(began, "the server did not start")
            time.sleep(0.2)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def kill_all(self) -> None:
        """Nothing of this drill stays, however it ended."""
        if self._process is not None and self._process.poll() is None:
            for pid in [self._process.pid, *children(self._process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    @property
    def supervisor(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def wait_for_end(self) -> int:
        """The exit status of a supervisor that was killed."""
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def indexer(self) -> int:
        """The process id of the indexer."""
        began = time.monotonic()
        while True:
            found = [pid for pid in children(self.supervisor) if command_of(pid).endswith(b"\0indexer\0")]
            if found:
                return found[0]
            self._in_time(began, "there is no indexer")
            time.sleep(0.05)

    def health(self, timeout: float = 5) -> tuple[int, dict[str, Any]]:
        """Status and body of /health; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=timeout) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except (OSError, ValueError):
            return 0, {}

    def until(self, condition: Callable[[dict[str, Any]], bool], what: str) -> float:
        """Wait until /health says so; the seconds that took."""
        began = time.monotonic()
        while True:
            _, body = self.health()
            if body and condition(body):
                return time.monotonic() - began
            self._in_time(began, what)
            time.sleep(0.02)

    def until_healthy(self) -> float:
        """Wait until every part and every worker is well."""
        return self.until(lambda body: body["status"] == "ok", "the server did not recover")

    def _in_time(self, began: float, what: str) -> None:
        if time.monotonic() - began > PATIENCE:
            said = (self.home / "server.log").read_text()[-3000:]
            seen = json.dumps(self.health(timeout=PATIENCE), indent=1)
            running = subprocess.run(
                ["ps", "-eo", "pid,ppid,etime,stat,wchan:20,args"], capture_output=True, text=True, check=False
            )
            ours = [line for line in running.stdout.splitlines() if str(PORT) in line]
            raise SystemExit("\n".join([f"{what} within {PATIENCE:g} s", seen, *ours, "the last of its log:", said]))

    # Models.
    def publish(self, kind: str) -> Reference:
        """A good version of this kind, as champion."""
        folder = self._models.folders[kind]
        reference = self.registry.publish(
            "loans", lambda new: shutil.copytree(folder, new, dirs_exist_ok=True) and None
        )
        self.kinds[reference.version] = kind
        self.registry.point(reference, "champion")
        return reference

    def publish_broken(self, how: str) -> Reference:
        """A version that must never answer, as champion."""
        reference = self.registry.publish("loans", lambda new: BROKEN[how](self._models.folders, new))
        self.registry.point(reference, "champion")
        return reference


def nonsense(folders: dict[str, Path], new: Path) -> None:
    """A graph that is none, under digests that are right."""
    repack(folders["first"], new, model=b"nonsense")


def swapped(folders: dict[str, Path], new: Path) -> None:
    """Another model's graph under this one's golden rows."""
    repack(folders["first"], new, model=(folders["second"] / bundle.MODEL).read_bytes())


def tampered(folders: dict[str, Path], new: Path) -> None:
    """A byte changed after packing."""
    shutil.copytree(folders["first"], new, dirs_exist_ok=True)
    content = bytearray((new / bundle.MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (new / bundle.MODEL).write_bytes(content)


def cut_short(folders: dict[str, Path], new: Path) -> None:
    """A manifest that ends in the middle, and no golden rows."""
    shutil.copytree(folders["first"], new, dirs_exist_ok=True)
    text = (new / bundle.MANIFEST).read_bytes()
    (new / bundle.MANIFEST).write_bytes(text[: len(text) // 2])
    (new / bundle.GOLDEN).unlink()


def repack(source: Path, new: Path, model: bytes) -> None:
    """A bundle with another graph, its digests made anew."""
    files = {bundle.MODEL: model, bundle.GOLDEN: (source / bundle.GOLDEN).read_bytes()}
    bundle.pack(new, bundle.read_manifest(source), files)


BROKEN = {"nonsense": nonsense, "swapped": swapped, "tampered": tampered, "cut short": cut_short}


# The scenarios.
def workers_die(drill: Drill) -> Iterator[Check]:
    """kill -9 of each worker in turn; the others go on, the supervisor starts it again."""
    seconds = []
    drill.start()
    with drill.pressure.on():
        for turn in range(drill.rounds * WORKERS):
            time.sleep(0.3)
            pid = drill.health()[1]["workers"][turn % WORKERS]["pid"]
            os.kill(pid, signal.SIGKILL)
            seconds.append(
                drill.until(lambda body, pid=pid: body["status"] == "ok" and pid not in pids(body), "no worker")
            )
    yield from recovered(seconds)
    yield Check("refused while one worker was left", drill.tally.counts["refused"], most=0)
    yield Check("requests that died with their worker", drill.tally.counts["cut"] + drill.tally.counts["torn"])


def indexer_dies(drill: Drill) -> Iterator[Check]:
    """kill -9 of the indexer: nobody who asks notices."""
    seconds = []
    drill.start()
    with drill.pressure.on():
        for _ in range(drill.rounds):
            time.sleep(0.3)
            pid = drill.indexer()
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            while drill.indexer() == pid:
                time.sleep(0.02)
            seconds.append(time.monotonic() - began)
    yield from recovered(seconds)
    yield from all_answered(drill)
    yield Check("refused", drill.tally.counts["refused"], most=0)


def supervisor_dies(drill: Drill) -> Iterator[Check]:
    """kill -9 of the supervisor: its workers end in order, and whoever keeps it starts it again."""
    seconds = []
    drill.start()
    with drill.pressure.on():
        for _ in range(drill.rounds):
            time.sleep(0.3)
            before = [*pids(drill.health()[1]), drill.indexer()]
            os.kill(drill.supervisor, signal.SIGKILL)
            drill.wait_for_end()
            seconds.append(drill.start())
            left = [pid for pid in before if b"rowcast" in command_of(pid)]
            if left:
                drill.tally.wrong.append(f"processes {left} outlived their supervisor")
    yield from recovered(seconds)
    yield from all_answered(drill)


def models_change(drill: Drill) -> Iterator[Check]:
    """Good and broken champions in turn: good ones are followed, broken ones never answer, nobody who asks notices."""
    good, broken = [], []
    drill.start()
    with drill.pressure.on():
        for turn in range(2 * drill.rounds):
            if turn % 2:
                how = list(BROKEN)[turn // 2 % len(BROKEN)]
                reference = drill.publish_broken(how)
                said = f"{reference} is not served"
                broken.append(drill.until(lambda body, said=said: all_say(body, said), f"{how}: nothing was said"))
            else:
                version = drill.publish(("first", "second")[turn // 2 % 2]).version
                good.append(drill.until(lambda body, version=version: all_serve(body, version), "not followed"))
    yield Check("good versions followed", len(good), least=drill.rounds)
    yield Check("broken versions refused", len(broken), least=drill.rounds)
    yield Check("median seconds to follow", round(median(good), 3))
    yield Check("most seconds to follow", round(max(good), 3))
    yield from all_answered(drill)
    yield Check("refused", drill.tally.counts["refused"], most=0)


def told_to_stop(drill: Drill) -> Iterator[Check]:
    """SIGTERM under load: ends with 0, and every request that was received is answered."""
    statuses, seconds = [], []
    drill.start()
    with drill.pressure.on():
        for _ in range(max(1, 2 * drill.rounds // 5)):
            time.sleep(0.5)
            began = time.monotonic()
            statuses.append(drill.stop())
            seconds.append(time.monotonic() - began)
            drill.start()
    yield Check("stops", len(statuses))
    yield Check("stops that did not exit 0", sum(map(bool, statuses)), most=0)
    yield Check("most seconds to stop", round(max(seconds), 3))
    yield from all_answered(drill)


SCENARIOS: dict[str, Callable[[Drill], Iterator[Check]]] = {
    "workers die": workers_die,
    "indexer dies": indexer_dies,
    "supervisor dies": supervisor_dies,
    "models change": models_change,
    "told to stop": told_to_stop,
}


def recovered(seconds: list[float]) -> Iterator[Check]:
    """How often and how soon everything was well again, by itself."""
    yield Check("deaths", len(seconds))
    yield Check("median seconds to recover", round(median(seconds), 3))
    yield Check("most seconds to recover", round(max(seconds), 3), most=PATIENCE)


def all_answered(drill: Drill) -> Iterator[Check]:
    """No request that a server had received was left without its answer."""
    yield Check("received and not answered", drill.tally.counts["cut"] + drill.tally.counts["torn"], most=0)
    yield Check("refused connections", drill.tally.counts["refused"])


def evidence(drill: Drill) -> Iterator[Check]:
    """After the end: right answers alone, each in history exactly once, all chains whole."""
    tally = drill.tally
    kept: Counter[str] = Counter()
    other = 0
    for _, sealed in app_history.history(settings.load(home=drill.home)).entries():
        reply = decode_head(sealed.head).reply
        prediction_id = msgspec.json.decode(reply, type=_Identified).id
        kept[prediction_id] += 1
        other += tally.acknowledged.get(prediction_id, zlib.crc32(reply)) != zlib.crc32(reply)
    verdict = json.loads(run("verify", "--json", "--home", str(drill.home)))
    yield Check("acknowledged predictions", len(tally.acknowledged), least=1)
    yield Check("wrong answers", len(tally.wrong), most=0)
    yield Check("acknowledged, not in history once", sum(kept[one] != 1 for one in tally.acknowledged), most=0)
    yield Check("kept twice", sum(count > 1 for count in kept.values()), most=0)
    yield Check("kept otherwise than answered", other, most=0)
    yield Check("broken chains", len(verdict["broken"]), most=0)
    yield Check("shed", tally.counts["shed"])


class _Identified(msgspec.Struct):
    id: str


def pids(body: dict[str, Any]) -> list[int]:
    """The workers' process ids."""
    return [worker["pid"] for worker in body["workers"]]


def all_serve(body: dict[str, Any], version: int) -> bool:
    """Whether every worker answers with this version."""
    return all([one["version"] for one in worker["models"]] == [version] for worker in body["workers"])


def all_say(body: dict[str, Any], text: str) -> bool:
    """Whether every worker says this of its last reload."""
    return all(text in worker["reload_error"] for worker in body["workers"])


def children(pid: int) -> list[int]:
    """The processes that this one started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def command_of(pid: int) -> bytes:
    """The command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def run(*words: str) -> str:
    """One command of the product; when it fails, so does the drill."""
    finished = subprocess.run([*ROWCAST, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if finished.returncode:
        raise SystemExit(f"rowcast {' '.join(words)} failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def train(scratch: Path) -> Models:
    """Two models of the loan example that answer differently, and what they answer."""
    table = scratch / "loans.csv"
    run("example", "loans", "--out", str(table), "--rows", "1500")
    registry = FolderRegistry(scratch / "trained" / "models")
    folders = {}
    for kind, candidate in (("first", "boosting"), ("second", "logistic")):
        words = ["--target", "loan_status", "--name", kind, "--candidates", candidate, "--trials", "2"]
        run("train", str(table), *words, "--home", str(scratch / "trained"))
        folders[kind] = registry.folder(Reference(kind, 1))
    columns = {name: cells for name, cells in examples.loans(ROWS, 7).items() if name != "loan_status"}
    rows = [
        msgspec.json.encode(dict(zip(columns, cells, strict=True))) for cells in zip(*columns.values(), strict=True)
    ]
    expected = {}
    for kind in folders:
        model = load(Reference(kind, 1), registry, open_graph)
        expected[kind] = model.score([model.encoder.read(row) for row in rows])
    return Models(folders, rows, expected)


def main() -> int:
    """Every scenario in turn; 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=50, help="deaths of each process; reloads twice, stops two fifths"
    )
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="only this scenario; may be repeated")
    parser.add_argument("--no-record", action="store_true", help="leave results.jsonl alone")
    options = parser.parse_args()
    found: dict[str, list[Check]] = {}
    with tempfile.TemporaryDirectory(prefix="rowcast-drill-") as scratch:
        print("training two models ...", flush=True)
        models = train(Path(scratch))
        for name in options.only or SCENARIOS:
            found[name] = conducted(name, Path(scratch) / name.replace(" ", "-"), models, options.rounds)
    kept = all(check.kept for checks in found.values() for check in checks)
    if not options.no_record:
        scenarios = {name: {check.name: check.found for check in checks} for name, checks in found.items()}
        record("drill", rounds=options.rounds, workers=WORKERS, scenarios=scenarios, kept=kept)
    print("every promise was kept" if kept else "PROMISES WERE BROKEN")
    return 0 if kept else 1


def conducted(name: str, home: Path, models: Models, rounds: int) -> list[Check]:
    """One scenario from its first start to the last check, said on screen."""
    home.mkdir()
    drill = Drill(home, models, rounds)
    began = time.monotonic()
    try:
        checks = [*SCENARIOS[name](drill), Check("last exit status", drill.stop(), most=0), *evidence(drill)]
    finally:
        drill.kill_all()
    show(Console(width=110), checks, f"{name} ({time.monotonic() - began:.0f} s)")
    for wrong in drill.tally.wrong[:5]:
        print(f"  {wrong}")
    sys.stdout.flush()
    return checks


if __name__ == "__main__":
    sys.exit(main())
