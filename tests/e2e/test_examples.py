"""Each example's server answers requests written for the system that the example replaces."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.scripts import load_script
from support.servers import Server, environment

SERVED = ("iris-api", "loan-mlops", "microservices", "onnx-pipeline")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def verify(name: str, *address: str, status: int = 0) -> str:
    """Run `./verify`, check its exit status and return its output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [EXAMPLES / name / "verify", *address],
        env=environment(PATH=path, TRIALS="1", PRESET="fast"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
def test_an_example_returns_the_same_replies_as_the_system_that_it_replaces(name: str) -> None:
    output = verify(name)

    assert output.splitlines()[-1] == "everything is as documented"
    assert output.count("same     ") >= 5


@pytest.mark.slow
def test_the_gateway_example_trains_a_model_with_pytorch() -> None:
    pytest.importorskip("torch")  # PyTorch is an optional extra; CI treats a skipped test as a failure

    assert "same     test accuracy in the output" in verify("loan-gateway")


def test_the_verify_script_checks_the_server_at_the_given_url_and_lists_differences(server: Server) -> None:
    lines = verify("loan-mlops", server.address, status=1).splitlines()

    assert "same     POST /predict" not in lines
    assert [line for line in lines if line.startswith("differs  curl health: the reply has the names name, version")]
    assert [line for line in lines if line.startswith("differs  curl predict: the status is 422, not 200")]
    assert "differs  GET /metrics: no metric latest_prediction" in lines
    assert lines[-1].endswith(" differences")


@pytest.fixture(scope="module")
def verify_module() -> ModuleType:
    """The imported module `examples/verify.py`."""
    return load_script("examples/verify.py")


@pytest.mark.parametrize(
    ("value", "expected", "difference"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, "the reply has the names a, b, not a"),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}, "the reply has the names b, a, not a, b"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "the reply.a[1] is 2, not 3"),
        ({"a": [1]}, {"a": [1, 2]}, "the reply.a is [1], not [1, 2]"),
        ({"a": True}, {"a": 1}, "the reply.a is true, not 1"),
        ({"a": 1.0}, {"a": 1}, "the reply.a is 1.0, not 1"),
        (None, {"a": 1}, 'the reply is null, not {"a": 1}'),
    ],
)
def test_a_difference_is_reported_with_its_location(
    verify_module: ModuleType, value: object, expected: object, difference: str
) -> None:
    assert verify_module.differences(value, expected) == [difference]
    assert verify_module.differences(expected, expected) == []


def test_an_expected_value_can_be_a_predicate(verify_module: ModuleType) -> None:
    share = verify_module.share

    assert verify_module.differences({"p": 0.5}, {"p": share}) == []
    assert verify_module.differences({"p": 1.5}, {"p": share}) == ["the reply.p is 1.5, not a number from 0 to 1"]


@pytest.mark.parametrize("folder", [*SERVED, "loan-gateway"])
def test_every_example_has_executable_scripts_and_a_complete_readme(folder: str) -> None:
    readme = (EXAMPLES / folder / "README.md").read_text(encoding="utf-8")

    assert os.access(EXAMPLES / folder / "run", os.X_OK)
    assert os.access(EXAMPLES / folder / "verify", os.X_OK)
    assert "| old system | Rowcast |" in readme
    assert re.search(r"^## Data\n\n.*?(CC0|CC BY|Apache-2\.0)", readme, re.MULTILINE | re.DOTALL)
    lines = [line for line in readme.splitlines() if line.startswith("curl ")]
    tagged = re.findall(r"^```sh curl \S+\n(curl .*)$", readme, re.MULTILINE)
    assert lines == tagged  # another test runs the marked commands
