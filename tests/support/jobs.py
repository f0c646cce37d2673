"""Jobs for tests."""

from __future__ import annotations

from typing import Any

from rowcast.jobs.job import ChunkRecord, Job, JobOwner, JobSpec
from rowcast.schema.identity import uuid7s

DAY = 86_400.0


def job_id(number: int) -> str:
    """Return an id; ids are ordered by number."""
    return uuid7s(1_700_000_000_000 + number, bytes(9))[0]


def new_job(number: int = 0, *, tenant: str = "", key_id: str = "", model: str = "sum", **fields: Any) -> Job:
    """Return a queued job."""
    spec = JobSpec(
        model=model, version=1, digest="rb1-0", input="input.csv", input_sha256="00", input_bytes=5, format="csv"
    )
    values: dict[str, Any] = {"place": "here", "created": 1, "secret": b"s", "keep_seconds": DAY, **fields}
    return Job(id=job_id(number), spec=spec, owner=JobOwner(tenant, key_id, "r"), **values)


def chunk(number: int) -> ChunkRecord:
    """Return a finished chunk with ten rows."""
    return ChunkRecord(
        number=number, output=f"o{number}", rejects="", lines=10, excluded=0, rejected=0, bytes=100, warnings=()
    )
