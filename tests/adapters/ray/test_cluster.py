"""A cluster's address is checked before Ray connects, because Ray would wait for minutes if it were wrong."""

from __future__ import annotations

import socket

import pytest

from rowcast.adapters.ray import cluster
from rowcast.adapters.ray.cluster import CLIENT_SERVER_DIED, CONNECT_ATTEMPTS, check_reachable
from rowcast.errors import EngineUnavailable
from support import rays


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_a_grpc_server_answers_is_accepted(scheme: str) -> None:
    with rays.answering(rays.SETTINGS) as address:
        check_reachable(f"{scheme}{address}")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_an_address_at_which_another_program_answers_is_refused(answer: bytes) -> None:
    with rays.answering(answer) as address, pytest.raises(EngineUnavailable) as refused:
        check_reachable(address)

    assert "not the address of a Ray cluster" in refused.value.message


def test_an_address_that_accepts_connections_without_answering_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "REACH_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(EngineUnavailable) as refused:
        check_reachable(f"127.0.0.1:{silent.getsockname()[1]}")

    assert "does not respond" in refused.value.message


def test_the_address_of_a_cluster_with_tls_is_accepted_if_it_accepts_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check_reachable(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize(
    ("failures", "attempts", "outcome"),
    [(1, 2, "connected"), (CONNECT_ATTEMPTS, CONNECT_ATTEMPTS, f"RuntimeError: {CLIENT_SERVER_DIED}. See the log.")],
)
def test_a_connection_is_attempted_again_if_the_cluster_failed_to_start_a_process_for_it(
    monkeypatch: pytest.MonkeyPatch, failures: int, attempts: int, outcome: str
) -> None:
    calls = _fail(monkeypatch, *[f"Traceback ...\nRuntimeError: {CLIENT_SERVER_DIED}. See the log."] * failures)

    with pytest.raises(EngineUnavailable) as refused, cluster._connection("at ray://h:1", address="ray://h:1"):
        raise EngineUnavailable("connected")

    assert refused.value.message.endswith(outcome)
    assert len(calls) == attempts


def test_other_connection_failures_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _fail(monkeypatch, "Version mismatch")

    with pytest.raises(EngineUnavailable) as refused, cluster._connection("at ray://h:1", address="ray://h:1"):
        raise AssertionError

    assert refused.value.message == "cannot use a Ray cluster at ray://h:1: Version mismatch"
    assert len(calls) == 1


def _fail(monkeypatch: pytest.MonkeyPatch, *failures: str) -> list[str]:
    """Let the first calls of `ray.init` fail with these messages; return a list that contains the address of each
    call.
    """
    import ray

    calls: list[str] = []

    def init(address: str, **_: object) -> None:
        calls.append(address)
        if len(calls) <= len(failures):
            raise ConnectionError(failures[len(calls) - 1])

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return calls
