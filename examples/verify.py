"""What the five `verify` scripts share: run an example in a scratch home, ask it as its old clients did, compare.

The curl lines are those of the example's README.md, in fences tagged `sh curl NAME`; only the address in them is
replaced. Nothing but the standard library and `curl` is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FENCE = re.compile(r"^```sh curl (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOST = re.compile(r"http://localhost(:\d+)?")
NOT_OURS = re.compile(r"ROWCAST_|PROM_|API_KEY$|ENV$|LOG_LEVEL$|MODEL_PATH$|REDIS_|PORT$")
"""Variables of whoever calls that would change what is verified."""
READY_SECONDS = 120.0
"""Training included."""

Answers = Callable[[Any], bool]
"""A test of one value; its docstring says what was expected."""


class Reply(NamedTuple):
    """What came back over HTTP."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """The body; None when it is no JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class Report:
    """What was the same and what differs, one line each."""

    def __init__(self, folder: Path) -> None:
        self.curls = dict(FENCE.findall((folder / "README.md").read_text(encoding="utf-8")))
        self.faults = 0
        self._asked: set[str] = set()

    def line(self, name: str) -> str:
        """A curl line of the README."""
        self._asked.add(name)
        return self.curls[name]

    def tell(self, what: str, wrong: list[str]) -> None:
        """Print one line for what holds, and one for every difference."""
        self.faults += len(wrong)
        for each in wrong or [""]:
            print(f"differs  {what}: {each}" if each else f"same     {what}", flush=True)

    def end(self) -> int:
        """The exit status; a curl line that nobody ran is a fault."""
        for name in self.curls:
            if name not in self._asked:
                self.tell(f"curl {name}", ["it was not run"])
        print(f"{self.faults} differences" if self.faults else "everything is as documented")
        return 1 if self.faults else 0


class System:
    """A running example."""

    def __init__(self, report: Report, address: str) -> None:
        self.report = report
        self.address = address

    def curl(self, name: str, wanted: Any, status: int = 200) -> Any:
        """Run a curl line of the README as it stands there, but for the address, and compare its reply."""
        line = HOST.sub(self.address, self.report.line(name))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, ".curlrc").write_text('silent\nshow-error\nnoproxy = "*"\nwrite-out = "\\n%{http_code}"\n')
            environment = {**os.environ, "CURL_HOME": folder}
            done = subprocess.run(
                ["bash", "-c", line], capture_output=True, text=True, env=environment, timeout=30, check=False
            )
        body, _, code = done.stdout.rpartition("\n")
        found = Reply(int(code or 0), body, {})
        self.compare(f"curl {name}", found, wanted, status, done.stderr.strip())
        return found.json

    def ask(self, what: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send `METHOD /path` with a JSON body."""
        method, _, path = what.partition(" ")
        data = None if body is None else json.dumps(body).encode()
        sent = {**({"content-type": "application/json"} if data else {}), **(headers or {})}
        request = urllib.request.Request(self.address + path, data, sent, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as reply:
                return Reply(reply.status, reply.read().decode(), _lower(reply.headers))
        except urllib.error.HTTPError as refused:
            return Reply(refused.code, refused.read().decode(), _lower(refused.headers))
        except OSError as error:
            return Reply(0, str(error), {})

    def check(
        self,
        what: str,
        wanted: Any = None,
        body: Any = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        why: str = "",
    ) -> Any:
        """Send `METHOD /path` and compare the reply; `wanted` None compares the status alone."""
        found = self.ask(what, body, headers)
        self.compare(f"{what} {why}".rstrip(), found, wanted, status)
        return found.json

    def metrics(self, *names: str) -> None:
        """These metrics are exported."""
        found = self.ask("GET /metrics")
        missing = [name for name in names if not re.search(rf"^{name}(_bucket)?[ {{]", found.text, re.MULTILINE)]
        self.report.tell("GET /metrics", [f"there is no metric {name}" for name in missing])

    def compare(self, what: str, found: Reply, wanted: Any, status: int = 200, said: str = "") -> None:
        """Compare a reply."""
        wrong = [f"the status is {found.status}, not {status}: {said or found.text[:300]}"]
        if found.status == status:
            wrong = [] if wanted is None else differences(found.json, wanted)
        self.report.tell(what, wrong)


def differences(got: Any, wanted: Any, place: str = "the reply") -> list[str]:
    """What differs: objects must have the same names in the same order, values the same type and value."""
    if callable(wanted):
        return [] if wanted(got) else [f"{place} is {_shown(got)}, not {wanted.__doc__}"]
    if isinstance(wanted, dict) and isinstance(got, dict):
        if list(got) != list(wanted):
            return [f"{place} has the names {', '.join(got)}, not {', '.join(wanted)}"]
        return [each for name in wanted for each in differences(got[name], wanted[name], f"{place}.{name}")]
    if isinstance(wanted, list) and isinstance(got, list) and len(got) == len(wanted):
        return [
            each for n, pair in enumerate(zip(got, wanted, strict=True)) for each in differences(*pair, f"{place}[{n}]")
        ]
    return [] if type(got) is type(wanted) and got == wanted else [f"{place} is {_shown(got)}, not {_shown(wanted)}"]


def share(value: Any) -> bool:
    """a number from 0 to 1"""
    return type(value) is float and 0 <= value <= 1


def seconds(value: Any) -> bool:
    """a number of seconds"""
    return type(value) is float and 0 <= value < 30


def text(value: Any) -> bool:
    """text"""
    return isinstance(value, str)


def having(**wanted: Any) -> Answers:
    """An object that holds these, and may hold more."""

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and not differences({name: value.get(name) for name in wanted}, wanted)

    holds.__doc__ = f"an object with {', '.join(f'{name} = {_shown(each)}' for name, each in wanted.items())}"
    return holds


def one_of(*wanted: Any) -> Answers:
    """One of these values."""

    def is_one(value: Any) -> bool:
        return any(type(value) is type(each) and value == each for each in wanted)

    is_one.__doc__ = " or ".join(map(_shown, wanted))
    return is_one


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value.__doc__) if callable(value) else json.dumps(value)[:200]


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Scratch:
    """A home of its own in which the example runs, as often as the verification wants."""

    def __init__(self, folder: Path, home: Path, report: Report) -> None:
        self.folder = folder
        self.home = home
        self.report = report
        self.first_log = ""
        """What `./run` printed while it trained and answered."""
        kept = {name: value for name, value in os.environ.items() if not NOT_OURS.match(name)}
        path = f"{folder.parents[1] / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**kept, "PATH": path, "ROWCAST_HOME": str(home), "NO_PROXY": "*", "no_proxy": "*"}

    @contextlib.contextmanager
    def running(self, *command: str, **settings: str) -> Iterator[System]:
        """`./run PORT`, or another command in which PORT is replaced, until the block ends."""
        port = str(_free_port())
        words = [word.replace("PORT", port) for word in command or (str(self.folder / "run"), "PORT")]
        with (self.home / "log").open("wb") as log:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env={**self.environment, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            system = System(self.report, f"http://127.0.0.1:{port}")
            if not _is_ready(system, process):
                sys.exit(f"{words[0]} did not become ready:\n{self.log()[-3000:]}")
            yield system
        finally:
            _stop(process)

    def execute(self, *command: str | Path) -> None:
        """Run something else in this environment, to its end."""
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, timeout=60)

    def log(self) -> str:
        """What the last process printed."""
        return (self.home / "log").read_text(encoding="utf-8", errors="replace")


def _is_ready(system: System, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if system.ask("GET /health/ready").status == 200:
            return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM; what is left of its session after ten seconds is killed."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(script: str, requests: Callable[[System], None], *more: Callable[[Scratch], None]) -> int:
    """`./verify` starts `./run`, sends `requests` and does `more`; `./verify URL` sends `requests` there."""
    folder = Path(script).resolve().parent
    report = Report(folder)
    if len(sys.argv) > 1:
        requests(System(report, sys.argv[1].rstrip("/")))
        return report.end()
    with tempfile.TemporaryDirectory() as home:
        scratch = Scratch(folder, Path(home), report)
        with scratch.running() as system:
            requests(system)
        scratch.first_log = scratch.log()
        for each in more:
            each(scratch)
    return report.end()
