"""The demo's live view: machines and tasks while they run, nothing left afterwards; without a terminal, nothing at all.

Drawn from `Story` and from what the server said of its workers. It must not know clients.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.cli.live import SIGNS
from orchestrator.cli.show import coloured, plain

from .story import Story

_FRAMES_PER_S: Final = 12


class Tour:
    """Opened around the run. `workers` is set by whoever asks the server."""

    def __init__(self, story: Story, machines: Sequence[str]) -> None:
        self._story = story
        self._machines = machines
        self.workers: Mapping[str, Mapping[str, Any]] = {}
        self._live: Live | None = None
        if not plain(sys.stderr):
            console = Console(file=sys.stderr, no_color=not coloured(sys.stderr), highlight=False)
            self._live = Live(
                get_renderable=self._draw, console=console, refresh_per_second=_FRAMES_PER_S, transient=True
            )

    def open(self) -> None:
        if self._live is not None:
            self._live.start()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _away(self, worker: str) -> bool:
        return self.workers.get(worker, {}).get("state") == "away"

    def _draw(self) -> RenderableType:
        story = self._story
        now = max(story.now, time.time())
        machines = Table.grid(padding=(0, 2))
        for name in self._machines:
            row = self.workers.get(name, {})
            state = str(row.get("state", "away"))
            style = "green" if state == "connected" else "red"
            held = ", ".join(story.held_by(name)[:3])
            slots = f"{row.get('running', 0)}/{row.get('slots', 0)}" if row else "-"
            machines.add_row(Text(name, "bold"), Text(state, style), Text(slots), Text(held, "cyan"))
        tasks = Table.grid(padding=(0, 2))
        waits = {name for worker in self._machines if self._away(worker) for name in story.held_by(worker)}
        children = Counter(name.partition(".")[0] for name in story.tasks if "." in name)
        done = Counter(name.partition(".")[0] for name, task in story.tasks.items() if "." in name and task.ended)
        for name, task in list(story.tasks.items()):
            if "." in name:
                continue
            sign, style = SIGNS.get(task.state, ("·", ""))
            took = (task.ended or now) - task.started if task.started else None
            where = f"{done[name]}/{children[name]}" if children[name] else task.worker
            note = story.reasons.get(name, "") if name in waits else ""
            tasks.add_row(
                Text(sign, style),
                Text(name, "bold" if task.state == "running" else ""),
                Text(task.state, style),
                Text(where, "dim"),
                Text(f"{took:.1f} s" if took is not None else "", "dim"),
                Text(note, "yellow"),
            )
        age = f"{now - story.began:.1f} s" if story.began else ""
        plan = f"; the model writes, {len(story.first_ids)} tasks so far" if story.planned is None else ""
        dead = any(one.settled and not one.back_at for one in story.killed)
        last = Text("the orchestrator is dead", "red") if dead else Text(f"{story.state} {age}{plan}", "dim")
        return Group(machines, Text(), tasks, last)
