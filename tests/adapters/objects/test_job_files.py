"""Job files in a bucket."""

from __future__ import annotations

import pytest

from rowcast.adapters.objects import job_files
from rowcast.adapters.objects.job_files import ObjectFileStore
from rowcast.errors import Unavailable
from support import s3


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> object:
    with s3.serving() as running:
        for name, value in running.variables.items():
            monkeypatch.setenv(name, value)
        yield running


def test_objects_are_stored_under_the_path_in_the_url(server: s3.S3Server) -> None:
    ObjectFileStore(f"s3://{s3.BUCKET}/a/b/").put("j/c", b"x")

    assert server.objects == {"a/b/j/c": b"x"}


def test_the_place_is_the_url_without_a_trailing_slash() -> None:
    assert ObjectFileStore("s3://bucket/a/").place == ObjectFileStore("s3://bucket/a").place == "s3://bucket/a"


def test_a_failing_server_makes_the_store_unavailable(server: s3.S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_files, "RETRIES", {"max_retries": 0})
    server.is_failing = True
    files = ObjectFileStore(f"s3://{s3.BUCKET}/a")

    with pytest.raises(Unavailable):
        files.put("j/c", b"x")
    with pytest.raises(Unavailable):
        files.read("j/c")
    with pytest.raises(Unavailable):
        files.jobs()
