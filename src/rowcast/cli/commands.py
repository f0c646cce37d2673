"""The commands. Each command imports its implementation only when it runs, so that `rowcast --help` is fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rowcast.cli.groups import history_app, history_replay, history_verify, keys_app
from rowcast.cli.job_commands import jobs_app
from rowcast.cli.model_commands import models_app
from rowcast.cli.options import (
    HELP_OPTIONS,
    BundleReference,
    Candidates,
    ClassWeight,
    Config,
    Cost,
    Derive,
    Engine,
    Exclude,
    Group,
    Home,
    Json,
    Keep,
    Map,
    ModelReference,
    OnnxOut,
    Optional,
    Positive,
    Preset,
    Promote,
    Refit,
    Rows,
    Sensitive,
    Storage,
    Target,
    TargetFile,
    TaskOption,
    Time,
    Timeout,
    Trials,
    Version,
    Weight,
    Wire,
    show_help,
)
from rowcast.cli.queue_commands import queue_app
from rowcast.cli.store_commands import store_app

app = typer.Typer(
    help="Train, serve and audit models for tabular data.",
    context_settings=HELP_OPTIONS,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app, name="models")
app.add_typer(jobs_app, name="jobs")
app.add_typer(history_app, name="history")
app.add_typer(keys_app, name="keys")
app.add_typer(store_app, name="store")
app.add_typer(queue_app, name="queue")


@app.callback(invoke_without_command=True)
def root(context: typer.Context, version: Version = False) -> None:
    """Print the help text if no command is given."""
    show_help(context)


@app.command()
def train(
    table: Rows,
    target: Target = None,
    target_file: TargetFile = None,
    name: Annotated[str | None, typer.Option(help="Model name [derived from the file name].")] = None,
    task: TaskOption = None,
    positive: Positive = None,
    exclude: Exclude = None,
    keep: Keep = None,
    optional: Optional = None,
    sensitive: Sensitive = None,
    derive: Derive = None,
    map: Map = None,  # noqa: A002 - the option is --map
    time: Time = None,
    group: Group = None,
    weight: Weight = None,
    candidates: Candidates = None,
    class_weight: ClassWeight = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric to optimize [roc_auc, log_loss or rmse, depending on the task].")
    ] = None,
    cost: Cost = None,
    refit: Refit = None,
    preset: Preset = None,
    trials: Trials = None,
    timeout: Timeout = None,
    seed: Annotated[int, typer.Option(help="Random seed; the same data, options and seed produce the same model.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Number of threads, or of concurrent trials on Ray.")] = 1,
    engine: Engine = "local",
    storage: Storage = None,
    alias: Annotated[
        str | None, typer.Option(metavar="NAME", help="Alias of the new version [champion, if it is not worse].")
    ] = None,
    promote: Promote = None,
    onnx_out: OnnxOut = None,
    wire: Wire = None,
    config: Config = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Train and calibrate a model on a table, certify it and publish it.

    The new version becomes the champion if the model has no champion. It replaces a champion only if it has the same
    target and schema and is not worse on holdout rows; otherwise, it becomes the challenger.
    """
    options = dict(locals())  # all parameters except the following four are training options
    for parameter in ("table", "config", "home", "json"):
        del options[parameter]
    options["candidates"] = tuple(part.strip() for part in candidates.split(",")) if candidates else None
    from rowcast import settings
    from rowcast.cli import training
    from rowcast.output_files import refuse_overwriting

    if onnx_out is not None:
        refuse_overwriting(onnx_out, [config, wire, storage])
    training.run(settings.load(home=home), table, training.without_defaults(options), as_json=json)


@app.command()
def check(
    table: Rows,
    target: Target = None,
    target_file: TargetFile = None,
    task: TaskOption = None,
    positive: Positive = None,
    exclude: Exclude = None,
    keep: Keep = None,
    derive: Derive = None,
    sensitive: Sensitive = None,
    map: Map = None,  # noqa: A002 - the option is --map
    time: Time = None,
    group: Group = None,
    weight: Weight = None,
    json: Json = False,
) -> None:
    """Check every column of a table without training a model; without a target, print a profile of the columns.

    The profile shows missing and distinct values, ranges or frequent values, examples and histograms.
    """
    from rowcast.cli import profile, training

    options = {
        "target": target,
        "target_file": target_file,
        "task": task,
        "positive": positive,
        "exclude": exclude,
        "keep": keep,
        "derive": derive,
        "sensitive": sensitive,
        "map": map,
        "time": time,
        "group": group,
        "weight": weight,
    }
    chosen = training.without_defaults(options)
    run = training.check if training.has_target(chosen) else profile.run
    run(table, chosen, as_json=json)


@app.command()
def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models to serve: NAME, NAME@3 or NAME@alias [every champion].")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free port [8000].")] = None,
    default_model: Annotated[str | None, typer.Option(help="Model that POST /predict uses.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of server processes [1].")] = None,
    train_if_missing: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Table to train on if a model is missing, or a config file for `rowcast train`."
        ),
    ] = None,
    target: Target = None,
    durability: Annotated[
        str | None,
        typer.Option(
            help="Where a prediction must be recorded before the server replies: process, disk or store [process]."
        ),
    ] = None,
    root_path: Annotated[str | None, typer.Option(help="Path prefix that a proxy removes from requests.")] = None,
    insecure: Annotated[
        bool | None,
        typer.Option("--insecure", help="Answer clients on other machines even if there is no API key."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Serve predictions over HTTP and record each prediction."""
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
def worker(
    models: Annotated[
        str | None, typer.Option(help="Models to score with, separated by commas: NAME or NAME@alias [every champion].")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address for health checks and metrics [127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port for health checks and metrics; 0 picks a free port [8001].")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Maximum number of batches in progress at the same time [2].")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Score the rows that servers send through the queue (setting `queue`)."""
    from rowcast import settings
    from rowcast.cli import worker

    loaded = settings.load(models=models, host=host, worker_port=port, worker_concurrency=concurrency, home=home)
    return worker.run(loaded, as_json=json)


@app.command()
def predict(
    model: BundleReference,
    table: Rows,
    out: Annotated[
        Path,
        typer.Option(help="Output: .csv, .csv.gz, .parquet, .jsonl, .arrow or .feather; - for standard output."),
    ],
    rejects: Annotated[
        Path | None, typer.Option(help="Write invalid rows to this file and score the valid rows.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first invalid row [default].")] = False,
    columns: Annotated[
        str | None, typer.Option(help="Input columns to copy to the output, separated by commas [all].")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=256, help="Number of threads, or of concurrent Ray tasks [one per core].")
    ] = None,
    engine: Engine = "local",
    home: Home = None,
    json: Json = False,
) -> None:
    """Score a table and add the columns prediction, probability, score and probability.LABEL.

    Without --rejects, the command stops at the first invalid row and writes no file.
    """
    from rowcast import settings
    from rowcast.cli import scoring

    names = None if columns is None else tuple(part.strip() for part in columns.split(",") if part.strip())
    loaded = settings.load(home=home)
    scoring.run(
        loaded,
        model,
        table=table,
        out=out,
        rejects=rejects,
        columns=names,
        strict=strict,
        jobs=jobs,
        engine=engine,
        as_json=json,
    )


@app.command()
def evaluate(
    model: BundleReference,
    table: Rows,
    target: Annotated[
        str | None, typer.Option(help="Column with the true values [the column that the model was trained to predict].")
    ] = None,
    target_file: Annotated[Path | None, typer.Option(help="Separate file that contains the true values.")] = None,
    weight: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column with the weight of each row [as in training, if it exists]."),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Group column; the intervals account for similar rows within a group [as in training, if it exists].",
        ),
    ] = None,
    map: Map = None,  # noqa: A002 - the option is --map
    rejects: Annotated[
        Path | None, typer.Option(help="File for rows that cannot be evaluated; all other rows are evaluated.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write an HTML report to this file.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=256, help="Number of threads [one per core].")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Measure a model on a table with known labels or values, and compare the metrics with those on the holdout.

    Rows without a true value are counted but not evaluated. Without --rejects, the command stops at the first invalid
    row.
    """
    from rowcast import settings
    from rowcast.app.evaluation import EvaluationOptions
    from rowcast.cli import evaluation

    options = EvaluationOptions(target, target_file, weight, group, tuple(map or ()), rejects, report, jobs)
    evaluation.run(settings.load(home=home), model, table, options, as_json=json)


@app.command()
def call(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[MODEL] ROW", help="Model and rows; ROW is JSON, @FILE or - for standard input."),
    ],
    url: Annotated[str | None, typer.Option(help="Server URL [from the settings].")] = None,
    timeout: Annotated[float, typer.Option(min=0.01, max=3600, help="Timeout in seconds, including retries.")] = 30.0,
    home: Home = None,
    json: Json = False,
) -> int:
    """Send rows to a running server; exit with status 1 if the server rejects a row.

    If MODEL is omitted or is -, the server uses its default model. Set ROWCAST_API_KEY to the API key. There is no
    option for the key, because other users of the machine can see the command line.
    """
    from rowcast import settings
    from rowcast.cli import calling

    sources = settings.origins(home=home, url=url)
    return calling.run(settings.load(home=home, url=url), sources, words, timeout, as_json=json)


@app.command()
def report(
    model: ModelReference,
    out: Annotated[Path | None, typer.Option(help="Copy the report to this file.")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Print the path of a model's HTML report; copy the report to a file or open it in a browser."""
    import webbrowser

    from rowcast import settings
    from rowcast.cli import inspection

    opener = webbrowser.open if open_page else None
    inspection.show_report(settings.load(home=home), model, out, as_json=json, open_page=opener)


@app.command()
def example(
    name: Annotated[str, typer.Argument(help="Name of the example: loans or iris.")],
    out: Annotated[Path, typer.Option(help="Output file (.csv).")],
    rows: Annotated[int, typer.Option(min=50, help="Number of rows in the loan example.")] = 5000,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed produces the same table.")] = 0,
) -> None:
    """Write an example table to a CSV file."""
    from rowcast.cli import output
    from rowcast.tables import examples

    output.say(f"wrote {examples.write_example(name, out, rows=rows, seed=seed)}")


app.command("verify")(history_verify)
app.command("replay")(history_replay)


@app.command()
def doctor(home: Home = None, json: Json = False) -> int:
    """Check the installation; exit with status 1 if there is a problem.

    The checks cover the settings, models, history, disk, running servers, API keys, and the services that receive
    metrics and traces.
    """
    from rowcast.cli.doctor import run

    return run(home=home, as_json=json)


@app.command(hidden=True)
def indexer() -> None:
    """Move journals into the store until standard input closes. `serve` runs this command."""
    from rowcast import settings
    from rowcast.cli import server

    server.index(settings.load())


@app.command("job-runner", hidden=True)
def job_runner() -> None:
    """Run jobs until standard input closes or no jobs are left."""
    from rowcast import settings
    from rowcast.cli import server

    server.run_jobs(settings.load())
