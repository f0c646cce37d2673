"""A new version is opened in a process of its own first: what breaks, grows or never ends there, does so there."""

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
    """What a version may need to be opened and proven."""

    model_mb: int
    memory_mb: int
    seconds: float


def run_trial(
    command: Sequence[str], folder: Path, reference: Reference, limits: SandboxLimits, environment: Mapping[str, str]
) -> str:
    """What is wrong with this version, in a sentence; empty when it could be opened and proven."""
    try:
        size = (folder / bundle.MODEL).stat().st_size
    except OSError as error:
        return f"{folder / bundle.MODEL} cannot be read: {error.strerror}"
    if size > limits.model_mb * MEBIBYTE:
        return f"{folder / bundle.MODEL} is larger than {limits.model_mb} MB (setting max_model_mb)"
    words = [str(folder), reference.name, str(reference.version), str(limits.memory_mb), str(limits.seconds)]
    return run_sandboxed([*command, *words], limits, environment).error


class SandboxResult(msgspec.Struct, frozen=True):
    """What a process printed; `error` is empty when it ended well, else a sentence."""

    error: str
    printed: bytes = b""


def run_sandboxed(command: Sequence[str], limits: SandboxLimits, environment: Mapping[str, str]) -> SandboxResult:
    """Run a process that limits itself, and end it with this one."""
    ours, theirs = os.pipe()  # closes with this process, and the trial ends then
    try:
        finished = subprocess.run(
            command,
            stdin=ours,
            capture_output=True,
            env=dict(environment),
            timeout=limits.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return SandboxResult(_too_long(limits))
    finally:
        os.close(ours)
        os.close(theirs)
    if finished.returncode == -signal.SIGXCPU:
        return SandboxResult(_too_long(limits))
    if finished.returncode < 0:
        name = signal.Signals(-finished.returncode).name
        return SandboxResult(
            f"its trial was ended by {name}; it may use {limits.memory_mb} MB (setting trial_memory_mb)"
        )
    if finished.returncode:
        said = finished.stderr.decode(errors="replace").strip().splitlines() or ["nothing was said"]
        return SandboxResult(said[-1].removeprefix("error: ")[:700])
    return SandboxResult("", finished.stdout)


def limit_this_process(memory_mb: int, seconds: float) -> None:
    """Let this process have so much and no more, and end when its parent does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    bounds = {
        resource.RLIMIT_DATA: memory_mb * MEBIBYTE,
        resource.RLIMIT_CPU: int(seconds) + 1,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for what, most in bounds.items():
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, hard))


def _end_with_parent() -> None:
    os.read(0, 1)  # not `sys.stdin`, whose lock the interpreter wants when it ends
    os._exit(1)


def _too_long(limits: SandboxLimits) -> str:
    return f"opening it took more than {limits.seconds:g} s (setting trial_seconds)"
