"""Built-in skill report.markdown: named parts, each a table of rows or text, as one Markdown file."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NotRequired, TypedDict

from protocol.builtin import BY_NAME
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

MAX_ROWS: Final = 1000
MAX_CELL_CHARS: Final = 500
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")
_STRUCTURE: Final = str.maketrans({"|": "\\|", "\n": " ", "\r": " ", "<": "&lt;"})


class Part(TypedDict):
    name: str
    rows: NotRequired[list[Any]]
    text: NotRequired[str | float | bool]


class Report(TypedDict):
    file: File
    text: str


@skill(spec=BY_NAME["report.markdown"])
def markdown(ctx: SkillContext, title: str, parts: list[Part]) -> Report:
    """The text, and the same text as a file named after the title."""
    pieces = [f"# {_line(title)}"]
    for part in parts:
        pieces.append(f"## {_line(part['name'])}")
        if "text" in part:
            pieces.append(_plain(part["text"]))
        if "rows" in part:
            pieces.append(_table(part["rows"]))
    text = "\n\n".join(pieces) + "\n"
    name = _NO_NAME.sub("-", title.lower()).strip("-")[:60] or "report"
    file = File(ctx.folder / f"{name}.md")
    file.path.parent.mkdir(parents=True, exist_ok=True)
    file.path.write_text(text, encoding="utf-8", newline="")
    return Report(file=file, text=text)


def _table(rows: list[Any]) -> str:
    """One column a key, in order of first sight; rows that are no records become one column."""
    if not rows:
        return "(none)"
    shown = [row if isinstance(row, dict) else {"value": row} for row in rows[:MAX_ROWS]]
    columns = list(dict.fromkeys(key for row in shown for key in row))
    numeric = {column: all(isinstance(row.get(column), int | float | None) for row in shown) for column in columns}
    lines = [
        "| " + " | ".join(map(_line, columns)) + " |",
        "|" + "|".join(" ---: " if numeric[column] else " --- " for column in columns) + "|",
        *("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in shown),
    ]
    if len(rows) > MAX_ROWS:
        lines.append(f"\n({len(rows) - MAX_ROWS} more rows)")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = _plain(value)
    return _line(text if len(text) <= MAX_CELL_CHARS else text[: MAX_CELL_CHARS - 3] + "...")


def _plain(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def _line(text: str) -> str:
    """Text that can't end its cell, begin a heading's next line or become a tag."""
    return str(text).translate(_STRUCTURE).strip()
