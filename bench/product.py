"""An installed Rowcast as a black box: its commands, its server and raw HTTP connections to the server."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LOAN = "loan_status"


class Done(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    err: str
    peak_mb: float
    """The peak memory usage of the command's process."""


class Reply(NamedTuple):
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Product:
    """Runs the `rowcast` command of one installation. `folder` contains a trained model, `loans`, and its table."""

    python: Path
    folder: Path

    def rowcast(
        self, *arguments: str | Path, cwd: Path | None = None, seconds: float = 120, stdin: bytes = b"", **env: str
    ) -> Done:
        """Run a command until it exits."""
        return self.run(self.python.parent / "rowcast", *arguments, cwd=cwd, seconds=seconds, stdin=stdin, **env)

    def run(
        self, *command: str | Path, cwd: Path | None = None, seconds: float = 120, stdin: bytes = b"", **env: str
    ) -> Done:
        """Run a program until it exits; kill it if it takes too long."""
        cwd = cwd or self.folder
        out, err, given = cwd / ".out", cwd / ".err", cwd / ".in"
        given.write_bytes(stdin)
        with out.open("wb") as stdout, err.open("wb") as stderr, given.open("rb") as source:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=self.environment(**env),
                stdin=source,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            end = time.monotonic() + seconds
            while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                if time.monotonic() > end:
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        texts = [path.read_text(errors="replace") for path in (out, err)]
        return Done(process.returncode, texts[0], texts[1], ended[2].ru_maxrss / 1024)

    def environment(self, **settings: str) -> dict[str, str]:
        """Return this process's environment variables, with its Rowcast settings replaced by the given ones."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("ROWCAST_", "ORT_"))}
        return {**others, "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}", **settings}

    def prepare(self) -> None:
        """Train the loan example once; the checks use copies of its home."""
        for command in (
            ("example", "loans", "--rows", "1500", "--out", "loans.csv"),
            ("train", "loans.csv", "--target", LOAN, "--name", "loans", "--trials", "1", "--home", "home"),
        ):
            done = self.rowcast(*command, seconds=300)
            if done.status != 0:
                raise SystemExit(f"rowcast {' '.join(command)} failed:\n{done.err}")

    def new_home(self, name: str) -> Path:
        """Return a folder that contains a copy of the trained home."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder / "home", folder / "home")
        shutil.copy(self.folder / "loans.csv", folder)
        return folder

    def row(self) -> dict[str, Any]:
        """Return the first row of the table, without its target."""
        lines = (self.folder / "loans.csv").read_text().splitlines()
        row: dict[str, Any] = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
        del row[LOAN]
        return {name: _number(cell) for name, cell in row.items()}

    def key(self, folder: Path, *options: str, scopes: tuple[str, ...] = ("predict", "read")) -> str:
        """Create an API key."""
        home = ("--scope", ",".join(scopes), "--json", "--home", folder / "home")
        done = self.rowcast("keys", "create", "check", *options, *home)
        if done.status != 0:
            raise AssertionError(f"cannot create a key: {done.err}")
        return str(json.loads(done.out)["key"])

    @contextmanager
    def serving(
        self, folder: Path, *options: str, command: tuple[str, ...] = (), ready: bool = True, **settings: str
    ) -> Iterator[Site]:
        """Run a server during a `with` block."""
        port = free_port()
        default = (str(self.python.parent / "rowcast"), "serve", "--home", str(folder / "home"), *options)
        with (folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [*(command or default), "--port", str(port)],
                cwd=folder,
                env=self.environment(ROWCAST_HOME=str(folder / "home"), **settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        site = Site(port, process.pid)
        try:
            if ready:
                wait_until(lambda: process.poll() is not None or _answers(site), 30)
                if process.poll() is not None:
                    raise AssertionError(f"the server exited: {(folder / 'server.log').read_text()[-500:]}")
            yield site
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@dataclass(frozen=True)
class Site:
    """A running server."""

    port: int
    pid: int

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        zipped: bool = False,
        seconds: float = 30,
    ) -> Reply:
        """Send one request; redirects are not followed."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"content-type": "application/json", **(headers or {})}
        if zipped:
            data, given = gzip.compress(data or b""), {**given, "content-encoding": "gzip"}
        request = urllib.request.Request(f"http://{host}:{self.port}{path}", data, given, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
        try:
            with opener.open(request, timeout=seconds) as response:
                return Reply(response.status, _lower(response.headers), response.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, _lower(error.headers), error.read())

    def predict(self, row: dict[str, Any], **options: Any) -> Reply:
        """Predict one row."""
        return self.ask("POST", "/predict", row, **options)

    def exchange(self, *parts: bytes, seconds: float = 3.0) -> bytes:
        """Send bytes over one connection; return everything received until the server stops sending or closes the
        connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            received = b""
            for part in parts:
                connection.sendall(part)
            try:
                while block := connection.recv(65536):
                    received += block
            except (TimeoutError, ConnectionResetError):
                pass
            return received

    def memory_mb(self) -> float:
        """Return the resident memory of the server process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _answers(site: Site) -> bool:
    try:
        return site.ask("GET", "/health/ready", seconds=2).status == 200
    except OSError:
        return False


def _number(cell: str) -> Any:
    try:
        return int(cell)
    except ValueError:
        try:
            return float(cell)
        except ValueError:
            return cell


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the condition holds; raise AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s")
        time.sleep(0.02)


def expect(holds: object, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds."""
    if not holds:
        raise AssertionError(message)


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def own_address() -> str | None:
    """Return an address of this machine that is not a loopback address, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if address.startswith("127.") else address
