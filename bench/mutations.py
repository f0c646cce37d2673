"""Find the expressions and statements that `make mutants` can change, and apply one change at a time.

A mutation changes a comparison, a boolean operator, a condition, an arithmetic operator, a number, a flag, a loop or an
identifier in a string, or it removes a statement. Annotations, decorators, docstrings, assertions, error messages and
code for the type checker are not mutated: no test of behavior can depend on them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

OPERATORS = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "is": "is not",
    "is not": "is",
    "in": "not in",
    "not in": "in",
    "and": "or",
    "or": "and",
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "//": "*",
    "%": "*",
    "<<": ">>",
    ">>": "<<",
    "|": "&",
    "&": "|",
}
OPERATOR = re.compile(r"<=|>=|==|!=|//|<<|>>|[-+*/%|&<>]|\b(?:is\s+not|not\s+in|is|in|and|or)\b")
IDENTIFIER = re.compile(r"[A-Za-z][\w.:/-]*")


@dataclass(frozen=True)
class Mutation:
    """A change to one expression or statement."""

    path: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str
    covered_by: tuple[int, ...]
    """The lines that a test executes whenever it executes the mutated code; empty for code that runs on import."""

    def apply(self, source: bytes) -> bytes:
        """Return the source with this mutation applied."""
        return source[: self.start] + self.after.encode() + source[self.end :]

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.path}:{self.line}: {self.kind}: `{before[:80]}` -> `{after[:80]}`"


def find(path: str, source: bytes) -> list[Mutation]:
    """Return all mutations of a file, sorted by position."""
    finder = _Finder(path, source)
    finder.visit_block(ast.parse(source).body)
    unique = {(mutation.start, mutation.end, mutation.after): mutation for mutation in finder.found}
    return sorted(unique.values(), key=lambda mutation: (mutation.start, mutation.end))


class _Finder:
    def __init__(self, path: str, source: bytes) -> None:
        self.found: list[Mutation] = []
        self._path = path
        self._source = source
        self._offsets = [0]
        for line in source.splitlines(keepends=True):
            self._offsets.append(self._offsets[-1] + len(line))

    def visit_block(self, body: list[ast.stmt], in_function: bool = False) -> None:
        """Collect the mutations of the statements and of everything in them."""
        for statement in body:
            self._statement(statement, in_function)

    def _statement(self, statement: ast.stmt, in_function: bool) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            self._function(statement)
            return
        if isinstance(statement, ast.ClassDef):
            self.visit_block(statement.body)
            return
        if isinstance(statement, ast.Assert | ast.Import | ast.ImportFrom) or _is_for_type_checker(statement):
            return
        own = (statement.lineno,) if in_function else ()
        if in_function:
            self.found.extend(self._whole(statement, own))
        for name, value in ast.iter_fields(statement):
            if name == "annotation" or (isinstance(statement, ast.Raise) and name in ("exc", "cause")):
                continue
            self._field(value, own, in_function)
        if isinstance(statement, ast.If | ast.While):
            self._condition(statement.test, own)

    def _field(self, value: object, own: tuple[int, ...], in_function: bool) -> None:
        for item in value if isinstance(value, list) else [value]:
            match item:
                case ast.stmt():
                    self._statement(item, in_function)
                case ast.ExceptHandler():
                    self.visit_block(item.body, in_function)
                case ast.match_case():
                    if item.guard is not None:
                        self._expression(item.guard, own)
                        self._condition(item.guard, own)
                    self.visit_block(item.body, in_function)
                case ast.withitem():
                    self._expression(item.context_expr, own)
                case ast.expr():
                    self._expression(item, own)

    def _function(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        body = function.body
        if ast.get_docstring(function) is not None:
            body = body[1:]
        if body:
            inside = (body[0].lineno,)
            for default in [*function.args.defaults, *filter(None, function.args.kw_defaults)]:
                self._expression(default, inside)
        self.visit_block(body, in_function=True)

    def _whole(self, statement: ast.stmt, own: tuple[int, ...]) -> Iterator[Mutation]:
        """Yield the mutations that replace a whole statement in a function."""
        match statement:
            case (
                ast.Expr(value=ast.Call() | ast.Await())
                | ast.AugAssign()
                | ast.Raise()
                | ast.Delete()
                | ast.Assign(targets=[ast.Attribute() | ast.Subscript()])
            ):
                yield self._mutation(statement, "statement removed", "pass", own)
            case ast.Break():
                yield self._mutation(statement, "loop", "continue", own)
            case ast.Continue():
                yield self._mutation(statement, "loop", "break", own)

    def _condition(self, test: ast.expr, own: tuple[int, ...]) -> None:
        """Negate a condition that contains no operator."""
        if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.NamedExpr | ast.Subscript):
            self.found.append(self._mutation(test, "condition", f"not ({self._text(test)})", own))

    def _expression(self, root: ast.expr, own: tuple[int, ...]) -> None:
        for node in _walk(root):
            lines = tuple(sorted({*own, node.lineno})) if own else ()
            for generator in getattr(node, "generators", []):
                for test in generator.ifs:
                    self._condition(test, lines)
            match node:
                case ast.Compare():
                    self._operators([node.left, *node.comparators], lines)
                case ast.BoolOp():
                    self._operators(node.values, lines)
                case ast.BinOp() if not (isinstance(node.op, ast.Pow) or _is_text(node.left) or _is_text(node.right)):
                    self._operators([node.left, node.right], lines)
                case ast.UnaryOp(op=ast.Not()):
                    self.found.append(self._mutation(node, "negation", f"({self._text(node.operand)})", lines))
                case ast.IfExp():
                    self._condition(node.test, lines)
                case ast.Constant():
                    self._constant(node, lines)

    def _operators(self, operands: list[ast.expr], lines: tuple[int, ...]) -> None:
        """Change each binary operator."""
        for left, right in pairwise(operands):
            end_of_left, start_of_right = self._offset_of_end(left), self._offset(right.lineno, right.col_offset)
            gap = self._source[end_of_left:start_of_right].decode()
            match = OPERATOR.search(gap)
            if match is None:
                continue
            start = end_of_left + len(gap[: match.start()].encode())
            end = start + len(match[0].encode())
            line = self._source.count(b"\n", 0, start) + 1
            after = OPERATORS[" ".join(match[0].split())]
            self.found.append(Mutation(self._path, line, "operator", start, end, match[0], after, lines))

    def _constant(self, node: ast.Constant, lines: tuple[int, ...]) -> None:
        match node.value:
            case bool():
                self.found.append(self._mutation(node, "flag", str(not node.value), lines))
            case int():
                self.found.append(self._mutation(node, "number", str(node.value + 1), lines))
            case float():
                self.found.append(self._mutation(node, "number", repr(node.value * 2 or 1.0), lines))
            case str() if IDENTIFIER.fullmatch(node.value) and self._text(node)[:1] in "\"'":
                self.found.append(self._mutation(node, "text", repr(node.value + "X"), lines))

    def _mutation(self, node: ast.expr | ast.stmt, kind: str, after: str, lines: tuple[int, ...]) -> Mutation:
        start, end = self._offset(node.lineno, node.col_offset), self._offset_of_end(node)
        return Mutation(self._path, node.lineno, kind, start, end, self._source[start:end].decode(), after, lines)

    def _text(self, node: ast.expr) -> str:
        return self._source[self._offset(node.lineno, node.col_offset) : self._offset_of_end(node)].decode()

    def _offset_of_end(self, node: ast.expr | ast.stmt) -> int:
        return self._offset(node.end_lineno, node.end_col_offset)

    def _offset(self, line: int | None, column: int | None) -> int:
        assert line is not None
        assert column is not None
        return self._offsets[line - 1] + column


def _walk(root: ast.expr) -> Iterator[ast.expr]:
    """Yield the expression and its parts, without the literal text of f-strings."""
    pending: list[ast.AST] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.expr):
            yield node
        if not isinstance(node, ast.JoinedStr):
            pending.extend(ast.iter_child_nodes(node))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _is_for_type_checker(statement: ast.stmt) -> bool:
    """Return whether the statement is a docstring, a type alias or code only for the type checker."""
    match statement:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
            return True
    return False
