"""Run `rowcast` commands in the test process: a new process would spend a second on imports."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from rowcast import cli


def rowcast(
    *arguments: str | Path, cwd: Path, settings: Mapping[str, str] | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run a command with `given` as its standard input and with no Rowcast settings other than these."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for name in ("stdout", "stderr")}
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd):
        for name in [name for name in os.environ if name.startswith("ROWCAST_")]:
            patch.delenv(name)
        for name, value in (settings or {}).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["rowcast", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), "utf-8"))
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    status = ended.value.code
    assert isinstance(status, int)
    output, errors = (stream.buffer.getvalue().decode() for stream in streams.values())  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, status, output, errors)
