"""What a SELECT says of itself: the tables it names, the columns it gives, whether it gives one row.

Invariant: pure and total, and only what is certain: a text that is read otherwise by a database gives nothing here, or
names that nobody has. It must not know tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TOKEN: Final = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|[A-Za-z_]\w*|\d[\w.]*|\S", re.DOTALL
)
_NAME: Final = re.compile(r"[A-Za-z_]\w*")
_ENDS_FROM: Final = frozenset((
    "where", "group", "order", "limit", "having", "window", "union", "intersect", "except", "on", "using", "join",
    "inner", "left", "right", "full", "cross", "natural", "outer",
))  # fmt: skip
_TOTALS: Final = frozenset(("count", "sum", "min", "max", "avg", "total", "group_concat"))


def tables_of(sql: str) -> tuple[str, ...]:
    """The tables that it reads, as they are written, each once; those that it defines itself (`with`) are none."""
    tokens = _tokens(sql)
    lower = [one.lower() for one in tokens]
    own = {lower[i] for i in range(len(lower) - 2) if lower[i + 1] == "as" and lower[i + 2] == "("}
    own |= {lower[i] for i in range(1, len(lower) - 1) if lower[i - 1] in ("with", "recursive") and lower[i + 1] == "("}
    found = [tokens[at] for at in _places(lower) if _NAME.fullmatch(tokens[at])]
    return tuple(dict.fromkeys(one for one in found if one.lower() not in own))


def columns_of(sql: str) -> tuple[str, ...]:
    """The names of its columns; () where one of them isn't certain (`*`, an expression without a name)."""
    found = []
    for item in _items(_tokens(sql)):
        named = len(item) > 1 and item[-2].lower() == "as"
        plain = len(item) == 1 or (len(item) == 3 and item[1] == ".")
        if not (named or plain) or not _NAME.fullmatch(item[-1]):
            return ()
        found.append(item[-1])
    return tuple(found)


def gives_one_row(sql: str) -> bool:
    """Whether it can't give two: totals of everything, values without a table, or `limit 1` at its end."""
    lower = [one.lower() for one in _tokens(sql)]
    if lower[-2:] == ["limit", "1"]:
        return True
    outer = list(_outer(lower))
    if lower[:1] != ["select"] or {"group", "union", "intersect", "except"} & set(outer):
        return False
    if "from" not in outer:
        return True
    items = _items(lower)
    return bool(items) and all(len(one) > 1 and one[0] in _TOTALS and one[1] == "(" for one in items)


def _tokens(sql: str) -> list[str]:
    """Its words and signs. A name in quotes is a name; a text becomes a sign that is none."""
    found = []
    for one in _TOKEN.findall(sql):
        if one[:2] in ("--", "/*"):
            continue
        quoted = one[:1] in ('"', "`", "[") and len(one) > 2
        found.append(one[1:-1] if quoted else "'" if one[:1] == "'" else one)
    return found


def _places(lower: list[str]) -> Iterator[int]:
    """Where the name of a table stands: behind `from`, `join` and the commas between."""
    depth, listing = 0, set[int]()
    for at, word in enumerate(lower):
        before = lower[at - 1] if at else ""
        if word == "(":
            depth += 1
        elif word == ")":
            listing.discard(depth)
            depth -= 1
        elif word in _ENDS_FROM:
            listing.discard(depth)
        elif word == "from":
            listing.add(depth)
        elif (before in ("from", "join") or (before == "," and depth in listing)) and lower[at + 1 : at + 2] != ["("]:
            yield at


def _outer(tokens: list[str]) -> Iterator[str]:
    """What stands in no parentheses."""
    depth = 0
    for one in tokens:
        depth -= one == ")"
        if not depth and one not in "()":
            yield one
        depth += one == "("


def _items(tokens: list[str]) -> list[list[str]]:
    """What stands between `select` and `from`, cut at the commas; of the first `select` in no parentheses."""
    found: list[list[str]] = []
    depth, inside = 0, False
    for one in tokens:
        word = one.lower()
        if not depth and inside and word in ("from", "union", "limit", "order", "where"):
            break
        if not depth and not inside:
            if word == "select":
                inside, found = True, [[]]
        elif inside and not depth and one == ",":
            found.append([])
        elif inside and not (word in ("distinct", "all") and found == [[]]):
            found[-1].append(one)
        depth += (one == "(") - (one == ")")
    return found if all(found) else []
