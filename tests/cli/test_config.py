"""`rowcast train --config FILE`: options in a file, their precedence and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from rowcast.cli.commands import app
from rowcast.errors import SettingsError

TRAIN: Any = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
OPTIONS = {option.name: option for option in TRAIN.params if option.name not in ("config", "help")}
TABLE = "table: t.csv\n"


def parsed(path: Path, *typed: str) -> dict[str, Any]:
    """Return the parameters that the command receives for this file."""
    parameters: dict[str, Any] = TRAIN.make_context("train", ["--config", str(path), *typed]).params
    return parameters


def written(folder: Path, text: str, name: str = "train.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def sample(option: Any, folder: Path) -> tuple[Any, Any]:
    """Return a value both as written in the file and as the command receives it."""
    kind = option.type_descriptor.annotation
    if option.multiple:
        return ["one", "two"], ["one", "two"]
    if kind is Path:
        return "below/some.csv", folder / "below/some.csv"
    if "FILE" in (option.metavar or ""):
        return "below/some.log", str(folder / "below/some.log")
    return {bool: (True, True), int: (7, 7), float: (7.5, 7.5), str: ("word", "word")}[kind]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dash", ["-", "_"])
@pytest.mark.parametrize("ending", [".yaml", ".json", ".toml"])
def test_every_option_can_be_set_in_the_file(tmp_path: Path, name: str, dash: str, ending: str) -> None:
    value, expected = sample(OPTIONS[name], tmp_path)
    content = {name.replace("_", dash): value}
    if name != "table":
        content["table"] = "t.csv"
    lines = "\n".join(f"{key} = {json.dumps(item)}" for key, item in content.items())
    path = written(tmp_path, lines if ending == ".toml" else json.dumps(content), f"train{ending}")

    assert parsed(path)[name] == expected


def test_command_line_options_override_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "table: t.csv\ntarget: a\ntrials: 50\nexclude: [x, y]\nseed: 4\n")

    parameters = parsed(path, "typed.csv", "--trials", "9", "--exclude", "z")

    assert (parameters["table"], parameters["trials"], parameters["exclude"]) == (Path("typed.csv"), 9, ["z"])
    assert (parameters["target"], parameters["seed"]) == ("a", 4)


def test_lists_and_mappings_are_accepted(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        TABLE
        + """
exclude: [a, "b, c"]
keep: "0420"
map: {"<=50K.": "<=50K", no: yes}
cost: {false_positive: 5, false_negative: 0.5}
candidates: [logistic, forest]
""",
    )

    parameters = parsed(path)

    assert parameters["exclude"] == ["a", "b, c"]
    assert parameters["keep"] == ["0420"]
    assert parameters["map"] == ["<=50K.=<=50K", "no=yes"]
    assert parameters["cost"] == "false_positive=5,false_negative=0.5"
    assert parameters["candidates"] == "logistic,forest"


@pytest.mark.parametrize(("text", "label"), [("yes", "yes"), ("0420", "0420"), ("1.0", "1.0"), ('"a: b"', "a: b")])
def test_a_label_is_read_as_text(tmp_path: Path, text: str, label: str) -> None:
    assert parsed(written(tmp_path, f"{TABLE}positive: {text}\n"))["positive"] == label


def test_a_url_is_not_resolved_as_a_path(tmp_path: Path) -> None:
    assert parsed(written(tmp_path, TABLE + "storage: redis://host:6379/1\n"))["storage"] == "redis://host:6379/1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails: 3", "unknown key 'trails'; did you mean 'trials'?"),
        ("colour: red", "unknown key 'colour'; available keys: alias, candidates, "),
        ("config: other.yaml", "unknown key 'config'"),
        ("trials: many", "'trials' must be an integer of at least 1, got 'many'"),
        ("trials: 0", "'trials' must be an integer of at least 1, got '0'"),
        ("trials: [1]", "'trials' must be an integer of at least 1, got"),
        ("timeout: soon", "'timeout' must be a number of at least 1, got 'soon'"),
        ("json: 5", "'json' must be true or false, got '5'"),
        ("target: [a, b]", "'target' must be text, got"),
        ("target: {a: b}", "'target' must be text, got"),
        ("exclude: {a: b}", "'exclude' must be text or a list, got"),
        ("exclude: [[a]]", "'exclude' must be text or a list, got"),
        ("map: {a: [b]}", "'map' must be OLD=NEW, a list or a mapping, got"),
        ("target:", "'target' must be text, got no value; remove the key"),
        ("trials: 3\ntrials: 4", "duplicate key 'trials'"),
        ("target-file: a\ntarget_file: b", "duplicate key 'target_file'"),
        ("[a]: 1", "keys must be strings"),
        ("a: b: c", "line 2: mapping values are not allowed here"),
        ("\t- x", "line 2: "),
    ],
)
def test_the_error_for_an_invalid_value_is_a_single_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, TABLE + text + "\n")

    with pytest.raises(SettingsError) as caught:
        parsed(path)
    assert f"{path}: {message}" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.ini", "x", "must end in .yaml, .yml, .toml, .json"),
        ("train.yaml", "- a\n- b\n", "must map keys to values"),
        ("train.yaml", "", "must map keys to values"),
        ("train.json", "[1]", "must map keys to values"),
        ("train.json", '{"trials": 1, "trials": 2}', "duplicate key 'trials'"),
        ("train.json", '{"trials": null}', "'trials' must be an integer of at least 1, got no value"),
        ("train.json", "{", "line 1"),
        ("train.toml", "a = = b", "line 1"),
        ("train.yaml", "target: !!python/name:os.system\n", "'target' must be text, got no value"),
    ],
)
def test_the_error_for_an_invalid_file_names_the_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = written(tmp_path, text, name)

    with pytest.raises(SettingsError, match=r"train\.") as caught:
        parsed(path)
    assert message in caught.value.message


def test_a_missing_or_binary_file_causes_an_error(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")

    for path, message in (
        (tmp_path / "none.yaml", "No such file"),
        (binary, "codec can't decode"),
        (tmp_path, "must end"),
    ):
        with pytest.raises(SettingsError, match=message):
            parsed(path)


@pytest.mark.parametrize(
    "text",
    ["derive: {burden: a / b, m: 'min(a, b)'}\n", "derive:\n- burden=a / b\n- m=min(a, b)\n"],
)
def test_derived_columns_are_a_list_or_a_mapping(tmp_path: Path, text: str) -> None:
    assert parsed(written(tmp_path, TABLE + text))["derive"] == ["burden=a / b", "m=min(a, b)"]
