"""A report as one HTML file: sections of a sentence, charts and a table. It needs nothing else, and runs nothing.

Invariant: self-contained (no script, no font, no address), every text is escaped but the charts, which are ours
(bench/chart.py). It must not know what is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

import msgspec

from protocol.errors import UsageError

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee6; --ground: #fff; --own: #2f6fdb;
  --other: #a9b4c4; --bound: #c2410c; --c0: #2f6fdb; --c1: #d97706; --c2: #15803d; --c3: #9333ea; --c4: #be123c;
  --c5: #0e7490; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b5; --line: #323b48; --ground: #12161c;
  --own: #6aa0ff; --other: #5b6675; --bound: #fb923c; --c0: #6aa0ff; --c1: #fbbf24; --c2: #4ade80; --c3: #c084fc;
  --c4: #fb7185; --c5: #22d3ee; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 0.3rem; }
p { margin: 0.3rem 0 0.8rem; color: var(--soft); } svg { width: 100%; min-width: 36rem; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); stroke: var(--ground); stroke-width: 3px;
  paint-order: stroke; } .grid { stroke: var(--line); fill: none; }
.own { fill: var(--own); } .other { fill: var(--other); } .range { stroke: var(--ink); stroke-width: 1.5; fill: none; }
.bound { stroke: var(--bound); stroke-dasharray: 5 4; fill: none; } .line { fill: none !important; stroke-width: 2; }
.faint { opacity: 0.35; } .fit { stroke-dasharray: 5 4; } .wide { overflow-x: auto; }
.c0 { fill: var(--c0); stroke: var(--c0); } .c1 { fill: var(--c1); stroke: var(--c1); }
.c2 { fill: var(--c2); stroke: var(--c2); } .c3 { fill: var(--c3); stroke: var(--c3); }
.c4 { fill: var(--c4); stroke: var(--c4); } .c5 { fill: var(--c5); stroke: var(--c5); }
svg text.on { font-size: 10px; fill: var(--ground); stroke: none; pointer-events: none; } details { margin: 0.3rem 0; }
summary { cursor: pointer; } details > p { margin-left: 1rem; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.8rem 0; } th, td { padding: 0.2rem 0.7rem 0.2rem 0;
  text-align: left; border-bottom: 1px solid var(--line); } td.n, th.n { text-align: right; white-space: nowrap; }
"""


class Section(msgspec.Struct, frozen=True):
    """A heading, a sentence, charts (SVG from bench.chart), and the numbers as rows, the first of them the head.

    `folded`: only its heading shows until somebody opens it.
    """

    heading: str
    text: str = ""
    charts: tuple[str, ...] = ()
    rows: Sequence[Sequence[str]] = ()
    folded: bool = False


def page(title: str, about: str, sections: Iterable[Section]) -> str:
    """The whole document."""
    body = "".join(map(_section, sections))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1><p>{escape(about)}</p>{body}</body></html>\n"
    )


def write_page(path: Path, title: str, about: str, sections: Iterable[Section]) -> None:
    """The document as a file. Raises: UsageError when it can't be written."""
    try:
        path.write_text(page(title, about, sections), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror}", hint="name a file in a folder that exists"
        ) from None


def _section(section: Section) -> str:
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    inside = f"{text}{''.join(map(_wide, section.charts))}{_table(section.rows)}"
    if section.folded:
        return f"<details><summary>{escape(section.heading)}</summary>{inside}</details>"
    return f"<h2>{escape(section.heading)}</h2>{inside}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head, *rest = rows
    numeric = [bool(rest) and all(_is_number(row[at]) for row in rest) for at in range(len(head))]
    lines = [_line("th", head, numeric), *(_line("td", row, numeric) for row in rest)]
    return _wide(f"<table>{''.join(lines)}</table>")


def _wide(inside: str) -> str:
    """What a narrow window shows by scrolling, so that it stays readable."""
    return f'<div class="wide">{inside}</div>'


def _line(tag: str, row: Sequence[str], numeric: Sequence[bool]) -> str:
    return (
        "<tr>"
        + "".join(
            f"<{tag}{' class=n' if right else ''}>{escape(cell)}</{tag}>"
            for cell, right in zip(row, numeric, strict=True)
        )
        + "</tr>"
    )


def _is_number(text: str) -> bool:
    return not text or text.lstrip("x -+").rstrip("%").replace(",", "").replace(".", "", 1).replace("e-", "").isdigit()
