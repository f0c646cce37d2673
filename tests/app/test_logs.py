"""All log lines have the same format, whether they come from Rowcast, a library, a warning or an uncaught exception."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging, threading, warnings
import structlog
from rowcast import settings
from rowcast.app import logs

logs.configure_logging(settings.load(log_format="json"))
structlog.get_logger("rowcast").info("own", row=1)
logging.getLogger("library").warning("from a library")
logging.getLogger("httpx").info("verbose")
warnings.warn("a warning")

def fail(secret):
    raise RuntimeError("failure")

thread = threading.Thread(target=fail, args=("sesame",))
thread.start()
thread.join()
fail("sesame")
"""


def test_all_log_lines_are_json() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], line["event"]) for line in lines[:2]] == [("info", "own"), ("warning", "from a library")]
    assert "a warning" in lines[2]["event"]
    assert [line["level"] for line in lines[3:]] == ["critical", "critical"]
    assert all(line["exception"][0]["exc_value"] == "failure" for line in lines[3:])
    assert "sesame" not in "".join(str(line["exception"]) for line in lines[3:4])
    assert "verbose" not in done.stderr


CLOSED = """
import os, sys
import structlog
from rowcast import settings
from rowcast.app import logs

logs.configure_logging(settings.load(log_format="json"))
os.close(2)
structlog.get_logger("rowcast").info("own")
print("still running")
"""


def test_a_log_line_that_cannot_be_written_is_discarded() -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED], capture_output=True, text=True, check=False)

    assert done.stdout == "still running\n"
