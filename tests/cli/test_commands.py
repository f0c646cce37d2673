"""The root command: help, version, shell completion and error messages."""

from __future__ import annotations

import sys

import pytest

from rowcast import __version__, cli


class Shell:
    """Runs commands in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[object, str, str]:
        """Return the exit code, standard output and standard error of a command."""
        self._monkeypatch.setattr(sys, "argv", ["rowcast", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = self._capsys.readouterr()
        return ended.value.code, printed.out, printed.err


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.mark.parametrize("group", ["", "models", "history", "keys"])
@pytest.mark.parametrize("option", ["", "-h", "--help"])
def test_a_command_group_without_a_subcommand_prints_its_help(shell: Shell, group: str, option: str) -> None:
    status, output, errors = shell.run(*f"{group} {option}".split())

    assert (status, errors) == (0, "")
    assert output.startswith(f"Usage: rowcast {group}".rstrip() + " [OPTIONS] COMMAND")


def test_every_command_has_a_short_help_option(shell: Shell) -> None:
    status, output, _ = shell.run("history", "list", "-h")

    assert status == 0
    assert output.startswith("Usage: rowcast history list")


def test_the_version_option_prints_the_version(shell: Shell) -> None:
    assert shell.run("--version") == (0, f"rowcast {__version__}\n", "")


def test_the_shell_completes_commands(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ROWCAST_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "rowcast mod")
    monkeypatch.setenv("COMP_CWORD", "1")

    assert shell.run() == (0, "models\n", "")


def test_the_error_for_an_unknown_command_suggests_a_similar_command(shell: Shell) -> None:
    assert shell.run("trian") == (2, "", "error: No such command 'trian'. Did you mean 'train'?\n")
