"""Files and folders whose paths are derived from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING


class SettingPaths:
    """The properties of `Settings` that are paths or URLs."""

    if TYPE_CHECKING:
        home: Path
        registry: Path | None
        journal: Path | None
        store: str | None
        files: str | None
        signing_key_file: Path | None

    @property
    def registry_folder(self) -> Path:
        """The model registry's folder."""
        return (self.registry or self.home / "models").absolute()

    @property
    def keys_file(self) -> Path:
        """The file that contains the API keys."""
        return self.home / "keys.json"

    @property
    def repeats_file(self) -> Path:
        """The database of replies to requests with an Idempotency-Key, in the store's folder."""
        scheme, _, path = self.store_url.partition(":///")
        return (Path(path).parent if scheme == "sqlite" and path else self.home) / "repeats.db"

    @property
    def jobs_file(self) -> Path:
        """The database of jobs, in the store's folder."""
        return self.repeats_file.with_name("jobs.db")

    @property
    def journal_folder(self) -> Path:
        """The folder that contains the journals."""
        return self.journal or self.home / "journal"

    @property
    def run_folder(self) -> Path:
        """The folder for the shared state of running server processes."""
        return (self.home / "run").absolute()

    @property
    def store_url(self) -> str:
        """The URL of the history store."""
        return self.store or f"sqlite:///{(self.home / 'history.db').absolute()}"

    @property
    def has_postgresql_store(self) -> bool:
        """Whether the store is a PostgreSQL database. If so, it also contains the data that several homes share."""
        return self.store_url.partition("://")[0] in ("postgresql", "postgres")

    @property
    def signing_key_path(self) -> Path:
        """The file that contains the secret key for signing chain heads and erasures."""
        return self.signing_key_file or self.repeats_file.with_name("signing.key")

    @property
    def history_key_file(self) -> Path:
        """The file that contains the secret key for hashing sensitive values."""
        return self.home / "history.key"
