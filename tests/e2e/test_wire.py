"""A model with a wire template serves another system's clients, and the history stores rows in the native format."""

from __future__ import annotations

import json
from pathlib import Path

from support import servers
from support.commands import rowcast
from support.waiting import eventually

CONFIG = """
table: loans.csv
target: loan_status
candidates: logistic
trials: 1
name: loans
exclude: [education, self_employed, dependents, residential_assets, commercial_assets, bank_assets, purpose]
wire:
  request: {rename: {score: credit_score}, on_missing: {loan_term: 15}}
  labels: {Approved: approved, Rejected: rejected}
  class_index: {Approved: 1, Rejected: 0}
  reply: {approval_status: $label, confidence: $probability, code: $class_index, currency: EUR, "no": 1}
  root: {status: ok, features_count: $column_count}
"""


def test_a_trained_model_uses_its_wire_template(tmp_path: Path) -> None:
    assert rowcast("example", "loans", "--out", "loans.csv", cwd=tmp_path).returncode == 0
    (tmp_path / "train.yaml").write_text(CONFIG)
    trained = rowcast("train", "--config", "train.yaml", "--home", tmp_path, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr

    with servers.running(tmp_path) as server, server.client() as client:
        sent = {"annual_income": 8049172, "loan_amount": 1000000, "loan_term": 15, "score": 720}
        first = client.post("/predict", json=sent)
        short = {name: value for name, value in sent.items() if name != "loan_term"}
        shortened = client.post("/predict", json=short)

        reply = first.json()
        assert list(reply) == ["approval_status", "confidence", "code", "currency", "no"]
        assert reply["code"] == {"approved": 1, "rejected": 0}[reply["approval_status"]]
        assert (reply["currency"], reply["no"]) == ("EUR", 1)
        assert shortened.json() == reply
        # The income is above all incomes in the table.
        assert first.headers["x-wire-warning"] == "filled=0, ignored=0, unusual=1"
        assert shortened.headers["x-wire-warning"] == "filled=1, ignored=0, unusual=1"
        assert client.get("/").json() == {"status": "ok", "features_count": 4}
        entries = eventually(lambda: client.get("/predictions").json()["predictions"][1:])
        row = {"annual_income": 8049172, "loan_amount": 1000000, "loan_term": 15, "credit_score": 720}
        assert entries[0]["row"] == row
        assert entries[0]["prediction"]["prediction"] == reply["approval_status"].capitalize()
    assert "a wire template changed a request" in server.log.read_text()
    assert "8049172" not in server.log.read_text()
    replayed = json.loads(rowcast("replay", "--json", "--home", tmp_path, cwd=tmp_path).stdout)
    assert (replayed["equal"], replayed["entries"]) == (2, 2)


def test_a_template_that_does_not_match_the_table_is_rejected_before_the_search(tmp_path: Path) -> None:
    rowcast("example", "loans", "--out", "loans.csv", cwd=tmp_path)
    (tmp_path / "wire.json").write_text('{"labels": {"Granted": "yes"}}')

    done = rowcast(
        *["train", "loans.csv", "--target", "loan_status", "--wire", "wire.json", "--home", tmp_path], cwd=tmp_path
    )

    assert done.returncode == 2
    assert done.stderr == (
        "error: wire template: labels: unknown class 'Granted'; the classes are Approved, Rejected\n"
    )
    assert not (tmp_path / "models" / "loans").exists()
