"""The live table of a run on a terminal. It is gone when the run is over: what stays is a short story.

Drawn from `Progress` a few times a second by rich's own thread, so a burst of events costs one drawing. It must not
know clients or events.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .progress import STATES, Line, Progress, Wants
from .show import coloured, harmless, seconds, short

_FRAMES_PER_S: Final = 8
SIGNS: Final = {
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("-", "dim"),
    "cancelled": ("×", "yellow"),
    "running": ("●", "cyan"),
    "waiting": ("◌", "cyan"),
    "awaiting_approval": ("?", "magenta"),
    "unknown": ("!", "red"),
    "ready": ("○", "white"),
    "pending": ("·", "dim"),
}
"""How a state is drawn: its sign and its colour."""
_ORDER: Final = {state: at for at, state in enumerate(("failed", *STATES))}


class LiveView:
    """A `View` for a terminal."""

    wants: Wants = "story"

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._console = Console(file=sys.stderr, no_color=not coloured(sys.stderr), highlight=False)
        self._spinner = Spinner("dots")
        self._told_at = time.monotonic()
        self._live = self._start()

    def row(self, row: Mapping[str, Any], said: str) -> None:
        """Everything is in Progress already; the next drawing shows it, and clocks run on until the next row."""
        self._told_at = time.monotonic()

    def count(self) -> None:
        self._told_at = time.monotonic()

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False)

    def pause(self) -> None:
        self._live.stop()

    def resume(self) -> None:
        self._live = self._start()

    def close(self) -> None:
        """Take the table away and leave one line a task, as far as they fit on the screen."""
        self._live.stop()
        if self._progress.planned:
            self._console.print(Text(harmless(self._progress.planned), "dim"))
        lines = list(self._progress.lines.values())
        room = max(5, self._console.height - 6)
        for line in lines[:room]:
            self._console.print(self._told(line))
        if len(lines) > room:
            self._console.print(Text(f"  and {len(lines) - room + self._progress.more} more tasks", "dim"))

    def _start(self) -> Live:
        live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=_FRAMES_PER_S, transient=True)
        live.start()
        return live

    def _draw(self) -> RenderableType:
        progress = self._progress
        now = progress.now + (time.monotonic() - self._told_at)
        grid = Table.grid(padding=(0, 2))
        lines = sorted(progress.lines.values(), key=lambda line: _ORDER.get(line.state, len(_ORDER)))
        room = max(3, self._console.height - 4)
        for line in lines[:room]:
            sign, style = SIGNS.get(line.state, ("·", ""))
            took = (line.ended or now) - line.started if line.started is not None else None
            grid.add_row(
                Text(sign, style),
                Text(line.name, "bold" if line.state == "running" else ""),
                Text(_of(line), style),
                Text(line.worker, "dim"),
                Text(seconds(took) if took is not None else "", "dim"),
                Text(short(line.note, 50), "dim"),
            )
        counts = ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in progress.counts().items())
        hidden = f", {len(lines) - room} not shown" if len(lines) > room else ""
        age = seconds(now - progress.began) if progress.began is not None else ""
        writing = f"  {progress.planner} is writing" if progress.planner else ""
        self._spinner.update(text=Text(f"{progress.state} {age}  {counts}{hidden}{writing}", "dim"))
        return Group(grid, self._spinner)

    def _told(self, line: Line) -> Text:
        sign, style = SIGNS.get(line.state, ("·", ""))
        took = line.ended - line.started if line.ended is not None and line.started is not None else None
        parts = [line.name, _of(line)] + ([f"on {line.worker}"] if line.worker else [])
        parts += [f"in {seconds(took)}"] if took is not None else []
        text = Text.assemble((f"{sign} ", style), " ".join(parts))
        if line.note:
            text.append(f"  {short(line.note, 100)}", "dim")
        return text


def _of(line: Line) -> str:
    state = line.state.replace("_", " ")
    return f"{state} {line.done}/{line.children}" if line.children else state
