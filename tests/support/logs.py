"""Scan all logs from a test session for data that tests sent: row values, API keys and Authorization headers.

The tests collect the logs of all servers and the values that clients send. At the end of the session, every log line
is scanned, and the session fails if a line contains such data. `CANARY` and `CANARY_NUMBER` are row values that the
scan detects in any format. Other values count as leaks only if they are long enough to rule out coincidence.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl

import httpx
import pytest

CANARY = "canary-Melchior-Zumstein"
CANARY_NUMBER = 918273645
SHORTEST_TEXT, SHORTEST_NUMBER = 10, 7
MOST_TEXTS = 3000
SHOWN = 20
TENSOR = frozenset({"name", "shape", "datatype", "parameters", "data"})
"""The fields of a tensor in the Open Inference Protocol."""
OUTPUT_NAMES = frozenset({"prediction", "probability", "probabilities"})
"""Output names, which do not count as leaks because fuzzed requests also send them as values."""

_folder: list[Path] = []
_texts: dict[str, None] = {}
_numbers: set[str] = set()
_moment = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
_number = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")
_column = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+").fullmatch
"""Matches column names, which do not count as leaks because fuzzed requests also send them as values."""
_always = re.compile(
    rf"canary|melchior|zumstein|{CANARY_NUMBER}|918[ ,.']?273[ ,.']?645"
    r"|\brk_[0-9a-z]+_\S+|\bbearer \S|\"?authorization\"?\s*[:=]",
    re.IGNORECASE,
)


def folder() -> Path:
    """Return the log folder of this session; create it if necessary."""
    if not _folder:
        _folder.append(Path(tempfile.mkdtemp(prefix="rowcast-logs-")))
    return _folder[0]


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[IO[bytes]]:
    """Open a log file for appending. `path` becomes a symbolic link, so a test cannot delete the log file itself."""
    if not path.exists():
        path.unlink(missing_ok=True)  # a broken link to a log of an earlier session
        path.symlink_to(folder() / f"{uuid.uuid4().hex}.log")
    with path.open("ab") as file:
        yield file


def collect(text: str) -> None:
    """Append log output from an app that runs in this process."""
    with (folder() / "this-process.log").open("a", encoding="utf-8") as file:
        file.write(text)


def remember(request: httpx.Request, content: bytes) -> None:
    """Store the secrets and values of a request that a client is about to send."""
    for name in ("x-api-key", "authorization"):
        value = request.headers.get(name, "")
        _remember_text(value.rpartition(" ")[2])
    for _, value in parse_qsl(request.url.query.decode("latin-1")):
        _remember_text(value)
    with contextlib.suppress(ValueError, RecursionError):
        _remember_leaves(json.loads(content, parse_float=str, parse_int=str))


def _remember_leaves(value: Any) -> None:
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting += [child for key, child in node.items() if not _holds_names(key, node)]
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, str):
            _remember_text(node)


def _holds_names(key: str, parent: dict[str, Any]) -> bool:
    """Return whether the value of this key consists of column or tensor names."""
    return (key == "columns" and "data" in parent) or (key == "name" and parent.keys() <= TENSOR)


def _remember_text(text: str) -> None:
    if _number.fullmatch(text):
        if sum(letter.isdigit() for letter in text.strip("-0.")) >= SHORTEST_NUMBER:
            _numbers.add(text)
    elif len(text.strip()) < SHORTEST_TEXT or text in OUTPUT_NAMES or _column(text):
        return
    elif len(_texts) < MOST_TEXTS:
        _texts[text.strip()] = None


def leaks(line: str) -> list[str]:
    """Return the leaks in a log line."""
    bare = _moment.sub("", line)
    secrets = [match.group() for match in _always.finditer(line)]
    numbers = [number for number in _number.findall(bare) if number in _numbers]
    return secrets + numbers + [text for text in _texts if text in line]


def scan() -> tuple[int, list[str]]:
    """Return the number of log lines, and the lines with leaks."""
    count, leaking = 0, []
    for path in sorted(folder().iterdir()):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            count += 1
            if values := leaks(line):
                leaking.append(f"{', '.join(values)} in: {line[:500]}")
    return count, leaking


def pytest_sessionstart(session: pytest.Session) -> None:
    """Store the values of every request that httpx sends during the session."""
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def sending(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        remember(request, _content(request))
        return send(self, request, **options)

    async def sending_async(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        remember(request, _content(request))
        return await send_async(self, request, **options)

    httpx.Client.send, httpx.AsyncClient.send = sending, sending_async  # type: ignore[method-assign,assignment]


def _content(request: httpx.Request) -> bytes:
    """Return the body of a request, or empty bytes if it is streamed."""
    try:
        return request.content
    except httpx.RequestNotRead:
        return b""


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Add the result of a pytest-xdist worker, which scans the logs of its own tests."""
    _add(node.config, getattr(node, "workeroutput", {}).get(SCANNED, NOTHING))


def _add(config: pytest.Config, scanned: tuple[int, list[str]]) -> None:
    count, leaking = config.stash.get(RESULT, NOTHING)
    config.stash[RESULT] = count + scanned[0], [*leaking, *scanned[1]]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Scan all log lines; fail the session if a line contains a leak."""
    _add(session.config, scan())
    shutil.rmtree(folder())
    _folder.clear()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[SCANNED] = session.config.stash[RESULT]
    elif session.config.stash[RESULT][1] and session.exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


RESULT = pytest.StashKey[tuple[int, list[str]]]()
NOTHING: tuple[int, list[str]] = (0, [])
SCANNED = "log lines scanned"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the number of scanned lines and the first leaks."""
    count, leaking = config.stash.get(RESULT, NOTHING)
    terminalreporter.write_line(f"{count} log lines scanned, {len(leaking)} with leaks")
    for line in leaking[:SHOWN]:
        terminalreporter.write_line(f"LEAK {line}", red=True)
