"""The `db.*` skills: one SQLite file on the machine where it lies.

Invariant: `db.query` reads only; `db.load` replaces one table, so that running it again leaves the same. Workers load
this module by name; it must not know who runs it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Annotated, Any, TypedDict

from protocol.errors import SkillFailed, UsageError
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill


class Answered(TypedDict):
    rows: list[dict[str, Any]]
    count: int


class Filled(TypedDict):
    file: File
    table: str
    count: int


@skill(
    name="db.query",
    effect="pure",
    local=True,
    timeout="1m",
    cached=False,
    examples=("query the database {file} with {sql}", "ask the database {file} for {sql}", "ask {file} for {sql}"),
    tags=("sqlite", "select", "database"),
)
def query(file: Annotated[File, "an SQLite file"], sql: Annotated[str, "one SELECT statement"]) -> Answered:
    """Asks an SQLite file with one SELECT."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as base:
        base.row_factory = sqlite3.Row
        try:
            rows = [dict(row) for row in base.execute(sql)]
        except sqlite3.Error as error:
            raise SkillFailed(f"{file.name}: {error}", hint="name tables and columns that it has") from None
    return Answered(rows=rows, count=len(rows))


@skill(
    name="db.load",
    effect="idempotent",
    local=True,
    timeout="1m",
    examples=("load {rows} into the table {table} of {path}",),
    tags=("sqlite", "insert", "database", "store"),
)
def load(
    ctx: SkillContext,
    path: Annotated[str, "the SQLite file, which is made if it isn't there"],
    table: Annotated[str, "the table, whose rows are replaced"],
    rows: Annotated[list[dict[str, Any]], "records with the same keys"],
) -> Filled:
    """Writes rows into a table of an SQLite file, in place of those that it had."""
    if not table.isidentifier() or not rows:
        raise UsageError(f"can't fill table {table!r} with {len(rows)} rows", hint="a plain name, and at least one row")
    file = ctx.roots.allow(path, write=True)
    names = [*rows[0]]
    columns = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    with closing(sqlite3.connect(file)) as base, base:
        base.execute(f"DROP TABLE IF EXISTS {table}")
        base.execute(f"CREATE TABLE {table} ({columns})")
        marks = ", ".join("?" * len(names))
        base.executemany(f"INSERT INTO {table} VALUES ({marks})", [[row.get(name) for name in names] for row in rows])
    return Filled(file=File(file), table=table, count=len(rows))
