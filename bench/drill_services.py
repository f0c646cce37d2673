"""`make drill-services`: test an API, a worker, Redis and PostgreSQL under load as each of them fails in turn.

    python bench/drill_services.py                                  all scenarios (about ten minutes)
    python bench/drill_services.py --only store --no-record         one scenario

There is one scenario for each durability mode. In each of these scenarios, every process is first killed with SIGKILL
and later paused with SIGSTOP; then the connections to Redis and PostgreSQL are dropped, delayed and cut. In the last
scenario, NGINX distributes requests to two APIs; the two APIs and two workers are restarted one at a time.

Every request must be answered correctly or refused with a clear 503, within the deadline. Every acknowledged prediction
must be in PostgreSQL exactly once, with the acknowledged content.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from drill import Models, train
from faulty_link import FaultyLink
from requirements import Check, record, show
from rich.console import Console
from rich.table import Table
from service_fleet import MAX_WAIT_SECONDS, Fleet, Service, fleet, wait_until
from service_load import Phase, ServiceLoad

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.history.chain import decode_head
from rowcast.schema.prediction import Score
from support.postgresql import Postgres
from support.redis import RedisServer

MODES = ("process", "disk", "store")
ROLLING = "rolling restart"
STEADY = "steady"
PAUSE_SECONDS = 10.0
DOWN_SECONDS = 1.0
LINK_SECONDS = 5.0
KEY_SECONDS = 4.0
"""The time limits for claiming an Idempotency-Key and for saving the reply, two seconds each."""
STORE_SECONDS = 10.0
"""How long a prediction waits for the store if `durability` is `store`."""
MARGIN_SECONDS = 1.0
HANG_SECONDS = 5.0
"""Clients wait this many seconds longer than the longest permitted response time before they report a hang."""
STEADY_SECONDS = 0.5
RECOVERY_SECONDS = 75.0
"""The maximum recovery time. PostgreSQL keeps the locks of a lost connection for up to a minute."""
ROUNDS = 2
CONSOLE = Console(width=max(118, Console().width))


class Drill:
    """One scenario: its processes, its load and what has been observed."""

    def __init__(self, running: Fleet, load: ServiceLoad, deadline: float) -> None:
        self.fleet = running
        self.load = load
        self.deadline = deadline
        self.faults = 0
        self.unstored = 0
        """The number of acknowledged predictions that were only in the journals while the API and its indexer were
        dead."""
        self.losing: list[Phase] = []
        """The phases in which the API was dead. During these phases, requests may remain unanswered."""
        self.pausing: list[Phase] = []
        """The phases in which the API was paused. During these phases, any reply may be late."""
        self.statuses: list[int] = []
        """The exit statuses of the services that were stopped with SIGTERM."""

    def suffer(self, name: str, fault: Callable[[], None]) -> Phase:
        """Cause a fault in a separate phase, which ends once every client has received a reply after the fault."""
        time.sleep(STEADY_SECONDS)
        phase = self.load.begin(name)
        fault()
        self.faults += 1
        ended = time.monotonic()
        while not self.load.is_answered_since(ended) and time.monotonic() - ended < RECOVERY_SECONDS:
            time.sleep(0.02)
        phase.recovery = time.monotonic() - ended
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(phase.outcomes.items()))
        print(f"  {name}: {outcomes}; longest {phase.longest:.1f} s, recovery {phase.recovery:.1f} s", flush=True)
        self.load.begin(STEADY)
        return phase

    def kill_api_and_indexer(self) -> None:
        """Kill the API and its indexer while entries are waiting in the journal; count the acknowledged predictions
        that are only in the journal."""
        (api,) = self.fleet.apis
        indexer = self._indexer()
        os.kill(indexer, signal.SIGSTOP)
        time.sleep(DOWN_SECONDS)
        api.kill()
        os.kill(indexer, signal.SIGKILL)
        time.sleep(DOWN_SECONDS)  # the clients read the replies that the API sent before it died
        acknowledged = set(self.load.acknowledged)
        stored = {str(row[0]) for row in self.fleet.postgres.execute("SELECT id FROM rowcast.entries")}
        self.unstored += len(acknowledged - stored)
        api.start()

    def kill_everything(self) -> None:
        """Kill all processes at the same time, and start them again."""
        (api,), (worker,) = self.fleet.apis, self.fleet.workers
        os.kill(self._indexer(), signal.SIGKILL)
        for process in (api, worker, self.fleet.redis, self.fleet.postgres):
            process.kill()
        for process in (self.fleet.postgres, self.fleet.redis, worker, api):
            process.start()

    def kill_indexer(self) -> None:
        """Kill the indexer, and wait until the API has started another one."""
        (api,) = self.fleet.apis
        old = self._indexer()
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: api.indexer() not in (None, old), "the API started no other indexer")

    def pause_indexer(self) -> None:
        """Pause the indexer."""
        pid = self._indexer()
        os.kill(pid, signal.SIGSTOP)
        time.sleep(PAUSE_SECONDS)
        os.kill(pid, signal.SIGCONT)

    def _indexer(self) -> int:
        (api,) = self.fleet.apis
        wait_until(api.indexer, "the API started no indexer")
        pid = api.indexer()
        assert pid is not None
        return pid


def kill_and_start(target: Service | RedisServer | Postgres) -> Callable[[], None]:
    """Return a fault that kills a process and restarts it after a short pause."""

    def fault() -> None:
        target.kill()
        time.sleep(DOWN_SECONDS)
        target.start()

    return fault


def pause_and_resume(target: Service | RedisServer | Postgres) -> Callable[[], None]:
    """Return a fault that pauses a process."""

    def fault() -> None:
        target.pause()
        time.sleep(PAUSE_SECONDS)
        target.resume()

    return fault


def disturb(link: FaultyLink, how: str) -> Callable[[], None]:
    """Return a fault that affects a network connection."""

    def fault() -> None:
        link.switch(how)
        time.sleep(LINK_SECONDS)
        link.switch("pass")

    return fault


def fail_each(drill: Drill) -> None:
    """Kill and pause every process in turn, then disturb the connections."""
    running = drill.fleet
    (api,), (worker,) = running.apis, running.workers
    drill.suffer("worker killed", kill_and_start(worker))
    drill.suffer("indexer killed", drill.kill_indexer)
    drill.losing.append(drill.suffer("API killed", kill_and_start(api)))
    drill.losing.append(drill.suffer("API and indexer killed", drill.kill_api_and_indexer))
    drill.suffer("Redis killed", kill_and_start(running.redis))
    drill.suffer("PostgreSQL killed", kill_and_start(running.postgres))
    drill.losing.append(drill.suffer("everything killed", drill.kill_everything))
    drill.suffer("worker paused", pause_and_resume(worker))
    drill.suffer("indexer paused", drill.pause_indexer)
    drill.pausing.append(drill.suffer("API paused", pause_and_resume(api)))
    drill.suffer("Redis paused", pause_and_resume(running.redis))
    drill.suffer("PostgreSQL paused", pause_and_resume(running.postgres))
    for name, link in (("Redis", running.queue_link), ("PostgreSQL", running.store_link)):
        for how, participle in (("drop", "dropped"), ("delay", "delayed"), ("cut", "cut")):
            drill.suffer(f"connections to {name} {participle}", disturb(link, how))


def restart_each(drill: Drill) -> None:
    """Restart the APIs and the workers one at a time, as an operator would to deploy a new release."""
    services = (("API", drill.fleet.apis), ("worker", drill.fleet.workers))
    for turn in range(ROUNDS):
        for kind, pair in services:
            for number, service in enumerate(pair, 1):
                drill.suffer(f"{kind} {number} restarted, round {turn + 1}", partial(restart, drill, service))


def restart(drill: Drill, service: Service) -> None:
    """Stop a service with SIGTERM and start it again."""
    drill.statuses.append(service.stop())
    service.start()


def main() -> int:
    """Run the scenarios; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[*MODES, ROLLING], help="run only this scenario; repeatable")
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that all processes are ended
    results: dict[str, list[Check]] = {}
    phases: dict[str, Any] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rowcast-drill-") as scratch:
        print("Training the model ...", flush=True)
        models = train(Path(scratch))
        registry = publish(Path(scratch), models)
        for name in options.only or [*MODES, ROLLING]:
            title = name if name == ROLLING else f"durability {name}"
            results[title], phases[title] = run_scenario(name, Path(scratch), registry, models)
    kept = all(check.kept for checks in results.values() for check in checks)
    seconds = round(time.monotonic() - began)
    if not options.no_record:
        scenarios = {name: {check.name: check.value for check in checks} for name, checks in results.items()}
        record("drill services", seconds=seconds, scenarios=scenarios, phases=phases, kept=kept)
    print(f"{'all requirements met' if kept else 'SOME REQUIREMENTS NOT MET'} ({seconds} s)")
    return 0 if kept else 1


def publish(scratch: Path, models: Models) -> Path:
    """Publish the first model in a registry that all services share."""
    folder = scratch / "models"
    registry = FolderRegistry(folder)
    reference = registry.publish(
        "loans", lambda new: shutil.copytree(models.folders["first"], new, dirs_exist_ok=True) and None
    )
    registry.point(reference, "champion")
    return folder


def run_scenario(
    name: str, scratch: Path, registry: Path, models: Models
) -> tuple[list[Check], dict[str, dict[str, Any]]]:
    """Run one scenario; print and return its checks and phases."""
    print(f"{name}: starting", flush=True)
    label = name.replace(" ", "-")
    durability = "process" if name == ROLLING else name
    deadline = MAX_WAIT_SECONDS + KEY_SECONDS + MARGIN_SECONDS + (STORE_SECONDS if durability == "store" else 0)

    def right(row: int, prediction: dict[str, Any]) -> bool:
        fields = {key: prediction[key] for key in Score.__struct_fields__ if key in prediction}
        return msgspec.convert(fields, Score) == models.expected["first"][row]

    with fleet(scratch / label, registry, durability=durability, pairs=name == ROLLING) as running:
        load = ServiceLoad(running.port, models.rows, right, limit=deadline + PAUSE_SECONDS + HANG_SECONDS, name=label)
        drill = Drill(running, load, deadline)
        with load.on():
            wait_until(lambda: load.is_answered_since(0.0), "not all clients were answered")
            (restart_each if name == ROLLING else fail_each)(drill)
        drill.statuses += [service.stop() for service in (*running.apis, *running.workers)]
        checks = [*check_replies(drill), *check_history(drill)]
        if name == ROLLING:
            failed = load.sent - load.total("answered")
            checks.insert(2, Check("failed requests", failed, most=0))
        else:
            most = 0 if durability == "store" else None
            label = "acknowledged predictions not in PostgreSQL when the API and its indexer were killed"
            checks.append(Check(label, drill.unstored, most=most))
    show_phases(name, load.phases)
    show(CONSOLE, checks, name)
    for wrong in load.wrong[:5]:
        print(f"  {wrong}")
    sys.stdout.flush()
    return checks, {phase.name: phase.figures() for phase in load.phases if phase.recovery}


def show_phases(name: str, phases: list[Phase]) -> None:
    """Print a table of all faults."""
    table = Table(title=name)
    for heading in ("fault", "sent", "answered", "503", "409", "lost", "hang", "wrong", "longest, s", "recovery, s"):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    for phase in phases:
        if phase.recovery:
            counts = [phase.total(prefix) for prefix in ("", "answered", "503", "409", "lost", "hang", "wrong")]
            table.add_row(phase.name, *map(str, counts), f"{phase.longest:.2f}", f"{phase.recovery:.2f}")
    CONSOLE.print(table)


def check_replies(drill: Drill) -> Iterator[Check]:
    """Check that every request had exactly one of the permitted outcomes, within the time limit."""
    load = drill.load
    lost = sum(phase.total("lost") for phase in drill.losing)
    others = [phase.longest for phase in load.phases if phase not in drill.pausing]
    yield Check("faults" if drill.losing else "restarts", drill.faults)
    yield Check("requests sent", load.sent, least=1)
    yield Check("answered with the right score", load.total("answered"), least=1)
    yield Check("refused with 503, a known slug and Retry-After", load.total("503"))
    for slug in sorted(load.outcomes()):
        if slug.startswith("503 "):
            yield Check(f"refused with {slug}", load.total(slug))
    yield Check("repeated too early: 409 with Retry-After", load.total("409"))
    yield Check("without a reply because the API was dead", lost)
    yield Check("without a reply although the API was alive", load.total("lost") - lost, most=0)
    steady = [phase for phase in load.phases if phase.name == STEADY]
    failed = sum(phase.total("") - phase.total("answered") for phase in steady)
    yield Check("failed requests between faults", failed, most=0)
    yield Check("without a reply within the deadline", load.total("hang"), most=0)
    yield Check("wrong replies", load.total("wrong"), most=0)
    yield Check("requests without exactly one outcome", abs(load.sent - load.total()), most=0)
    yield Check("longest time until a reply, s", round(max(others), 2), most=drill.deadline)
    for phase in drill.pausing:
        limit = drill.deadline + PAUSE_SECONDS
        yield Check("longest time until a reply while the API was paused, s", round(phase.longest, 2), most=limit)
    longest = max(phase.recovery for phase in load.phases)
    yield Check("longest time until all clients were answered again, s", round(longest, 2), most=RECOVERY_SECONDS)
    yield Check("requests with an Idempotency-Key that were never answered", len(load.unfinished), most=0)
    yield Check("non-zero exit statuses after SIGTERM", sum(map(bool, drill.statuses)), most=0)


class _Reply(msgspec.Struct):
    id: str


def check_history(drill: Drill) -> Iterator[Check]:
    """Check after shutdown that PostgreSQL contains every acknowledged prediction exactly once."""
    counts: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    different = 0
    acknowledged, keyed = drill.load.acknowledged, drill.load.keyed
    for (head,) in drill.fleet.postgres.execute("SELECT head FROM rowcast.entries"):
        assert isinstance(head, bytes)
        entry = decode_head(head)
        prediction_id = msgspec.json.decode(entry.reply, type=_Reply).id
        counts[prediction_id] += 1
        requests[entry.request_id] += 1
        different += acknowledged.get(prediction_id, zlib.crc32(entry.reply)) != zlib.crc32(entry.reply)
    missing = sum(counts[prediction_id] != 1 for prediction_id in acknowledged)
    repeated = sum(requests[request] > rows for request, rows in keyed.items())
    _, output = drill.fleet.run("verify", "--json")
    verdict = json.loads(output)
    yield Check("acknowledged predictions", len(acknowledged), least=1)
    yield Check("acknowledged predictions missing from or repeated in PostgreSQL", missing, most=0)
    yield Check("entries that differ from the reply", different, most=0)
    yield Check("entries that were never acknowledged", len(counts.keys() - acknowledged.keys()))
    most = None if drill.losing else 0
    yield Check("requests with an Idempotency-Key that were recorded again by a repetition", repeated, most=most)
    yield Check("entries that are only in a journal", verdict["entries"] - sum(counts.values()), most=0)
    yield Check("broken chains", len(verdict["broken"]), most=0)
    yield Check("problems found by store check", int(drill.fleet.run("store", "check")[0] != 0), most=0)


if __name__ == "__main__":
    sys.exit(main())
