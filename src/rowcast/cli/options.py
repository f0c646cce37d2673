"""The options that more than one command takes, described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
Wire = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Wire template: the JSON that clients send and get. YAML, TOML or JSON."),
]
OnnxOut = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the ONNX graph alone to this file too.")]
OnlyModel = Annotated[str | None, typer.Option("--model", help="Only this model's predictions.")]

OnlyVersion = Annotated[int | None, typer.Option("--version", min=1, help="Only this version's.")]
OnlyLabel = Annotated[str | None, typer.Option("--label", help="Only those answered with this label.")]
OnlyTenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's [all].")]
OnlyEntity = Annotated[str | None, typer.Option("--entity", help="Only those of this entity.")]
Since = Annotated[str | None, typer.Option(help="RFC 3339 or a date; included.")]
Until = Annotated[str | None, typer.Option(help="RFC 3339 or a date; not included.")]
