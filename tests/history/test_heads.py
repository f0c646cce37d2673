"""Parsing published chain heads from command output and logs."""

from __future__ import annotations

import pytest

from rowcast.errors import HistoryError
from rowcast.history.heads import ChainHead, parse_heads

HEAD = '{"writer":"w","seq":4,"link":"ab"}'
LOG_LINE = '{"event":"history head","level":"info","writer":"w","seq":4,"link":"ab"}'


@pytest.mark.parametrize("text", ['{"heads":[' + HEAD + "]}", f"a line that is not JSON\n{LOG_LINE}\n"])
def test_heads_are_parsed(text: str) -> None:
    assert parse_heads(text) == [ChainHead("w", 4, "ab")]


def test_a_signature_is_parsed_with_its_head() -> None:
    signed = HEAD.replace("}", ',"signature":"cd"}')

    assert parse_heads(f"{HEAD}\n{signed}\n") == [ChainHead("w", 4, "ab"), ChainHead("w", 4, "ab", "cd")]


@pytest.mark.parametrize("text", ["", "nothing", '{"event":"started"}\n'])
def test_input_without_heads_is_rejected(text: str) -> None:
    with pytest.raises(HistoryError):
        parse_heads(text)
