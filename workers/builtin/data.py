"""Built-in skill data.sql: one SELECT over tables of rows, in an SQLite that can reach nothing but them.

Invariant: the statement can neither write, attach, load nor read anything but the given tables; its work and its
result are bounded. Lists of lists are flattened once, nested values become JSON text (json_each reads them).
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NotRequired, TypedDict

from protocol.builtin import BY_NAME
from protocol.errors import SkillFailed, UsageError
from workers.skill import skill

MAX_INPUT_ROWS: Final = 2_000_000
MAX_RESULT_ROWS: Final = 200_000
MAX_STEPS: Final = 400_000_000
MAX_CELL_BYTES: Final = 16 * 1024 * 1024
_STEPS_PER_LOOK: Final = 100_000
_MAX_COLUMNS: Final = 1000
_ALLOWED: Final = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)
_REFUSED_FUNCTIONS: Final = frozenset(("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"))


class Table(TypedDict):
    name: str
    rows: list[Any]
    field: NotRequired[str]


class SqlResult(TypedDict):
    rows: list[dict[str, Any]]
    count: int


@skill(spec=BY_NAME["data.sql"])
def sql(tables: list[Table], sql: str) -> SqlResult:
    """Runs the statement; a column of scalars is called `value`."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, 2 * _MAX_COLUMNS)
        names: list[str] = []
        for table in tables:
            _create(connection, table, names)
        # SQLite declares these two at their first use, which the authorizer would refuse; all others stay refused.
        connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')")
        return _select(connection, sql, names)
    finally:
        connection.close()


def _create(connection: sqlite3.Connection, table: Table, names: list[str]) -> None:
    name = table["name"]
    if not name or len(name) > 100 or "\0" in name or name.lower().startswith("sqlite_"):
        raise UsageError(f"{name!r} is no table name", hint="use letters, digits and _")
    if name.lower() in map(str.lower, names):
        raise UsageError(f"two tables are called {name}", hint="rename one of them")
    names.append(name)
    rows = _flat(table["rows"], table.get("field", ""))
    if len(rows) > MAX_INPUT_ROWS:
        raise SkillFailed(f"table {name} has {len(rows)} rows, at most {MAX_INPUT_ROWS}", hint="select less before")
    keys = list(dict.fromkeys(key for row in rows for key in (row if isinstance(row, dict) else ("value",))))
    if len(keys) > _MAX_COLUMNS:
        raise SkillFailed(f"table {name} has {len(keys)} columns, at most {_MAX_COLUMNS}", hint="select less before")
    columns = _column_names(keys or ["value"])
    connection.execute(f"CREATE TABLE {_quoted(name)} ({', '.join(map(_quoted, columns))})")
    keys = keys or ["value"]
    marks = ", ".join("?" * len(keys))
    connection.execute("BEGIN")
    connection.executemany(
        f"INSERT INTO {_quoted(name)} VALUES ({marks})",
        (
            [_cell(row.get(key)) for key in keys]
            if isinstance(row, dict)
            else [_cell(row) if key == "value" else None for key in keys]
            for row in rows
        ),
    )
    connection.execute("COMMIT")


def _flat(rows: Sequence[Any], field: str) -> list[Any]:
    """The rows; a list among them stands for its elements, with `field` each row stands for that list inside it."""
    flat: list[Any] = []
    for row in rows:
        if field and isinstance(row, dict):
            row = row.get(field, [])
        if isinstance(row, list):
            flat.extend(row)
        else:
            flat.append(row)
    return flat


def _column_names(keys: Sequence[str]) -> list[str]:
    """SQLite tells no case apart: a name that is there already in other letters gets a number."""
    seen: dict[str, int] = {}
    names = []
    for key in keys:
        lower = key.lower()
        seen[lower] = seen.get(lower, 0) + 1
        names.append(key if seen[lower] == 1 else f"{key}_{seen[lower]}")
    return names


def _quoted(name: str) -> str:
    return '"' + name.replace("\0", "").replace('"', '""') + '"'


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, str | int | float) or value is None:
        return value
    return json.dumps(value, ensure_ascii=False)


def _select(connection: sqlite3.Connection, sql: str, names: list[str]) -> SqlResult:
    refused: list[str] = []

    def authorize(action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action not in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and second in _REFUSED_FUNCTIONS):
            refused.append(second or first or "that statement")
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    looks = 0

    def look() -> int:
        nonlocal looks
        looks += 1
        return looks > MAX_STEPS // _STEPS_PER_LOOK

    connection.set_authorizer(authorize)
    connection.set_progress_handler(look, _STEPS_PER_LOOK)
    try:
        cursor = connection.execute(sql)
        if cursor.description is None:
            raise UsageError("the statement selects nothing", hint="write one SELECT")
        columns = _column_names([column[0] for column in cursor.description])
        rows = [
            {name: _value(cell) for name, cell in zip(columns, row, strict=True)}
            for row in cursor.fetchmany(MAX_RESULT_ROWS)
        ]
        if len(rows) == MAX_RESULT_ROWS and cursor.fetchone() is not None:
            raise SkillFailed(f"the statement gives more than {MAX_RESULT_ROWS} rows", hint="add a limit, or aggregate")
    except (sqlite3.Error, sqlite3.Warning) as error:
        if looks > MAX_STEPS // _STEPS_PER_LOOK:
            raise SkillFailed(f"the statement takes more than {MAX_STEPS} steps", hint="join on columns") from None
        if refused:
            raise UsageError(f"{refused[0]} is not allowed in data.sql", hint="write one SELECT") from None
        tables = ", ".join(names) or "none"
        raise UsageError(f"SQL: {error}", hint=f"tables here: {tables}; columns are the keys of their rows") from None
    return SqlResult(rows=rows, count=len(rows))


def _value(cell: Any) -> Any:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    return cell
