"""The Python client of a Rowcast server.

    from rowcast import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.predict({"annual_income": 739000, ...}, "loans").prediction)

`Client` is synchronous and `AsyncClient` is for asyncio; both have the same methods. `rowcast.client.errors` lists the
errors they raise.
"""

from rowcast.client.calls import Row
from rowcast.client.http_clients import AsyncClient, Client
from rowcast.client.replies import HistoryEntry, PredictionReply, RowErrors
from rowcast.schema.encoding import RowWarning
from rowcast.serving.fleet import ReloadResult, WorkerStatus
from rowcast.serving.health import HealthReport
from rowcast.serving.model_descriptions import ServedModel

__all__ = [
    "AsyncClient",
    "Client",
    "HealthReport",
    "HistoryEntry",
    "PredictionReply",
    "ReloadResult",
    "Row",
    "RowErrors",
    "RowWarning",
    "ServedModel",
    "WorkerStatus",
]
