"""Black-box attacks on a server, its home and its commands. Each check raises AssertionError if the attack succeeds."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import threading
import time
import zipfile
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from product import LOAN, Product, Site, expect, free_port, own_address, wait_until

MB = 1e6


def commands_leave_no_telemetry(product: Product) -> None:
    """1: training and serving write no files to the user's cache."""
    folder = product.new_home("telemetry")
    user = folder / "user"
    user.mkdir()
    caches = {f"XDG_{name}_HOME": str(user / name.lower()) for name in ("CACHE", "CONFIG", "DATA", "STATE")}
    product.rowcast(
        "predict", "loans", "loans.csv", "--out", "out.csv", "--home", "home", cwd=folder, HOME=str(user), **caches
    )
    with product.serving(folder, HOME=str(user), **caches) as site:
        expect(site.predict(product.row()).status == 200, "the server does not predict")
    files = [str(path.relative_to(user)) for path in user.rglob("*") if path.is_file()]
    expect(not files, f"files in the user's home: {files}")


def an_unknown_id_does_not_end_the_server(product: Product) -> None:
    """2: looking up an unknown id returns 404, even if the journals have several segments."""
    with product.serving(product.new_home("ids")) as site:
        for _ in range(50):
            site.predict(product.row())
            status = site.ask("GET", "/predictions/01900000-0000-7000-8000-000000000000").status
            expect(status == 404, f"an unknown id has status {status}")


def a_refused_upgrade_hides_no_request(product: Product) -> None:
    """3: nothing after a refused upgrade is parsed, and an offer to upgrade to HTTP/2 is ignored."""
    row = json.dumps(product.row()).encode()
    hidden = b"GET /models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with product.serving(product.new_home("upgrade")) as site:
        head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        length = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(hidden)
        received = site.exchange(head + length + hidden)
        expect(received.count(b"HTTP/1.1 ") == 1, f"{received.count(b'HTTP/1.1 ')} responses to one request")
        offer = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        settings = b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Type: application/json\r\n"
        received = site.exchange(offer + settings + b"Content-Length: %d\r\n\r\n" % len(row) + row)
        expect(received.startswith(b"HTTP/1.1 200"), f"an offer of HTTP/2 gets {received[:40]!r}")


def a_small_body_makes_no_huge_reply(product: Product) -> None:
    """4: a reply about many invalid rows is limited in size."""
    body = json.dumps({"rows": [{"x": None}] * 10_000}).encode()
    with product.serving(product.new_home("partial")) as site:
        reply = site.ask("POST", "/predict?partial=true", body, zipped=True)
        expect(len(reply.body) < 5 * MB, f"the reply is {len(reply.body) / MB:.0f} MB")


def a_cell_is_bounded(product: Product) -> None:
    """5: a string of several megabytes is rejected, and the error does not repeat it."""
    text = next(name for name, cell in product.row().items() if isinstance(cell, str))
    with product.serving(product.new_home("cells")) as site:
        reply = site.ask("POST", "/predict", {**product.row(), text: "a" * 3_900_000}, zipped=True)
        expect(400 <= reply.status < 500, f"a string of 3.9 MB has status {reply.status}")
        expect(b"aaaaaaaaaa" not in reply.body, "the reply repeats the string")


def a_foreign_host_is_refused_without_a_key(product: Product) -> None:
    """6: a web page whose host name resolves to 127.0.0.1 gets no response."""
    folder = product.new_home("rebinding")
    with product.serving(folder) as site:
        foreign = {"host": f"attacker.example:{site.port}"}
        for method, path, body in (("GET", "/predictions", None), ("POST", "/predict", product.row())):
            status = site.ask(method, path, body, headers=foreign).status
            expect(status in (403, 421), f"{method} {path} with another host has status {status}")
        status = site.ask("GET", "/health/live", headers=foreign).status
        expect(status == 200, f"a probe with another host has status {status}")
        key = product.key(folder)
        wait_until(lambda: site.predict(product.row()).status == 401)
        status = site.predict(product.row(), headers={**foreign, "x-api-key": key}).status
        expect(status == 200, f"a request with a key and another host has status {status}")


def an_erasure_leaves_no_value(product: Product) -> None:
    """7: after an erasure, no file in the home contains a value from the erased row."""
    folder = product.new_home("erasure")
    row = product.row()
    text = next(name for name, cell in row.items() if isinstance(cell, str))
    row[text] = "marked-7319-value"
    with product.serving(folder) as site:
        reply = site.predict(row, headers={"x-entity": "mallory", "idempotency-key": "k1"})
        expect(reply.status == 200, f"the row has status {reply.status}")
        identity = reply.json["id"]
    done = product.rowcast("history", "erase", "--id", identity, "--home", "home", cwd=folder)
    expect(done.status == 0, f"the erasure failed: {done.err}")
    files = [
        path.name for path in (folder / "home").rglob("*") if path.is_file() and b"marked-7319" in path.read_bytes()
    ]
    expect(not files, f"the value is still in {files}")


def an_ambiguous_onnx_file_is_refused(product: Product) -> None:
    """8: field tags of more than 32 bits, overlong numbers and files in another format are rejected."""
    folder = product.new_home("onnx")
    graph = (folder / "home" / "models" / "loans" / "1" / "model.onnx").read_bytes()
    weight = numpy_helper.from_array(np.zeros(1, np.float32), "hidden")
    hidden = helper.make_graph([], "", [], [], [weight]).SerializeToString()
    length = bytes([len(hidden)])  # shorter than 128 bytes
    tag = b"\xba\x80\x80\x80\x10"  # field 7, the graph, with a bit that the official parser ignores
    files = {"hidden": graph + tag + length + hidden, "polyglot": struct.pack("<I", 16) + b"ORTM" + graph}
    for name, content in files.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(content)
        done = product.rowcast("models", "import", path, "--name", name, "--home", "home", cwd=folder)
        expect(done.status not in (0, -signal.SIGKILL), f"the {name} file is imported")
        expect("Traceback" not in done.err, f"the {name} file causes a traceback")


def an_application_without_a_key_answers_only_this_machine(product: Product) -> None:
    """9: without a key, only loopback clients are served, however the application is started."""
    folder = product.new_home("uvicorn")
    command = (str(product.python), "-m", "uvicorn", "rowcast.asgi:app", "--host", "0.0.0.0", "--no-proxy-headers")
    address = own_address()
    expect(address, "this machine has no address besides loopback; the check cannot run")
    with product.serving(folder, command=command) as site:
        expect(site.predict(product.row()).status == 200, "a loopback client is refused")
        status = site.ask("GET", "/predictions", host=str(address)).status
        expect(status in (401, 403), f"a client on the network reads the history with status {status}")
        forwarded = {"x-forwarded-for": "203.0.113.9"}
        status = site.predict(product.row(), headers=forwarded).status
        expect(status in (401, 403), f"a forwarded request without a key has status {status}")


def graphs_with_sizes_from_data_are_refused(product: Product) -> None:
    """10: a graph whose tensor sizes depend on row values could pass the trial, so it is rejected."""
    folder = product.new_home("sizes")
    scale = numpy_helper.from_array(np.array([1], np.int64), "one")
    nodes = [
        helper.make_node("Abs", ["x"], ["sizes"]),
        helper.make_node("ReduceMax", ["sizes"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["n"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["n", "one"], ["flat"]),
        helper.make_node("Expand", ["zero", "flat"], ["wide"]),
        helper.make_node("ReduceSum", ["wide"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [scale, numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / "sizes.onnx").write_bytes(model.SerializeToString())
    done = product.rowcast("models", "import", "sizes.onnx", "--name", "sizes", "--home", "home", cwd=folder)
    expect(done.status != 0, "a graph whose sizes depend on data is imported")
    expect("Expand" in done.err or "size" in done.err or "shape" in done.err, f"no reason: {done.err[-300:]}")


def pipelined_answers_keep_their_order(product: Product) -> None:
    """11: a long body is not counted as part of the next request's head."""
    row = json.dumps(product.row()).encode()
    padded = row[:-1] + b" " * 70_000 + b"}"
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with product.serving(product.new_home("pipeline")) as site:
        received = site.exchange((head % len(padded) + padded) * 3 + b"NONSENSE\r\n\r\n")
        statuses = re.findall(rb"HTTP/1\.1 ([0-9]+) ", received)
        expect(statuses == [b"200"] * 3 + [b"400"], f"the answers are {statuses}")


def a_signal_is_never_lost(product: Product) -> None:
    """12: the server exits if SIGTERM arrives at the moment when it reports that it is serving."""
    folder = product.new_home("signals")
    for _ in range(4):
        command = [str(product.python.parent / "rowcast"), "serve", "--home", "home", "--port", str(free_port())]
        environment = {**product.environment(), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if b"127.0.0.1" in line:
                    process.send_signal(signal.SIGTERM)
                    break
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError("SIGTERM was lost") from None


def other_users_cannot_read_the_home(product: Product) -> None:
    """13: only the owner can access the home and its files."""
    folder = product.folder / "modes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(product.folder / "loans.csv", folder)
    train = ("train", "loans.csv", "--target", LOAN, "--name", "loans", "--trials", "1", "--home", "home")
    before = os.umask(0o022)
    try:
        expect(product.rowcast(*train, cwd=folder, seconds=300).status == 0, "training failed")
        product.key(folder)
        with product.serving(folder):
            home = folder / "home"
            expect(
                stat.S_IMODE(home.stat().st_mode) == 0o700, f"the home has mode {stat.S_IMODE(home.stat().st_mode):o}"
            )
            locks = [path for path in home.rglob("*lock*") if path.is_file()]
            for path in [*locks, *home.rglob("golden.json")]:
                mode = stat.S_IMODE(path.stat().st_mode)
                expect(mode & 0o077 == 0, f"{path.relative_to(home)} has mode {mode:o}")
    finally:
        os.umask(before)


def verify_notices_changed_copies(product: Product) -> None:
    """14: the store's tenant and label columns are compared with the recorded entries."""
    folder = product.new_home("copies")
    with product.serving(folder) as site:
        for _ in range(5):
            site.predict(product.row())
    expect(product.rowcast("verify", "--home", "home", cwd=folder).status == 0, "verify fails before the change")
    store = sqlite3.connect(folder / "home" / "history.db")
    table, column = _column(store, "label")
    with store:
        store.execute(f"UPDATE {table} SET {column} = 'Forged'")
    store.close()
    expect(product.rowcast("verify", "--home", "home", cwd=folder).status == 1, "verify accepts a forged label")


def _column(store: sqlite3.Connection, name: str) -> tuple[str, str]:
    """Return the names of the store's table and column that contain the labels."""
    tables = [row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
        if name in columns and "id" in columns:
            return table, name
    raise AssertionError(f"no table of the store has the columns id and {name}")


def an_archive_does_not_unpack_into_memory(product: Product) -> None:
    """15: an archive of less than 1 MB that contains 600 MB of golden rows is rejected, and little memory is used."""
    folder = product.new_home("bombs")
    done = product.rowcast("models", "export", "loans", "--out", "good.rowcast", "--home", "home", cwd=folder)
    expect(done.status == 0, f"the export failed: {done.err}")
    with zipfile.ZipFile(folder / "good.rowcast") as good, zipfile.ZipFile(folder / "bomb.rowcast", "w") as bomb:
        for entry in good.infolist():
            with bomb.open(entry.filename, "w") if entry.filename != "golden.json" else _packed(bomb) as out:
                if entry.filename != "golden.json":
                    out.write(good.read(entry.filename))
                    continue
                out.write(b'[{"row": {"a": "')
                for _ in range(600):
                    out.write(b"a" * 1_000_000)
                out.write(b'"}}]')
    done = product.rowcast("models", "import", "bomb.rowcast", "--name", "bomb", "--home", "home", cwd=folder)
    expect(done.status != 0, "the archive is imported")
    expect(done.peak_mb < 500, f"the import used {done.peak_mb:.0f} MB")


def _packed(archive: zipfile.ZipFile):  # type: ignore[no-untyped-def]
    entry = zipfile.ZipInfo("golden.json")
    entry.compress_type = zipfile.ZIP_DEFLATED
    return archive.open(entry, "w", force_zip64=True)


def idle_clients_do_not_lock_others_out(product: Product) -> None:
    """16: a server that is limited to 64 file descriptors still accepts a new client while 100 clients are idle."""
    folder = product.new_home("files")
    serve = f'ulimit -n 64; exec {product.python.parent / "rowcast"} serve --home {folder / "home"} "$@"'
    with product.serving(folder, command=("bash", "-c", serve, "serve")) as site:
        idle: list[socket.socket] = []
        try:
            idle.extend(socket.create_connection(("127.0.0.1", site.port), timeout=5) for _ in range(100))
            wait_until(lambda: _is_answered(site, product.row()))
        except OSError as error:
            raise AssertionError(f"another client is locked out: {error}") from None
        finally:
            for connection in idle:
                connection.close()


def _is_answered(site: Site, row: dict[str, Any]) -> bool:
    try:
        return site.predict(row, seconds=10).status == 200
    except OSError:  # refused
        return False


def a_dotenv_file_does_not_receive_the_key(product: Product) -> None:
    """17: in a folder with a hostile .env file, `rowcast call` does not send the API key to the address in that
    file."""
    for name in ("ROWCAST_API_KEY", "API_KEY"):
        folder = product.folder / f"dotenv-{name.lower()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        received: list[bytes] = []
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(5)
            thread = threading.Thread(target=_capture, args=(listener, received))
            thread.start()
            port = listener.getsockname()[1]
            (folder / ".env").write_text(f"ROWCAST_URL=http://127.0.0.1:{port}\nROWCAST_PORT={port}\nPORT={port}\n")
            call = ("call", json.dumps(product.row()), "--timeout", "2")
            product.rowcast(*call, cwd=folder, **{name: "secret-7319"})
            thread.join()
        expect(not any(b"secret-7319" in block for block in received), f"{name} was sent to the address in .env")


def _capture(listener: socket.socket, received: list[bytes]) -> None:
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return
    with connection:
        connection.settimeout(2)
        try:
            received.append(connection.recv(65536))
        except TimeoutError:
            return


def a_clock_far_ahead_erases_nothing(product: Product) -> None:
    """18: if the clock is far ahead of the newest entry, retention erases nothing."""
    folder = product.new_home("clock")
    with product.serving(folder) as site:
        site.predict(product.row())
    ahead = folder / "ahead"
    ahead.mkdir()
    (ahead / "sitecustomize.py").write_text(AHEAD)
    retention = {"ROWCAST_RETENTION_DAYS": "30", "PYTHONPATH": str(ahead)}
    with product.serving(folder, **retention) as site:
        time.sleep(4)  # if the indexer erased anything, it would start within two seconds
        expect(site.ask("GET", "/health/live").status == 200, "the server is gone")
    done = product.rowcast("history", "erasures", "--json", "--home", "home", cwd=folder)
    expect('"rows": 0' in done.out or '"erasures": []' in done.out or done.out.strip() in ("[]", ""), done.out[:300])


AHEAD = """
import datetime, time
DAYS = 400 * 86400
now, now_ns, real = time.time, time.time_ns, datetime.datetime
time.time, time.time_ns = (lambda: now() + DAYS), (lambda: now_ns() + DAYS * 10**9)
class Ahead(real):
    @classmethod
    def now(cls, tz=None):
        return real.fromtimestamp(time.time(), tz)
datetime.datetime = Ahead
"""


def requests_with_an_unclear_host_or_version_are_refused(product: Product) -> None:
    """19: requests with two hosts, without a host, or with a version other than HTTP/1 are rejected."""
    with product.serving(product.new_home("hosts")) as site:
        for head in (
            b"GET /models HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: other\r\n\r\n",
            b"GET /models HTTP/1.1\r\n\r\n",
            b"GET /models HTTP/2.0\r\nHost: 127.0.0.1\r\n\r\n",
        ):
            received = site.exchange(head, seconds=1)
            expect(b" 200 " not in received[:20], f"{head!r} is answered with 200")


def a_redirect_names_no_other_host(product: Product) -> None:
    """19: the redirect from a path with a trailing slash does not name the host from the request."""
    with product.serving(product.new_home("redirects")) as site:
        reply = site.ask("GET", "/models/", headers={"host": "localhost.attacker.example"})
        expect("attacker" not in reply.headers.get("location", ""), f"redirects to {reply.headers.get('location')}")


def a_key_in_an_object_occurs_once(product: Product) -> None:
    """19: a duplicate key, whose value a proxy could read differently, is rejected."""
    row = product.row()
    name = next(name for name, cell in row.items() if not isinstance(cell, str))
    body = json.dumps(row)[:-1] + f', "{name}": 1}}'
    with product.serving(product.new_home("duplicates")) as site:
        status = site.ask("POST", "/predict", body.encode()).status
        expect(status in (400, 422), f"a duplicate key has status {status}")


def sensitive_values_are_not_published(product: Product) -> None:
    """19: replies and bundle files do not contain ranges or examples of sensitive columns."""
    folder = product.folder / "sensitive"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with (product.folder / "loans.csv").open() as source:
        rows = list(csv.DictReader(source))
    for index, row in enumerate(rows):
        row["secret"] = str(730_000 + index)
    with (folder / "table.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    train = ("train", "table.csv", "--target", LOAN, "--name", "loans", "--trials", "1", "--sensitive", "secret")
    done = product.rowcast(*train, "--keep", "secret", "--home", "home", cwd=folder, seconds=300)
    expect(done.status == 0, f"training failed: {done.err}")
    values = [str(730_000 + index) for index in range(len(rows))]
    texts = {path.name: path.read_text() for path in (folder / "home").rglob("*") if path.suffix in (".md", ".html")}
    with product.serving(folder) as site:
        for path in ("/openapi.json", "/models", "/models/loans", "/sample"):
            texts[path] = site.ask("GET", path).body.decode()
    leaks = [name for name, text in texts.items() if any(value in text for value in values)]
    expect(not leaks, f"values of the sensitive column are in {leaks}")


def clients_behind_a_trusted_proxy_have_their_own_quota(product: Product) -> None:
    """20: one client does not use up another client's quota."""
    settings = {"ROWCAST_TRUSTED_PROXIES": "127.0.0.1", "ROWCAST_INSECURE": "1", "ROWCAST_QUOTA": "2/60s"}
    with product.serving(product.new_home("proxies"), **settings) as site:
        clients = ("203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.2")
        statuses = [site.predict(product.row(), headers={"x-forwarded-for": client}).status for client in clients]
        expect(statuses == [200, 200, 429, 200], f"the statuses are {statuses}")


CHECKS = (
    commands_leave_no_telemetry,
    an_unknown_id_does_not_end_the_server,
    a_refused_upgrade_hides_no_request,
    a_small_body_makes_no_huge_reply,
    a_cell_is_bounded,
    a_foreign_host_is_refused_without_a_key,
    an_erasure_leaves_no_value,
    an_ambiguous_onnx_file_is_refused,
    an_application_without_a_key_answers_only_this_machine,
    graphs_with_sizes_from_data_are_refused,
    pipelined_answers_keep_their_order,
    a_signal_is_never_lost,
    other_users_cannot_read_the_home,
    verify_notices_changed_copies,
    an_archive_does_not_unpack_into_memory,
    idle_clients_do_not_lock_others_out,
    a_dotenv_file_does_not_receive_the_key,
    a_clock_far_ahead_erases_nothing,
    requests_with_an_unclear_host_or_version_are_refused,
    a_redirect_names_no_other_host,
    a_key_in_an_object_occurs_once,
    sensitive_values_are_not_published,
    clients_behind_a_trusted_proxy_have_their_own_quota,
)
