"""Code shared by the `run` scripts that start several processes: start them on free ports, and stop them together.

The scripts require only the standard library and the installed services.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

STOP_SECONDS = 40.0
"""How long to wait after signaling a service before killing it. Servers drain for up to 30 seconds."""
START_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[1]


class Services:
    """An example's processes. They are stopped in reverse order."""

    def __init__(self) -> None:
        self._running: list[tuple[str, subprocess.Popen[bytes], signal.Signals]] = []

    def start(
        self,
        name: str,
        command: list[str],
        settings: Mapping[str, str] | None = None,
        *,
        log: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Start a service. Its output goes to the log file, or to this terminal if no log file is given."""
        with contextlib.ExitStack() as stack:
            output = None if log is None else stack.enter_context(log.open("ab"))
            process = subprocess.Popen(
                command,
                env={**os.environ, **(settings or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl+C reaches only this script, which stops the services in order
            )
        self._running.append((name, process, stop_signal))

    def wait_for_port(self, port: int, log: Path) -> None:
        """Wait until the service that was started last accepts connections."""
        name, process, _ = self._running[-1]
        end = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.05)
        sys.exit(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")

    def wait(self) -> int:
        """Wait until a service exits, and return its exit status."""
        while True:
            for name, process, _ in self._running:
                if process.poll() is not None:
                    print(f"{name} exited with status {process.returncode}", file=sys.stderr)
                    return process.returncode
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop all services."""
        for _, process, stop_signal in reversed(self._running):
            if process.poll() is None:
                process.send_signal(stop_signal)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def services() -> Iterator[Services]:
    """Run services until the block ends, or until this script receives SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    running = Services()
    try:
        yield running
    finally:
        running.stop()


def _exit(number: int, frame: FrameType | None) -> None:
    """Exit, which ends the `with` block of `services`. Further signals do not interrupt the shutdown."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(0)


def start_redis(running: Services, folder: Path) -> str:
    """Start a Redis server that stores nothing on disk, and return its URL."""
    port, log = free_port(), folder / "redis.log"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    running.start("redis-server", [program("redis-server"), *options], log=log)
    running.wait_for_port(port, log)
    return f"redis://127.0.0.1:{port}/0"


def start_postgresql(running: Services, folder: Path) -> str:
    """Start a PostgreSQL server with its data in `folder`/postgresql, and return its URL."""
    home, log, port = folder / "postgresql", folder / "postgresql.log", free_port()
    password_file = home / "password"
    if not password_file.exists():
        _create_database(home, password_file, log)
    options = {"port": str(port), "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    command = [*_as_database_user(), program("postgres"), "-D", str(home / "data"), *settings]
    running.start("postgres", command, log=log, stop_signal=signal.SIGINT)
    running.wait_for_port(port, log)
    return f"postgresql://rowcast:{password_file.read_text()}@127.0.0.1:{port}/postgres"


def _create_database(home: Path, password_file: Path, log: Path) -> None:
    """Create the database. The password file appears last, so an interrupted attempt is repeated at the next start."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    password, new = secrets.token_urlsafe(24), home / "new-password"
    new.touch(mode=0o600)
    new.write_text(password)
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in (home, new):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    command = [program("initdb"), "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--username=rowcast"]
    command = [*_as_database_user(), *command, f"--pwfile={new}", "-D", str(home / "data")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    log.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        sys.exit(f"cannot create the database:\n{done.stderr[-2000:]}")
    new.rename(password_file)


def _as_database_user() -> list[str]:
    """Return the command prefix that switches from root to the user `postgres`; PostgreSQL refuses to run as root.

    The capability `dac_override` allows access to the data folder even if only root can open its parent folder.
    """
    if os.getuid() != 0:
        return []
    user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return [program("setpriv"), *user, "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]


def program(name: str) -> str:
    """Return the path of a program. On Debian, the PostgreSQL server's programs are not in PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        sys.exit(f"{name} is not installed. Run {ROOT / 'scripts/system-packages.sh'} services")
    return found


def free_port() -> int:
    """Return a port that no process is using."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def example_home() -> Path:
    """Return the example's home folder; create it if necessary."""
    home = Path(os.environ.get("ROWCAST_HOME", ".rowcast")).absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home
