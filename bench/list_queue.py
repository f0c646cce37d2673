"""The baseline for `make bench-queue`: one row per message, with a list push and a blocking pop.

`uvicorn list_queue:app` is the API; `python list_queue.py` is the worker. The API pushes each validated row onto a
list, and waits for the reply on a separate list per request. The worker pops one row at a time and scores
it with the same session options as Rowcast. Nothing sleeps or polls. The environment variable BUNDLE contains the path
of the bundle's folder, and REDIS contains the URL of the Redis server.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any, Literal

import redis
import redis.asyncio
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

ROWS, SECONDS = "rows", 10
"""The name of the list of queued rows, and the number of seconds that the API waits for a reply. Unread replies expire
in Redis after the same time."""
CONNECTIONS = 256


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


client = redis.asyncio.Redis.from_url(os.environ["REDIS"], max_connections=CONNECTIONS)
app = FastAPI(title="Loans")


@app.post("/predict")
async def predict(row: Application) -> Prediction:
    """Send one application to the worker and wait for the score."""
    reply_to = f"reply:{uuid.uuid4().hex}"
    await client.lpush(ROWS, json.dumps({"reply_to": reply_to, "row": row.model_dump()}))
    reply: Any = await client.blpop([reply_to], timeout=SECONDS)
    if reply is None:
        raise HTTPException(503, "no worker has replied")
    return Prediction(**json.loads(reply[1]))


def work() -> None:
    """Score the queued rows one at a time."""
    import numpy as np
    import onnxruntime as ort

    bundle = Path(os.environ["BUNDLE"])
    decision = json.loads((bundle / "bundle.json").read_text())["decision"]
    positive, threshold = decision["positive"], decision["threshold"]
    labels = (decision["classes"][1 - positive], decision["classes"][positive])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
    connection = redis.Redis.from_url(os.environ["REDIS"])
    while True:
        message: Any = connection.brpop([ROWS])
        request = json.loads(message[1])
        row = Application(**request["row"])
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
        score = float(session.run(["rowcast_probabilities"], tensors)[0][0, positive])
        approved = score >= threshold
        reply = {"prediction": labels[approved], "probability": score if approved else 1.0 - score}
        pipeline = connection.pipeline(transaction=False)
        pipeline.lpush(request["reply_to"], json.dumps(reply))
        pipeline.expire(request["reply_to"], SECONDS)
        pipeline.execute()


if __name__ == "__main__":
    work()
