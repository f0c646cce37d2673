"""The options and arguments of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

HELP_OPTIONS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}


def show_help(context: typer.Context) -> None:
    """Print the help text of a command group if no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _print_version(is_set: bool) -> None:
    if is_set:
        from rowcast.version import VERSION

        typer.echo(f"rowcast {VERSION}")
        raise typer.Exit


def _load_config(context: typer.Context, path: Path | None) -> Path | None:
    if path is None:
        return None
    from rowcast.cli import config

    return config.apply(context, path)


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Home = Annotated[Path | None, typer.Option(help="Folder for models and history [.rowcast].")]
Rows = Annotated[
    Path, typer.Argument(help="Input table: CSV (also .csv.gz), Parquet, JSON Lines or Arrow; - for standard input.")
]
ModelReference = Annotated[str, typer.Argument(help="Model reference: NAME, NAME@3 or NAME@alias.")]
BundleReference = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model: NAME, NAME@3, NAME@alias, a bundle folder (a path that contains a slash) or a .rowcast file.",
    ),
]
Reason = Annotated[str, typer.Option(help="Reason to record in the log.")]
Target = Annotated[str | None, typer.Option(help="Column to predict.")]
TargetFile = Annotated[Path | None, typer.Option(help="Separate file that contains the target values.")]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", help="Task: binary, multiclass or regression [inferred from the values of the target]."),
]
Positive = Annotated[str | None, typer.Option(help="Positive class: the label whose probability is `score`.")]
Exclude = Annotated[list[str] | None, typer.Option(metavar="COLUMN[,COLUMN]", help="Columns to ignore.")]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN[,COLUMN]", help="Columns to use even if the data check would drop them."),
]
Optional = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN[,COLUMN]|all",
        help="Columns whose values can be missing in requests, although no value is missing in the table.",
    ),
]
Sensitive = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN[,COLUMN]", help="Columns whose values are never shown; see the setting `sensitive`."),
]
Derive = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=EXPRESSION",
        help="Derived column, such as 'burden = loan_amount / annual_income'; repeat for each column.",
    ),
]
Map = Annotated[list[str] | None, typer.Option(metavar="OLD=NEW", help="Rename a label; repeat for each label.")]
Time = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Time column; the most recent rows become the holdout.")
]
Group = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Group column; every split keeps the rows of a group together.")
]
Weight = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column with the weight of each row.")]
Candidates = Annotated[
    str | None,
    typer.Option(
        metavar="KIND[,KIND]", help="Kinds of models to try, separated by commas [logistic,boosting,forest,extra]."
    ),
]
ClassWeight = Annotated[
    str | None,
    typer.Option(help="Class weights: none or balanced; balanced gives every class the same total weight [none]."),
]
Promote = Annotated[
    bool | None,
    typer.Option("--promote/--no-promote", help="Whether to make the new version the champion [if it is not worse]."),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="How long the model may take per row: fast (about 20 µs), balanced (100 µs) or best (1 ms) [balanced]."
    ),
]
Trials = Annotated[int | None, typer.Option(min=1, help="Total number of trials [20, or unlimited with --timeout].")]
Timeout = Annotated[float | None, typer.Option(min=1, help="Time limit for the training run, in seconds.")]
Engine = Annotated[
    str,
    typer.Option(
        metavar="local|ray|ray://HOST:PORT",
        help="Where to compute: in this process, or on a Ray cluster (see the setting `ray_address`).",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=_load_config,
        help="YAML, TOML or JSON file whose keys are `table` and the long names of options. The command line "
        "overrides the file.",
    ),
]
Refit = Annotated[
    bool | None,
    typer.Option(
        "--refit/--no-refit",
        help="Retrain on all rows after evaluating on the holdout [only with the preset best, if time permits].",
    ),
]
Cost = Annotated[
    str | None,
    typer.Option(
        metavar="ERROR=NUMBER[,...]",
        help="Cost of a false_positive and of a false_negative; the threshold minimizes the total cost.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="File or redis://HOST where trials are stored, so that a search can be shared or resumed.",
    ),
]
Wire = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Wire template for requests and replies: a YAML, TOML or JSON file."),
]
OnnxOut = Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the ONNX graph to this file.")]
OnlyModel = Annotated[str | None, typer.Option("--model", help="Include only predictions made by this model.")]
OnlyVersion = Annotated[
    int | None, typer.Option("--version", min=1, help="Include only predictions made by this model version.")
]
OnlyLabel = Annotated[str | None, typer.Option("--label", help="Include only predictions with this label.")]
OnlyTenant = Annotated[
    str | None, typer.Option("--tenant", help="Include only predictions made for this tenant [all].")
]
OnlyEntity = Annotated[str | None, typer.Option("--entity", help="Include only predictions made for this entity.")]
Since = Annotated[
    str | None, typer.Option(help="Start of the period, inclusive: a date, an RFC 3339 timestamp or an age (7d).")
]
Until = Annotated[
    str | None, typer.Option(help="End of the period, exclusive: a date, an RFC 3339 timestamp or an age (7d).")
]
