"""The time limit for a push."""

from __future__ import annotations

import socket

import structlog

from rowcast.adapters.telemetry.pushgateway import Pusher
from support.waiting import eventually


def test_a_push_without_a_response_fails_after_one_second_if_pushes_are_frequent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, structlog.testing.capture_logs() as logged:
        pusher = Pusher(f"http://127.0.0.1:{silent.getsockname()[1]}/", None, 0.1, lambda: b"", lambda: True)
        pusher.start()
        eventually(lambda: logged, 4)  # the time limit for infrequent pushes is five seconds
        pusher.stop()

    assert [(line["event"], line["reason"]) for line in logged] == [
        ("cannot push metrics", "no response (ReadTimeout)")
    ]
