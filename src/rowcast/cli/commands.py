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
app.add_typer(models_app, name="models")
app.add_typer(history_app, name="history")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Home = Annotated[Path | None, typer.Option(help="Folder for models and history [.rowcast].")]
OnlyModel = Annotated[str | None, typer.Option("--model", help="Only this model's predictions.")]


@app.command()
def train(
    table: Annotated[Path, typer.Argument(help="CSV, Parquet, JSON Lines or Arrow.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    name: Annotated[str | None, typer.Option(help="Name of the model [the table's name].")] = None,
    positive: Annotated[str | None, typer.Option(help="The label that `score` is the probability of.")] = None,
    candidates: Annotated[str | None, typer.Option(help="Kinds to try, by comma [logistic,boosting,forest].")] = None,
    metric: Annotated[str | None, typer.Option(help="What to tune for [roc_auc, log_loss or rmse].")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 20,
    timeout: Annotated[float | None, typer.Option(min=1, help="Stop tuning after so many seconds.")] = None,
    seed: Annotated[int, typer.Option(help="Same data, seed and trials: same model.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Threads for training.")] = 1,
    home: Home = None,
    json: Json = False,
) -> None:
    """Turn a table into a tuned, calibrated, certified model and publish it as champion."""
    from rowcast import settings
    from rowcast.cli import training

    options = {
        "target": target,
        "name": name,
        "positive": positive,
        "candidates": tuple(part.strip() for part in candidates.split(",")) if candidates else None,
        "metric": metric,
        "trials": trials,
        "timeout": timeout,
        "seed": seed,
        "jobs": jobs,
    }
    given = {option: value for option, value in options.items() if value is not None}
    training.run(settings.load(home=home), table, given, as_json=json)


@app.command()
def serve(
    models: Annotated[list[str] | None, typer.Argument(help="NAME, NAME@3 or NAME@alias [every champion].")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [8000].")] = None,
    default_model: Annotated[str | None, typer.Option(help="What POST /predict means.")] = None,
    durability: Annotated[str | None, typer.Option(help="process or disk [process].")] = None,
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
            durability=durability,
            root_path=root_path,
            insecure=insecure,
            home=home,
        ),
        as_json=json,
    )


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="NAME, NAME@3 or NAME@alias.")],
    table: Annotated[Path, typer.Argument(help="CSV, Parquet, JSON Lines or Arrow.")],
    out: Annotated[Path, typer.Option(help="File to write: .csv, .parquet or .jsonl.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Score a table: its columns, then prediction, probability, score and probability.LABEL."""
    from rowcast import settings, wiring
    from rowcast.cli import output

    summary = wiring.score_table(settings.load(home=home), model, table, out)
    if json:
        output.print_json(summary)
    else:
        output.say(f"{summary.rows} rows scored by {summary.model}@{summary.version} into {summary.out}")


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
    before: Annotated[str | None, typer.Option(help="Only entries older than this id.")] = None,
    model: OnlyModel = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Predictions, newest first."""
    from rowcast import settings
    from rowcast.cli import inspection

    inspection.list_history(settings.load(home=home), limit, before, model, as_json=json)


@app.command("verify")
@history_app.command("verify")
def history_verify(home: Home = None, json: Json = False) -> int:
    """Check the chain of every writer; exit 1 where it is broken."""
    from rowcast import settings
    from rowcast.cli import inspection

    return inspection.verify_history(settings.load(home=home), as_json=json)


@app.command("replay")
@history_app.command("replay")
def history_replay(model: OnlyModel = None, home: Home = None, json: Json = False) -> int:
    """Score the past again with the bundles of then; exit 1 where an answer differs."""
    from rowcast import settings
    from rowcast.cli import inspection

    return inspection.replay_history(settings.load(home=home), model, as_json=json)


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
