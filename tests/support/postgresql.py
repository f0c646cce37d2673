"""Run a real PostgreSQL server during a test session, and reset its database after each test."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

from support.servers import children, free_port, is_running
from support.waiting import eventually

USER, PASSWORD = "rowcast", "not-to-be-shown"
OTHERS = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "listen_addresses": "127.0.0.1",
}
"""Tests kill the server but never the machine, so the server need not write to the disk."""


def program(name: str) -> str:
    """Return the path of a PostgreSQL program; on Debian, the server's programs are not in PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = shutil.which(name) or (str(installed[-1]) if installed else None)
    assert found, f"{name} is not installed; run scripts/system-packages.sh test"
    return found


def as_server_user() -> list[str]:
    """Return a prefix for a command line: it runs the command as `postgres` instead of root, and stops the command if
    the tests are killed."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT"]


class Postgres:
    """A PostgreSQL server with its data in a temporary folder."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = {**OPTIONS, "port": str(self.port), "unix_socket_directories": str(folder), **options}
        self._process: subprocess.Popen[bytes] | None = None
        passwords = folder / "password"
        passwords.write_text(PASSWORD)
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (folder, passwords):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        command = [program("initdb"), "--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]
        self._run([*command, f"--username={USER}", f"--pwfile={passwords}", str(folder / "data")])

    def _run(self, command: list[str]) -> None:
        finished = subprocess.run([*as_server_user(), *command], cwd="/", capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*as_server_user(), program("postgres"), "-D", str(self._folder / "data"), *options],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        process = self._process
        eventually(lambda: process.poll() is not None or self._accepts_connections(), 30)
        assert process.poll() is None, (self._folder / "log").read_text()

    def _accepts_connections(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop the server; by default, at once and without closing its connections properly."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """Kill the main process, and wait until all other server processes have exited as a result."""
        assert self._process is not None
        others = children(self._process.pid)
        self.stop(signal.SIGKILL)
        eventually(lambda: not any(is_running(pid) for pid in others))

    def pause(self) -> None:
        """Pause all processes of the server: connections stay open, but receive no replies."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the paused processes."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)  # first, so that a paused server starts no more processes
        for pid in children(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @property
    def url(self) -> str:
        """The URL of the server's database."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Execute a statement and return its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def reset(self) -> None:
        """Close all connections and delete all tables, which is much faster than creating a new database."""
        self.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {OTHERS}")
        self.execute("DROP SCHEMA IF EXISTS rowcast CASCADE")


@contextlib.contextmanager
def running(**options: str) -> Iterator[Postgres]:
    """Run a server, then remove its data. The folder is outside pytest's temporary folder, which only root can read."""
    with tempfile.TemporaryDirectory(prefix="rowcast-postgres-") as folder:
        server = Postgres(Path(folder), **options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
