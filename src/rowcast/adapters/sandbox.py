"""The sandbox: a child process that loads a bundle, with limited resources, before the server does.

If the child crashes, hangs or runs out of memory, the server is not affected.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from rowcast.registry import bundle
from rowcast.registry.ports import Reference

MEBIBYTE = 1024 * 1024


class SandboxLimits(msgspec.Struct, frozen=True):
    """The limits for loading and checking one version."""

    model_mb: int
    memory_mb: int
    seconds: float


def run_trial(
    command: Sequence[str], folder: Path, reference: Reference, limits: SandboxLimits, environment: Mapping[str, str]
) -> str:
    """Return why this version cannot be loaded, or an empty string if it passes all checks."""
    try:
        size = (folder / bundle.MODEL).stat().st_size
    except OSError as error:
        return f"cannot read {folder / bundle.MODEL}: {error.strerror}"
    if size > limits.model_mb * MEBIBYTE:
        return f"{folder / bundle.MODEL} is larger than the limit of {limits.model_mb} MB (setting max_model_mb)"
    arguments = [str(folder), reference.name, str(reference.version), str(limits.memory_mb), str(limits.seconds)]
    return run_sandboxed([*command, *arguments], limits, environment).error


class SandboxResult(msgspec.Struct, frozen=True):
    """The result of a sandboxed process; `error` is empty if the process succeeded."""

    error: str
    output: bytes = b""


def run_sandboxed(command: Sequence[str], limits: SandboxLimits, environment: Mapping[str, str]) -> SandboxResult:
    """Run a child process that limits its own resources. If this process exits first, the child exits too."""
    # The child watches this pipe, which closes when this process exits.
    reader, writer = os.pipe()
    try:
        finished = subprocess.run(
            command,
            stdin=reader,
            capture_output=True,
            env=dict(environment),
            timeout=limits.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return SandboxResult(_timeout(limits))
    finally:
        os.close(reader)
        os.close(writer)
    if finished.returncode == -signal.SIGXCPU:
        return SandboxResult(_timeout(limits))
    if finished.returncode < 0:
        name = signal.Signals(-finished.returncode).name
        return SandboxResult(
            f"the sandbox was killed by {name}; its memory limit is {limits.memory_mb} MB (setting trial_memory_mb)"
        )
    if finished.returncode:
        lines = finished.stderr.decode(errors="replace").strip().splitlines() or [
            "the sandbox failed without a message"
        ]
        return SandboxResult(lines[-1].removeprefix("error: ")[:700])
    return SandboxResult("", finished.stdout)


def limit_this_process(memory_mb: int, seconds: float) -> None:
    """Limit the memory and CPU time of this process, and terminate it when its parent exits."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limits = {
        resource.RLIMIT_DATA: memory_mb * MEBIBYTE,
        resource.RLIMIT_CPU: int(seconds) + 1,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (soft, hard))


def _end_with_parent() -> None:
    os.read(0, 1)  # not `sys.stdin`, whose lock the interpreter needs in order to exit
    os._exit(1)


def _timeout(limits: SandboxLimits) -> str:
    return f"loading the version took longer than {limits.seconds:g} s (setting trial_seconds)"
