"""`make drill`: test two server processes under constant load while processes are being killed, models are changing and
the server is shutting down.

    python bench/drill.py --rounds 50                             all scenarios at full length
    python bench/drill.py --rounds 3 --only "changed models"      a single scenario, shortened

Each scenario has its own home, server and checks. At the end of each scenario, every acknowledged prediction must be in
the history exactly once and match its reply, and no chain may be broken. To add a scenario, write a function that takes
a `Drill` and yields `Check`s, and add it to SCENARIOS.
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
from requirements import Check, record, show
from rich.console import Console

from rowcast import settings
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.app import history as app_history
from rowcast.history.chain import decode_head
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import load
from rowcast.tables import examples

HERE = Path(__file__).resolve().parent
ROWCAST = [sys.executable, "-m", "rowcast.cli"]
PROCESSES = 2
ROWS = 400
PORT = 18301
PATIENCE = 180.0
"""Maximum recovery time in seconds."""


@dataclass(frozen=True)
class Models:
    """Two trained models, the rows to send, and each model's expected scores."""

    folders: dict[str, Path]
    rows: list[bytes]
    expected: dict[str, list[Score]]


class Drill:
    """The home, server and load of one scenario."""

    def __init__(self, home: Path, models: Models, rounds: int) -> None:
        self.home = home
        self.rounds = rounds
        self.registry = FolderRegistry(home / "models")
        self.kinds: dict[int, str] = {}
        """Maps each valid version to its model. Predictions from any other version are wrong."""
        self._models = models
        self._process: subprocess.Popen[bytes] | None = None
        self.publish("first")
        self.pressure = Pressure(PORT, models.rows, self._right)
        self.tally: Tally = self.pressure.tally

    def _right(self, version: int, row: int, prediction: dict[str, Any]) -> bool:
        kind = self.kinds.get(version)
        if kind is None:
            return False
        fields = {key: prediction[key] for key in Score.__struct_fields__ if key in prediction}
        return msgspec.convert(fields, Score) == self._models.expected[kind][row]

    # Server control. The drill restarts the server as an init system would.
    def start(self) -> float:
        """Start the server, retrying until it is healthy; return the elapsed seconds."""
        began = time.monotonic()
        while True:
            with (self.home / "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*ROWCAST, "serve", "--workers", str(PROCESSES), "--port", str(PORT), "--home", str(self.home)],
                    cwd=self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            while self._process.poll() is None:
                status, body = self.health()
                if status == 200 and set(pids(body)) <= set(children(self._process.pid)):  # ignore the previous server
                    return time.monotonic() - began
                self._in_time(began, "the server did not become healthy")
                time.sleep(0.05)
            self._in_time(began, "the server did not start")
            time.sleep(0.2)

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def kill_all(self) -> None:
        """Kill all processes that this drill started."""
        if self._process is not None and self._process.poll() is None:
            for pid in [self._process.pid, *children(self._process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    @property
    def supervisor(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    def wait_for_end(self) -> int:
        """Wait until the killed supervisor exits, and return its exit status."""
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def indexer(self) -> int:
        """The indexer's process id."""
        began = time.monotonic()
        while True:
            pids = [pid for pid in children(self.supervisor) if command_of(pid).endswith(b"\0indexer\0")]
            if pids:
                return pids[0]
            self._in_time(began, "the indexer did not start")
            time.sleep(0.05)

    def health(self, timeout: float = 5) -> tuple[int, dict[str, Any]]:
        """Return the status and body of /health; the status is 0 if the server does not respond."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=timeout) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except (OSError, ValueError):
            return 0, {}

    def until(self, condition: Callable[[dict[str, Any]], bool], what: str) -> float:
        """Wait until the body of /health meets the condition; return the elapsed seconds."""
        began = time.monotonic()
        while True:
            _, body = self.health()
            if body and condition(body):
                return time.monotonic() - began
            self._in_time(began, what)
            time.sleep(0.02)

    def until_healthy(self) -> float:
        """Wait until /health reports the status `ok`."""
        return self.until(lambda body: body["status"] == "ok", "the server did not recover")

    def _in_time(self, began: float, what: str) -> None:
        if time.monotonic() - began > PATIENCE:
            log = (self.home / "server.log").read_text()[-3000:]
            health = json.dumps(self.health(timeout=PATIENCE), indent=1)
            running = subprocess.run(
                ["ps", "-eo", "pid,ppid,etime,stat,wchan:20,args"], capture_output=True, text=True, check=False
            )
            ours = [line for line in running.stdout.splitlines() if str(PORT) in line]
            raise SystemExit("\n".join([f"{what} within {PATIENCE:g} s", health, *ours, "end of the server log:", log]))

    # Models.
    def publish(self, kind: str) -> Reference:
        """Publish a valid version of this kind as champion."""
        folder = self._models.folders[kind]
        reference = self.registry.publish(
            "loans", lambda new: shutil.copytree(folder, new, dirs_exist_ok=True) and None
        )
        self.kinds[reference.version] = kind
        self.registry.point(reference, "champion")
        return reference

    def publish_broken(self, how: str) -> Reference:
        """Publish an invalid version as champion; it must never be served."""
        reference = self.registry.publish("loans", lambda new: BROKEN[how](self._models.folders, new))
        self.registry.point(reference, "champion")
        return reference


def write_no_graph(folders: dict[str, Path], new: Path) -> None:
    """Write a bundle whose graph is not an ONNX file but has a valid digest."""
    repack(folders["first"], new, model=b"nonsense")


def write_other_graph(folders: dict[str, Path], new: Path) -> None:
    """Write a bundle with the other model's graph, whose scores do not match the golden rows."""
    repack(folders["first"], new, model=(folders["second"] / bundle.MODEL).read_bytes())


def write_tampered_graph(folders: dict[str, Path], new: Path) -> None:
    """Write a bundle and change one byte of its graph."""
    shutil.copytree(folders["first"], new, dirs_exist_ok=True)
    content = bytearray((new / bundle.MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (new / bundle.MODEL).write_bytes(content)


def write_truncated(folders: dict[str, Path], new: Path) -> None:
    """Write a bundle with a truncated manifest and no golden rows."""
    shutil.copytree(folders["first"], new, dirs_exist_ok=True)
    text = (new / bundle.MANIFEST).read_bytes()
    (new / bundle.MANIFEST).write_bytes(text[: len(text) // 2])
    (new / bundle.GOLDEN).unlink()


def repack(source: Path, new: Path, model: bytes) -> None:
    """Write a bundle with a different graph and with digests that match this graph."""
    files = {bundle.MODEL: model, bundle.GOLDEN: (source / bundle.GOLDEN).read_bytes()}
    bundle.pack(new, bundle.read_manifest(source), files)


BROKEN = {
    "no graph": write_no_graph,
    "other graph": write_other_graph,
    "tampered graph": write_tampered_graph,
    "truncated": write_truncated,
}


# The scenarios.
def kill_server_processes(drill: Drill) -> Iterator[Check]:
    """Kill each server process in turn; the other one continues, and the supervisor restarts the killed one."""
    seconds = []
    drill.start()
    with drill.pressure.on():
        for turn in range(drill.rounds * PROCESSES):
            time.sleep(0.3)
            pid = drill.health()[1]["processes"][turn % PROCESSES]["pid"]
            os.kill(pid, signal.SIGKILL)
            seconds.append(
                drill.until(
                    lambda body, pid=pid: body["status"] == "ok" and pid not in pids(body), "no new server process"
                )
            )
    yield from check_recovery(seconds)
    yield Check("refused connections", drill.tally.counts["refused"], most=0)
    yield Check(
        "requests lost when a server process was killed", drill.tally.counts["cut"] + drill.tally.counts["torn"]
    )


def kill_indexer(drill: Drill) -> Iterator[Check]:
    """Kill the indexer; clients are not affected."""
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
    yield from check_recovery(seconds)
    yield from check_replies(drill, most_refused=0)


def kill_supervisor(drill: Drill) -> Iterator[Check]:
    """Kill the supervisor; its server processes drain, and the drill restarts it as an init system would."""
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
                drill.tally.wrong.append(f"processes {left} were still running after the supervisor exited")
    yield from check_recovery(seconds)
    yield from check_replies(drill)


def change_models(drill: Drill) -> Iterator[Check]:
    """Alternate between valid and invalid champions; only valid champions are served, and clients are not affected."""
    good, broken = [], []
    drill.start()
    with drill.pressure.on():
        for turn in range(2 * drill.rounds):
            if turn % 2:
                how = list(BROKEN)[turn // 2 % len(BROKEN)]
                reference = drill.publish_broken(how)
                broken.append(
                    drill.until(lambda body, name=str(reference): all_report(body, name), f"{how}: not reported")
                )
            else:
                version = drill.publish(("first", "second")[turn // 2 % 2]).version
                good.append(drill.until(lambda body, version=version: all_serve(body, version), "not loaded"))
    yield Check("valid versions loaded", len(good), least=drill.rounds)
    yield Check("invalid versions rejected", len(broken), least=drill.rounds)
    yield Check("median time to load, s", round(median(good), 3))
    yield Check("longest time to load, s", round(max(good), 3))
    yield from check_replies(drill, most_refused=0)


def shut_down(drill: Drill) -> Iterator[Check]:
    """Send SIGTERM under load; the exit status is 0, and every received request is answered."""
    statuses, seconds = [], []
    drill.start()
    with drill.pressure.on():
        for _ in range(max(1, 2 * drill.rounds // 5)):
            time.sleep(0.5)
            began = time.monotonic()
            statuses.append(drill.stop())
            seconds.append(time.monotonic() - began)
            drill.start()
    yield Check("shutdowns", len(statuses))
    yield Check("shutdowns with a non-zero exit status", sum(map(bool, statuses)), most=0)
    yield Check("longest shutdown, s", round(max(seconds), 3))
    yield from check_replies(drill)


SCENARIOS: dict[str, Callable[[Drill], Iterator[Check]]] = {
    "killed server processes": kill_server_processes,
    "killed indexer": kill_indexer,
    "killed supervisor": kill_supervisor,
    "changed models": change_models,
    "shutdowns": shut_down,
}


def check_recovery(seconds: list[float]) -> Iterator[Check]:
    """Check that the server recovered after every kill."""
    yield Check("killed processes", len(seconds))
    yield Check("median recovery time, s", round(median(seconds), 3))
    yield Check("longest recovery time, s", round(max(seconds), 3), most=PATIENCE)


def check_replies(drill: Drill, most_refused: float | None = None) -> Iterator[Check]:
    """Check that every received request was answered."""
    yield Check("received requests without a reply", drill.tally.counts["cut"] + drill.tally.counts["torn"], most=0)
    yield Check("refused connections", drill.tally.counts["refused"], most=most_refused)


def check_history(drill: Drill) -> Iterator[Check]:
    """Check after shutdown that every reply was correct and recorded exactly once, and that no chain is broken."""
    tally = drill.tally
    counts: Counter[str] = Counter()
    other = 0
    for _, sealed in app_history.history(settings.load(home=drill.home)).entries():
        reply = decode_head(sealed.head).reply
        prediction_id = msgspec.json.decode(reply, type=_Reply).id
        counts[prediction_id] += 1
        other += tally.acknowledged.get(prediction_id, zlib.crc32(reply)) != zlib.crc32(reply)
    verdict = json.loads(run("verify", "--json", "--home", str(drill.home)))
    yield Check("acknowledged predictions", len(tally.acknowledged), least=1)
    yield Check("wrong predictions", len(tally.wrong), most=0)
    missing = sum(counts[prediction_id] != 1 for prediction_id in tally.acknowledged)
    yield Check("acknowledged predictions missing from or repeated in the history", missing, most=0)
    yield Check("duplicate history entries", sum(count > 1 for count in counts.values()), most=0)
    yield Check("history entries that differ from the reply", other, most=0)
    yield Check("broken chains", len(verdict["broken"]), most=0)
    yield Check("requests rejected with 503", tally.counts["shed"])


class _Reply(msgspec.Struct):
    id: str


def pids(body: dict[str, Any]) -> list[int]:
    """Return the process ids of the server processes."""
    return [process["pid"] for process in body["processes"]]


def all_serve(body: dict[str, Any], version: int) -> bool:
    """Return whether every server process is serving this version."""
    return all([model["version"] for model in process["models"]] == [version] for process in body["processes"])


def all_report(body: dict[str, Any], text: str) -> bool:
    """Return whether every server process reports a reload error that contains this string."""
    return all(text in process["reload_error"] for process in body["processes"])


def children(pid: int) -> list[int]:
    """Return the child processes of a process."""
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listing.stdout.split()]


def command_of(pid: int) -> bytes:
    """Return the command line of a process, or an empty string if the process has exited."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def run(*words: str) -> str:
    """Run a `rowcast` command and return its output; exit if it fails."""
    finished = subprocess.run([*ROWCAST, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if finished.returncode:
        raise SystemExit(f"rowcast {' '.join(words)} failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def train(scratch: Path) -> Models:
    """Train two different models on the loan example and compute their expected scores."""
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
    """Run the scenarios; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds",
        type=int,
        default=50,
        help="number of kills per process (there are twice as many reloads and 40%% as many shutdowns)",
    )
    parser.add_argument(
        "--only", action="append", choices=list(SCENARIOS), help="run only this scenario; can be repeated"
    )
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    options = parser.parse_args()
    results: dict[str, list[Check]] = {}
    with tempfile.TemporaryDirectory(prefix="rowcast-drill-") as scratch:
        print("Training two models ...", flush=True)
        models = train(Path(scratch))
        for name in options.only or SCENARIOS:
            results[name] = run_scenario(name, Path(scratch) / name.replace(" ", "-"), models, options.rounds)
    kept = all(check.kept for checks in results.values() for check in checks)
    if not options.no_record:
        scenarios = {name: {check.name: check.value for check in checks} for name, checks in results.items()}
        record("drill", rounds=options.rounds, processes=PROCESSES, scenarios=scenarios, kept=kept)
    print("all requirements met" if kept else "SOME REQUIREMENTS NOT MET")
    return 0 if kept else 1


def run_scenario(name: str, home: Path, models: Models, rounds: int) -> list[Check]:
    """Run one scenario and print its checks."""
    home.mkdir()
    drill = Drill(home, models, rounds)
    began = time.monotonic()
    try:
        checks = [*SCENARIOS[name](drill), Check("final exit status", drill.stop(), most=0), *check_history(drill)]
    finally:
        drill.kill_all()
    show(Console(width=110), checks, f"{name} ({time.monotonic() - began:.0f} s)")
    for wrong in drill.tally.wrong[:5]:
        print(f"  {wrong}")
    sys.stdout.flush()
    return checks


if __name__ == "__main__":
    sys.exit(main())
