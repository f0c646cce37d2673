"""Code shared by the five `verify` scripts: run an example in a temporary home, send the old requests, and compare the
replies.

The curl commands come from the example's README.md, from fences tagged `sh curl NAME`; only their address is replaced.
The scripts require only the standard library and `curl`.
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
CALLER_SETTINGS = re.compile(r"ROWCAST_|PROM_|API_KEY$|ENV$|LOG_LEVEL$|MODEL_PATH$|REDIS_|PORT$|WORKERS$")
"""Variables in the caller's environment that would change the behavior of the example."""
READY_SECONDS = 120.0
"""Time limit for `./run` to become ready, including training."""

Predicate = Callable[[Any], bool]
"""A test of one value. Its docstring describes the expected value."""


class Reply(NamedTuple):
    """An HTTP reply."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """The decoded body, or None if it is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class Report:
    """Prints one line for each comparison and counts the differences."""

    def __init__(self, folder: Path) -> None:
        self.curls = dict(FENCE.findall((folder / "README.md").read_text(encoding="utf-8")))
        self.differences = 0
        self._used: set[str] = set()

    def line(self, name: str) -> str:
        """Return a curl command from the README."""
        self._used.add(name)
        return self.curls[name]

    def add(self, subject: str, problems: list[str]) -> None:
        """Print one line for each difference, or a single line if there is none."""
        self.differences += len(problems)
        for problem in problems or [""]:
            print(f"differs  {subject}: {problem}" if problem else f"same     {subject}", flush=True)

    def end(self) -> int:
        """Print the summary and return the exit status. A curl command that was not run counts as a difference."""
        for name in self.curls:
            if name not in self._used:
                self.add(f"curl {name}", ["not run"])
        print(f"{self.differences} differences" if self.differences else "everything is as documented")
        return 1 if self.differences else 0


class System:
    """A running example."""

    def __init__(self, report: Report, address: str) -> None:
        self.report = report
        self.address = address

    def curl(self, name: str, expected: Any, status: int = 200) -> Any:
        """Run a curl command from the README against this system's address, and compare the reply."""
        line = HOST.sub(self.address, self.report.line(name))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, ".curlrc").write_text('silent\nshow-error\nnoproxy = "*"\nwrite-out = "\\n%{http_code}"\n')
            environment = {**os.environ, "CURL_HOME": folder}
            done = subprocess.run(
                ["bash", "-c", line], capture_output=True, text=True, env=environment, timeout=30, check=False
            )
        body, _, code = done.stdout.rpartition("\n")
        reply = Reply(int(code or 0), body, {})
        self.compare(f"curl {name}", reply, expected, status, done.stderr.strip())
        return reply.json

    def send(self, request_line: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send `METHOD /path` with a JSON body."""
        method, _, path = request_line.partition(" ")
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
        request_line: str,
        expected: Any = None,
        body: Any = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        case: str = "",
    ) -> Any:
        """Send `METHOD /path` and compare the reply, or only the status if `expected` is omitted."""
        reply = self.send(request_line, body, headers)
        self.compare(f"{request_line} {case}".rstrip(), reply, expected, status)
        return reply.json

    def metrics(self, *names: str) -> None:
        """Check that these metrics are exported."""
        reply = self.send("GET /metrics")
        missing = [name for name in names if not re.search(rf"^{name}(_bucket)?[ {{]", reply.text, re.MULTILINE)]
        self.report.add("GET /metrics", [f"no metric {name}" for name in missing])

    def compare(self, subject: str, reply: Reply, expected: Any, status: int = 200, message: str = "") -> None:
        """Compare a reply with the expected body and status."""
        problems = [f"the status is {reply.status}, not {status}: {message or reply.text[:300]}"]
        if reply.status == status:
            problems = [] if expected is None else differences(reply.json, expected)
        self.report.add(subject, problems)


def differences(value: Any, expected: Any, place: str = "the reply") -> list[str]:
    """Return the differences. Objects must have the same names in the same order; values must have the same type."""
    if callable(expected):
        return [] if expected(value) else [f"{place} is {_shown(value)}, not {expected.__doc__}"]
    if isinstance(expected, dict) and isinstance(value, dict):
        if list(value) != list(expected):
            return [f"{place} has the names {', '.join(value)}, not {', '.join(expected)}"]
        return [each for name in expected for each in differences(value[name], expected[name], f"{place}.{name}")]
    if isinstance(expected, list) and isinstance(value, list) and len(value) == len(expected):
        pairs = enumerate(zip(value, expected, strict=True))
        return [each for index, pair in pairs for each in differences(*pair, f"{place}[{index}]")]
    is_equal = type(value) is type(expected) and value == expected
    return [] if is_equal else [f"{place} is {_shown(value)}, not {_shown(expected)}"]


def share(value: Any) -> bool:
    """a number from 0 to 1"""
    return type(value) is float and 0 <= value <= 1


def seconds(value: Any) -> bool:
    """a number of seconds"""
    return type(value) is float and 0 <= value < 30


def having(**expected: Any) -> Predicate:
    """Accept an object that has these fields; additional fields are allowed."""

    def matches(value: Any) -> bool:
        return isinstance(value, dict) and not differences({name: value.get(name) for name in expected}, expected)

    matches.__doc__ = f"an object with {', '.join(f'{name} = {_shown(each)}' for name, each in expected.items())}"
    return matches


def one_of(*expected: Any) -> Predicate:
    """Accept any of these values."""

    def matches(value: Any) -> bool:
        return any(type(value) is type(each) and value == each for each in expected)

    matches.__doc__ = " or ".join(map(_shown, expected))
    return matches


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value.__doc__) if callable(value) else json.dumps(value)[:200]


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class ExampleRunner:
    """Starts an example any number of times in the same temporary home."""

    def __init__(self, folder: Path, home: Path, report: Report) -> None:
        self.folder = folder
        self.home = home
        self.report = report
        self.first_log = ""
        """The output of the first `./run`, including training."""
        inherited = {name: value for name, value in os.environ.items() if not CALLER_SETTINGS.match(name)}
        path = f"{folder.parents[1] / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**inherited, "PATH": path, "ROWCAST_HOME": str(home), "NO_PROXY": "*", "no_proxy": "*"}

    @contextlib.contextmanager
    def running(self, *command: str, **settings: str) -> Iterator[System]:
        """Run `./run PORT`, or another command that contains the word PORT, until the block ends."""
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
        """Run another command in the same environment and wait for it."""
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, timeout=60)

    def log(self) -> str:
        """Return the output of the most recently started process."""
        return (self.home / "log").read_text(encoding="utf-8", errors="replace")


def _is_ready(system: System, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < end:
        if system.send("GET /health/ready").status == 200:
            return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the process with SIGTERM; after a minute, kill all processes in its session."""
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(script: str, requests: Callable[[System], None], *checks: Callable[[ExampleRunner], None]) -> int:
    """Start `./run`, send the requests and run the checks. With a URL, only send the requests to that server."""
    folder = Path(script).resolve().parent
    report = Report(folder)
    if len(sys.argv) > 1:
        requests(System(report, sys.argv[1].rstrip("/")))
        return report.end()
    with tempfile.TemporaryDirectory() as home:
        runner = ExampleRunner(folder, Path(home), report)
        with runner.running() as system:
            requests(system)
        runner.first_log = runner.log()
        for check in checks:
            check(runner)
    return report.end()
