"""No random byte drawn from the source is returned twice, even after a fork."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rowcast.serving import randomness
from rowcast.serving.randomness import BLOCK_BYTES, RandomBlocks

FORK = """
import os
from rowcast.serving.randomness import RandomBlocks

blocks = RandomBlocks()
blocks.take(16)
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, blocks.take(16))
    os._exit(0)
os.wait()
print(blocks.take(16).hex(), os.read(reader, 16).hex())
"""


def test_every_byte_of_the_source_is_returned_at_most_once(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(1_000_000))

    def numbered(count: int) -> bytes:
        return b"".join(next(numbers).to_bytes(4, "big") for _ in range(count // 4))

    monkeypatch.setattr(randomness.os, "urandom", numbered)
    blocks = RandomBlocks()

    sizes = [16, 4, BLOCK_BYTES - 24, 8, BLOCK_BYTES, 4, BLOCK_BYTES + 4, 4, 0, 400] * 10
    words = [blocks.take(size) for size in sizes]

    assert [len(word) for word in words] == sizes
    seen = [word[at : at + 4] for word in words for at in range(0, len(word), 4)]
    assert len(set(seen)) == len(seen)


def test_the_source_is_read_once_per_block(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(randomness.os, "urandom", lambda count: sizes.append(count) or bytes(count))
    blocks = RandomBlocks()

    for _ in range(BLOCK_BYTES // 16):
        blocks.take(16)

    assert sizes == [BLOCK_BYTES]


def test_parent_and_child_processes_get_different_bytes_after_a_fork() -> None:
    output = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True).stdout

    parent, child = output.split()
    assert len(parent) == len(child) == 32
    assert parent != child
