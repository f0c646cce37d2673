"""Score a table with pandas and scikit-learn instead of Rowcast, in the environment that `peers.py` creates.

python usual.py train TABLE FOLDER       train 200 trees with 8 leaves each, and save them as an MLflow model
python usual.py score FOLDER TABLE OUT   score a table, and print the elapsed seconds, excluding imports
"""

from __future__ import annotations

import sys
import time

import mlflow.sklearn
import pandas as pd


def train(table: str, folder: str) -> None:
    """Train a model that has the same size as the model from `model.py`."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    rows = pd.read_csv(table)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer(
        (codes, make_column_selector(dtype_exclude="number")),
        remainder="passthrough",
        verbose_feature_names_out=False,
    )
    trees = HistGradientBoostingClassifier(max_iter=200, max_leaf_nodes=8, early_stopping=False)
    model = make_pipeline(columns, trees).fit(rows.drop(columns="loan_status"), rows["loan_status"])
    mlflow.sklearn.save_model(model, folder, serialization_format="cloudpickle")


def score(folder: str, source: str, out: str) -> None:
    """Score the whole table in memory, and append the predicted label and the probabilities to each row."""
    model = mlflow.sklearn.load_model(folder)
    began = time.monotonic()
    rows = pd.read_csv(source) if source.endswith(".csv") else pd.read_parquet(source)
    probabilities = model.predict_proba(rows)
    rows["prediction"] = model.classes_[probabilities.argmax(axis=1)]
    for index, name in enumerate(model.classes_):
        rows[f"probability.{name}"] = probabilities[:, index]
    if out.endswith(".csv"):
        rows.to_csv(out, index=False)
    else:
        rows.to_parquet(out)
    print(time.monotonic() - began)


if __name__ == "__main__":
    {"train": train, "score": score}[sys.argv[1]](*sys.argv[2:])
