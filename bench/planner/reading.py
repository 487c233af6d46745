"""Harmed plans, read by what reads a model's answer: what was accepted that should not be, what was lost that was good.

Each text is given twice, as by a model that says the same when it is asked again: a repair gains nothing. It must not
know how a plan was harmed, nor models and sockets.
"""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec

from planner.catalog import Catalog
from planner.reply import Reply
from planner.view import PlanView
from protocol.builtin import BUILTINS
from protocol.digest import Digest
from protocol.errors import Problem
from protocol.task import Output, TaskSpec

from .damage import MENDED
from .text_damage import Damaged
from .truth import judge

FIRST: Final = PlanView("go", skills=BUILTINS)
CHANGE: Final = PlanView("go", skills=BUILTINS, base=1, digest=Digest(kind="replan", base=1, failed=(), tasks=()))
"""What a first plan, and a change to a running graph, is asked with."""
_CATALOG: Final = Catalog(BUILTINS)
_MOST_PARTS: Final = 30


class Wrong(msgspec.Struct, frozen=True):
    """One text that was read wrongly."""

    kind: str
    seed: int
    false_accepts: tuple[str, ...]
    lost: tuple[str, ...]


class Reading(msgspec.Struct, frozen=True):
    """`truncations`: texts that were cut off, at every byte. `silent`: something was refused and nobody was told."""

    kinds: int
    texts: int
    truncations: int
    false_accepts: int
    lost: int
    silent: int
    wrong: tuple[Wrong, ...]


class Read(msgspec.Struct, frozen=True):
    """What was made of one text."""

    tasks: tuple[TaskSpec, ...]
    outputs: tuple[Output, ...]
    problems: tuple[Problem, ...]


def read(text: str, seed: int, again: bool, view: PlanView = FIRST) -> Read:
    """The text in parts as a network may cut it; `again`: a second time, if the first was not a whole, good plan."""
    reply, patches = Reply(view, _CATALOG), []
    luck = Random(seed)
    cuts = sorted(luck.sample(range(len(text) + 1), min(len(text), luck.randint(0, _MOST_PARTS))))
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        patches.append(reply.feed(text[begin:end]))
    if reply.end() and again:
        reply.mend()
        patches.append(reply.feed(text))
    last, problems = reply.close()
    found = [patch for patch in (*patches, last) if patch is not None]
    return Read(
        tuple(task for patch in found for task in patch.tasks),
        tuple(output for patch in found for output in patch.outputs or ()),
        problems,
    )


class Reader:
    """Counts what becomes of harmed texts."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._texts = self._cuts = self._false = self._lost = self._silent = 0
        self._wrong: list[Wrong] = []

    def take(self, kind: str, seed: int, found: Damaged, *, cut: bool = False) -> None:
        """One harmed text of that kind."""
        text, truth = found
        was = read(text, seed, kind not in MENDED)
        verdict = judge(truth, was.tasks, was.outputs)
        self._kinds.add(kind)
        self._texts += not cut
        self._cuts += cut
        self._false += len(verdict.false_accepts)
        self._lost += len(verdict.lost)
        self._silent += len(was.tasks) < len(truth.good["tasks"]) and not was.problems and bool(was.tasks)
        if verdict.false_accepts or verdict.lost:
            self._wrong.append(Wrong(kind, seed, verdict.false_accepts, verdict.lost))

    def of(self) -> Reading:
        return Reading(
            len(self._kinds), self._texts, self._cuts, self._false, self._lost, self._silent, tuple(self._wrong)
        )
