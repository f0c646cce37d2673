"""The five systems that Rowcast replaces: each folder of examples/ asks itself what the old clients asked."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.servers import Server, environment

SERVED = ("iris-api", "loan-mlops", "microservices", "onnx-pipeline")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def verify(name: str, *address: str, status: int = 0) -> str:
    """What `./verify` prints; unless it says otherwise it must find nothing that differs."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [EXAMPLES / name / "verify", *address],
        env=environment(PATH=path, TRIALS="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVED)
def test_the_old_systems_requests_get_the_answers_they_were_promised(name: str) -> None:
    printed = verify(name)

    assert printed.splitlines()[-1] == "everything is as documented"
    assert printed.count("same     ") >= 5


@pytest.mark.slow
def test_the_gateways_model_is_trained_with_pytorch() -> None:
    pytest.importorskip("torch")  # an extra; in CI a skipped test is a failed one

    assert "same     the test accuracy is printed" in verify("loan-gateway")


def test_another_server_is_asked_where_it_is_and_what_differs_is_named(server: Server) -> None:
    printed = verify("loan-mlops", server.address, status=1).splitlines()

    assert "same     POST /predict" not in printed
    assert [line for line in printed if line.startswith("differs  curl health: the reply has the names name, version")]
    assert [line for line in printed if line.startswith("differs  curl predict: the status is 422, not 200")]
    assert "differs  GET /metrics: there is no metric latest_prediction" in printed
    assert printed[-1].endswith(" differences")


@pytest.fixture(scope="module")
def verifying() -> ModuleType:
    """examples/verify.py."""
    spec = importlib.util.spec_from_file_location("verify", EXAMPLES / "verify.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a NamedTuple looks its own module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("got", "wanted", "difference"),
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
def test_a_difference_is_named(verifying: ModuleType, got: object, wanted: object, difference: str) -> None:
    assert verifying.differences(got, wanted) == [difference]
    assert verifying.differences(wanted, wanted) == []


def test_a_value_may_be_described(verifying: ModuleType) -> None:
    assert verifying.differences({"p": 0.5}, {"p": verifying.share}) == []
    assert verifying.differences({"p": 1.5}, {"p": verifying.share}) == ["the reply.p is 1.5, not a number from 0 to 1"]


@pytest.mark.parametrize("folder", [*SERVED, "loan-gateway"])
def test_every_example_is_whole(folder: str) -> None:
    readme = (EXAMPLES / folder / "README.md").read_text(encoding="utf-8")

    assert os.access(EXAMPLES / folder / "run", os.X_OK)
    assert os.access(EXAMPLES / folder / "verify", os.X_OK)
    assert "| there | here |" in readme
    assert re.search(r"^## Data\n\n.*?(CC0|CC BY|Apache-2\.0)", readme, re.MULTILINE | re.DOTALL)
    lines = [line for line in readme.splitlines() if line.startswith("curl ")]
    tagged = re.findall(r"^```sh curl \S+\n(curl .*)$", readme, re.MULTILINE)
    assert lines == tagged  # a curl line that is shown is run
