"""No log line of the whole run may hold what a test sent: the values of rows, keys, Authorization headers.

Whatever a server of a test logs is collected here, and what clients send is remembered. At the end of the session every
line is looked at; one that holds a secret fails the session, in CI and everywhere. `CANARY` and `CANARY_NUMBER` are for
rows: they are looked for in every spelling. Other values are looked for where they are long enough to be no accident.
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
"""What a tensor of the Open Inference Protocol may say of itself."""
OUR_WORDS = frozenset({"prediction", "probability", "probabilities"})
"""Names of outputs, which made-up requests send in all places."""

_folder: list[Path] = []
_texts: dict[str, None] = {}
_numbers: set[str] = set()
_moment = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
_number = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")
_column = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+").fullmatch
"""Names of columns, which spoiled requests send in all places; people's values are not written so."""
_always = re.compile(
    rf"canary|melchior|zumstein|{CANARY_NUMBER}|918[ ,.']?273[ ,.']?645"
    r"|\brk_[0-9a-z]+_\S+|\bbearer \S|\"?authorization\"?\s*[:=]",
    re.IGNORECASE,
)


def folder() -> Path:
    """Where logs are collected; made once a session."""
    if not _folder:
        _folder.append(Path(tempfile.mkdtemp(prefix="rowcast-logs-")))
    return _folder[0]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A log file to append to. It lies in the collected place, so that it stays when its test moves or deletes it."""
    if not path.exists():
        path.unlink(missing_ok=True)  # a link to what an earlier session collected
        path.symlink_to(folder() / f"{uuid.uuid4().hex}.log")
    with path.open("ab") as file:
        yield file


def keep(text: str) -> None:
    """What an app in this process logs."""
    with (folder() / "this-process.log").open("a", encoding="utf-8") as file:
        file.write(text)


def remember(request: httpx.Request, content: bytes) -> None:
    """What a client is about to send must not be seen again."""
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
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [found for key, found in one.items() if not _names(key, one)]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            _remember_text(one)


def _names(key: str, beside: dict[str, Any]) -> bool:
    """Whether what stands under a key names columns or tensors, as other dialects do, and is nobody's value."""
    return (key == "columns" and "data" in beside) or (key == "name" and beside.keys() <= TENSOR)


def _remember_text(text: str) -> None:
    if _number.fullmatch(text):
        if sum(letter.isdigit() for letter in text.strip("-0.")) >= SHORTEST_NUMBER:
            _numbers.add(text)
    elif len(text.strip()) < SHORTEST_TEXT or text in OUR_WORDS or _column(text):
        return
    elif len(_texts) < MOST_TEXTS:
        _texts[text.strip()] = None


def leaks(line: str) -> list[str]:
    """What a line of a log should not hold."""
    bare = _moment.sub("", line)
    found = [match.group() for match in _always.finditer(line)]
    found += [number for number in _number.findall(bare) if number in _numbers]
    return found + [text for text in _texts if text in line]


def scan() -> tuple[int, list[str]]:
    """How many lines were logged, and those that leak."""
    count, found = 0, []
    for path in sorted(folder().iterdir()):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            count += 1
            wrong = leaks(line)
            if wrong:
                found.append(f"{', '.join(wrong)} in: {line[:500]}")
    return count, found


def pytest_sessionstart(session: pytest.Session) -> None:
    """From now on every request of httpx is remembered."""
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def sending(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        remember(request, _content(request))
        return send(self, request, **options)

    async def sending_async(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        remember(request, _content(request))
        return await send_async(self, request, **options)

    httpx.Client.send, httpx.AsyncClient.send = sending, sending_async  # type: ignore[method-assign,assignment]


def _content(request: httpx.Request) -> bytes:
    """The body, where it is known before it is sent."""
    try:
        return request.content
    except httpx.RequestNotRead:
        return b""


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """One of several processes of this run has ended; what its tests logged was looked at there."""
    _add(node.config, getattr(node, "workeroutput", {}).get(SCANNED, NOTHING))


def _add(config: pytest.Config, scanned: tuple[int, list[str]]) -> None:
    count, found = config.stash.get(FOUND, NOTHING)
    config.stash[FOUND] = count + scanned[0], [*found, *scanned[1]]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look at every line; one that leaks fails the session."""
    _add(session.config, scan())
    shutil.rmtree(folder())
    _folder.clear()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[SCANNED] = session.config.stash[FOUND]
    elif session.config.stash[FOUND][1] and session.exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


FOUND = pytest.StashKey[tuple[int, list[str]]]()
NOTHING: tuple[int, list[str]] = (0, [])
SCANNED = "log lines scanned"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was looked at, and show what leaked."""
    count, found = config.stash.get(FOUND, NOTHING)
    terminalreporter.write_line(f"{count} log lines scanned, {len(found)} with something that tests had sent")
    for line in found[:SHOWN]:
        terminalreporter.write_line(f"LEAK {line}", red=True)
