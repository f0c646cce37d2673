"""Train on one fold and predict its test rows with FLAML. Arguments: FOLDER TARGET KIND SECONDS JOBS; see
quality.py."""

import sys
from pathlib import Path

import pandas as pd
from flaml import AutoML

folder, target, kind, seconds, jobs = Path(sys.argv[1]), *sys.argv[2:]
train, test = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")
measure = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}[kind]
automl = AutoML()
task = "regression" if kind == "regression" else "classification"
automl.fit(
    dataframe=train,
    label=target,
    task=task,
    metric=measure,
    time_budget=float(seconds),
    n_jobs=int(jobs),
    seed=0,
    verbose=0,
)
answers = pd.DataFrame({"prediction": automl.predict(test)})
if kind != "regression":
    shares = automl.predict_proba(test)
    for index, label in enumerate(automl.classes_):
        answers[f"probability.{label}"] = shares[:, index]
answers.to_csv(folder / "answers.csv", index=False)
