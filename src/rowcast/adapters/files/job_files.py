"""Stores job files in a folder. A file is written under a temporary name, synced and renamed."""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rowcast.errors import NotFound, Unavailable
from rowcast.jobs.rules import unknown_file
from rowcast.private_files import make_private_folder

READ_BYTES = 256 * 1024
ID_FILE = "id"
MEBIBYTE = 1024 * 1024


class FolderFileStore:
    """A file store in a folder, which several machines can share if it is on a network drive.

    New files are refused while the disk has fewer than `min_free` bytes of free space.
    """

    def __init__(self, folder: Path, min_free: int = 0) -> None:
        self._folder = folder.absolute()
        self._min_free = min_free
        self._id = ""

    @property
    def place(self) -> str:
        """A random id, stored in the folder: one path can refer to different folders on different machines."""
        if not self._id:
            with self._translated("use"):
                make_private_folder(self._folder)
                path = self._folder / ID_FILE
                if not path.exists():
                    part = self._folder / f".id.{secrets.token_hex(8)}"
                    part.write_text(uuid.uuid4().hex)
                    with suppress(FileExistsError):  # another process created the file first
                        os.link(part, path)
                    part.unlink()
                self._id = f"folder:{path.read_text().strip()}"
        return self._id

    def put(self, name: str, content: bytes) -> None:
        """Store a file unless it already exists."""
        if self._path(name).exists():
            return
        with self.create(name) as path:
            path.write_bytes(content)

    @contextmanager
    def create(self, name: str) -> Iterator[Path]:
        """Yield the path of a hidden file next to the final file."""
        path = self._path(name)
        part = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
        with self._translated("write"):
            make_private_folder(path.parent)
            self._check_space()
            try:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                yield part
                descriptor = os.open(part, os.O_RDONLY)
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Yield the path of the file itself."""
        path = self._path(name)
        if not path.is_file():
            raise NotFound(unknown_file(name))
        yield path

    def read(self, name: str) -> Iterator[bytes]:
        """Return an iterator over the content."""
        try:
            file = self._path(name).open("rb")
        except FileNotFoundError:
            raise NotFound(unknown_file(name)) from None
        except OSError as error:
            raise self._unusable("read", error) from None

        def pieces() -> Iterator[bytes]:
            with file:
                while piece := file.read(READ_BYTES):
                    yield piece

        return pieces()

    def delete(self, name: str) -> None:
        """Delete a file, or a job's folder."""
        path = self._path(name)
        with self._translated("delete"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def jobs(self) -> list[str]:
        """Return the names of the folders."""
        if not self._folder.is_dir():
            return []
        with self._translated("list"):
            return sorted(path.name for path in self._folder.iterdir() if path.is_dir())

    def check(self) -> None:
        """Check that the folder, if it exists, is writable, and that its disk has free space."""
        if not self._folder.exists():
            return
        if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
            raise Unavailable(f"this process cannot write to the folder {self._folder}")
        self._check_space()

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if not all(parts) or any(part.startswith(".") or "\\" in part for part in parts):
            raise NotFound(unknown_file(name))
        return self._folder.joinpath(*parts)

    def _check_space(self) -> None:
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < self._min_free:
            raise Unavailable(
                f"the disk that contains {self._folder} has less than {self._min_free // MEBIBYTE} MiB of free space",
                slug="disk-low",
            )

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unusable(action, error) from None

    def _unusable(self, action: str, error: OSError) -> Unavailable:
        return Unavailable(f"cannot {action} the job files in {self._folder}: {error.strerror or error}")
