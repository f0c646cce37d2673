"""The Python client for Rowcast servers.

    from rowcast import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.predict({"annual_income": 739000, ...}, "loans").prediction)

`Client` is synchronous; `AsyncClient` is its counterpart for asyncio. `rowcast.client.errors` lists the errors that the
clients raise.
"""

from rowcast.client.batches import Row
from rowcast.client.http_clients import AsyncClient, Client
from rowcast.client.jobs import AsyncJobs, Jobs
from rowcast.client.replies import HistoryEntry, PredictionReply, RowErrors
from rowcast.jobs.job import JobStatus
from rowcast.schema.encoding import RowWarning
from rowcast.serving.fleet import ProcessStatus, ReloadResult
from rowcast.serving.health import HealthReport
from rowcast.serving.model_descriptions import ServedModel

__all__ = [
    "AsyncClient",
    "AsyncJobs",
    "Client",
    "HealthReport",
    "HistoryEntry",
    "JobStatus",
    "Jobs",
    "PredictionReply",
    "ProcessStatus",
    "ReloadResult",
    "Row",
    "RowErrors",
    "RowWarning",
    "ServedModel",
]
