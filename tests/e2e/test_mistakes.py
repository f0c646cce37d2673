"""After a file, folder or disk error, a command prints one line, exits with code 2 and leaves no partial files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rowcast import cli
from support.commands import rowcast
from support.servers import ROWCAST, environment

RNG = np.random.default_rng(5)
QUICK = ("--trials", "1", "--candidates", "logistic", "--name", "m")
LIMIT_KB = 16
"""The file size limit in kilobytes, which simulates a full disk. Reports exceed it; smaller bundle files do not."""


def table(path: Path, rows: int = 120) -> Path:
    lines = [f"{RNG.random():.3f},{index % 7},{int(RNG.random() < 0.5)}" for index in range(rows)]
    path.write_text("\n".join(["a,b,y", *lines]) + "\n")
    return path


def broken_files(folder: Path) -> dict[str, bytes]:
    parquet = folder / "good.parquet"
    pl.read_csv(table(folder / "good.csv")).write_parquet(parquet)
    whole = parquet.read_bytes()
    return {
        "cut.parquet": whole[: len(whole) // 2],
        "encrypted.parquet": b"PARE" + whole[4:-4] + b"PARE",
        "footer.parquet": whole[:-60] + bytes(RNG.integers(0, 256, 52, np.uint8)) + whole[-8:],
        "short.parquet": b"PAR1",
        "noise.csv": bytes(RNG.integers(0, 256, 4000, np.uint8)),
        "nothing.csv": b"",
        "header.csv": b"a,b,y\n",
        "one.csv": b"a,y\n" + b"".join(b"%d,1\n" % index for index in range(60)),
        "lonely.csv": b"a,y\n0,1\n" + b"".join(b"%d,0\n" % index for index in range(60)),
        "twice.csv": b"a,a,y\n1,2,0\n",
        "unnamed.csv": b",,y\n1,2,0\n",
        "huge.csv": b"a,b,y\n1e308,1,0\n" + b"".join(b"%d,2,%d\n" % (index, index % 2) for index in range(60)),
        "endless.csv": b"a,y\n" + b"".join(b"%d,%d.5\n" % (index % 9, index) for index in range(60)) + b"1,inf\n",
        "deep.jsonl": b"[" * 100_000,
        "lists.jsonl": b"1\n2\n",
    }


MESSAGES = {
    "cut.parquet": "not valid Parquet",
    "encrypted.parquet": "expected text, Parquet",
    "footer.parquet": "not valid Parquet",
    "short.parquet": "not valid Parquet",
    "noise.csv": "not a table",
    "nothing.csv": "is empty",
    "header.csv": "no rows",
    "one.csv": "in every row",
    "lonely.csv": "classes with a single row: 1",
    "twice.csv": "rename them",
    "unnamed.csv": "name them in the first line",
    "huge.csv": "'exclude'",
    "endless.csv": "numbers but also 'inf'",
    "deep.jsonl": "not valid JSON Lines",
    "lists.jsonl": "must be an object",
    "absent.csv": "does not exist",
    "folder": "is a folder",
    "/proc/self/mem": "cannot be read",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, content in broken_files(folder).items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    """Run a command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["rowcast", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize("name", MESSAGES)
def test_an_unusable_table_is_reported_on_one_line(
    files: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(monkeypatch, "train", files / name, "--target", "y", "--home", tmp_path / "home")

    printed = capsys.readouterr().err
    assert status == 2
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert MESSAGES[name] in printed
    assert not (tmp_path / "home").exists()


def test_the_error_for_a_missing_target_suggests_the_closest_column(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check", files / "good.csv", "--target", "Y") == 2
    assert capsys.readouterr().err.endswith("did you mean 'y'?\n")


@pytest.mark.parametrize("registry", ["file/models", "/proc/rowcast", "/dev/null/models"])
def test_an_unwritable_registry_is_reported_before_the_first_trial(
    tmp_path: Path, registry: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    table(tmp_path / "t.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROWCAST_REGISTRY", registry)

    status = run(monkeypatch, "train", "t.csv", "--target", "y", "--trials", "100000")

    printed = capsys.readouterr().err
    assert status == 2
    assert printed.startswith("error: cannot write to the registry ")
    assert printed.count("\n") == 1
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that contains tables and a home with one published model. Tests must not change the folder."""
    folder = tmp_path_factory.mktemp("published")
    table(folder / "t.csv")
    table(folder / "big.csv", 20_000)
    done = rowcast("train", "t.csv", "--target", "y", *QUICK, "--home", "home", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def limited(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with a file size limit, as if the disk were full."""
    line = f'ulimit -f {LIMIT_KB}; trap "" XFSZ; exec "$@"'
    command = ["bash", "-c", line, "bash", *ROWCAST, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """Mount a file system of this size at the folder and yield True; yield False if it cannot be mounted."""
    folder.mkdir(exist_ok=True)
    mount = shutil.which("mount") if os.geteuid() == 0 and sys.platform == "linux" else None
    options = f"size={kilobytes}k"
    mounted = mount is not None and (
        subprocess.run([mount, "-t", "tmpfs", "-o", options, "rowcast", str(folder)], check=False).returncode == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


def test_the_previous_version_is_kept_if_the_disk_is_full_during_publishing(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    before = all_files(tmp_path / "home")

    done = limited("train", "t.csv", "--target", "y", *QUICK, "--home", "home", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nothing was published" in done.stderr
    assert all_files(tmp_path / "home") == before
    listed = json.loads(rowcast("models", "list", "--json", "--home", "home", cwd=tmp_path).stdout)["models"]
    assert [(model["version"], model["aliases"]) for model in listed] == [(1, ["champion"])]


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl", "out.parquet", "out.arrow"])
def test_no_file_is_left_behind_if_the_disk_is_full_during_scoring(published: Path, tmp_path: Path, out: str) -> None:
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    before = all_files(tmp_path)

    done = limited("predict", "m", "big.csv", "--out", out, "--home", "home", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{out} cannot be written" in done.stderr
    assert all_files(tmp_path) == before


def test_training_fails_and_leaves_the_disk_unchanged_if_the_disk_is_too_small(published: Path, tmp_path: Path) -> None:
    table(tmp_path / "t.csv")
    disk = tmp_path / "disk"
    with small_disk(disk, 90) as mounted:
        if mounted:
            shutil.copytree(published / "home", disk / "home")
            before = all_files(disk)
            done = rowcast("train", "t.csv", "--target", "y", *QUICK, "--home", disk / "home", cwd=tmp_path)
            assert all_files(disk) == before
        else:  # without root privileges, simulate a disk that is already full
            done = limited("train", "t.csv", "--target", "y", *QUICK, "--home", str(disk), cwd=tmp_path)
            assert all_files(disk) == ["models"]

    assert done.returncode == 2
    assert "nothing was published" in done.stderr


def test_unwritable_standard_output_is_reported_on_one_line(published: Path) -> None:
    command = [*ROWCAST, "models", "list", "--json", "--home", "home"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=published, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert (done.returncode, done.stderr) == (2, "error: cannot write to standard output: No space left on device\n")


def test_two_concurrent_training_runs_publish_two_complete_versions(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    command = [*ROWCAST, "train", "t.csv", "--target", "y", *QUICK, "--home", "home", "--json"]
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    replies = [process.communicate(timeout=120)[0] for process in both]

    assert sorted(json.loads(reply)["version"] for reply in replies) == [2, 3]
    checkup = json.loads(rowcast("doctor", "--json", "--home", "home", cwd=tmp_path).stdout)
    assert next(part["ok"] for part in checkup["parts"] if part["part"] == "model m")
    assert {path.name for path in (tmp_path / "home" / "models" / "m").iterdir()} >= {"1", "2", "3"}
    assert not list((tmp_path / "home" / "models" / "m").glob(".new-*"))


# Training on wide, long and unusual tables uses a limited amount of memory.

MAX_MEGABYTES = 2000


def many_levels(path: Path) -> Path:
    codes = RNG.integers(20_000, 300_000, 7518)
    rows = 30_000
    frame = {f"code{index}": RNG.choice(codes, rows) for index in range(4)} | {"y": RNG.integers(0, 2, rows)}
    pl.DataFrame(frame).write_csv(path)
    return path


def many_columns(path: Path) -> Path:
    pl.DataFrame({f"c{index}": RNG.random(2000) for index in range(300)} | {"y": RNG.integers(0, 2, 2000)}).write_csv(
        path
    )
    return path


def many_classes(path: Path) -> Path:
    species = RNG.permutation(np.arange(1900) % 32)
    shapes = {f"s{index}": species * RNG.random() + RNG.normal(size=1900) for index in range(8)}
    pl.DataFrame(shapes | {"y": [f"kind {number}" for number in species]}).write_csv(path)
    return path


def few_positives(path: Path) -> Path:
    pl.DataFrame({"x": RNG.random(3000), "z": RNG.integers(0, 9, 3000), "y": np.arange(3000) % 600 == 1}).write_csv(
        path
    )
    return path


def long_texts(path: Path) -> Path:
    texts = [f"{'long ' * 4000}{number % 90}" for number in range(1500)]
    pl.DataFrame({"text": texts, "x": RNG.random(1500), "y": RNG.integers(0, 2, 1500)}).write_csv(path)
    return path


@pytest.mark.parametrize("write", [many_levels, many_columns, many_classes, few_positives, long_texts])
def test_training_uses_less_than_two_gigabytes_of_memory(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    write(tmp_path / "t.csv")
    command = [
        *ROWCAST,
        "train",
        "t.csv",
        "--target",
        "y",
        "--trials",
        "1",
        "--candidates",
        "boosting",
        "--home",
        "home",
    ]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)

    megabytes = usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024)
    assert process.returncode == 0, (tmp_path / "errors").read_text()
    assert megabytes < MAX_MEGABYTES
