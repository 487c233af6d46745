"""A graph report as a picture: mermaid, dot, or SVG with a layered layout of our own.

Pure text from the answer of `graph`; names are escaped for the language they are written in. It must not know
terminals or clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final

_FILL: Final = {
    "succeeded": "#d3f0d8",
    "failed": "#f8d0d0",
    "skipped": "#eeeeee",
    "cancelled": "#f5e6c8",
    "running": "#cfe8f7",
    "waiting": "#cfe8f7",
    "awaiting_approval": "#ead6f5",
    "unknown": "#f8d0d0",
}
_PLAIN: Final = "#ffffff"
_BOX: Final = (170, 44)
_GAP: Final = (50, 18)


def mermaid(graph: Mapping[str, Any]) -> str:
    names = _names(graph)
    lines = ["flowchart LR"]
    for task in graph["tasks"]:
        text = f"{task['id']}<br/>{task['skill']}".replace('"', "#quot;")
        lines.append(f'  {names[task["id"]]}["{text}"]:::{task["state"]}')
    for source, target, kind in graph["edges"]:
        arrow = "-->" if kind == "data" else "-.->"
        lines.append(f"  {names[source]} {arrow} {names[target]}")
    for state in sorted({task["state"] for task in graph["tasks"]}):
        lines.append(f"  classDef {state} fill:{_FILL.get(state, _PLAIN)},stroke:#444")
    return "\n".join(lines)


def dot(graph: Mapping[str, Any]) -> str:
    lines = ["digraph run {", "  rankdir=LR;", '  node [shape=box, style="rounded,filled", fontname="sans-serif"];']
    for task in graph["tasks"]:
        label = f"{_quoted(task['id'])}\\n{_quoted(task['skill'])}"
        lines.append(f'  "{_quoted(task["id"])}" [label="{label}", fillcolor="{_FILL.get(task["state"], _PLAIN)}"];')
    for source, target, kind in graph["edges"]:
        style = "" if kind == "data" else ' [style="dashed"]'
        lines.append(f'  "{_quoted(source)}" -> "{_quoted(target)}"{style};')
    return "\n".join([*lines, "}"])


def svg(graph: Mapping[str, Any]) -> str:
    """Columns by the longest path from a root, rows in the order of acceptance."""
    width, height = _BOX
    across, down = _GAP
    columns = _columns(graph)
    rows: dict[int, int] = {}
    at: dict[str, tuple[int, int]] = {}
    for task in graph["tasks"]:
        column = columns[task["id"]]
        row = rows.get(column, 0)
        rows[column] = row + 1
        at[task["id"]] = (across + column * (width + across), down + row * (height + down))
    deepest, most = max(rows, default=0) + 1, max(rows.values(), default=0)
    total = (across + deepest * (width + across), down + most * (height + down))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total[0]} {total[1]}" width="{total[0]}" '
        f'height="{total[1]}" font-family="sans-serif" font-size="12">'
    ]
    for source, target, kind in graph["edges"]:
        (x1, y1), (x2, y2) = at[source], at[target]
        start, end, y1, y2 = x1 + width, x2, y1 + height // 2, y2 + height // 2
        middle = (start + end) // 2
        dash = "" if kind == "data" else ' stroke-dasharray="4 3"'
        path = f"M{start} {y1} C{middle} {y1} {middle} {y2} {end} {y2}"
        parts.append(f'<path d="{path}" fill="none" stroke="#666"{dash}/>')
    for task in graph["tasks"]:
        x, y = at[task["id"]]
        fill = _FILL.get(task["state"], _PLAIN)
        parts.append(
            f"<g><title>{escape(task['id'])}: {escape(task['state'])}</title>"
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="#444"/>'
            f'<text x="{x + 8}" y="{y + 18}" font-weight="bold">{escape(_fit(task["id"]))}</text>'
            f'<text x="{x + 8}" y="{y + 34}" fill="#555">{escape(_fit(task["skill"]))}</text></g>'
        )
    return "\n".join([*parts, "</svg>"])


def _columns(graph: Mapping[str, Any]) -> dict[str, int]:
    """The longest path to each task, in one pass over a topological order (Kahn's, so depth costs no recursion)."""
    down: dict[str, list[str]] = {task["id"]: [] for task in graph["tasks"]}
    waits = dict.fromkeys(down, 0)
    for source, target, _ in graph["edges"]:
        if source in down and target in down:
            down[source].append(target)
            waits[target] += 1
    found = dict.fromkeys(down, 0)
    ready = [name for name, number in waits.items() if number == 0]
    while ready:
        name = ready.pop()
        for after in down[name]:
            found[after] = max(found[after], found[name] + 1)
            waits[after] -= 1
            if waits[after] == 0:
                ready.append(after)
    return found


def _names(graph: Mapping[str, Any]) -> dict[str, str]:
    """Ids that are no words of mermaid's (`end`, say)."""
    return {task["id"]: f"t{number}" for number, task in enumerate(graph["tasks"])}


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _fit(text: str) -> str:
    return text if len(text) <= 22 else text[:21] + "…"
