"""Train on one fold and predict its test rows with AutoGluon. Arguments: FOLDER TARGET KIND SECONDS JOBS; see
quality.py."""

import sys
from pathlib import Path

import pandas as pd
from autogluon.tabular import TabularPredictor

folder, target, kind, seconds, jobs = Path(sys.argv[1]), *sys.argv[2:]
train, test = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")
measure = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}[kind]
predictor = TabularPredictor(
    label=target, problem_type=kind, eval_metric=measure, path=folder / "autogluon", verbosity=0
)
predictor.fit(train, presets="medium_quality", time_limit=float(seconds), num_cpus=int(jobs), num_gpus=0)
answers = pd.DataFrame({"prediction": predictor.predict(test)})
if kind != "regression":
    answers = answers.join(predictor.predict_proba(test).add_prefix("probability."))
answers.to_csv(folder / "answers.csv", index=False)
