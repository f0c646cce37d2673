"""`train --config FILE`: every option can be set there, what is typed wins, and what does not fit is one sentence."""

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
NEEDED = "table: t.csv\n"


def parsed(path: Path, *typed: str) -> dict[str, Any]:
    """What the command would be called with."""
    found: dict[str, Any] = TRAIN.make_context("train", ["--config", str(path), *typed]).params
    return found


def written(folder: Path, text: str, name: str = "train.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def sample(option: Any, folder: Path) -> tuple[Any, Any]:
    """A value as the file holds it, and as the command gets it."""
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
def test_every_option_can_be_set(tmp_path: Path, name: str, dash: str, ending: str) -> None:
    value, expected = sample(OPTIONS[name], tmp_path)
    content = {name.replace("_", dash): value}
    if name != "table":
        content["table"] = "t.csv"
    lines = "\n".join(f"{key} = {json.dumps(each)}" for key, each in content.items())
    path = written(tmp_path, lines if ending == ".toml" else json.dumps(content), f"train{ending}")

    assert parsed(path)[name] == expected


def test_what_is_typed_wins(tmp_path: Path) -> None:
    path = written(tmp_path, "table: t.csv\ntarget: a\ntrials: 50\nexclude: [x, y]\nseed: 4\n")

    found = parsed(path, "typed.csv", "--trials", "9", "--exclude", "z")

    assert (found["table"], found["trials"], found["exclude"]) == (Path("typed.csv"), 9, ["z"])
    assert (found["target"], found["seed"]) == ("a", 4)


def test_lists_and_mappings_are_written_as_is_natural(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        NEEDED
        + """
exclude: [a, "b, c"]
keep: "0420"
map: {"<=50K.": "<=50K", no: yes}
cost: {false_positive: 5, false_negative: 0.5}
candidates: [logistic, forest]
""",
    )

    found = parsed(path)

    assert found["exclude"] == ["a", "b, c"]
    assert found["keep"] == ["0420"]
    assert found["map"] == ["<=50K.=<=50K", "no=yes"]
    assert found["cost"] == "false_positive=5,false_negative=0.5"
    assert found["candidates"] == "logistic,forest"


@pytest.mark.parametrize(
    ("written_as", "meant"), [("yes", "yes"), ("0420", "0420"), ("1.0", "1.0"), ('"a: b"', "a: b")]
)
def test_a_label_stays_as_it_is_written(tmp_path: Path, written_as: str, meant: str) -> None:
    assert parsed(written(tmp_path, f"{NEEDED}positive: {written_as}\n"))["positive"] == meant


def test_an_address_is_no_path(tmp_path: Path) -> None:
    assert parsed(written(tmp_path, NEEDED + "storage: redis://host:6379/1\n"))["storage"] == "redis://host:6379/1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trails: 3", "unknown key 'trails'; did you mean 'trials'?"),
        ("colour: red", "unknown key 'colour'; there are candidates, "),
        ("config: other.yaml", "unknown key 'config'"),
        ("trials: many", "'trials' must be a whole number of at least 1, not 'many'"),
        ("trials: 0", "'trials' must be a whole number of at least 1, not '0'"),
        ("trials: [1]", "'trials' must be a whole number of at least 1, not"),
        ("timeout: soon", "'timeout' must be a number of at least 1, not 'soon'"),
        ("json: 5", "'json' must be true or false, not '5'"),
        ("target: [a, b]", "'target' must be text, not"),
        ("target: {a: b}", "'target' must be text, not"),
        ("exclude: {a: b}", "'exclude' must be text or a list, not"),
        ("exclude: [[a]]", "'exclude' must be text or a list, not"),
        ("map: {a: [b]}", "'map' must be OLD=NEW, a list of them or a mapping, not"),
        ("target:", "'target' must be text, not nothing; leave the key out"),
        ("trials: 3\ntrials: 4", "key 'trials' is there twice"),
        ("target-file: a\ntarget_file: b", "key 'target_file' is there twice, with a dash and with an underscore"),
        ("[a]: 1", "a key must be text"),
        ("a: b: c", "line 2: mapping values are not allowed here"),
        ("\t- x", "line 2: "),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, NEEDED + text + "\n")

    with pytest.raises(SettingsError) as caught:
        parsed(path)
    assert caught.value.message.startswith(f"{path}: {said}")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train.ini", "x", "must end in .yaml, .yml, .toml, .json"),
        ("train.yaml", "- a\n- b\n", "must hold keys with values"),
        ("train.yaml", "", "must hold keys with values"),
        ("train.json", "[1]", "must hold keys with values"),
        ("train.json", '{"trials": 1, "trials": 2}', "key 'trials' is there twice"),
        ("train.json", '{"trials": null}', "'trials' must be a whole number of at least 1, not nothing"),
        ("train.json", "{", "line 1"),
        ("train.toml", "a = = b", "line 1"),
        ("train.yaml", "target: !!python/name:os.system\n", "'target' must be text, not nothing"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = written(tmp_path, text, name)

    with pytest.raises(SettingsError, match=r"train\.") as caught:
        parsed(path)
    assert said in caught.value.message


def test_a_file_that_is_missing_or_is_no_text_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")

    for path, said in (
        (tmp_path / "none.yaml", "No such file"),
        (binary, "codec can't decode"),
        (tmp_path, "must end"),
    ):
        with pytest.raises(SettingsError, match=said):
            parsed(path)
