"""What a person sees while a run goes on: a story in lines, or a live table that collapses into it.

Both are told each event row and what it is worth saying; both write to standard error only. It must not know clients.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from .progress import Progress, Wants
from .show import json_line, plain, say, seconds

_STORY_LINES: Final = 400
_COUNT_S: Final = 5.0


class View(Protocol):
    """Entered before the first row, left after the last; `pause` makes room for a question until `resume`."""

    wants: Wants

    def row(self, row: Mapping[str, Any], said: str) -> None: ...

    def count(self) -> None:
        """Progress has new counts of a large run."""

    def note(self, text: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Notes only: what a person has to know."""

    wants: Wants = "asks"

    def row(self, row: Mapping[str, Any], said: str) -> None:
        return

    def count(self) -> None:
        return

    def note(self, text: str) -> None:
        say(text)

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def close(self) -> None:
        return


class Lines(Silent):
    """Each event as a JSON line on standard output."""

    wants: Wants = "everything"

    def row(self, row: Mapping[str, Any], said: str) -> None:
        json_line(row)


class Story(Silent):
    """A line for what happened, with the time since the start; a large run is told by its failures and counts."""

    wants: Wants = "story"

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told = 0
        self._began_at = self._counted_at = time.monotonic()

    def row(self, row: Mapping[str, Any], said: str) -> None:
        if not said or "started on" in said:
            return
        self._told += 1
        if self._told == _STORY_LINES:
            say("  ... from here on only failures are told")
        if self._told < _STORY_LINES or row.get("state") == "failed":
            began = self._progress.began if self._progress.began is not None else row["at"]
            say(f"{seconds(row['at'] - began):>8}  {said}")

    def count(self) -> None:
        now = time.monotonic()
        if now - self._counted_at >= _COUNT_S:
            self._counted_at = now
            counted = self._progress.counts().items()
            said = ", ".join(f"{number:,} {state.replace('_', ' ')}" for state, number in counted)
            say(f"{seconds(now - self._began_at):>8}  {said}")


def choose(output: str, progress: Progress, *, quiet: bool = False) -> View:
    """The view that fits: JSON lines if asked for, live on a terminal, a story elsewhere, silence with `quiet`."""
    if output == "jsonl":
        return Lines()
    if quiet:
        return Silent()
    if plain(sys.stderr):
        return Story(progress) if output == "text" else Silent()
    from .live import LiveView

    return LiveView(progress)
