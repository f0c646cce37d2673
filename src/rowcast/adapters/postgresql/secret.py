"""A random secret that all homes with the same PostgreSQL store share."""

from __future__ import annotations

from contextlib import closing

from rowcast.adapters.postgresql.database import Database, Readers


class PostgresSecret:
    """One row in the table of secrets."""

    def __init__(self, url: str, name: str) -> None:
        self._database = Database(url)
        self._readers = Readers(self._database, f"read the secret {name!r} in")
        self._name = name

    @property
    def location(self) -> str:
        """The URL of the database, without the user, the password and the parameters."""
        return self._database.location

    def find(self) -> bytes | None:
        """Return the secret, or None if it does not exist."""
        rows = self._readers.fetch("SELECT secret FROM rowcast.secrets WHERE name = %s", [self._name])
        return rows[0][0] if rows else None

    def keep(self, secret: bytes) -> bytes:
        """Store the secret unless one is already stored, and return the stored secret."""
        with (
            self._database.translated(f"store the secret {self._name!r} in"),
            closing(self._database.connect_writer()) as connection,
        ):
            connection.execute(
                "INSERT INTO rowcast.secrets (name, secret) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                [self._name, secret],
            )
            row = connection.execute("SELECT secret FROM rowcast.secrets WHERE name = %s", [self._name]).fetchone()
        return bytes(row[0]) if row else secret
