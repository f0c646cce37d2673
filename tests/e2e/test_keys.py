"""API keys: changes while several server processes are running, and isolation between tenants."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from support import models, servers
from support.commands import rowcast
from support.servers import Server
from support.waiting import eventually

SUM = models.number_columns(2)
ROW = {"x0": 41.25, "x1": 1.5}
PROCESSES = 2
CONNECTIONS = 12
"""The number of connections that each check opens.

If one process accepts all of them, the check is weaker but still valid.
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("keys")
    for name in ("sum", "other"):
        models.publish(FolderRegistry(home / "models"), name, models.sum_graph(2), SUM, models.REGRESSION, "values")
    keys(home, "create", "first", "--scope", "predict,read,admin")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    settings = {"ROWCAST_CACHE": "true"}
    arguments = ("--workers", str(PROCESSES), "--default-model", "sum")
    with servers.running(home, *arguments, settings=settings) as running:
        yield running


def keys(home: Path, *words: str) -> Any:
    """Run a `rowcast keys` command and return the parsed output."""
    finished = rowcast("keys", *words, "--json", "--home", home, cwd=home)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def create(home: Path, name: str, *words: str) -> str:
    secret: str = keys(home, "create", name, *words)["key"]
    return secret


def statuses(server: Server, secret: str) -> set[int]:
    """Send requests with this key on new connections, which normally reach both processes; return the status codes."""
    seen = set()
    for _ in range(CONNECTIONS):
        with server.client(headers={"x-api-key": secret}) as client:
            seen.add(client.post("/models/sum/predict", json=ROW).status_code)
    return seen


def wait_for_status(server: Server, secret: str, status: int) -> None:
    """Wait until the requests on all connections get a response with this status."""
    eventually(lambda: statuses(server, secret) == {status})


def test_a_new_key_works_and_is_listed_but_its_secret_is_not_stored(home: Path, server: Server) -> None:
    secret = create(home, "shop", "--scope", "predict,read", "--tenant", "acme", "--model", "sum", "--expires", "90d")
    wait_for_status(server, secret, 200)
    [shop] = [key for key in keys(home, "list")["keys"] if key["name"] == "shop"]

    assert (shop["state"], shop["tenant"], shop["models"]) == ("active", "acme", ["sum"])
    assert secret not in json.dumps(keys(home, "list"))
    for path in home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_an_old_key_stays_valid_during_the_overlap_after_a_rotation(home: Path, server: Server) -> None:
    first = create(home, "turns")
    wait_for_status(server, first, 200)
    second = keys(home, "rotate", "turns", "--overlap", "1h")["key"]
    wait_for_status(server, second, 200)
    assert second != first
    assert statuses(server, first) == {200}

    third = keys(home, "rotate", "turns", "--overlap", "2s")["key"]
    ends = time.monotonic() + 3  # expiry times are rounded to whole seconds
    wait_for_status(server, third, 200)
    assert statuses(server, first) == {401}  # only the most recently replaced key stays valid
    eventually(lambda: time.monotonic() > ends, 5)
    assert statuses(server, second) == {401}
    assert statuses(server, third) == {200}


def test_every_server_process_rejects_a_revoked_key_within_a_second(home: Path, server: Server) -> None:
    secret = create(home, "leaver")
    wait_for_status(server, secret, 200)
    keys(home, "revoke", "leaver")
    revoked = time.monotonic()
    eventually(lambda: time.monotonic() >= revoked + 1.0, 3)

    assert statuses(server, secret) == {401}
    assert [key["state"] for key in keys(home, "list")["keys"] if key["name"] == "leaver"] == ["revoked"]


@pytest.fixture(scope="module")
def tenants(home: Path, server: Server) -> Iterator[tuple[httpx.Client, httpx.Client, httpx.Client]]:
    """The clients of Mallory (the attacker), Alice (the victim) and the operator."""
    secrets = [
        create(home, name, "--scope", scope, *more)
        for name, scope, *more in (
            ("mallory", "predict,read", "--tenant", "mallet"),
            ("alice", "predict,read", "--tenant", "wonderland"),
            ("operator", "predict,read,admin"),
        )
    ]
    for secret in secrets:
        wait_for_status(server, secret, 200)
    clients = [server.client(headers={"x-api-key": secret}) for secret in secrets]
    yield clients[0], clients[1], clients[2]
    for client in clients:
        client.close()


def ask(client: httpx.Client, row: Any = ROW, path: str = "/models/sum/predict", **headers: str) -> httpx.Response:
    return client.post(path, json=row, headers=headers)


def listed(client: httpx.Client, query: str = "") -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = client.get(f"/predictions{query}").json()["predictions"]
    return entries


def test_tenants_see_only_their_own_data(
    tenants: tuple[httpx.Client, httpx.Client, httpx.Client],
) -> None:
    mallory, alice, operator = tenants
    secret_row = {"x0": 987_654.25, "x1": 3.0}
    marks = ["987654.25", "white-rabbit", "wonderland"]
    victims = [ask(alice, secret_row, "/models/sum/predict?entity=white-rabbit", **{"idempotency-key": "k"}).json()]
    victims += [ask(alice, secret_row, "/models/sum/predict?entity=white-rabbit&cache=false").json() for _ in range(2)]
    marks += [prediction["id"] for prediction in victims]
    eventually(lambda: len(listed(alice, "?entity=white-rabbit")) == 3)
    replies: list[httpx.Response] = []

    def collect(reply: httpx.Response) -> httpx.Response:
        replies.append(reply)
        return reply

    # In lower or upper case, the ID of another tenant's prediction gets the same reply as an unknown ID.
    unknown = collect(mallory.get("/predictions/01890a5d-ac96-774b-8bce-b302099a8057"))
    for guess in (victims[0]["id"], victims[0]["id"].upper(), victims[0]["id"][:-1] + "0"):
        reply = mallory.get(f"/predictions/{guess}")
        assert (reply.status_code, reply.json()["type"]) == (404, unknown.json()["type"])
        detail = unknown.json()["detail"].replace(unknown.url.path[13:], "ID")
        assert reply.json()["detail"].replace(guess, "ID") == detail
    # Another tenant's cursor.
    cursor = alice.get("/predictions?limit=1").json()["next"]
    assert collect(mallory.get("/predictions", params={"cursor": cursor})).status_code == 400
    # Filters, the export and an unknown parameter.
    for query in ("?entity=white-rabbit", "?model=sum", "?limit=1000", "?since=2020-01-01", "?version=1"):
        collect(mallory.get(f"/predictions{query}"))
        collect(mallory.get(f"/predictions/export{query.replace('?limit=1000', '')}"))
    assert collect(mallory.get("/predictions?tenant=wonderland")).status_code == 400
    # An Idempotency-Key that another tenant has used causes neither a replay nor a conflict.
    same = collect(ask(mallory, secret_row, **{"idempotency-key": "k"}))
    other = collect(ask(mallory, ROW, **{"idempotency-key": "k2"}))
    assert (same.status_code, same.headers["idempotency-replayed"]) == (200, "false")
    assert other.status_code == 200
    # A cached score is returned with a new ID.
    assert {same.json()["id"], other.json()["id"]}.isdisjoint(prediction["id"] for prediction in victims)
    assert collect(mallory.get(f"/predictions/{same.json()['id']}")).json()["tenant"] == "mallet"
    # Error messages and pages for operators.
    collect(ask(mallory, {"x0": "no"}))
    collect(ask(mallory, [1]))
    for path in ("/metrics", "/health", "/models", "/openapi.json", "/nothing"):
        collect(mallory.get(path))
    assert mallory.get("/metrics").status_code == 403
    own = (same.json()["id"], "987654.25")  # Mallory sent this row too
    for reply in replies:
        assert [mark for mark in marks if mark not in own and mark in reply.text] == [], reply.url
        assert [mark for mark in marks if mark in str(reply.headers)] == []
    # The operator's metrics do not identify tenants or keys.
    metrics = operator.get("/metrics").text
    for word in (*marks, "mallet", "mallory", "alice", "tenant=", "key=", "entity="):
        assert word not in metrics


def test_a_key_restricted_to_some_models_can_read_only_the_history_of_these_models(home: Path, server: Server) -> None:
    """Other models' entries are hidden, even within the key's own tenant and even if the key has the admin scope."""
    both = create(home, "both", "--scope", "predict,read", "--tenant", "hatter")
    narrow = create(home, "narrow", "--scope", "predict,read", "--tenant", "hatter", "--model", "other")
    admin = create(home, "head", "--scope", "read,admin", "--model", "other")
    for secret in (both, admin):
        eventually(lambda secret=secret: statuses(server, secret) <= {200, 403})  # type: ignore[misc]
    with (
        server.client(headers={"x-api-key": both}) as unlimited,
        server.client(headers={"x-api-key": narrow}) as limited,
        server.client(headers={"x-api-key": admin}) as limited_admin,
    ):
        hidden = ask(unlimited, path="/models/sum/predict?entity=tea").json()["id"]
        visible = ask(unlimited, path="/models/other/predict?entity=tea").json()["id"]
        assert limited.get(f"/predictions/{hidden}").status_code == 404  # the entry is still in the journal
        eventually(lambda: len(listed(unlimited, "?entity=tea")) == 2)

        for client in (limited, limited_admin):
            assert [entry["id"] for entry in listed(client, "?entity=tea")] == [visible]
            assert listed(client, "?entity=tea&model=sum") == []
            assert hidden not in client.get("/predictions/export").text
            assert visible in client.get("/predictions/export").text
            assert client.get(f"/predictions/{hidden}").status_code == 404
            assert client.get(f"/predictions/{visible}").status_code == 200
        cursor = unlimited.get("/predictions?limit=1").json()["next"]
        assert limited.get("/predictions", params={"cursor": cursor}).status_code == 400
