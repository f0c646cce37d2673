"""Write a classifier with ten synthetic features as NAME.onnx, with its model_metadata.json.

Usage: make_model.py FOLDER NAME [SEED]. The file represents a model that another tool exported: the graph takes one
float tensor and returns labels and probabilities.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

FEATURES, CLASSES = 10, 3


def graph(seed: int) -> onnx.ModelProto:
    """Return a fitted logistic regression as an ONNX graph."""
    rows, labels = make_classification(
        900, FEATURES, n_informative=6, n_redundant=0, n_classes=CLASSES, class_sep=1.5, random_state=seed
    )
    model = LogisticRegression(max_iter=500).fit(rows, labels)
    constants = {"weights": model.coef_.T.astype(np.float32), "bias": model.intercept_.astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["float_input", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["output_probability"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["output_label"], axis=1, keepdims=0),
    ]
    onnx_graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("float_input", TensorProto.FLOAT, [None, FEATURES])],
        [
            helper.make_tensor_value_info("output_label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("output_probability", TensorProto.FLOAT, [None, CLASSES]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def main(folder: Path, name: str, seed: int) -> None:
    """Write both files, the graph last and atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "model_name": name,
        "model_type": "classification",
        "input_shape": [None, FEATURES],
        "output_classes": CLASSES,
        "features": [f"feature_{n}" for n in range(FEATURES)],
        "class_names": [f"class_{n}" for n in range(CLASSES)],
    }
    (folder / "model_metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    part = folder / f"{name}.part"
    part.write_bytes(graph(seed).SerializeToString())
    part.rename(folder / f"{name}.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
