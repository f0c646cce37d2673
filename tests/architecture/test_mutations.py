"""The mutations that `make mutants` applies to the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from support.scripts import load_script

BENCH = Path(__file__).resolve().parents[2] / "bench"


mutations = load_script("bench/mutations.py")

FUNCTION = '''
@decorated(True)
def scale(rows: list[int], limit: int = 3) -> int:
    """Return a number."""
    assert rows, "no rows"
    if rows and len(rows) >= limit:
        raise ValueError("too-many")
    for row in rows:
        if not row:
            continue
        total.add(row)
    return offset + 2**3
'''


def changes(source: str) -> set[tuple[int, str, str]]:
    return {(found.line, found.before, found.after) for found in mutations.find("x.py", source.encode())}


def test_each_kind_of_code_has_the_expected_mutations() -> None:
    assert changes(FUNCTION) == {
        (3, "3", "4"),
        (6, "and", "or"),
        (6, ">=", ">"),
        (7, 'raise ValueError("too-many")', "pass"),
        (9, "not row", "(row)"),
        (10, "continue", "break"),
        (11, "total.add(row)", "pass"),
        (12, "+", "-"),
        (12, "2", "3"),
        (12, "3", "4"),
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a is not b", "a is b"),
        ("a not in b", "a in b"),
        ("(a) < (b)", "(a) <= (b)"),
        ("a // b", "a * b"),
        ("'name'", "'nameX'"),
        ("0.0", "1.0"),
        ("2.5", "5.0"),
        ("True", "False"),
        ("x if y else z", "x if not (y) else z"),
        ("[x for x in y if z]", "[x for x in y if not (z)]"),
        ("'é' and b", "'é' or b"),
    ],
)
def test_a_mutation_changes_only_its_target(before: str, after: str) -> None:
    source = f"def f():\n    return {before}\n".encode()

    (mutation,) = mutations.find("x.py", source)

    assert mutation.apply(source) == f"def f():\n    return {after}\n".encode()
    assert mutation.covered_by == (2,)


@pytest.mark.parametrize(
    "source",
    [
        "x: Literal['name'] = y",
        "__all__ = ['name']",
        "if TYPE_CHECKING:\n    x = 1",
        "def f():\n    return f'a {1}'",
        "def f():\n    return 'a sentence with spaces'",
        "@dataclass(frozen=True)\nclass A:\n    'doc'",
        "def f():\n    assert a < b",
    ],
)
def test_code_without_effect_on_behavior_is_not_mutated(source: str) -> None:
    assert changes(source) == set()


def test_every_mutation_of_a_module_is_valid_python() -> None:
    source = (BENCH / "mutations.py").read_bytes()

    found = mutations.find("mutations.py", source)

    assert len(found) > 50
    for mutation in found:
        ast.parse(mutation.apply(source))


def test_code_that_runs_on_import_has_no_covering_lines() -> None:
    (constant, default) = mutations.find("x.py", b"LIMIT = 3\n\ndef f(x=4):\n    return x\n")

    assert (constant.covered_by, default.covered_by) == ((), (3, 4))
