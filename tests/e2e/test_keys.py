"""Keys made, rotated and revoked at the command line, followed by every worker; and tenants who try hard."""

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
from support.servers import Server, rowcast
from support.waiting import eventually

SUM = models.number_columns(2)
ROW = {"x0": 41.25, "x1": 1.5}
WORKERS = 2
CONNECTIONS = 12
"""Fresh connections that are asked. That one worker takes them all is rare, and then less is asked, nothing wrongly."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keys")
    for name in ("sum", "other"):
        models.publish(FolderRegistry(made / "models"), name, models.sum_graph(2), SUM, models.REGRESSION, "values")
    keys(made, "create", "first", "--scope", "predict,read,admin")
    return made


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    settings = {"ROWCAST_CACHE": "true"}
    arguments = ("--workers", str(WORKERS), "--default-model", "sum")
    with servers.running(home, *arguments, settings=settings) as running:
        yield running


def keys(home: Path, *words: str) -> Any:
    """What a command of `rowcast keys` prints."""
    done = rowcast("keys", *words, "--json", "--home", home, cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def create(home: Path, name: str, *words: str) -> str:
    secret: str = keys(home, "create", name, *words)["key"]
    return secret


def statuses(server: Server, secret: str) -> set[int]:
    """What both workers say to this key, each on connections of its own."""
    found = set()
    for _ in range(CONNECTIONS):
        with server.client(headers={"x-api-key": secret}) as client:
            found.add(client.post("/models/sum/predict", json=ROW).status_code)
    return found


def all_say(server: Server, secret: str, status: int) -> None:
    """Wait until every connection gets this status."""
    eventually(lambda: statuses(server, secret) == {status})


def test_a_key_is_known_listed_and_nowhere_kept(home: Path, server: Server) -> None:
    secret = create(home, "shop", "--scope", "predict,read", "--tenant", "acme", "--model", "sum", "--expires", "90d")
    all_say(server, secret, 200)
    [listed] = [key for key in keys(home, "list")["keys"] if key["name"] == "shop"]

    assert (listed["state"], listed["tenant"], listed["models"]) == ("active", "acme", ["sum"])
    assert secret not in json.dumps(keys(home, "list"))
    for path in home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_rotated_key_is_good_beside_the_new_one_for_its_overlap(home: Path, server: Server) -> None:
    first = create(home, "turns")
    all_say(server, first, 200)
    second = keys(home, "rotate", "turns", "--overlap", "1h")["key"]
    all_say(server, second, 200)
    assert second != first
    assert statuses(server, first) == {200}

    third = keys(home, "rotate", "turns", "--overlap", "2s")["key"]
    ends = time.monotonic() + 3  # whole seconds are kept
    all_say(server, third, 200)
    assert statuses(server, first) == {401}  # there is one key from before, not two
    eventually(lambda: time.monotonic() > ends, 5)
    assert statuses(server, second) == {401}
    assert statuses(server, third) == {200}


def test_a_revoked_key_is_refused_by_every_worker_within_a_second(home: Path, server: Server) -> None:
    secret = create(home, "leaver")
    all_say(server, secret, 200)
    keys(home, "revoke", "leaver")
    revoked = time.monotonic()
    eventually(lambda: time.monotonic() >= revoked + 1.0, 3)

    assert statuses(server, secret) == {401}
    assert [key["state"] for key in keys(home, "list")["keys"] if key["name"] == "leaver"] == ["revoked"]


@pytest.fixture(scope="module")
def tenants(home: Path, server: Server) -> Iterator[tuple[httpx.Client, httpx.Client, httpx.Client]]:
    """Mallory, who tries, Alice, who is tried, and the operator."""
    secrets = [
        create(home, name, "--scope", scope, *more)
        for name, scope, *more in (
            ("mallory", "predict,read", "--tenant", "mallet"),
            ("alice", "predict,read", "--tenant", "wonderland"),
            ("operator", "predict,read,admin"),
        )
    ]
    for secret in secrets:
        all_say(server, secret, 200)
    made = [server.client(headers={"x-api-key": secret}) for secret in secrets]
    yield made[0], made[1], made[2]
    for client in made:
        client.close()


def ask(client: httpx.Client, row: Any = ROW, path: str = "/models/sum/predict", **headers: str) -> httpx.Response:
    return client.post(path, json=row, headers=headers)


def listed(client: httpx.Client, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/predictions{query}").json()["predictions"]
    return found


def test_a_tenant_who_tries_sees_nothing_of_another(tenants: tuple[httpx.Client, httpx.Client, httpx.Client]) -> None:
    mallory, alice, operator = tenants
    secret_row = {"x0": 987_654.25, "x1": 3.0}
    marks = ["987654.25", "white-rabbit", "wonderland"]
    made = [ask(alice, secret_row, "/models/sum/predict?entity=white-rabbit", **{"idempotency-key": "k"}).json()]
    made += [ask(alice, secret_row, "/models/sum/predict?entity=white-rabbit&cache=false").json() for _ in range(2)]
    marks += [one["id"] for one in made]
    eventually(lambda: len(listed(alice, "?entity=white-rabbit")) == 3)
    heard: list[httpx.Response] = []

    def tries(reply: httpx.Response) -> httpx.Response:
        heard.append(reply)
        return reply

    # Ids: guessed rightly, in either case, or beside: all alike.
    never = tries(mallory.get("/predictions/01890a5d-ac96-774b-8bce-b302099a8057"))
    for guess in (made[0]["id"], made[0]["id"].upper(), made[0]["id"][:-1] + "0"):
        reply = mallory.get(f"/predictions/{guess}")
        assert (reply.status_code, reply.json()["type"]) == (404, never.json()["type"])
        assert reply.json()["detail"].replace(guess, "ID") == never.json()["detail"].replace(never.url.path[13:], "ID")
    # Cursors of the other tenant.
    cursor = alice.get("/predictions?limit=1").json()["next"]
    assert tries(mallory.get("/predictions", params={"cursor": cursor})).status_code == 400
    # Filters, the export, and an option that does not exist.
    for query in ("?entity=white-rabbit", "?model=sum", "?limit=1000", "?since=2020-01-01", "?version=1"):
        tries(mallory.get(f"/predictions{query}"))
        tries(mallory.get(f"/predictions/export{query.replace('?limit=1000', '')}"))
    assert tries(mallory.get("/predictions?tenant=wonderland")).status_code == 400
    # Their Idempotency-Key is another one than mine: no reply of theirs, no conflict that tells of theirs.
    same = tries(ask(mallory, secret_row, **{"idempotency-key": "k"}))
    differs = tries(ask(mallory, ROW, **{"idempotency-key": "k2"}))
    assert (same.status_code, same.headers["idempotency-replayed"]) == (200, "false")
    assert differs.status_code == 200
    # A row that they asked may be in the cache: the answer is that of the model, under an id of my own.
    assert {same.json()["id"], differs.json()["id"]}.isdisjoint(one["id"] for one in made)
    assert tries(mallory.get(f"/predictions/{same.json()['id']}")).json()["tenant"] == "mallet"
    # What goes wrong, and what only operators see.
    tries(ask(mallory, {"x0": "no"}))
    tries(ask(mallory, [1]))
    for path in ("/metrics", "/health", "/models", "/openapi.json", "/nothing"):
        tries(mallory.get(path))
    assert mallory.get("/metrics").status_code == 403
    mine = (same.json()["id"], "987654.25")  # she asked about that row herself
    for reply in heard:
        assert [mark for mark in marks if mark not in mine and mark in reply.text] == [], reply.url
        assert [mark for mark in marks if mark in str(reply.headers)] == []
    # Nor does the operator's page of figures tell who is there.
    metrics = operator.get("/metrics").text
    for word in (*marks, "mallet", "mallory", "alice", "tenant=", "key=", "entity="):
        assert word not in metrics


def test_a_key_for_some_models_reads_their_history_alone(home: Path, server: Server) -> None:
    """Also of its own tenant, also with every scope: the models of a key bound what it sees."""
    both = create(home, "both", "--scope", "predict,read", "--tenant", "hatter")
    narrow = create(home, "narrow", "--scope", "predict,read", "--tenant", "hatter", "--model", "other")
    head = create(home, "head", "--scope", "read,admin", "--model", "other")
    for secret in (both, head):
        eventually(lambda secret=secret: statuses(server, secret) <= {200, 403})  # type: ignore[misc]
    with (
        server.client(headers={"x-api-key": both}) as all_,
        server.client(headers={"x-api-key": narrow}) as some,
        server.client(headers={"x-api-key": head}) as chief,
    ):
        hidden = ask(all_, path="/models/sum/predict?entity=tea").json()["id"]
        shown = ask(all_, path="/models/other/predict?entity=tea").json()["id"]
        assert some.get(f"/predictions/{hidden}").status_code == 404  # from the journal
        eventually(lambda: len(listed(all_, "?entity=tea")) == 2)

        for narrowed in (some, chief):
            assert [one["id"] for one in listed(narrowed, "?entity=tea")] == [shown]
            assert listed(narrowed, "?entity=tea&model=sum") == []
            assert hidden not in narrowed.get("/predictions/export").text
            assert shown in narrowed.get("/predictions/export").text
            assert narrowed.get(f"/predictions/{hidden}").status_code == 404
            assert narrowed.get(f"/predictions/{shown}").status_code == 200
        cursor = all_.get("/predictions?limit=1").json()["next"]
        assert some.get("/predictions", params={"cursor": cursor}).status_code == 400
