"""The commands that come in groups: `rowcast history …` and `rowcast keys …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rowcast.cli.options import Home, Json, OnlyEntity, OnlyLabel, OnlyModel, OnlyTenant, OnlyVersion, Since, Until

history_app = typer.Typer(help="What was answered, kept as evidence.", rich_markup_mode=None)
keys_app = typer.Typer(help="API keys: who may ask, read and manage.", rich_markup_mode=None)


@history_app.command("list")
def history_list(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Entries to show.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    model: OnlyModel = None,
    version: OnlyVersion = None,
    label: OnlyLabel = None,
    tenant: OnlyTenant = None,
    entity: OnlyEntity = None,
    since: Since = None,
    until: Until = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Predictions, newest first."""
    from rowcast import settings
    from rowcast.cli import history
    from rowcast.history.service import selection

    wanted = selection(
        model=model, version=version, label=label, tenant=tenant, entity=entity, since=since, until=until
    )
    history.list_history(settings.load(home=home), limit, cursor, wanted, as_json=json)


@history_app.command("export")
def history_export(
    out: Annotated[Path, typer.Option(help="File to write: .csv, .jsonl or .parquet.")],
    model: OnlyModel = None,
    version: OnlyVersion = None,
    label: OnlyLabel = None,
    tenant: OnlyTenant = None,
    entity: OnlyEntity = None,
    since: Since = None,
    until: Until = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write predictions to a file, newest first."""
    from rowcast import settings
    from rowcast.cli import history
    from rowcast.history.service import selection

    wanted = selection(
        model=model, version=version, label=label, tenant=tenant, entity=entity, since=since, until=until
    )
    history.export(settings.load(home=home), out, wanted, as_json=json)


@history_app.command("verify")
def history_verify(
    heads: Annotated[
        Path | None, typer.Option(help="Published heads: a file of `history heads --json`, or a log.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Check the chain of every writer; exit 1 where it is broken."""
    from rowcast import settings
    from rowcast.cli import history

    return history.verify_history(settings.load(home=home), heads, as_json=json)


@history_app.command("replay")
def history_replay(model: OnlyModel = None, home: Home = None, json: Json = False) -> int:
    """Score the past again with the bundles of then; exit 1 where an answer differs."""
    from rowcast import settings
    from rowcast.cli import history

    return history.replay_history(settings.load(home=home), model, as_json=json)


@history_app.command("heads")
def history_heads(home: Home = None, json: Json = False) -> None:
    """The last entry of every chain; kept elsewhere, they prove later that no chain was cut off."""
    from rowcast import settings
    from rowcast.cli import history

    history.show_heads(settings.load(home=home), as_json=json)


@history_app.command("purge")
def history_purge(
    before: Annotated[str, typer.Option(help="RFC 3339 or a date; not included.")],
    model: OnlyModel = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Erase the rows of old predictions for good; what was answered stays, and every chain verifies."""
    from rowcast import settings
    from rowcast.cli import history

    history.purge(settings.load(home=home), before, model, as_json=json)


@history_app.command("erase")
def history_erase(
    entity: Annotated[str | None, typer.Option(help="The rows of this entity.")] = None,
    id: Annotated[list[str] | None, typer.Option(help="The row of this prediction; once for each.")] = None,  # noqa: A002
    home: Home = None,
    json: Json = False,
) -> None:
    """Erase rows for good; what was answered stays, and every chain verifies."""
    from rowcast import settings
    from rowcast.cli import history

    history.erase(settings.load(home=home), entity, id or [], as_json=json)


@history_app.command("erasures")
def history_erasures(home: Home = None, json: Json = False) -> None:
    """Who erased what, when, and how many rows."""
    from rowcast import settings
    from rowcast.cli import history

    history.show_erasures(settings.load(home=home), as_json=json)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    scope: Annotated[str, typer.Option(help="What it may do, by comma: predict, read, admin.")] = "predict",
    tenant: Annotated[str | None, typer.Option(help="Whose predictions it makes and sees.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; once for each.")] = None,
    expires: Annotated[str | None, typer.Option(help="How long it is good, such as 90d, 12h or 30m.")] = None,
    quota: Annotated[str | None, typer.Option(help="Rows it may ask for, such as 100/60s.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make an API key and show it, this once. Servers know it within a second."""
    from rowcast import settings
    from rowcast.cli import access

    wanted = access.Wanted(name, scope, tenant, tuple(model or ()), expires, quota)
    access.create(settings.load(home=home), wanted, as_json=json)


@keys_app.command("list")
def keys_list(home: Home = None, json: Json = False) -> None:
    """Every key, without the secret, which is not kept."""
    from rowcast import settings
    from rowcast.cli import access

    access.show(settings.load(home=home), as_json=json)


@keys_app.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="Its id, or its name.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """End a key for good. Servers refuse it within a second."""
    from rowcast import settings
    from rowcast.cli import access

    access.revoke(settings.load(home=home), key, as_json=json)


@keys_app.command("rotate")
def keys_rotate(
    key: Annotated[str, typer.Argument(metavar="ID", help="Its id, or its name.")],
    overlap: Annotated[str, typer.Option(help="How long the old secret stays good; 0s for not at all.")] = "24h",
    home: Home = None,
    json: Json = False,
) -> None:
    """Give a key a new secret; the old one stays good for a while."""
    from rowcast import settings
    from rowcast.cli import access

    access.rotate(settings.load(home=home), key, overlap, as_json=json)
