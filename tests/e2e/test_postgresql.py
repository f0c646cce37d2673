"""Servers whose history is in PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.history.ports import OpenErasure
from support import models, postgresql, servers
from support.commands import rowcast
from support.entries import drafts, sealed
from support.postgresql import PASSWORD, Postgres
from support.waiting import eventually

ROWS = models.loan_rows(40, seed=5)
CLIENTS = 3
PER_PHASE = 150


def answer(*arguments: str | Path, home: Path, settings: dict[str, str]) -> Any:
    """Run a command with --json and return the parsed output."""
    finished = rowcast(*arguments, "--json", "--home", home, cwd=home, settings=settings)
    assert finished.returncode == 0, finished.stderr
    assert PASSWORD not in finished.stdout + finished.stderr
    return json.loads(finished.stdout)


def predict(client: httpx.Client, number: int, **options: str) -> str:
    reply = client.post("/predict", json=ROWS[number % len(ROWS)], params=options)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


def test_a_prediction_is_in_postgresql_before_it_is_returned(home: Path, postgres: Postgres, database: str) -> None:
    settings = {"ROWCAST_STORE": database}
    with servers.running(home, "--durability", "store", settings=settings) as server, server.client() as client:
        eventually(lambda: has_store(postgres), 60)
        ids = [predict(client, number, entity=f"customer-{number % 2}") for number in range(6)]
        listed = answer("history", "list", home=home, settings=settings)["predictions"]
        shown = answer("history", "show", ids[0], home=home, settings=settings)
        found = client.get("/predictions", params={"entity": "customer-1"}).json()["predictions"]
        health = client.get("/health").json()
        verification = answer("verify", home=home, settings=settings)

    assert {entry["id"] for entry in listed} == set(ids)
    assert shown["row"] == ROWS[0]
    assert {entry["id"] for entry in found} == set(ids[1::2])
    assert health["checks"]["history"] == "ok"
    assert (verification["entries"], verification["writers"], verification["broken"]) == (6, 1, [])
    assert not (home / "history.db").exists()
    assert PASSWORD not in server.log.read_text()


def test_an_erasure_covers_every_home_that_shares_the_database(
    home: Path, tmp_path: Path, loan_registry: Path, database: str
) -> None:
    other = models.with_models(tmp_path / "other", loan_registry)
    settings = {"ROWCAST_STORE": database, "ROWCAST_SIGNING_KEY_FILE": str(tmp_path / "signing.key")}
    with (
        servers.running(home, settings=settings) as first,
        servers.running(other, settings=settings) as second,
        first.client() as client,
        second.client() as second_client,
    ):
        for number in range(10):
            predict(client, number, entity=f"customer-{number % 5}")
            predict(second_client, number, entity=f"customer-{number % 5}")
        erased = answer("history", "erase", "--entity", "customer-3", home=other, settings=settings)
        listed = second_client.get("/predictions", params={"entity": "customer-3"}).json()["predictions"]
        verification = answer("verify", home=home, settings=settings)

    assert (erased["rows"], erased["journals"]) == (4, [])
    assert [entry for entry in listed if "row" in entry] == []
    assert (verification["entries"], verification["erased"], verification["unrecorded"]) == (20, 4, 0)
    assert (verification["writers"], verification["unsigned_erasures"], verification["broken"]) == (2, 0, [])


def test_homes_with_the_same_store_share_api_keys_replies_and_the_hashing_key(
    home: Path, tmp_path: Path, loan_registry: Path, database: str
) -> None:
    other = models.with_models(tmp_path / "other", loan_registry)
    settings = {"ROWCAST_STORE": database, "ROWCAST_SENSITIVE": "hash"}
    created = answer("keys", "create", "shop", "--scope", "predict,read", home=home, settings=settings)
    headers = {"x-api-key": created["key"], "idempotency-key": "order-7"}
    with (
        servers.running(home, settings=settings) as first,
        servers.running(other, settings=settings) as second,
        first.client(headers=headers) as client,
        second.client(headers=headers) as second_client,
        second.client() as stranger,
    ):
        reply = client.post("/predict", json=ROWS[0])
        again = second_client.post("/predict", json=ROWS[0])
        refused = stranger.post("/predict", json=ROWS[0])
        answer("keys", "revoke", created["id"], home=home, settings=settings)
        revoked_at = time.monotonic()
        eventually(lambda: second_client.post("/predict", json=ROWS[1]).status_code == 401)
        seconds = time.monotonic() - revoked_at

    assert reply.status_code == 200, reply.text
    assert (again.content, again.headers["idempotency-replayed"]) == (reply.content, "true")
    assert refused.status_code == 401
    assert seconds < 1
    assert (home / "history.key").read_bytes() == (other / "history.key").read_bytes()
    assert not (home / "keys.json").exists()
    assert not (home / "repeats.db").exists()


def test_without_the_database_only_requests_with_an_idempotency_key_are_refused(home: Path) -> None:
    with postgresql.running() as postgres:
        settings = {"ROWCAST_STORE": postgres.url}
        key = answer("keys", "create", "shop", home=home, settings=settings)["key"]
        with servers.running(home, settings=settings) as server, server.client(headers={"x-api-key": key}) as client:
            postgres.kill()
            plain = client.post("/predict", json=ROWS[0])
            keyed = client.post("/predict", json=ROWS[0], headers={"idempotency-key": "k"})
            unknown = client.post("/predict", json=ROWS[0], headers={"x-api-key": "rk_unknown"})
        with (
            servers.running(home, settings=settings, name="restarted") as server,
            server.client(headers={"x-api-key": key}) as client,
        ):
            restarted = client.post("/predict", json=ROWS[0])

    assert (plain.status_code, unknown.status_code, restarted.status_code) == (200, 401, 200)
    assert (keyed.status_code, keyed.json()["type"]) == (503, "urn:rowcast:error:idempotency-unavailable")
    assert "retry-after" in keyed.headers


def test_a_server_does_not_start_without_the_keys_of_its_home(home: Path, database: str) -> None:
    key = answer("keys", "create", "shop", home=home, settings={})

    refused = rowcast("serve", "--port", "0", "--home", home, cwd=home, settings={"ROWCAST_STORE": database})

    assert refused.returncode == 2
    assert key["id"] in refused.stderr


@pytest.mark.long
def test_an_erasure_stays_open_until_a_stopped_home_has_erased_its_rows(
    home: Path, tmp_path: Path, loan_registry: Path, database: str
) -> None:
    other = models.with_models(tmp_path / "other", loan_registry)
    settings = {"ROWCAST_STORE": database, "ROWCAST_SIGNING_KEY_FILE": str(tmp_path / "signing.key")}
    with servers.running(home, settings=settings) as first, first.client() as client:
        with servers.running(other, settings=settings) as second, second.client() as second_client:
            prediction = predict(second_client, 0, entity="customer-3")
            eventually(lambda: client.get(f"/predictions/{prediction}").status_code == 200)
            os.kill(second.indexer(), signal.SIGSTOP)  # the next prediction stays in the journal
            late = predict(second_client, 1, entity="customer-3")
            unknown = client.get(f"/predictions/{late}")
            second.kill()
        erased = answer("history", "erase", "--entity", "customer-3", home=home, settings=settings)
        with servers.running(other, settings=settings, name="restarted"):
            eventually(lambda: open_erasures(database) == [], 30)
            entry = client.get(f"/predictions/{late}").json()
        verification = answer("verify", home=home, settings=settings)

    assert (unknown.status_code, "another server" in unknown.json()["detail"]) == (404, True)
    assert (erased["rows"], len(erased["journals"])) == (1, 1)
    assert "row" not in entry
    assert (verification["erased"], verification["unrecorded"], verification["broken"]) == (2, 0, [])


def open_erasures(url: str) -> list[OpenErasure]:
    with PostgresStore(url) as store:
        return store.open_erasures()


def test_a_killed_copy_can_be_continued_and_has_valid_chains(home: Path, database: str) -> None:
    count = 20_000
    with SqliteStore(home / "history.db") as store:
        store.record("w", sealed("w", drafts(0, count)))
        store.record("x", sealed("x", drafts(count, count + 10)))
    command = ["store", "copy", "--to", database, "--home", str(home)]
    copying = subprocess.Popen([*servers.ROWCAST, *command], cwd=home, env=servers.environment())
    eventually(lambda: PostgresStore(database).count(), 60)
    copying.kill()
    copying.wait()
    partial = PostgresStore(database).count()
    finished = answer(*command, home=home, settings={})
    verification = answer("verify", home=home, settings={"ROWCAST_STORE": database})
    heads = [answer("history", "heads", home=home, settings=settings) for settings in ({}, {"ROWCAST_STORE": database})]

    assert 0 < partial < count
    assert (finished["copied"], finished["present"]) == (count + 10 - partial, partial)
    assert (verification["entries"], verification["writers"], verification["broken"]) == (count + 10, 2, [])
    assert heads[0] == heads[1]


class Load:
    """Clients that request predictions until they are stopped."""

    def __init__(self, address: str, threads: ThreadPoolExecutor) -> None:
        self.ids: list[str] = []
        self._address = address
        self._stopping = threading.Event()
        self._clients = [threads.submit(self._send, number) for number in range(CLIENTS)]

    def _send(self, number: int) -> None:
        with httpx.Client(base_url=self._address, timeout=20, trust_env=False) as client:
            while not self._stopping.is_set():
                self.ids.append(predict(client, number))

    def wait_for_more(self) -> None:
        """Wait until the clients have received more predictions; raise the error of a client that failed."""
        goal = len(self.ids) + PER_PHASE
        eventually(lambda: len(self.ids) >= goal or any(client.done() for client in self._clients), 60)
        for client in self._clients:
            if client.done():
                client.result()

    def stop(self) -> None:
        self._stopping.set()
        for client in self._clients:
            client.result()


def test_every_prediction_is_stored_once_even_if_postgresql_is_killed_and_restarted_under_load(home: Path) -> None:
    with postgresql.running() as postgres:
        settings = {"ROWCAST_STORE": postgres.url}
        with servers.running(home, settings=settings) as server, ThreadPoolExecutor(CLIENTS) as threads:
            load = Load(server.address, threads)
            try:
                load.wait_for_more()
                eventually(lambda: stored(postgres), 30)
                postgres.kill()
                load.wait_for_more()  # without the store
                with server.client() as client:
                    eventually(lambda: client.get("/health").json()["checks"]["history"] != "ok")
                    assert client.get(f"/predictions/{load.ids[0]}").status_code == 503
                postgres.start()
                load.wait_for_more()
            finally:
                load.stop()
            eventually(lambda: len(stored(postgres)) == len(load.ids), 30)
            with server.client() as client:
                assert client.get(f"/predictions/{load.ids[-1]}").status_code == 200
                eventually(lambda: client.get("/health").status_code == 200)
        verification = answer("verify", home=home, settings=settings)

        assert sorted(stored(postgres)) == sorted(load.ids)
        assert (verification["entries"], verification["broken"]) == (len(load.ids), [])
    log = server.log.read_text()
    assert "history is behind" in log
    assert PASSWORD not in log


def has_store(postgres: Postgres) -> bool:
    """Return whether the indexer has created the store."""
    return postgres.execute("SELECT to_regclass('rowcast.entries')") != [(None,)]


def stored(postgres: Postgres) -> list[str]:
    """Return the ids of the stored entries."""
    rows = postgres.execute("SELECT id FROM rowcast.entries") if has_store(postgres) else []
    return [str(prediction_id) for (prediction_id,) in rows]
