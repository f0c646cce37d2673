"""Every command. Each imports what it needs when it runs: `rowcast --help` loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="From a table to decisions you can explain, replay and trust.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Published models.", rich_markup_mode=None)
history_app = typer.Typer(help="What was answered, kept as evidence.", rich_markup_mode=None)
keys_app = typer.Typer(help="API keys: who may ask, read and manage.", rich_markup_mode=None)
app.add_typer(models_app, name="models")
app.add_typer(history_app, name="history")
app.add_typer(keys_app, name="keys")


def _from_file(context: typer.Context, path: Path | None) -> Path | None:
    if path is None:
        return None
    from rowcast.cli import config

    return config.fill(context, path)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Home = Annotated[Path | None, typer.Option(help="Folder for models and history [.rowcast].")]
Rows = Annotated[Path, typer.Argument(help="CSV, Parquet, JSON Lines or Arrow.")]
Target = Annotated[str | None, typer.Option(help="The column to predict.")]
TargetFile = Annotated[Path | None, typer.Option(help="File with the labels, when they lie apart.")]
Positive = Annotated[str | None, typer.Option(help="The label that `score` is the probability of.")]
Exclude = Annotated[list[str] | None, typer.Option(metavar="COLUMN[,COLUMN]", help="Learn nothing from these.")]
Keep = Annotated[list[str] | None, typer.Option(metavar="COLUMN[,COLUMN]", help="Learn from these as they are.")]
Sensitive = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN[,COLUMN]", help="Never show their values; see `sensitive`.")
]
Map = Annotated[list[str] | None, typer.Option(metavar="OLD=NEW", help="Mend a label; give it once a label.")]
Time = Annotated[str | None, typer.Option(metavar="COLUMN", help="Judge by the last rows of this column.")]
Group = Annotated[str | None, typer.Option(metavar="COLUMN", help="Keep rows of equal value on one side.")]
Weight = Annotated[str | None, typer.Option(metavar="COLUMN", help="How much each row counts.")]
Candidates = Annotated[
    str | None, typer.Option(metavar="KIND[,KIND]", help="Kinds to try, by comma [logistic,boosting,forest,extra].")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=_from_file,
        help="YAML, TOML or JSON with any of these by its long name, `table` too; what is typed wins.",
    ),
]
Cost = Annotated[
    str | None,
    typer.Option(
        metavar="MISTAKE=NUMBER[,...]",
        help="What a false_positive and a false_negative cost; sets the threshold.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Keep the trials here: a file, or redis://HOST. Go on, or share them between processes.",
    ),
]
OnnxOut = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the ONNX graph alone to this file too.")]
OnlyModel = Annotated[str | None, typer.Option("--model", help="Only this model's predictions.")]

OnlyVersion = Annotated[int | None, typer.Option("--version", min=1, help="Only this version's.")]
OnlyLabel = Annotated[str | None, typer.Option("--label", help="Only those answered with this label.")]
OnlyTenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's [all].")]
OnlyEntity = Annotated[str | None, typer.Option("--entity", help="Only those of this entity.")]
Since = Annotated[str | None, typer.Option(help="RFC 3339 or a date; included.")]
Until = Annotated[str | None, typer.Option(help="RFC 3339 or a date; not included.")]


@app.command()
def train(
    table: Rows,
    target: Target = None,
    target_file: TargetFile = None,
    name: Annotated[str | None, typer.Option(help="Name of the model [the table's name].")] = None,
    positive: Positive = None,
    exclude: Exclude = None,
    keep: Keep = None,
    sensitive: Sensitive = None,
    map: Map = None,  # noqa: A002 - the option is --map
    time: Time = None,
    group: Group = None,
    weight: Weight = None,
    candidates: Candidates = None,
    class_weight: Annotated[str | None, typer.Option(help="none, or balanced: rare classes count more [none].")] = None,
    metric: Annotated[str | None, typer.Option(help="What to choose by [roc_auc, log_loss or rmse].")] = None,
    cost: Cost = None,
    refit: Annotated[bool, typer.Option("--refit", help="Learn from the rows kept aside too, once measured.")] = False,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 20,
    timeout: Annotated[float | None, typer.Option(min=1, help="Stop tuning after so many seconds.")] = None,
    seed: Annotated[int, typer.Option(help="Same data, seed and trials: same model.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Threads for training.")] = 1,
    storage: Storage = None,
    onnx_out: OnnxOut = None,
    config: Config = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Turn a table into a tuned, calibrated, certified model and publish it as champion."""
    from rowcast import settings
    from rowcast.cli import training

    options = {
        "target": target,
        "target_file": target_file,
        "name": name,
        "positive": positive,
        "exclude": exclude,
        "keep": keep,
        "sensitive": sensitive,
        "map": map,
        "time": time,
        "group": group,
        "weight": weight,
        "candidates": tuple(part.strip() for part in candidates.split(",")) if candidates else None,
        "class_weight": class_weight,
        "metric": metric,
        "cost": cost,
        "refit": refit or None,
        "trials": trials,
        "timeout": timeout,
        "seed": seed,
        "jobs": jobs,
        "storage": storage,
        "onnx_out": onnx_out,
    }
    training.run(settings.load(home=home), table, training.given(options), as_json=json)


@app.command()
def check(
    table: Rows,
    target: Target = None,
    target_file: TargetFile = None,
    positive: Positive = None,
    exclude: Exclude = None,
    keep: Keep = None,
    map: Map = None,  # noqa: A002 - the option is --map
    time: Time = None,
    group: Group = None,
    weight: Weight = None,
    json: Json = False,
) -> None:
    """Say what a table holds and hides, column by column; nothing is trained."""
    from rowcast.cli import training

    options = {
        "target": target,
        "target_file": target_file,
        "positive": positive,
        "exclude": exclude,
        "keep": keep,
        "map": map,
        "time": time,
        "group": group,
        "weight": weight,
    }
    training.check(table, training.given(options), as_json=json)


@app.command()
def serve(
    models: Annotated[list[str] | None, typer.Argument(help="NAME, NAME@3 or NAME@alias [every champion].")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [8000].")] = None,
    default_model: Annotated[str | None, typer.Option(help="What POST /predict means.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer [1].")] = None,
    train_if_missing: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Train on this table or YAML or TOML first, if there is no model."),
    ] = None,
    target: Target = None,
    durability: Annotated[str | None, typer.Option(help="process, disk or store [process].")] = None,
    root_path: Annotated[str | None, typer.Option(help="Prefix that a proxy takes away.")] = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="Listen beyond this machine.")] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Answer predictions over HTTP and keep every one of them."""
    from rowcast import settings
    from rowcast.cli import server

    return server.run(
        settings.load(
            models=tuple(models) if models else None,
            host=host,
            port=port,
            default_model=default_model,
            workers=workers,
            durability=durability,
            root_path=root_path,
            insecure=insecure,
            home=home,
        ),
        train_if_missing=train_if_missing,
        target=target,
        as_json=json,
    )


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="NAME, NAME@3 or NAME@alias.")],
    table: Annotated[Path, typer.Argument(help="CSV, Parquet, JSON Lines or Arrow.")],
    out: Annotated[Path, typer.Option(help="File to write: .csv, .parquet, .jsonl, .ndjson, .arrow or .feather.")],
    rejects: Annotated[
        Path | None, typer.Option(help="Score the other rows and put those that do not fit here.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End at the first row that does not fit [default].")] = False,
    columns: Annotated[str | None, typer.Option(help="Columns of the table to keep, by comma [all].")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=256, help="Threads that score [one a core].")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Score a table: its columns, then prediction, probability, score and probability.LABEL.

    A row that does not fit ends the job, and nothing is written, unless --rejects says where such rows go: a file of
    predictions never lacks rows that nobody asked to leave out.
    """
    from rowcast import settings
    from rowcast.cli import scoring

    kept = None if columns is None else tuple(part.strip() for part in columns.split(",") if part.strip())
    found = settings.load(home=home)
    scoring.run(found, model, table, out, rejects, kept, strict=strict, jobs=jobs, as_json=json)


@app.command()
def report(
    model: Annotated[str, typer.Argument(help="NAME, NAME@3 or NAME@alias.")],
    out: Annotated[Path | None, typer.Option(help="File to copy the report to.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say where the report of a model lies, or copy it: one HTML page, nothing else needed."""
    from rowcast import settings
    from rowcast.cli import inspection

    inspection.show_report(settings.load(home=home), model, out, as_json=json)


@app.command()
def example(
    name: Annotated[str, typer.Argument(help="loans or iris.")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    rows: Annotated[int, typer.Option(min=50, help="Rows of the loan example.")] = 5000,
    seed: Annotated[int, typer.Option(help="Same seed, same table.")] = 0,
) -> None:
    """Write an example table."""
    from rowcast import examples
    from rowcast.cli import output

    output.say(f"wrote {examples.write_example(name, out, rows=rows, seed=seed)}")


@models_app.command("list")
def models_list(home: Home = None, json: Json = False) -> None:
    """Every published version with its score and aliases."""
    from rowcast import settings
    from rowcast.cli import inspection

    inspection.list_models(settings.load(home=home), as_json=json)


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
    from rowcast.serving.history import selection

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
    from rowcast.serving.history import selection

    wanted = selection(
        model=model, version=version, label=label, tenant=tenant, entity=entity, since=since, until=until
    )
    history.export(settings.load(home=home), out, wanted, as_json=json)


@app.command("verify")
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


@app.command("replay")
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


@app.command()
def doctor(home: Home = None, json: Json = False) -> int:
    """Say what is configured, reachable, loaded and wrong, and what to do; exit 1 where something is wrong."""
    from rowcast import settings
    from rowcast.cli import inspection

    return inspection.examine(settings.load(home=home), as_json=json)


@app.command(hidden=True)
def indexer() -> None:
    """Move journals into the store until standard input closes; `serve` starts it."""
    from rowcast import settings
    from rowcast.cli import server

    server.index(settings.load())
