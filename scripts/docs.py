"""The reference pages that are made from the program itself, so that they cannot say anything else.

python scripts/docs.py            write them
python scripts/docs.py --check    write nothing; 1 when a page is not what would be written
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from rowcast.cli.commands import app
from rowcast.http.problems import STATUS, TITLES
from rowcast.settings import ALIASES, PREFIX, Settings

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
WIDTH = 100
BEGIN, END = "<!-- made by make docs -->", "<!-- end -->"

CLI = """# Commands

What `--help` says, of every command. This page is made by `make docs`.

Exit status: 0 done; 1 the answer is no (a broken chain, a different answer, something wrong); 2 a mistake, which one
line on standard error explains; 130 interrupted.

With `--json` a command prints one JSON document on standard output. Without it, tables are drawn on a terminal and
separated by tabs when piped; sentences for people go to standard error.
"""
SETTINGS = """# Settings

This page is made by `make docs`. What wins, first to last: the command line, the environment, a file `.env`, a file
`rowcast.toml` in the working folder, the default. A name that is not in this table is an error wherever it is set; in
`.env`, names that do not begin with `ROWCAST_` are left to others.

In `rowcast.toml` a setting has the name of the first column: `port = 8080`. Lists are JSON in the environment:
`ROWCAST_MODELS='["loans@1"]'`. `HOME` in a default means the setting `home`.

"""
OTHER_NAMES = """## Names of other systems

These variables of the environment are taken too. A setting given by our own name, on the command line, in the
environment or in `.env`, wins; these win over `rowcast.toml`; an empty one is none. Where `PROM_PUSHGATEWAY` is what
`push_gateway` comes from, `push_job` is `loan_model` unless something names it."""


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are stale."""
    stale = [path for path, text in pages() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"docs/reference/{path.name} is not what the program says: run make docs", file=sys.stderr)
        return 1 if stale else 0
    for path, text in pages():
        path.write_text(text, encoding="utf-8")
    return 0


def pages() -> Iterator[tuple[Path, str]]:
    """Every page with the text that it must have."""
    yield REFERENCE / "cli.md", CLI + "".join(helps(typer.main.get_command(app), "rowcast"))
    yield REFERENCE / "settings.md", SETTINGS + settings()
    http = REFERENCE / "http.md"
    before, _, rest = http.read_text(encoding="utf-8").partition(BEGIN)
    yield http, before + BEGIN + "\n" + problems() + END + rest.partition(END)[2]


def helps(command: Any, name: str) -> Iterator[str]:
    """The help of one command and of those below it."""
    context = typer.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"\n## {name}\n\n```text\n{text}\n```\n"
    for word, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from helps(below, f"{name} {word}")


def settings() -> str:
    """One line a setting."""
    flags = {parameter.name: parameter.opts[0] for parameter in typer.main.get_command(app).commands["serve"].params}
    flags = {name: f"`{flag}`" if flag.startswith("--") else f"`{flag.upper()} ...`" for name, flag in flags.items()}
    lines = ["| setting | environment | `serve` | default | values | what it is |", "|---|---|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        cells = (name, f"`{PREFIX}{name.upper()}`", flags.get(name, ""), default(field), values(field))
        lines.append(f"| {' | '.join(cells)} | {field.description} |")
    lines += ["", OTHER_NAMES, "", "| variable | setting | its values |", "|---|---|---|"]
    for variable, alias in ALIASES.items():
        words = alias.words or {}
        meant = ", ".join(f"`{word}`: `{ours}`" if word != ours else f"`{word}`" for word, ours in words.items())
        lines.append(f"| `{variable}` | `{alias.setting}` | {meant} |")
    return "\n".join(lines) + "\n"


def default(field: FieldInfo) -> str:
    """The default as it would be written; empty where the description says what happens."""
    value = field.default
    if value is None or value == () or value == "":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def values(field: FieldInfo) -> str:
    """What may be given."""
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind not in (type(None), ...)]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in kinds)
    if get_origin(field.annotation) is tuple:
        return "list of text"
    kind = kinds[0]
    if kind is int:
        bounds = {name: getattr(rule, name) for rule in field.metadata for name in ("ge", "le") if hasattr(rule, name)}
        upper = f" to {bounds['le']}" if "le" in bounds else " or more"
        return f"{bounds['ge']}{upper}"
    if kind is float:
        least = {name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt") if hasattr(rule, name)}
        most = [f"{rule.le:g}" for rule in field.metadata if hasattr(rule, "le")]
        if most:
            return f"{least['ge']:g} to {most[0]}"
        return f"{least['ge']:g} or more" if "ge" in least else f"above {least['gt']:g}"
    if kind is bool:
        return "`true`, `false`"
    return "path" if issubclass(kind, PurePath) else "text"


def problems() -> str:
    """One line a slug of `application/problem+json`."""
    lines = ["| slug | status | title |", "|---|---|---|"]
    lines += [f"| `{slug}` | {STATUS.get(slug, 500)} | {title} |" for slug, title in TITLES.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
