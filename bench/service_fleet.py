"""The processes of a drill: APIs, workers, Redis, PostgreSQL and NGINX, which the drill kills, pauses and restarts.

Every process has a fixed port, so that it has the same address after a restart. `fleet` always stops all of them at the
end.
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faulty_link import FaultyLink, faulty_link

from support.postgresql import Postgres
from support.postgresql import running as running_postgres
from support.redis import RedisServer, serving
from support.servers import children, command_of, environment, free_port

ROWCAST = [sys.executable, "-m", "rowcast.cli"]
START_SECONDS = 60.0
STOP_SECONDS = 60.0
QUEUE_OPTIONS = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")
DATABASE_OPTIONS = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "shared_buffers": "64MB"}
NGINX = """daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log crit;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream rowcast {{
        server 127.0.0.1:{first} max_fails=0;
        server 127.0.0.1:{second} max_fails=0;
        keepalive 16;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_connect_timeout 2s;
    proxy_read_timeout 60s;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            error_page 418 = @repeatable;
            if ($http_idempotency_key) {{ return 418; }}
            proxy_pass http://rowcast;
            proxy_next_upstream error timeout http_503;
        }}
        location @repeatable {{
            proxy_pass http://rowcast;
            proxy_next_upstream error timeout http_503 non_idempotent;
        }}
    }}
}}
"""
"""If an API fails, NGINX passes a request that has an Idempotency-Key to the other API. It passes on a request without
a key only if the request has not been sent to the failed API yet."""


class Service:
    """A `rowcast serve` or `rowcast worker` process with its own home."""

    def __init__(self, command: str, home: Path, settings: Mapping[str, str]) -> None:
        home.mkdir()
        self.port = free_port()
        self.home = home
        self._words = [*ROWCAST, command, "--port", str(self.port)]
        self._environment = environment(ROWCAST_HOME=str(home), **settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process as an init system would, and wait until it is ready."""
        end = time.monotonic() + START_SECONDS
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._words, cwd=self.home, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        while self.health("/health/ready")[0] != 200:
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{self.home.name} did not start; its log ends with:\n{self.log[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the process with SIGKILL, but not its children."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Pause the process with SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the paused process."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> int:
        """Send SIGTERM and return the exit status; a process that does not exit is killed."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.end()
            return -signal.SIGKILL

    def end(self) -> None:
        """Kill the process and its children, if they are still running."""
        if self._process is None or self._process.poll() is not None:
            return
        for pid in [self.pid, *children(self.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def indexer(self) -> int | None:
        """Return the process id of the API's indexer, or None if no indexer is running."""
        return next((pid for pid in children(self.pid) if command_of(pid).endswith(" indexer")), None)

    def health(self, path: str = "/health") -> tuple[int, Any]:
        """Return the status and the body of a health check; the status is 0 if there is no reply."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except (OSError, ValueError):
            return 0, None

    @property
    def log(self) -> str:
        """The process's whole log output."""
        return (self.home / "log").read_text()


@dataclass
class Fleet:
    """All processes of one scenario. The links connect Rowcast to Redis and PostgreSQL."""

    postgres: Postgres
    redis: RedisServer
    store_link: FaultyLink
    queue_link: FaultyLink
    apis: list[Service]
    workers: list[Service]
    settings: dict[str, str]
    port: int
    """NGINX's port or, without NGINX, the API's port."""

    def run(self, *words: str) -> tuple[int, str]:
        """Run a `rowcast` command with the first API's home; return its exit status and its output."""
        finished = subprocess.run(
            [*ROWCAST, *words],
            env=environment(ROWCAST_HOME=str(self.apis[0].home), **self.settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return finished.returncode, finished.stdout or finished.stderr


@contextmanager
def fleet(folder: Path, registry: Path, *, durability: str, pairs: bool = False) -> Iterator[Fleet]:
    """Run one API and one worker, or NGINX with two of each, during a `with` block."""
    folder.mkdir()
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres(**DATABASE_OPTIONS))
        redis = stack.enter_context(serving(folder, *QUEUE_OPTIONS))
        store_link = stack.enter_context(faulty_link(postgres.port))
        queue_link = stack.enter_context(faulty_link(redis.port))
        settings = {
            "ROWCAST_REGISTRY": str(registry),
            "ROWCAST_STORE": postgres.url.replace(f":{postgres.port}/", f":{store_link.port}/"),
            "ROWCAST_QUEUE": f"redis://127.0.0.1:{queue_link.port}/0",
            "ROWCAST_SIGNING_KEY_FILE": str(folder / "signing.key"),
            "ROWCAST_DURABILITY": durability,
            "ROWCAST_LOG_FORMAT": "json",
            "ROWCAST_MAX_WAIT_SECONDS": str(MAX_WAIT_SECONDS),
        }
        count = 2 if pairs else 1
        workers = [Service("worker", folder / f"worker{number}", settings) for number in range(count)]
        apis = [Service("serve", folder / f"api{number}", settings) for number in range(count)]
        for service in (*workers, *apis):
            stack.callback(service.end)
            service.start()
        port = stack.enter_context(nginx(apis)) if pairs else apis[0].port
        yield Fleet(postgres, redis, store_link, queue_link, apis, workers, settings, port)


MAX_WAIT_SECONDS = 5.0


@contextmanager
def nginx(apis: list[Service]) -> Iterator[int]:
    """Run NGINX in front of two APIs during a `with` block, and yield its port."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with tempfile.TemporaryDirectory(prefix="rowcast-nginx-") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o711)  # NGINX gives its temporary folders to another user
        (folder / "conf").write_text(NGINX.format(folder=folder, port=port, first=apis[0].port, second=apis[1].port))
        process = subprocess.Popen([program, "-p", name, "-c", str(folder / "conf"), "-e", str(folder / "nginx.log")])
        try:
            wait_until(lambda: process.poll() is not None or (folder / "nginx.pid").exists(), "NGINX did not start")
            if process.poll() is not None:
                raise SystemExit(f"NGINX did not start:\n{(folder / 'nginx.log').read_text()}")
            yield port
        finally:
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
            log = (folder / "nginx.log").read_text()
            if log:
                print(f"The log of NGINX ends with:\n{log[-2000:]}", flush=True)


def wait_until(condition: Callable[[], object], problem: str, seconds: float = START_SECONDS) -> float:
    """Wait until the condition holds, and return the elapsed seconds; exit with `problem` if it never does."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise SystemExit(f"{problem} within {seconds:g} s")
        time.sleep(0.02)
    return time.monotonic() - began
