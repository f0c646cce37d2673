"""Every command. Each imports what it needs when it runs: `rowcast --help` loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rowcast.cli.groups import history_app, history_replay, history_verify, keys_app
from rowcast.cli.options import (
    Candidates,
    Config,
    Cost,
    Exclude,
    Group,
    Home,
    Json,
    Keep,
    Map,
    OnnxOut,
    Positive,
    Rows,
    Sensitive,
    Storage,
    Target,
    TargetFile,
    Time,
    Weight,
    Wire,
)

app = typer.Typer(
    help="From a table to decisions you can explain, replay and trust.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Published models.", rich_markup_mode=None)
app.add_typer(models_app, name="models")
app.add_typer(history_app, name="history")
app.add_typer(keys_app, name="keys")


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
    wire: Wire = None,
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
        "wire": wire,
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
def call(
    words: Annotated[
        list[str], typer.Argument(metavar="[MODEL] ROW", help="ROW: JSON, @FILE or - for standard input; one or many.")
    ],
    url: Annotated[str | None, typer.Option(help="Address of the server [the one of these settings].")] = None,
    timeout: Annotated[float, typer.Option(min=0.01, max=3600, help="Seconds to wait, retries included.")] = 30.0,
    home: Home = None,
    json: Json = False,
) -> int:
    """Ask a running server; without MODEL, or with -, its default model. Exit 1 when the row does not fit.

    A key is read from ROWCAST_API_KEY: what is typed can be seen by others.
    """
    from rowcast import settings
    from rowcast.cli import calling

    return calling.run(settings.load(home=home, url=url), words, timeout, as_json=json)


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
    from rowcast.cli import output
    from rowcast.tables import examples

    output.say(f"wrote {examples.write_example(name, out, rows=rows, seed=seed)}")


@models_app.command("list")
def models_list(home: Home = None, json: Json = False) -> None:
    """Every published version with its score and aliases."""
    from rowcast import settings
    from rowcast.cli import inspection

    inspection.list_models(settings.load(home=home), as_json=json)


@models_app.command("export")
def models_export(
    model: Annotated[str, typer.Argument(help="NAME, NAME@3 or NAME@alias.")],
    out: Annotated[Path, typer.Option(help="File to write, .rowcast.")],
    home: Home = None,
) -> None:
    """Write a published model into one file that `models import` takes elsewhere."""
    from rowcast import settings
    from rowcast.cli import output
    from rowcast.registry import archive

    output.say(f"wrote {archive.export_bundle(settings.load(home=home), model, out)} to {out}")


@models_app.command("import")
def models_import(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="An ONNX graph, .onnx, or a bundle, .rowcast.")],
    metadata: Annotated[Path | None, typer.Option(metavar="FILE", help="model_metadata.json of the graph.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model [the metadata's, else the file's].")] = None,
    wire: Annotated[
        str | None, typer.Option(metavar="FILE", help="Wire template; or matrix, or native [by the metadata].")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A table of its rows: for ranges, and to try it with.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Take a model that others made, try it in a bounded process, and publish it as champion."""
    from rowcast import settings
    from rowcast.cli import inspection
    from rowcast.registry import import_model

    found = settings.load(home=home)
    imported = import_model.import_model(found, model, metadata=metadata, name=name, wire=wire, data=data)
    inspection.show_import(imported, as_json=json)


app.command("verify")(history_verify)
app.command("replay")(history_replay)


@app.command()
def doctor(home: Home = None, json: Json = False) -> int:
    """Say what is configured, reachable, loaded and wrong, and what to do; exit 1 where something is wrong."""
    from rowcast.cli import doctor as examination

    return examination.examine(home=home, as_json=json)


@app.command(hidden=True)
def indexer() -> None:
    """Move journals into the store until standard input closes; `serve` starts it."""
    from rowcast import settings
    from rowcast.cli import server

    server.index(settings.load())
