"""The `record.*` skills: reading records strictly, reading what is left of them, and having broken tables mended.

Invariant: what they give is a function of the files. Workers load this module by name; it must not know who runs it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Annotated, Any, Final, TypedDict

from protocol.errors import SkillFailed
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

_NUMBER: Final = re.compile(r"-?\d+")


class Records(TypedDict):
    file: File
    rows: list[Any]
    count: int
    lost: int


class Audited(TypedDict):
    broken: list[str]
    tasks: list[str]


class Mended(TypedDict):
    file: File
    name: str
    cells: int


@skill(
    name="record.read",
    effect="pure",
    timeout="1m",
    examples=("read the records of {file}",),
    tags=("jsonl", "strict"),
)
def read(file: Annotated[File, "one JSON document a line"]) -> Records:
    """Reads records, one a line; a line that is none fails it."""
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise SkillFailed(f"line {number} of {file.name} is torn", hint="record.salvage reads the others") from None
    return Records(file=file, rows=rows, count=len(rows), lost=0)


@skill(
    name="record.salvage",
    effect="pure",
    timeout="1m",
    examples=("salvage the records of {file}",),
    tags=("jsonl", "lenient", "torn"),
)
def salvage(file: Annotated[File, "one JSON document a line"]) -> Records:
    """Reads the records that are whole, and says how many are lost."""
    rows, lost = [], 0
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            lost += 1
    return Records(file=file, rows=rows, count=len(rows), lost=lost)


@skill(
    name="record.audit",
    effect="pure",
    timeout="5m",
    cached=False,
    spawns=("record.mend", "fs.read", "data.sql"),
    examples=("mend the column {column} of {files} and sum it up",),
    tags=("csv", "check", "propose"),
)
def audit(
    ctx: SkillContext,
    files: Annotated[list[File], "CSV tables of like columns"],
    column: Annotated[str, "a column that has to be whole numbers"],
) -> Audited:
    """Looks for tables whose column holds other than numbers; proposes to mend each, and to sum the column of all."""
    broken = [file for file in files if not all(_NUMBER.fullmatch(row[column]) for row in _rows(file))]
    mends = [
        {"id": f"mend-{number}", "skill": "record.mend", "args": {"file": file, "column": column}}
        for number, file in enumerate(broken, 1)
    ]
    whole = [*(file for file in files if file not in broken), *({"ref": f"{one['id']}/file"} for one in mends)]
    reads = [
        {"id": f"table-{number}", "skill": "fs.read", "args": {"file": file, "as": "csv"}}
        for number, file in enumerate(whole, 1)
    ]
    tables = [{"name": "t", "rows": [{"ref": f"{one['id']}/rows"} for one in reads]}]
    total = {
        "id": "total",
        "skill": "data.sql",
        "args": {"tables": tables, "sql": f'SELECT sum("{column}") AS n FROM t'},
    }
    outputs = [{"name": "total", "ref": "total/rows/0/n"}]
    why = f"{len(broken)} of {len(files)} tables hold other than numbers in {column}"
    ctx.propose({"schema": "asterism/plan/v1", "why": why, "tasks": [*mends, *reads, total], "outputs": outputs})
    return Audited(broken=[file.name for file in broken], tasks=[str(one["id"]) for one in (*mends, *reads, total)])


@skill(name="record.mend", effect="pure", timeout="1m", tags=("csv", "repair"))
def mend(
    ctx: SkillContext,
    file: Annotated[File, "a CSV table"],
    column: Annotated[str, "the column whose cells shall be numbers"],
) -> Mended:
    """Writes the table anew, with the number alone in each cell of the column."""
    rows, cells = _rows(file), 0
    for row in rows:
        found = _NUMBER.search(row[column])
        if found is None:
            raise SkillFailed(f"{file.name} has a cell without a number in {column}")
        cells += found[0] != row[column]
        row[column] = found[0]
    made = ctx.file(f"mended-{file.name}")
    with made.open("w") as out:
        table = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return Mended(file=made, name=made.name, cells=cells)


def _rows(file: File) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))
