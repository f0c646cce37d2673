"""The command group `rowcast store`."""

from __future__ import annotations

from typing import Annotated

import typer

from rowcast.cli.options import Home, Json, show_help

store_app = typer.Typer(help="Migrate, check and copy the history store.", rich_markup_mode=None)
store_app.callback(invoke_without_command=True)(show_help)


@store_app.command("migrate")
def store_migrate(home: Home = None, json: Json = False) -> None:
    """Create the store or apply all pending migrations. Servers also do this when they first write to it."""
    from rowcast import settings
    from rowcast.cli import store

    store.migrate(settings.load(home=home), as_json=json)


@store_app.command("check")
def store_check(home: Home = None, json: Json = False) -> int:
    """Check the schema, partitions, indexes and newest entries; exit with status 1 if there is a problem."""
    from rowcast import settings
    from rowcast.cli import store

    return store.check(settings.load(home=home), as_json=json)


@store_app.command("copy")
def store_copy(
    to: Annotated[str, typer.Option(help="URL of the PostgreSQL store: postgresql://USER:PASSWORD@HOST/DATABASE.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Copy a SQLite history, the API keys and the hashing key into a PostgreSQL store.

    The copy contains the same chains. If the command is interrupted, repeat it.
    """
    from rowcast import settings
    from rowcast.cli import store

    store.copy(settings.load(home=home), to, as_json=json)
