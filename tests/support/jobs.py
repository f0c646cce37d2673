"""Jobs for tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from rowcast.adapters.memory.jobs import MemoryFileStore, MemoryJobStore
from rowcast.adapters.memory.store import MemoryStore
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.engines import Engine, ThreadEngine
from rowcast.history.chain import SealedEntry
from rowcast.jobs.chunk_scoring import GraphSource
from rowcast.jobs.execution import JobExecution, JobTools
from rowcast.jobs.job import ChunkRecord, Job, JobOwner, JobResult, JobSpec, JobStop, claim_of
from rowcast.schema.identity import uuid7s
from rowcast.schema.sensitive import Redactor

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


class JobCase:
    """A job with in-memory stores that runs in this process. The model is an open bundle."""

    def __init__(self, model: Any, source: Path, *, secret: bytes = b"s", **spec: Any) -> None:
        self.model = model
        self.store, self.files, self.history = MemoryJobStore(), MemoryFileStore(), MemoryStore()
        self.redactor: Redactor | None = None
        self.max_bytes = 1_000_000
        self.stall_seconds = 60.0
        job = new_job(1, place=self.files.place, tenant="acme", key_id="k", secret=secret, started=7)
        values = {"input": f"input{source.suffix}", "digest": model.manifest.digest, **spec}
        job = replace(job, spec=replace(job.spec, **values))
        self.store.add(job, max_open=1)
        self.files.put(f"{job.id}/{job.spec.input}", source.read_bytes())
        self.job = job

    def run(self, is_stopping: Callable[[], bool] = lambda: False, engine: Engine | None = None) -> JobResult:
        """Execute the job with an engine; by default, in two threads."""
        job = self.store.claim("r", self.files.place, seconds=0)
        assert job is not None
        tools = JobTools(
            self.store,
            self.files,
            self.history,
            self.redactor,
            self.max_bytes,
            lease_seconds=60.0,
            stall_seconds=self.stall_seconds,
            now=lambda: 5,
        )
        graphs = GraphSource(self.model.model, "out", open_graph)
        with closing(ThreadEngine(2)) as threads:
            execution = JobExecution(
                job, claim_of(job), manifest=self.model.manifest, graphs=graphs, engine=engine or threads, tools=tools
            )
            return execution.run(is_stopping)

    def run_interrupted(self, *chunks: int, engine: Engine | None = None) -> JobResult:
        """For each number in `chunks`, run the job and stop it after that many chunks; then run it to the end."""
        for count in chunks:
            left = count
            self.expire_lease()

            def is_stopping() -> bool:
                nonlocal left
                left -= 1
                return left < 0

            with pytest.raises(JobStop):
                self.run(is_stopping, engine)
        self.expire_lease()
        return self.run(engine=engine)

    def expire_lease(self) -> None:
        self.store.change(self.job.id, lambda job, now: replace(job, lease_until=0))

    def content(self, name: str) -> bytes:
        return b"".join(self.files.read(f"{self.job.id}/{name}"))

    def entries(self) -> dict[str, list[SealedEntry]]:
        return {writer: list(self.history.chain(writer)) for writer in self.history.writers()}
