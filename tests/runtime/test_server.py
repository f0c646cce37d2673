"""The open-file limit that a server sets for its connections."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIMITS = """
import resource, sys
from rowcast.runtime.server import SPARE_FILES, raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))
raise_file_limit({connections})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("connections", "hard", "soft"),
    [(20, 1000, 532), (2000, 1000, 1000)],
    ids=["as many as needed", "as many as the system allows"],
)
def test_the_open_file_limit_is_raised_up_to_the_hard_limit(connections: int, hard: int, soft: int) -> None:
    script = LIMITS.format(connections=connections, hard=hard)

    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert output.split() == [str(soft), str(hard)]


def test_a_sufficient_open_file_limit_is_not_changed() -> None:
    script = LIMITS.format(connections=-500, hard=1000)

    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert output.split() == ["100", "1000"]
