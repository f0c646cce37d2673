"""Stores job files in an S3 bucket, which several machines can share.

A table is downloaded to a temporary file before it is read, and a result is uploaded when it is complete. The
credentials come from the environment, as for other S3 clients (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`
and so on).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from rowcast.errors import NotFound, Unavailable
from rowcast.jobs.rules import unknown_file

READ_BYTES: Final = 1024 * 1024
DELETED_AT_ONCE: Final = 1000
RETRIES: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}


class ObjectFileStore:
    """The objects under the path in an `s3://BUCKET/PATH` URL."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._objects: Any = None

    @property
    def place(self) -> str:
        """The URL, which refers to the same objects on every machine."""
        return self._url

    def put(self, name: str, content: bytes) -> None:
        """Store an object."""
        with self._translated("write", name):
            obstore.put(self._store(), name, content)

    @contextmanager
    def create(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary file, which is uploaded at the end."""
        with tempfile.TemporaryDirectory(prefix="rowcast-") as folder:
            path = Path(folder) / name.rpartition("/")[2]
            path.touch(mode=0o600)
            yield path
            with self._translated("write", name):
                obstore.put(self._store(), name, path)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary copy."""
        with tempfile.TemporaryDirectory(prefix="rowcast-") as folder:
            path = Path(folder) / name.rpartition("/")[2]
            with path.open("wb") as file:
                file.writelines(self.read(name))
            yield path

    def read(self, name: str) -> Iterator[bytes]:
        """Return an iterator over the content."""
        with self._translated("read", name):
            result = obstore.get(self._store(), name)

        def pieces() -> Iterator[bytes]:
            with self._translated("read", name):
                for piece in result.stream(min_chunk_size=READ_BYTES):
                    yield bytes(piece)

        return pieces()

    def delete(self, name: str) -> None:
        """Delete an object, and all objects whose names begin with this name and a slash."""
        with self._translated("delete", name):
            names = [each["path"] for batch in obstore.list(self._store(), f"{name}/") for each in batch]
            for start in range(0, len(names), DELETED_AT_ONCE):
                obstore.delete(self._store(), names[start : start + DELETED_AT_ONCE])
            obstore.delete(self._store(), name)

    def jobs(self) -> list[str]:
        """Return the first component of each name."""
        with self._translated("list", ""):
            return sorted(obstore.list_with_delimiter(self._store())["common_prefixes"])

    def check(self) -> None:
        """Raise Unavailable if the objects cannot be listed."""
        self.jobs()

    def _store(self) -> Any:
        if self._objects is None:
            self._objects = S3Store.from_url(self._url, retry_config=RETRIES)
        return self._objects

    @contextmanager
    def _translated(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            if action == "delete":
                return
            raise NotFound(unknown_file(name)) from None
        except (BaseError, OSError) as error:
            reason = str(error).splitlines()[0][:200]
            raise Unavailable(f"cannot {action} the job files in {self._url}: {reason}") from None
