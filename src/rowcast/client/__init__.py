"""Ask a Rowcast server from Python.

    from rowcast import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.predict({"annual_income": 739000, ...}, "loans").prediction)

`Client` waits and `AsyncClient` awaits; the calls are the same. `errors` has everything that can come of one.
"""

from rowcast.client.calls import Row
from rowcast.client.replies import Entry, Health, Model, Prediction, Reload, RowRefused, Warned, Worker
from rowcast.client.shells import AsyncClient, Chances, Client

__all__ = [
    "AsyncClient",
    "Chances",
    "Client",
    "Entry",
    "Health",
    "Model",
    "Prediction",
    "Reload",
    "Row",
    "RowRefused",
    "Warned",
    "Worker",
]
