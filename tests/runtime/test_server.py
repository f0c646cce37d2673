"""The open-file limit that a server sets for its connections."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIMITS = """
import resource, sys
from rowcast.runtime.connections import ConnectionLimits
from rowcast.runtime.server import fit_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))
limits = fit_file_limit(ConnectionLimits(max_connections={connections}))
print(*resource.getrlimit(resource.RLIMIT_NOFILE), limits.max_connections)
"""


@pytest.mark.parametrize(
    ("connections", "hard", "soft", "allowed"),
    [(20, 1000, 532, 20), (2000, 2000, 2000, 1488), (2000, 600, 600, 300), (40, 101, 101, 40), (60, 101, 101, 51)],
    ids=["as many as needed", "as many as the system allows", "half of a low limit", "few", "more than half"],
)
def test_the_open_file_limit_is_raised_and_the_connections_fit_into_it(
    connections: int, hard: int, soft: int, allowed: int
) -> None:
    script = LIMITS.format(connections=connections, hard=hard)

    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert output.splitlines()[-1].split() == [str(soft), str(hard), str(allowed)]


def test_a_sufficient_open_file_limit_is_not_changed() -> None:
    script = LIMITS.format(connections=-500, hard=1000)

    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert output.split() == ["100", "1000", "-500"]
