"""How far a suite is, while it plays: a line a case as it ends, and on a terminal a line that says what is played now.

Invariant: lines that were written stay; only the last one of a terminal is written again. It must not know how a play
is made.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Final, Self, TextIO

import click

from .figure import abstained, as_it_must, why
from .play import Play
from .suite import Step

_CLEAR: Final = "\r\x1b[2K"
_WHY: Final = 3
"""Reasons that are shown of a case; the answer has all."""


class Progress:
    """`with Progress() as watch`, then call it with each step as it begins (without a play) and ends."""

    def __init__(self, stream: TextIO | None = None, *, live: bool | None = None) -> None:
        self._stream = stream or sys.stderr
        dull = "CI" in os.environ or os.environ.get("TERM") == "dumb"
        self._live = (self._stream.isatty() and not dull) if live is None else live
        self._began = time.monotonic()
        self._failed = 0
        self._held: tuple[Step, Play] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        self._status("")

    def __call__(self, step: Step, play: Play | None) -> None:
        if play is None:
            how = " one task after the other" if step.sequential else f", {step.fault}" if step.fault else ""
            failed = f", {self._failed} failed" if self._failed else ""
            took_s = time.monotonic() - self._began
            name = f"{step.case.category}/{step.case.name}"
            self._status(f"{step.number} of {step.of}, {took_s:.0f} s{failed}: {name}{how}")
            return
        self._failed += not (play.succeeded or as_it_must(play, step.case.needs))
        held = self._held
        if held is not None and held[0].case.name == step.case.name and held[0].sequential != step.sequential:
            self._held = None
            ours, twin = (held[1], play) if step.sequential else (play, held[1])
            self._line(step, ours, twin)
        else:
            self._release()
            self._held = (step, play)
            if play.fault or play.mode != "gold":  # it has no twin
                self._release()

    def _release(self) -> None:
        if self._held is not None:
            step, play = self._held
            self._held = None
            self._line(step, play, None)

    def _line(self, step: Step, play: Play, twin: Play | None) -> None:
        good = play.succeeded and (twin is None or twin.succeeded)
        partial = not good and as_it_must(play, step.case.needs)
        state = click.style("FAILED", fg="red", bold=True)
        if good or partial:
            state = click.style("ok    ", fg="green")
        elif abstained(play):
            state = click.style("no    ", fg="yellow")
        beside = f"{twin.latency_s:6.2f} s one after the other" if twin is not None else ""
        if play.fault:
            beside = f"{play.fault}: {play.struck or 'its moment never came'}"
            beside += f", recovered in {max(play.recovery_s):.2f} s" if play.recovery_s else ""
            beside += "; partial, as it must be" if partial else ""
        elif play.sequential:
            beside = "one after the other"
        self._say(f"{state} {play.category:<15} {play.case:<32} {play.latency_s:6.2f} s  {beside}".rstrip())
        if partial:
            self._say(f"       {play.partial}")
            return
        for one in (play, *([twin] if twin is not None else [])):
            reasons = why(one)
            for text in reasons[:_WHY]:
                self._say(f"       {'sequential: ' if one.sequential else ''}{text}")
            if len(reasons) > _WHY:
                self._say(f"       and {len(reasons) - _WHY} more")

    def _say(self, text: str) -> None:
        click.echo((_CLEAR if self._live else "") + text, file=self._stream, color=self._live)

    def _status(self, text: str) -> None:
        if self._live:
            width = os.get_terminal_size(self._stream.fileno()).columns if self._stream.isatty() else 80
            click.echo(_CLEAR + text[: width - 1], file=self._stream, nl=False, color=True)
