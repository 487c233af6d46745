"""Measures Python source through its syntax tree: functions, classes, branches, calls of eval and exec.

Complexity is McCabe's: one, plus one for each branch, loop, handler, condition and further operand of and / or. A
nested function counts for itself. Nothing recurses, and expressions that can't hold a branch are never entered: a
million lines take seconds. Must not know: skills, files' places.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

FLAGGED: Final = frozenset(("eval", "exec"))
_SKIPPED_FIELDS: Final = frozenset(("ctx", "op", "ops", "names", "type_comment", "kind", "keywords_only", "level"))
_LEAVES: Final = (
    ast.Name, ast.Constant, ast.alias, ast.arg, ast.Pass, ast.Break, ast.Continue, ast.Import, ast.ImportFrom,
    ast.Global, ast.Nonlocal, ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
    ast.type_ignore, ast.FunctionType,
)  # fmt: skip


def _subclasses(of: type[ast.AST]) -> Iterator[type[ast.AST]]:
    yield of
    for child in of.__subclasses__():
        yield from _subclasses(child)


CHILDREN: Final[dict[type[ast.AST], tuple[str, ...]]] = {
    kind: tuple(field for field in kind._fields if field not in _SKIPPED_FIELDS)
    for kind in _subclasses(ast.AST)
    if kind._fields and not issubclass(kind, _LEAVES)
}
"""Fields worth entering, by kind of node; kinds that are missing are leaves."""

_BRANCHES: Final = frozenset(
    (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.match_case)
)
_FUNCTIONS: Final = frozenset((ast.FunctionDef, ast.AsyncFunctionDef))
_NESTING: Final = frozenset((ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match))


class Function(NamedTuple):
    """`name` is dotted from the top of its module."""

    name: str
    line: int
    lines: int
    complexity: int
    node: ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """`complexity` is that of the functions and of the code outside of them; `flagged` are (line, name)."""

    functions: list[Function]
    classes: int
    complexity: int
    flagged: list[tuple[int, str]]


def parse(source: bytes) -> ast.Module | None:
    """The tree, or None for what is not Python of this version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def measure(tree: ast.Module) -> Module:
    """One pass over a module."""
    functions: list[Function] = []
    flagged: list[tuple[int, str]] = []
    classes = total = 0
    children, branches, defined = CHILDREN, _BRANCHES, _FUNCTIONS
    scopes: list[tuple[Any, str]] = [(tree, "")]
    while scopes:
        scope, prefix = scopes.pop()
        count = 1 if scope.__class__ in defined else 0
        stack: list[Any] = [scope]
        push, pop = stack.append, stack.pop
        first = True
        while stack:
            node = pop()
            kind = node.__class__
            if kind in branches:
                count += 1
            elif kind is ast.BoolOp:
                count += len(node.values) - 1
            elif kind is ast.comprehension:
                count += 1 + len(node.ifs)
            elif kind is ast.Call:
                callee = node.func
                if callee.__class__ is ast.Name and callee.id in FLAGGED:
                    flagged.append((node.lineno, callee.id))
            elif not first and kind is ast.ClassDef:
                classes += 1
                scopes.append((node, f"{prefix}{node.name}."))
                continue
            elif not first and kind in defined:
                scopes.append((node, f"{prefix}{node.name}."))
                continue
            first = False
            for field in children[kind]:
                value = getattr(node, field)
                if value.__class__ is list:
                    for child in value:
                        if child.__class__ in children:
                            push(child)
                elif value.__class__ in children:
                    push(value)
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (scope.end_lineno or scope.lineno) - scope.lineno + 1
            functions.append(Function(prefix[:-1], scope.lineno, length, count, scope))
        total += count
    return Module(functions, classes, total, sorted(flagged))


def nesting(function: ast.AST) -> int:
    """How deep its blocks lie in each other; `elif` is no deeper than its `if`."""
    deepest = 0
    stack: list[tuple[ast.AST, int]] = [(child, 0) for child in ast.iter_child_nodes(function)]
    while stack:
        node, depth = stack.pop()
        if type(node) in _FUNCTIONS or isinstance(node, ast.ClassDef | ast.Lambda):
            continue
        inner = depth + 1 if type(node) in _NESTING else depth
        deepest = max(deepest, inner)
        for child in ast.iter_child_nodes(node):
            follows = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
            stack.append((child, depth if follows else inner))
    return deepest


def calls(function: ast.AST) -> list[str]:
    """What it calls, by dotted name, once each, in order of name."""
    found = {_dotted(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
    return sorted(found - {""})


def _dotted(node: ast.AST) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return parts[0] if parts else ""
    return ".".join((node.id, *reversed(parts)))
