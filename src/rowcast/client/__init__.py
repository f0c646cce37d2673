"""The Python client of a Rowcast server.

    from rowcast import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.predict({"annual_income": 739000, ...}, "loans").prediction)

`Client` is synchronous and `AsyncClient` is for asyncio; both have the same methods. `rowcast.client.errors` lists the
errors they raise.
"""

from rowcast.client.calls import Row
from rowcast.client.http_clients import AsyncClient, Client
from rowcast.client.replies import (
    HealthReport,
    HistoryEntry,
    PredictionReply,
    ReloadReport,
    RowErrors,
    ServedModel,
    WorkerHealth,
)
from rowcast.schema.encoding import RowWarning

__all__ = [
    "AsyncClient",
    "Client",
    "HealthReport",
    "HistoryEntry",
    "PredictionReply",
    "ReloadReport",
    "Row",
    "RowErrors",
    "RowWarning",
    "ServedModel",
    "WorkerHealth",
]
