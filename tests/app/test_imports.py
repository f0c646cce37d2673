"""Model imports with a real child process as the sandbox."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from rowcast import settings
from rowcast.app import imports
from rowcast.app.models import registry
from rowcast.errors import BundleError
from rowcast.registry.ports import ImportResult, Reference
from support import models
from support.onnx_graphs import PROBABILITIES
from support.waiting import eventually


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """An ONNX file."""
    path = tmp_path / "iris.onnx"
    path.write_bytes(PROBABILITIES)
    return path


def test_an_exported_model_can_be_imported_under_another_name(tmp_path: Path, graph: Path) -> None:
    loaded = settings.load(home=tmp_path)

    model = imports.import_model(loaded, graph)
    assert imports.export_model(loaded, "iris", tmp_path / "iris.rowcast") == Reference("iris", 1)
    copy = imports.import_model(loaded, tmp_path / "iris.rowcast", name="copy")

    assert copy.digest == model.digest
    assert registry(loaded).aliases("copy") == {"champion": 1}


PEAK = """
import re, sys
from pathlib import Path
from rowcast import settings
from rowcast.app import imports
from rowcast.errors import BundleError

try:
    imports.import_model(settings.load(home=Path(sys.argv[1])), Path(sys.argv[2]))
except BundleError:
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_an_archive_that_needs_much_memory_is_rejected_without_using_the_memory_of_the_importing_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bomb.rowcast"
    nested = b"[" + b"[]," * 2_500_000 + b"1]"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bundle.json", b'{"format":1,"wire":{"a":' + nested + b"}}")
        file.writestr("golden.json", b"[]")
        file.writestr("model.onnx", PROBABILITIES)

    command = [sys.executable, "-c", PEAK, str(tmp_path / "home"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert int(done.stdout) < 150_000  # kB


def test_an_import_needs_no_temporary_folder(tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))

    assert imports.import_model(settings.load(home=tmp_path), graph).version == 1


def test_an_import_removes_the_copies_left_by_a_killed_import(tmp_path: Path, graph: Path) -> None:
    (tmp_path / "slow.onnx").write_bytes(models.slow_graph(2))
    loaded = settings.load(home=tmp_path / "home")
    process = subprocess.Popen([sys.executable, "-c", PEAK, str(tmp_path / "home"), str(tmp_path / "slow.onnx")])

    def copies() -> list[Path]:
        return list(tmp_path.glob("home/models/.new-*/model.onnx"))

    eventually(copies)
    process.kill()
    process.wait()

    assert copies()
    imports.import_model(loaded, graph)
    assert list((tmp_path / "home").rglob(".new-*")) == []


def test_a_graph_that_crashes_the_child_process_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWCAST_TRIAL_MEMORY_MB", "512")
    path = tmp_path / "hungry.onnx"
    path.write_bytes(models.hungry_graph(2))
    loaded = settings.load(home=tmp_path)

    with pytest.raises(BundleError) as caught:
        imports.import_model(loaded, path)

    assert caught.value.message.startswith("cannot import hungry.onnx: ")
    assert registry(loaded).models() == {}


def test_a_graph_that_needs_too_much_memory_for_a_full_batch_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "quadruple.onnx"
    path.write_bytes(models.quadruple_graph())
    loaded = settings.load(home=tmp_path)

    with pytest.raises(BundleError) as caught:
        imports.import_model(loaded, path)

    assert caught.value.message.startswith("cannot import quadruple.onnx: ")
    assert registry(loaded).models() == {}


def test_the_models_folder_is_imported_if_it_is_configured(
    tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert imports.import_models_folder(settings.load(home=tmp_path / "home")) == []

    monkeypatch.setenv("ROWCAST_MODELS_DIR", str(tmp_path))
    loaded = settings.load(home=tmp_path / "home")
    assert imports.import_models_folder(loaded) == [ImportResult("iris.onnx", "iris", 1)]
    assert registry(loaded).aliases("iris") == {"champion": 1}


def test_the_default_model_setting_overrides_the_preferred_model_of_the_models_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model_metadata.json").write_text('{"model_name": "iris"}')
    assert imports.preferred_model(settings.load(home=tmp_path)) == ""

    monkeypatch.setenv("ROWCAST_MODELS_DIR", str(tmp_path))
    assert imports.preferred_model(settings.load(home=tmp_path)) == "iris"
    assert imports.preferred_model(settings.load(home=tmp_path, default_model="loans")) == ""
