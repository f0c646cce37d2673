"""The baseline: the same model served with FastAPI, pydantic and ONNX Runtime, as a careful engineer would serve it.

It uses `async def`, one single-threaded session and pydantic, and it avoids DataFrames. It has no history, metrics or
warnings, and it serves only this model. The environment variable BUNDLE contains the path of the bundle's folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel

BUNDLE = Path(os.environ["BUNDLE"])
DECISION = json.loads((BUNDLE / "bundle.json").read_text())["decision"]
POSITIVE = DECISION["positive"]
LABELS = (DECISION["classes"][1 - POSITIVE], DECISION["classes"][POSITIVE])
THRESHOLD = DECISION["threshold"]


class Application(BaseModel):
    """A loan application, with the columns in the model's order."""

    annual_income: int
    loan_amount: int
    loan_term: int
    credit_score: int
    education: str
    self_employed: Literal["Yes", "No"]
    dependents: int
    residential_assets: int
    commercial_assets: int | None = None
    bank_assets: int
    purpose: str


class Prediction(BaseModel):
    """The reply."""

    prediction: str
    probability: float


def open_session() -> ort.InferenceSession:
    """Open the model with one thread and without spinning, because the process has a single core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(BUNDLE / "model.onnx", options, providers=["CPUExecutionProvider"])


session = open_session()
app = FastAPI(title="Loans")


@app.post("/predict")
async def predict(row: Application) -> Prediction:
    """Score one application."""
    commercial = float("nan") if row.commercial_assets is None else row.commercial_assets
    numbers = (
        row.annual_income,
        row.loan_amount,
        row.loan_term,
        row.credit_score,
        row.self_employed == "Yes",
        row.dependents,
        row.residential_assets,
        commercial,
        row.bank_assets,
    )
    tensors = {
        "rowcast_numbers": np.array([numbers], np.float32),
        "rowcast_texts": np.array([(row.education, row.purpose)], object),
    }
    score = float(session.run(["rowcast_probabilities"], tensors)[0][0, POSITIVE])
    approved = score >= THRESHOLD
    return Prediction(prediction=LABELS[approved], probability=score if approved else 1.0 - score)
