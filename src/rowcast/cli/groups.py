"""The command groups `rowcast history` and `rowcast keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rowcast.cli.options import (
    Home,
    Json,
    OnlyEntity,
    OnlyLabel,
    OnlyModel,
    OnlyTenant,
    OnlyVersion,
    Since,
    Until,
    show_help,
)

history_app = typer.Typer(help="Inspect, verify and erase recorded predictions.", rich_markup_mode=None)
keys_app = typer.Typer(help="Manage API keys.", rich_markup_mode=None)
history_app.callback(invoke_without_command=True)(show_help)
keys_app.callback(invoke_without_command=True)(show_help)


@history_app.command("list")
def history_list(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Number of entries to show.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Start after this cursor, the `next` value from the previous page.")
    ] = None,
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
    """List predictions, newest first."""
    from rowcast import settings
    from rowcast.cli import history
    from rowcast.history.entry_filter import parse_selection

    filters = parse_selection(
        model=model, version=version, label=label, tenant=tenant, entity=entity, since=since, until=until
    )
    history.list_history(settings.load(home=home), filters, limit=limit, cursor=cursor, as_json=json)


@history_app.command("show")
def history_show(
    prediction: Annotated[str, typer.Argument(metavar="ID", help="Id of the prediction.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Show one prediction with its row and model version."""
    from rowcast import settings
    from rowcast.cli import history

    history.show_prediction(settings.load(home=home), prediction, as_json=json)


@history_app.command("export")
def history_export(
    out: Annotated[Path, typer.Option(help="Output file: .csv, .jsonl or .parquet.")],
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
    """Export predictions to a file, newest first."""
    from rowcast import settings
    from rowcast.cli import history
    from rowcast.history.entry_filter import parse_selection

    filters = parse_selection(
        model=model, version=version, label=label, tenant=tenant, entity=entity, since=since, until=until
    )
    history.export(settings.load(home=home), out, filters, as_json=json)


@history_app.command("verify")
def history_verify(
    heads: Annotated[
        Path | None,
        typer.Option(help="File with published chain heads: the output of `history heads --json`, or a server's log."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Verify the chain of every writer; exit with status 1 if a chain is broken."""
    from rowcast import settings
    from rowcast.cli import history

    return history.verify_history(settings.load(home=home), heads, as_json=json)


@history_app.command("replay")
def history_replay(model: OnlyModel = None, home: Home = None, json: Json = False) -> int:
    """Rescore recorded rows with the original model versions; exit with status 1 if a prediction differs."""
    from rowcast import settings
    from rowcast.cli import history

    return history.replay_history(settings.load(home=home), model, as_json=json)


@history_app.command("heads")
def history_heads(home: Home = None, json: Json = False) -> None:
    """Print the head of every chain. Keep a copy elsewhere so that you can detect truncated chains later."""
    from rowcast import settings
    from rowcast.cli import history

    history.show_heads(settings.load(home=home), as_json=json)


@history_app.command("purge")
def history_purge(
    before: Annotated[
        str,
        typer.Option(help="Erase the rows of predictions made before this time: a date, a timestamp or an age (90d)."),
    ],
    model: OnlyModel = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Permanently erase the rows of old predictions. The predictions remain, and the chains can still be verified."""
    from rowcast import settings
    from rowcast.cli import history

    history.purge(settings.load(home=home), before, model, as_json=json)


@history_app.command("erase")
def history_erase(
    entity: Annotated[str | None, typer.Option(help="Erase the rows of this entity.")] = None,
    id: Annotated[list[str] | None, typer.Option(help="Erase this prediction's row; repeatable.")] = None,  # noqa: A002
    home: Home = None,
    json: Json = False,
) -> None:
    """Permanently erase rows. The predictions remain, and the chains can still be verified."""
    from rowcast import settings
    from rowcast.cli import history

    history.erase(settings.load(home=home), entity, id or [], as_json=json)


@history_app.command("erasures")
def history_erasures(home: Home = None, json: Json = False) -> None:
    """List erasures: who erased which rows, and when."""
    from rowcast import settings
    from rowcast.cli import history

    history.show_erasures(settings.load(home=home), as_json=json)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Name of the user or application that will use the key.")],
    scope: Annotated[str, typer.Option(help="Scopes, separated by commas: predict, read, admin.")] = "predict",
    tenant: Annotated[str | None, typer.Option(help="Restrict the key to this tenant's predictions.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Restrict the key to this model; repeatable.")] = None,
    expires: Annotated[str | None, typer.Option(help="Lifetime, for example 90d, 12h or 30m.")] = None,
    quota: Annotated[
        str | None, typer.Option(help="Quota in rows or requests, for example 100/60s or '20 requests/60s'.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Create an API key and print its secret, which is shown only once. Servers accept the key within a second."""
    from rowcast import settings
    from rowcast.cli import access

    options = access.KeyOptions(name, scope, tenant, tuple(model or ()), expires, quota)
    access.create(settings.load(home=home), options, as_json=json)


@keys_app.command("list")
def keys_list(home: Home = None, json: Json = False) -> None:
    """List the keys. Rowcast does not store their secrets and cannot show them."""
    from rowcast import settings
    from rowcast.cli import access

    access.show(settings.load(home=home), as_json=json)


@keys_app.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="Name or id of the key.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Permanently revoke a key. Servers reject the key within a second."""
    from rowcast import settings
    from rowcast.cli import access

    access.revoke(settings.load(home=home), key, as_json=json)


@keys_app.command("rotate")
def keys_rotate(
    key: Annotated[str, typer.Argument(metavar="ID", help="Name or id of the key.")],
    overlap: Annotated[
        str, typer.Option(help="How long the old secret stays valid; 0s revokes it immediately.")
    ] = "24h",
    home: Home = None,
    json: Json = False,
) -> None:
    """Replace a key's secret; the old secret stays valid during the overlap."""
    from rowcast import settings
    from rowcast.cli import access

    access.rotate(settings.load(home=home), key, overlap, as_json=json)
