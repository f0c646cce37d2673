"""The command group `rowcast models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rowcast.cli.options import Home, Json, ModelReference, Reason, show_help

models_app = typer.Typer(help="Manage published models.", rich_markup_mode=None)
models_app.callback(invoke_without_command=True)(show_help)


@models_app.command("list")
def models_list(home: Home = None, json: Json = False) -> None:
    """List every published version with its score and aliases."""
    from rowcast import settings
    from rowcast.cli import inspection

    inspection.list_models(settings.load(home=home), as_json=json)


@models_app.command("show")
def models_show(model: ModelReference, home: Home = None, json: Json = False) -> None:
    """Show a version's schema, metrics, digests and aliases, and when the model's aliases moved."""
    from rowcast import settings
    from rowcast.cli import inspection

    inspection.show_model(settings.load(home=home), model, as_json=json)


@models_app.command("promote")
def models_promote(
    model: Annotated[
        str, typer.Argument(help="Version to promote: NAME@3 or NAME@alias; NAME stands for NAME@challenger.")
    ],
    alias: Annotated[str, typer.Option(help="Alias to move to the version.")] = "champion",
    reason: Reason = "",
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a version the champion; servers load it within a second."""
    from rowcast import settings
    from rowcast.cli import lifecycle

    lifecycle.promote(settings.load(home=home), model, alias=alias, reason=reason, as_json=json)


@models_app.command("rollback")
def models_rollback(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    reason: Reason = "",
    home: Home = None,
    json: Json = False,
) -> None:
    """Make the previous champion the champion again."""
    from rowcast import settings
    from rowcast.cli import lifecycle

    lifecycle.roll_back(settings.load(home=home), name, reason=reason, as_json=json)


@models_app.command("delete")
def models_delete(
    model: Annotated[str, typer.Argument(help="Version to delete, for example NAME@3.")],
    force: Annotated[
        bool, typer.Option("--force", help="Delete the version even if the history contains its predictions.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Permanently delete a version that no alias points to. Its number is never used again."""
    from rowcast import settings
    from rowcast.cli import lifecycle

    lifecycle.delete(settings.load(home=home), model, force=force, as_json=json)


@models_app.command("export")
def models_export(
    model: ModelReference,
    out: Annotated[Path, typer.Option(help="Output file (.rowcast).")],
    home: Home = None,
) -> None:
    """Export a published model to a file that `models import` can read."""
    from rowcast import settings
    from rowcast.app import imports
    from rowcast.cli import output

    output.say(f"wrote {imports.export_model(settings.load(home=home), model, out)} to {out}")


@models_app.command("import")
def models_import(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="ONNX graph (.onnx) or exported bundle (.rowcast).")],
    metadata: Annotated[Path | None, typer.Option(metavar="FILE", help="The graph's model_metadata.json file.")] = None,
    name: Annotated[str | None, typer.Option(help="Model name [from the metadata or the file name].")] = None,
    wire: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Wire template: a file, `matrix` or `native` [from the metadata]."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table of example rows, used for value ranges and test predictions."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Import an ONNX graph or an exported bundle and publish it as the champion.

    The model is first tested in a separate process whose memory and running time are limited.
    """
    from rowcast import settings
    from rowcast.app import imports
    from rowcast.cli import inspection

    loaded = settings.load(home=home)
    imported = imports.import_model(loaded, model, metadata=metadata, name=name, wire=wire, data=data)
    inspection.show_import(imported, as_json=json)
