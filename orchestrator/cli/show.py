"""How answers reach a person or a program: JSON whole or in lines, tables on a terminal, tab-separated elsewhere.

Data goes to standard output, talk to standard error, and both honour NO_COLOR, CI and TERM=dumb. It must not know
what is shown, nor any command.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TextIO

import click
import msgspec

Column = tuple[str, Callable[[Any], Any]]
"""Its title, and what it shows of a row."""

_COLOURS: Final = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "bright_black",
    "running": "cyan",
    "awaiting_approval": "magenta",
    "unknown": "red",
}
_WIDEST: Final = 60
_COMMANDS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STYLED: Final = re.compile(r"\x1b\[[0-9;]*m[^\x00-\x1f\x7f-\x9f]*\x1b\[0m")
"""What state_text makes."""


def plain(stream: TextIO) -> bool:
    """Whether a stream is no place for colour, cursor movement or questions."""
    environ = os.environ
    dumb = environ.get("TERM") == "dumb" or "CI" in environ
    return dumb or not stream.isatty()


def coloured(stream: TextIO) -> bool:
    return not plain(stream) and "NO_COLOR" not in os.environ


def may_ask() -> bool:
    """Whether there is a person to ask: both ends of the conversation are a terminal."""
    return not plain(sys.stdin) and not plain(sys.stderr)


def state_text(state: str) -> str:
    shown = state.replace("_", " ")
    return click.style(shown, fg=_COLOURS.get(state)) if coloured(sys.stdout) else shown


def say(text: str) -> None:
    """Talk: progress, advice, questions' answers. Never data."""
    click.echo(harmless(text), err=True)


def harmless(text: str) -> str:
    """Text of a worker or a model without what would command the terminal."""
    return _COMMANDS.sub("", text)


def json_value(value: Any) -> None:
    """Exactly one JSON value on standard output."""
    _write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def json_line(value: Any) -> None:
    _write(msgspec.json.encode(value) + b"\n")


def table(columns: Sequence[Column], rows: Iterable[Any]) -> None:
    """Aligned with titles on a terminal; elsewhere one row a line, cells between tabs, no titles."""
    cells = [[_cell(show(row)) for _, show in columns] for row in rows]
    if plain(sys.stdout):
        for line in cells:
            click.echo("\t".join(click.unstyle(cell).replace("\t", " ") for cell in line))
        return
    titles = [title.upper() for title, _ in columns]
    widths = [
        max(len(titles[at]), *(len(click.unstyle(line[at])) for line in cells)) if cells else len(titles[at])
        for at in range(len(columns))
    ]
    for line in (titles, *cells):
        padded = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(line, widths)]
        click.echo("  ".join(padded).rstrip())


def value(found: Any) -> None:
    """A value for reading: text as it is, flat records as a table on a terminal, anything else as JSON."""
    if isinstance(found, str):
        click.echo(found)
        return
    if isinstance(found, list) and found and not plain(sys.stdout) and all(_flat(row) for row in found):
        names = list(dict.fromkeys(name for row in found for name in row))
        table([(name, _reader(name)) for name in names], found)
        return
    json_value(found)


def seconds(span: float | None) -> str:
    """`0.12 s`, `42 s`, `3m10s`, `2h05m`; `-` for what hasn't happened."""
    if span is None:
        return "-"
    if span < 10:
        return f"{span:.2f} s"
    if span < 90:
        return f"{span:.0f} s"
    minutes, rest = divmod(round(span), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def span(seconds_: float) -> str:
    """A duration with two or three digits, however short: `83 us`, `4.1 ms`, then as `seconds`."""
    if seconds_ < 0.001:
        return f"{seconds_ * 1e6:.0f} us"
    return f"{seconds_ * 1e3:.3g} ms" if seconds_ < 0.1 else seconds(seconds_)


def clock(at: float, *, millis: bool = False) -> str:
    """A Unix time in the time zone of this machine."""
    moment = datetime.fromtimestamp(at).astimezone()
    return moment.strftime("%H:%M:%S.%f")[:-3] if millis else moment.strftime("%Y-%m-%d %H:%M:%S")


def size(number: int) -> str:
    """`312 B`, `4.2 MiB`."""
    amount, unit = float(number), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.1f} {unit}" if unit != "B" else f"{number} B"


def many(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def counts(found: dict[str, int]) -> str:
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in found.items() if number) or "-"


def compact(found: Any) -> str:
    """A value as JSON on one line."""
    return msgspec.json.encode(found).decode()


def short(text: str, width: int = _WIDEST) -> str:
    line = harmless(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def _cell(found: object) -> str:
    if found is None or found == "":
        return "-"
    if isinstance(found, float):
        return f"{found:g}"
    if isinstance(found, str):
        return found if _STYLED.fullmatch(found) else harmless(" ".join(found.split()))
    if isinstance(found, dict | list):
        return short(compact(found))
    return str(found)


def _reader(name: str) -> Callable[[Any], Any]:
    return lambda row: row.get(name)


def _flat(row: Any) -> bool:
    return isinstance(row, dict) and not any(isinstance(item, dict | list) for item in row.values())


def _write(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
