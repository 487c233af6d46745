"""Good plans drawn from a seed, as a model writes them: a root, wires between types, maps, conditions, awkward text.

Invariant: pure, and good: each passes the parser and the compiler with the built-in skills whole. It must not know
what harms a plan.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

Document = dict[str, Any]

AWKWARD: Final = (
    'a "quoted" word',
    "braces } ] { [ in a text",
    '{"id": "inner", "skill": "flow.echo", "args": {"value": 1}}',
    'back\\slash and a quote at the end \\"',
    "Grüße, 你好, \U0001f600",
    "lines\nand\ttabs",
    '"}]}',
)
COMPACT: Final = 1
"""The way of spacing that schemas make models use: none."""
_WORDS: Final = ("scan", "look", "count", "rank", "merge", "check", "table", "part", "draw", "note")


def good(seed: int, tasks: int = 10) -> Document:
    """A plan of so many tasks (at least 4). Every task but the last ones is used by a later one."""
    luck = Random(f"plan {seed}")
    names = [f"{luck.choice(_WORDS)}-{number}" for number in range(1, tasks + 1)]
    rows: list[Document] = [
        {"id": names[0], "skill": "fs.find", "args": {"path": "logs", "glob": "*.log"}},
        {"id": names[1], "skill": "flow.echo", "args": {"value": [luck.choice(AWKWARD), {"ref": names[0]}]}},
    ]
    while len(rows) < tasks:
        rows.append(_next(luck, names[len(rows)], rows))
    for row in rows:
        if luck.random() < 0.5:  # as a strict schema makes a model write it: every key, every time
            row.update({"on": row.get("on", []), "when": row.get("when", []), "approve": row.get("approve", False)})
    ordered = [
        {key: row[key] for key in ("id", "on", "when", "skill", "args", "approve") if key in row} for row in rows
    ]
    return {"tasks": ordered, "outputs": [{"name": "last", "ref": names[-1]}, {"name": "first", "ref": names[0]}]}


def text_of(plan: Document, seed: int = 0) -> str:
    """The document as text, in one of the ways in which models space it."""
    way = seed % 3
    if way == 2:
        return json.dumps(plan, indent=2, ensure_ascii=False)
    return json.dumps(plan, ensure_ascii=bool(way), separators=(",", ":") if way else None)


def task_ends(text: str, plan: Document) -> list[int]:
    """Where in a text of `text_of` each task's object ends: the character after its closing brace."""
    decoder, at, ends = json.JSONDecoder(), text.index("[") + 1, []
    for _ in plan["tasks"]:
        at = text.index("{", at)
        at = decoder.raw_decode(text, at)[1]
        ends.append(at)
    return ends


def _next(luck: Random, name: str, rows: Sequence[Document]) -> Document:
    """One more task. It reads the one before it or an earlier one, so that harm has something to spread to."""
    before = rows[-1]["id"] if luck.random() < 0.5 else luck.choice(rows)["id"]
    row = luck.choice(_KINDS)(luck, before, rows)
    if luck.random() < 0.2:
        row["when"] = [luck.choice([{"ref": before, "is": "succeeded"}, {"ref": before, "op": "exists"}])]
    if luck.random() < 0.2:
        row["on"] = luck.choice([["gpu", "any"], ["here"], [{"ref": before}]])
    if luck.random() < 0.1:
        row["approve"] = True
    return {"id": name, **row}


def _echo(luck: Random, before: str, rows: Sequence[Document]) -> Document:
    more = [{"ref": row["id"]} for row in luck.sample(list(rows), luck.randint(0, min(2, len(rows))))]
    return {"skill": "flow.echo", "args": {"value": {"text": luck.choice(AWKWARD), "of": [{"ref": before}, *more]}}}


def _literal(luck: Random, before: str, rows: Sequence[Document]) -> Document:
    return {"skill": "flow.echo", "args": {"value": [{"literal": {"ref": "not a reference"}}, {"ref": before}]}}


def _count(luck: Random, before: str, rows: Sequence[Document]) -> Document:
    return {
        "skill": "text.count",
        "args": {"file": {"ref": f"{rows[0]['id']}/files[]/file"}, "pattern": luck.choice(["ERROR", r"\d+ \"x\"", ""])},
    }


def _first_file(luck: Random, before: str, rows: Sequence[Document]) -> Document:
    return {"skill": "fs.read", "args": {"file": {"ref": f"{rows[0]['id']}/files/0/file"}, "as": "lines"}}


def _sql(luck: Random, before: str, rows: Sequence[Document]) -> Document:
    tables = [{"name": "t", "rows": {"ref": f"{rows[0]['id']}/files"}}]
    return {"skill": "data.sql", "args": {"tables": tables, "sql": "select name, 'it''s {}' as x from t"}}


def _report(luck: Random, before: str, rows: Sequence[Document]) -> Document:
    parts = [{"name": "all", "rows": {"ref": f"{rows[0]['id']}/files"}}, {"name": "note", "text": luck.choice(AWKWARD)}]
    return {"skill": "report.markdown", "args": {"title": "Found", "parts": parts}}


def _write(luck: Random, before: str, rows: Sequence[Document]) -> Document:
    return {"skill": "fs.write", "args": {"path": "out/part.json", "data": {"ref": before}}}


def _check(luck: Random, before: str, rows: Sequence[Document]) -> Document:
    return {"skill": "flow.check", "args": {"left": {"ref": f"{rows[0]['id']}/count"}, "op": ">=", "right": 0}}


def _send(luck: Random, before: str, rows: Sequence[Document]) -> Document:
    """The one with an effect that can't be taken back."""
    return {"skill": "http.send", "args": {"method": "POST", "url": "http://localhost/x", "json": {"ref": before}}}


_Kind = Callable[[Random, str, Sequence[Document]], Document]
_KINDS: Final[tuple[_Kind, ...]] = (
    _echo, _echo, _echo, _literal, _count, _first_file, _sql, _report, _write, _check, _send,
)  # fmt: skip
