"""Models in ONNX files from other tools can be imported and served to existing clients.

The files are imported with a command or through the models folder.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support import servers, v2
from support.commands import rowcast
from support.waiting import eventually

FEATURES = [f"feature_{number}" for number in range(10)]
METADATA = {
    "model_name": "your_model",
    "model_type": "classification",
    "input_shape": [None, 10],
    "output_classes": 3,
    "features": FEATURES,
    "class_names": ["class_0", "class_1", "class_2"],
}
ROW = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]


def onnx_file(path: Path, *nodes: Any, seed: int = 0) -> Path:
    """Write a model with ten input columns and the outputs `label` and `probabilities` for three classes."""
    weights = numpy_helper.from_array(np.random.default_rng(seed).normal(size=(10, 3)).astype(np.float32), "w")
    all_nodes = [
        helper.make_node("MatMul", ["float_input", "w"], ["s"]),
        helper.make_node("Softmax", ["s"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["s"], ["label"], axis=1, keepdims=0),
        *nodes,
    ]
    info = helper.make_tensor_value_info
    outputs = [info("label", TensorProto.INT64, ["N"]), info("probabilities", TensorProto.FLOAT, ["N", 3])]
    graph = helper.make_graph(all_nodes, "g", [info("float_input", TensorProto.FLOAT, ["N", 10])], outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A models folder with one graph and its metadata."""
    folder = tmp_path / "drop"
    folder.mkdir()
    onnx_file(folder / "your_model.onnx")
    (folder / "model_metadata.json").write_text(json.dumps(METADATA))
    return folder


def test_existing_clients_can_use_a_model_in_the_models_folder(tmp_path: Path, drop: Path) -> None:
    settings = {"MODEL_PATH": str(drop), "ROWCAST_CACHE": "true"}
    with servers.running(tmp_path, settings=settings) as server, server.client() as client:
        body = {"data": [ROW, [value + 1 for value in ROW]], "use_cache": True, "cache_ttl": 3600}
        first, repeated = client.post("/predict", json=body).json(), client.post("/predict", json=body).json()
        batch = client.post("/predict/batch", json={"requests": [{"data": [ROW]}, {"data": [ROW, ROW]}]}).json()
        info = client.get("/models/info").json()

        assert all(prediction in (0, 1, 2) for prediction in first["predictions"])
        assert [len(row) for row in first["probabilities"]] == [3, 3]
        assert first["model_info"]["input_shape"] == [2, 10]
        assert first["model_info"]["model_name"] == "your_model"
        assert [reply["model_info"]["cached"] for reply in (first, repeated)] == [False, True]
        assert {**repeated, "model_info": 0} == {**first, "model_info": 0}
        assert [reply["predictions"] for reply in batch["predictions"]] == [
            first["predictions"][:1],
            first["predictions"][:1] * 2,
        ]
        assert {key: info[key] for key in METADATA} == METADATA
        assert client.post("/predict", json=client.get("/sample").json()).status_code == 200
        row = dict(zip(FEATURES, ROW, strict=True))
        native = client.post("/predict?wire=false", json=row).json()
        assert native["prediction"] == METADATA["class_names"][first["predictions"][0]]
        eventually(lambda: len(client.get("/predictions").json()["predictions"]) == 9)
    replayed = json.loads(rowcast("replay", "--json", "--home", tmp_path, cwd=tmp_path).stdout)
    assert (replayed["equal"], replayed["entries"]) == (9, 9)


def test_a_reload_imports_new_files_and_reports_failures(tmp_path: Path, drop: Path) -> None:
    settings = {"ROWCAST_MODELS_DIR": str(drop)}
    with servers.running(tmp_path, settings=settings) as server, server.client() as client:
        assert client.post("/models/reload").json()["imports"] == [
            {"file": "your_model.onnx", "model": "your_model", "version": 1, "error": ""}
        ]
        onnx_file(drop / "second.onnx", seed=1)
        (drop / "second_metadata.json").write_text(json.dumps({"features": FEATURES}))
        broken = drop / "broken.onnx"
        broken.write_bytes((drop / "second.onnx").read_bytes()[:-50])
        (drop / "broken_metadata.json").write_text("{}")
        onnx_file(drop / "custom.onnx", helper.make_node("Evil", ["s"], ["t"], domain="com.evil"))
        reply = client.post("/models/reload")

        assert reply.status_code == 409
        results = {result["file"]: result for result in reply.json()["imports"]}
        assert "not a valid ONNX model" in results["broken.onnx"]["error"]
        assert "com.evil" in results["custom.onnx"]["error"]
        assert (results["second.onnx"]["model"], results["second.onnx"]["error"]) == ("second", "")
        assert client.post("/models/second/predict", json=dict(zip(FEATURES, ROW, strict=True))).status_code == 200
        assert client.post("/models/your_model/predict", json={"data": [ROW]}).status_code == 200

        (drop / "custom.onnx").unlink()
        onnx_file(broken, seed=2)
        repaired = client.post("/models/reload")
        assert (repaired.status_code, repaired.json()["status"]) == (200, "ok")
        assert {model["name"]: model["version"] for model in client.get("/models").json()["models"]} == {
            "your_model": 1,
            "second": 1,
            "broken": 1,
        }
        onnx_file(drop / "your_model.onnx", seed=3)
        client.post("/models/reload")
        assert client.get("/models/your_model").json()["version"] == 2


def test_a_reload_reports_a_damaged_import_record(tmp_path: Path, drop: Path) -> None:
    with servers.running(tmp_path, settings={"MODEL_PATH": str(drop)}) as server, server.client() as client:
        (tmp_path / "models" / ".imports.json").write_text("{bad")
        reply = client.post("/models/reload")

        assert reply.status_code == 409
        assert ".imports.json" in reply.json()["imports"][0]["error"]
        assert client.post("/predict", json={"data": [ROW]}).status_code == 200


def test_a_graph_whose_output_for_a_row_depends_on_other_rows_is_not_published(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "m.onnx")
    graph = onnx.load(path)
    graph.graph.node[1].CopyFrom(helper.make_node("Softmax", ["c"], ["probabilities"], axis=1))
    graph.graph.node.insert(1, helper.make_node("Sub", ["s", "mean"], ["c"]))
    graph.graph.node.insert(1, helper.make_node("ReduceMean", ["s", "first"], ["mean"], keepdims=1))
    graph.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    del graph.graph.output[0]
    onnx.save(graph, path)

    done = rowcast("models", "import", path, "--home", tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 2
    assert "m.onnx" in done.stderr
    assert "golden row 0" in done.stderr
    assert not list((tmp_path / "home").rglob("model.onnx"))


def small_graph(path: Path, operator: str, output: str, kind: int, columns: int = 2) -> Path:
    """Write a model with one operator. `Log` is undefined for negative numbers; `ArgMax` returns only a label."""
    info = helper.make_tensor_value_info
    attributes = {"axis": 1, "keepdims": 0} if operator == "ArgMax" else {}
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], [output], **attributes)],
        "g",
        [info("x", TensorProto.FLOAT, ["N", columns])],
        [info(output, kind, ["N"] if operator == "ArgMax" else ["N", columns])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def test_an_imported_graph_is_served_in_every_dialect(tmp_path: Path, drop: Path) -> None:
    rows = [dict(zip(FEATURES, (value + shift for value in ROW), strict=True)) for shift in range(20)]
    with servers.running(tmp_path, settings={"MODEL_PATH": str(drop)}) as server, server.client() as client:
        native = client.post("/predict?wire=false", json={"rows": rows}).json()["predictions"]
        body, headers = v2.as_binary(v2.columns(rows), parameters={"binary_data_output": True})
        binary = client.post("/v2/models/your_model/infer", content=body, headers=headers)
        matrix = {
            "name": "float_input",
            "datatype": "FP32",
            "shape": [20, 10],
            "data": [list(row.values()) for row in rows],
        }
        tensor = client.post("/v2/models/your_model/infer", json={"inputs": [matrix]})
        labels = [prediction["prediction"] for prediction in native]

        probabilities = np.float32([prediction["probability"] for prediction in native]).tolist()
        for reply in (binary, tensor):
            outputs = v2.outputs(reply.content, reply.headers)
            assert outputs["prediction"] == labels
            assert np.float32(outputs["probability"]).tolist() == probabilities
        assert client.post("/v1/models/your_model:predict", json={"instances": rows}).json() == {"predictions": labels}
        assert client.post("/invocations", json={"dataframe_records": rows}).json() == {"predictions": labels}
        eventually(lambda: len(client.get("/predictions?limit=200").json()["predictions"]) == 100)


def test_a_model_without_probabilities_is_served_in_every_dialect(tmp_path: Path) -> None:
    path = small_graph(tmp_path / "m.onnx", "ArgMax", "label", TensorProto.INT64)
    (tmp_path / "meta.json").write_text('{"class_names": ["a", "b"]}')
    done = rowcast(
        *["models", "import", path, "--metadata", tmp_path / "meta.json", "--wire", "native"],
        *["--home", tmp_path],
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    with servers.running(tmp_path) as server, server.client() as client:
        names = client.get("/models/m").json()["schema"]["required"]
        row = dict(zip(names, (0.0, 1.0), strict=True))
        native = client.post("/predict", json=row).json()
        body = {"inputs": [{"name": name, "datatype": "FP32", "shape": [1, 1], "data": [row[name]]} for name in names]}
        outputs = client.post("/v2/models/m/infer", json=body).json()["outputs"]

        assert (native["prediction"], "probability" in native) == ("b", False)
        assert [output["name"] for output in client.get("/v2/models/m").json()["outputs"]] == ["prediction"]
        assert [(output["name"], output["data"]) for output in outputs] == [("prediction", ["b"])]
        assert client.post("/v1/models/m:predict", json={"instances": [row]}).json() == {"predictions": ["b"]}
        assert client.post("/invocations", json={"instances": [row]}).json() == {"predictions": ["b"]}


def test_every_dialect_rejects_a_row_without_a_finite_score(tmp_path: Path) -> None:
    path = small_graph(tmp_path / "m.onnx", "Log", "values", TensorProto.FLOAT, columns=1)
    (tmp_path / "meta.json").write_text('{"model_type": "regression", "features": ["x0"]}')
    done = rowcast("models", "import", path, "--metadata", tmp_path / "meta.json", "--home", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with servers.running(tmp_path) as server, server.client() as client:
        cells = [1.0] * 19 + [-1.0]
        body, headers = v2.as_binary({"x0": cells})
        replies = {
            "native": client.post("/predict?wire=false", json={"rows": [{"x0": cell} for cell in cells]}),
            "v2": client.post("/v2/models/m/infer", content=body, headers=headers),
            "v1": client.post("/v1/models/m:predict", json={"instances": [[cell] for cell in cells]}),
            "mlflow": client.post("/invocations", json={"instances": [[cell] for cell in cells]}),
        }
        assert {name: reply.status_code for name, reply in replies.items()} == {
            "native": 422,
            "v2": 400,
            "v1": 400,
            "mlflow": 400,
        }
        assert replies["native"].json()["errors"][0]["code"] == "no-answer"
        # Only the native dialect has error codes.
        assert all("no valid output" in reply.text for reply in replies.values())
        assert client.get("/predictions").json()["predictions"] == []
        assert client.post("/v1/models/m:predict", json={"instances": [[1.0]]}).json() == {"predictions": [0.0]}


def test_the_shared_metadata_file_selects_the_default_model_without_changing_other_models(
    tmp_path: Path, drop: Path
) -> None:
    settings = {"ROWCAST_MODELS_DIR": str(drop)}
    with servers.running(tmp_path, "--workers", "2", settings=settings) as server, server.client() as client:

        def defaults() -> set[str]:
            return {client.post("/predict", json={"data": [ROW]}).json()["model_info"]["model_name"] for _ in range(8)}

        onnx_file(drop / "second.onnx", seed=1)
        (drop / "model_metadata.json").write_text(json.dumps({**METADATA, "model_name": "second"}))
        assert client.post("/models/reload").json()["status"] == "ok"
        second = defaults()
        versions = {model["name"]: model["version"] for model in client.get("/models").json()["models"]}
        unchanged = client.post("/models/your_model/predict", json={"data": [ROW]}).json()["model_info"]["model_name"]
        (drop / "model_metadata.json").write_text(json.dumps(METADATA))
        assert client.post("/models/reload").json()["status"] == "ok"

        assert (second, unchanged, versions) == ({"second"}, "your_model", {"your_model": 1, "second": 1})
        assert defaults() == {"your_model"}
    option = ("--default-model", "second")
    with servers.running(tmp_path, *option, settings=settings) as server, server.client() as client:
        assert client.get("/models/info").json()["name"] == "second"


def test_a_file_is_imported_only_once_for_all_server_processes(tmp_path: Path, drop: Path) -> None:
    settings = {"ROWCAST_MODELS_DIR": str(drop)}
    with servers.running(tmp_path, "--workers", "2", settings=settings) as server, server.client() as client:
        assert client.post("/models/reload").json()["status"] == "ok"
        assert client.get("/models/your_model").json()["version"] == 1


def test_a_graph_can_be_imported_on_the_command_line(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "m.onnx")
    (tmp_path / "meta.json").write_text(json.dumps({**METADATA, "model_name": "Iris Model"}))
    (tmp_path / "wire.yaml").write_text("labels: {class_0: zero}\nreply: {is: $label}\n")
    table = tmp_path / "rows.csv"
    table.write_text("\n".join([",".join(FEATURES), *(",".join(map(str, np.arange(10) + at)) for at in range(40))]))

    done = rowcast(
        *["models", "import", path, "--metadata", tmp_path / "meta.json", "--wire", tmp_path / "wire.yaml"],
        *["--data", table, "--home", tmp_path],
        cwd=tmp_path,
    )
    renamed = rowcast("models", "import", path, "--name", "plain", "--json", "--home", tmp_path, cwd=tmp_path)
    scored = rowcast("predict", "plain", table, "--out", tmp_path / "out.csv", "--home", tmp_path, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert "read as probabilities" in done.stdout
    assert "published iris-model@1 (multiclass)" in done.stdout
    assert json.loads(renamed.stdout)["columns"] == FEATURES
    assert scored.returncode == 0, scored.stderr
    bundle = json.loads((tmp_path / "models" / "iris-model" / "1" / "bundle.json").read_text())
    assert bundle["schema"]["columns"][3]["low"] == 3.0
    assert bundle["schema"]["columns"][3]["high"] == 42.0
    assert bundle["wire"]["reply"] == {"is": "$label"}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["none.onnx"], "none.onnx"),
        (["m.pkl"], "m.pkl"),
        (["text.rowcast"], "text.rowcast"),
        (["text.rowcast", "--wire", "native"], "text.rowcast"),
        (["m.onnx", "--metadata", "bad.json"], "bad.json"),
        (["m.onnx", "--metadata", "few.json"], "features"),
        (["m.onnx", "--wire", "bad.yaml"], "reply.is"),
        (["m.onnx", "--data", "table.csv"], "feature_0"),
        (["m.onnx", "--name", "Not A Name"], "'Not A Name'"),
        (["text.onnx"], "text.onnx"),
    ],
)
def test_an_import_error_is_reported_on_one_line(tmp_path: Path, arguments: list[str], name: str) -> None:
    onnx_file(tmp_path / "m.onnx")
    for file, text in (
        ("m.pkl", ""),
        ("bad.json", "{"),
        ("few.json", '{"features": ["a"]}'),
        ("bad.yaml", "reply: {is: $labl}"),
        ("table.csv", ",".join(FEATURES) + "\n" + ",".join("x" * 10) + "\n"),
        ("text.onnx", "not a graph"),
        ("text.rowcast", "not a bundle"),
    ):
        (tmp_path / file).write_text(text)

    done = rowcast("models", "import", *arguments, "--home", tmp_path, cwd=tmp_path)

    assert done.returncode == 2
    assert name in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "models" / "m").exists()


def test_a_bundle_is_exported_and_imported_as_one_file(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "loans.rowcast"
    there = tmp_path / "there"

    wrote = rowcast("models", "export", "loans", "--out", file, "--home", home, cwd=tmp_path)
    imported = rowcast("models", "import", file, "--name", "again", "--json", "--home", there, cwd=tmp_path)

    assert wrote.returncode == 0, wrote.stderr
    assert (json.loads(imported.stdout)["model"], json.loads(imported.stdout)["version"]) == ("again", 1)
    for path in (home / "models" / "loans" / "1").iterdir():
        assert (there / "models" / "again" / "1" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files | {"../evil": b"x"},
        lambda files: files | {"model.onnx": files["model.onnx"][:-9]},
    ],
    ids=["unsafe-name", "changed"],
)
def test_an_invalid_archive_is_rejected_with_a_one_line_error(tmp_path: Path, home: Path, change: Any) -> None:
    files = {path.name: path.read_bytes() for path in (home / "models" / "loans" / "1").iterdir()}
    with zipfile.ZipFile(tmp_path / "x.rowcast", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in change(files).items():
            archive.writestr(name, content)

    done = rowcast("models", "import", "x.rowcast", "--home", tmp_path / "there", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr.startswith("error: x.rowcast: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "there" / "models" / "loans").exists()
    assert not (tmp_path / "evil").exists()


def test_a_graph_that_exceeds_the_memory_or_time_limit_is_rejected(tmp_path: Path) -> None:
    from support import models

    (tmp_path / "hungry.onnx").write_bytes(models.hungry_graph(2))
    (tmp_path / "slow.onnx").write_bytes(models.slow_graph(2))
    settings = {"ROWCAST_TRIAL_SECONDS": "4", "ROWCAST_TRIAL_MEMORY_MB": "512"}

    for name in ("hungry", "slow"):
        done = rowcast("models", "import", f"{name}.onnx", "--home", tmp_path, cwd=tmp_path, settings=settings)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: cannot import {name}.onnx: ")
    assert "trial_seconds" in done.stderr
    shutil.rmtree(tmp_path / "models", ignore_errors=True)


def test_the_limit_on_graph_nodes_can_be_configured(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "m.onnx")

    done = rowcast("models", "import", path, cwd=tmp_path, settings={"ROWCAST_MAX_MODEL_NODES": "2"})
    assert "(setting max_model_nodes)" in done.stderr
