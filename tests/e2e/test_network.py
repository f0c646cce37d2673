"""The `mlp` candidate on the command line, with and without PyTorch."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rowcast.registry import bundle
from rowcast.tables import examples
from support.commands import rowcast


def output_of(*arguments: str, cwd: Path) -> str:
    finished = rowcast(*arguments, cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def write_values(path: Path) -> None:
    """Write a regression table whose target depends on the hour and the day."""
    lines = [f"{n % 24},{n % 7},{300 + 200 * abs(12 - n % 24) + 10 * (n % 7)}.5\n" for n in range(300)]
    path.write_text("hour,day,rentals\n" + "".join(lines))


@pytest.mark.parametrize(("table", "target"), [("loans", "loan_status"), ("iris", "species"), ("values", "rentals")])
def test_a_trained_network_is_certified_and_can_score_a_table(tmp_path: Path, table: str, target: str) -> None:
    pytest.importorskip("torch")  # PyTorch is an optional extra; CI treats a skipped test as a failure
    if table == "values":
        write_values(tmp_path / "t.csv")
    else:
        examples.write_example(table, tmp_path / "t.csv", rows=600 if table == "loans" else None)
    train = ["train", "t.csv", "--target", target, "--candidates", "mlp", "--trials", "1", "--json"]

    result = json.loads(output_of(*train, cwd=tmp_path))
    output_of("predict", "t", "t.csv", "--out", "scored.csv", cwd=tmp_path)

    assert [candidate["name"] for candidate in result["candidates"]] == ["mlp"]
    assert result["parity"]["label_flips"] == 0
    manifest = bundle.verify(Path(tmp_path, result["path"]))
    assert manifest.training.params["rounds"] >= 1
    assert manifest.versions["torch"].startswith("2.")
    assert "mlp" in (Path(tmp_path, result["path"]) / bundle.CARD).read_text()
    with (tmp_path / "t.csv").open() as table, (tmp_path / "scored.csv").open() as scored:
        assert len(list(csv.DictReader(table))) == len(list(csv.DictReader(scored)))
    parts = json.loads(output_of("doctor", "--json", cwd=tmp_path))["parts"]  # doctor checks the golden rows
    assert all(part["ok"] for part in parts if part["part"].startswith("model"))


def test_training_with_the_same_seed_produces_identical_bundles(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    examples.write_example("iris", tmp_path / "t.csv")
    train = ["train", "t.csv", "--target", "species", "--candidates", "mlp", "--trials", "1", "--json"]

    first, again = (json.loads(output_of(*train, cwd=tmp_path)) for _ in range(2))

    assert (first["version"], again["version"]) == (1, 2)
    assert first["digest"] == again["digest"]


def test_a_one_line_error_explains_what_to_install_if_torch_is_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{n % 9},{n % 7},{n % 2}\n" for n in range(200)))
    blocked = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from rowcast.cli import main\n"
        "sys.argv[1:] = ['train', 't.csv', '--target', 'y', '--trials', '1', '--home', 'home', '--candidates', KINDS]\n"
        "sys.exit(main())"
    )

    without, named = (
        subprocess.run(
            [sys.executable, "-c", f"KINDS = {kinds!r}\n{blocked}"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        for kinds in ("logistic", "logistic,mlp")
    )

    assert without.returncode == 0, without.stderr
    assert named.returncode == 2
    assert len(named.stderr.strip().splitlines()) == 1
    assert "mlp" in named.stderr
    assert "make torch" in named.stderr


def test_importing_the_training_code_does_not_import_torch() -> None:
    code = "import sys, rowcast.training.run; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
