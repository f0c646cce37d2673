"""Black-box checks of what new users are likely to try. Each check raises AssertionError if the product misbehaves."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

from product import LOAN, Product, expect


def no_command_overwrites_its_input(product: Product) -> None:
    """22: a command refuses to write to its input, or to a symbolic or hard link to it."""
    folder = product.new_home("overwrite")
    table = folder / "loans.csv"
    content = table.read_bytes()
    (folder / "link.csv").symlink_to(table)
    os.link(table, folder / "hard.csv")
    for option, name in (
        ("--out", "loans.csv"),
        ("--out", "link.csv"),
        ("--out", "hard.csv"),
        ("--rejects", "loans.csv"),
    ):
        out = () if option == "--out" else ("--out", "scores.csv")
        done = product.rowcast("predict", "loans", "loans.csv", option, name, *out, "--home", "home", cwd=folder)
        expect(done.status == 2, f"predict {option} {name} has exit status {done.status}")
        expect(table.read_bytes() == content, f"predict {option} {name} changed the table")


def a_worse_model_does_not_go_live(product: Product) -> None:
    """23: retraining with a weaker candidate publishes a challenger and shows how to promote it."""
    folder = product.new_home("promotion")
    product.rowcast("example", "loans", "--rows", "3000", "--seed", "5", "--out", "fresh.csv", cwd=folder)
    train = ("train", "fresh.csv", "--target", LOAN, "--name", "loans", "--candidates", "tree", "--trials", "1")
    done = product.rowcast(*train, "--home", "home", cwd=folder, seconds=300)
    expect(done.status == 0, f"training failed: {done.err}")
    listed = product.rowcast("models", "list", "--json", "--home", "home", cwd=folder).out
    versions = json.loads(listed)["models"] if isinstance(json.loads(listed), dict) else json.loads(listed)
    champions = [version["version"] for version in versions if "champion" in version.get("aliases", [])]
    expect(champions == [1], f"the champion is version {champions}")
    expect("promote" in done.out + done.err, "the command to promote is not shown")


def python_takes_and_returns_frames(product: Product) -> None:
    """24: `predict` returns a frame for a frame and a single prediction for a dict."""
    folder = product.new_home("frames")
    script = """
import polars, rowcast
frame = polars.read_csv("loans.csv").drop("loan_status").head(3)
model = rowcast.load("loans", home="home")
assert type(model.predict(frame)) is type(frame), type(model.predict(frame))
assert len(model.predict(frame.to_dicts())) == 3
model.predict(frame.to_dicts()[0])
assert model.predict_proba(frame) is not None
assert "train" in dir(rowcast)
"""
    done = product.run(product.python, "-c", script, cwd=folder)
    expect(done.status == 0, done.err.strip().splitlines()[-1] if done.err.strip() else "failed")


def the_shell_behaves_like_other_tools(product: Product) -> None:
    """25: standard streams and compressed tables are supported, and invalid files are rejected with clear errors."""
    folder = product.new_home("shell")
    expect(product.rowcast(cwd=folder).status == 0, "bare rowcast fails")
    expect(product.rowcast("--version", cwd=folder).out.strip(), "--version prints nothing")
    table = (folder / "loans.csv").read_bytes()
    (folder / "packed.csv.gz").write_bytes(gzip.compress(table))
    done = product.rowcast("predict", "loans", "packed.csv.gz", "--out", "out.csv", "--home", "home", cwd=folder)
    expect(done.status == 0, f"a compressed table: {done.err[-200:]}")
    done = product.rowcast("predict", "loans", "-", "--out", "-", "--home", "home", cwd=folder, stdin=table)
    expect(done.status == 0 and done.out.count("\n") == table.count(b"\n"), f"standard streams: {done.err[-200:]}")
    (folder / "book.xlsx").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    done = product.rowcast("predict", "loans", "book.xlsx", "--out", "x.csv", "--home", "home", cwd=folder)
    expect(done.status == 2 and "Excel" in done.err and "CSV" in done.err, f"an Excel file: {done.err[-200:]}")
    (folder / "ragged.csv").write_bytes(table + b"1," * 50 + b"1\n")
    done = product.rowcast("predict", "loans", "ragged.csv", "--out", "r.csv", "--home", "home", cwd=folder)
    line = str(table.count(b"\n") + 1)
    expect(done.status == 2 and f"line {line}" in done.err, f"a long row in line {line}: {done.err[-200:]}")


def whole_floats_are_integers(product: Product) -> None:
    """26: a published V2 client can send 2.0 for an INT64 cell."""
    row = product.row()
    with product.serving(product.new_home("floats")) as site:
        inputs = []
        for tensor in site.ask("GET", "/v2/models/loans").json["inputs"]:
            cell = row[tensor["name"]]
            data = [float(cell)] if tensor["datatype"].startswith("INT") else [cell]
            datatype = "BYTES" if isinstance(cell, str) else tensor["datatype"]
            inputs.append({"name": tensor["name"], "datatype": datatype, "shape": [1, 1], "data": data})
        reply = site.ask("POST", "/v2/models/loans/infer", {"inputs": inputs})
        expect(reply.status == 200, f"status {reply.status}: {reply.body[:200]!r}")


def every_row_is_counted(product: Product) -> None:
    """30: an invalid first row is not mistaken for a second header line."""
    folder = product.folder / "headers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lines = [f"{x},{y},{x + 2 * y}" for x in range(20) for y in range(20)]
    Path(folder / "table.csv").write_text("a,b,target\n" + "\n".join(lines) + "\n")
    train = ("train", "table.csv", "--target", "target", "--name", "sum", "--trials", "1", "--home", "home")
    done = product.rowcast(*train, cwd=folder, seconds=300)
    expect(done.status == 0, f"training failed: {done.err}")
    Path(folder / "rows.csv").write_text("a,b\nbad,1\n" + "2,3\n" * 5)
    predict = ("predict", "sum", "rows.csv", "--out", "out.csv", "--rejects", "rejects.csv", "--json", "--home", "home")
    done = product.rowcast(*predict, cwd=folder)
    scored, rejected = ((folder / name).read_text().count("\n") - 1 for name in ("out.csv", "rejects.csv"))
    expect((scored, rejected) == (5, 1), f"{scored} rows scored and {rejected} rejected")


CHECKS = (
    no_command_overwrites_its_input,
    a_worse_model_does_not_go_live,
    python_takes_and_returns_frames,
    the_shell_behaves_like_other_tools,
    whole_floats_are_integers,
    every_row_is_counted,
)
