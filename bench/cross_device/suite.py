"""The suite: every chosen case on the five machines, in parallel and sequentially, under every chosen fault.

Invariant: what can't be played is named and the rest goes on; `Suite.whole` says whether all of it was played. What was
kept before is not played again. It must not know how a play is made or shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from ..guard import guarded
from ..own_model import own_model
from .case import CATEGORIES, Case, Loaded
from .figure import WIDE, at_once
from .play import PLANNERS, Play, play
from .sequence import is_chain
from .site import FiveMachines
from .store import Store
from .warm import NOTE, warm, warm_all

QUICK: Final = 2
"""Cases of each category with --quick."""
Mode = Literal["gold", "catalog", "llm"]
Key = tuple[str, bool, str, int]
"""Of a play: its case, whether it is sequential, its fault, and which repetition it is."""


class Order(msgspec.Struct, frozen=True):
    """What is to be played."""

    mode: Mode = "gold"
    seed: int = 1
    repeat: int = 1
    faults: tuple[str, ...] = ()
    quick: bool = False

    def settings(self) -> dict[str, Any]:
        """What plays must have in common to be told of together."""
        return {"schema": "asterism/plays/v1", "mode": self.mode, "seed": self.seed}


class Step(msgspec.Struct, frozen=True):
    """A play that is to be made, the `number`th of `of` that there may be. `again`: with the graph of the play before
    it."""

    case: Case
    sequential: bool
    fault: str
    repeat: int
    number: int = 0
    of: int = 0
    again: bool = False

    @property
    def key(self) -> Key:
        return self.case.name, self.sequential, self.fault, self.repeat

    @property
    def twin(self) -> Key:
        return self.case.name, not self.sequential, "", self.repeat

    def wanted(self, order: Order) -> Play:
        case, mode, seed = self.case, order.mode, order.seed
        play = Play(case=case.name, category=case.category, mode=mode, seed=seed, fault=self.fault)
        return msgspec.structs.replace(play, sequential=self.sequential, repeat=self.repeat)


class Suite(msgspec.Struct, frozen=True):
    """What was played. `problems`: what could not be; `notes`: what of the machines is real; `cases` as chosen."""

    order: Order
    cases: tuple[Case, ...]
    plays: tuple[Play, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    took_s: float = 0.0

    @property
    def whole(self) -> bool:
        return not self.problems

    @property
    def succeeded(self) -> bool:
        """Everything that was played without a fault reached what was claimed of it."""
        return all(one.succeeded for one in self.plays if not one.fault)


Watch = Callable[[Step, Play | None], None]
"""Told of a step as it begins, without a play, and as it ends."""


async def suite(order: Order, loaded: Loaded, store: Store, watch: Watch) -> Suite:
    """Play it all. Raises: what keeps the server or the network of the machines from starting; what keeps the person's
    model from being asked."""
    began = time.monotonic()
    cases = quick(loaded.cases) if order.quick else loaded.cases
    steps = [*_steps(order, cases)]
    kept = {key_of(one): one for one in store.plays if not one.problem}
    plays = {step.key: kept[step.key] for step in steps if step.key in kept}
    problems = [*loaded.problems]
    if any(_is_open(step, plays) for step in steps):
        model, writer = await own_model() if order.mode == "llm" else ({}, "")
        with guarded("asterism-suite-") as guard:
            async with FiveMachines(guard, order.seed, model=model) as stage:
                problems += [f"{name} could not be started: {why}" for name, why in stage.missing.items()]
                if model:  # one that is paid for is asked for nothing that isn't counted
                    await warm(stage, stage.machines)
                else:
                    await warm_all(stage, cases, PLANNERS[order.mode])
                store.note(*stage.notes, NOTE, writer)
                for step in open_steps(steps, plays):
                    graph = plays[step.twin].graph if step.again else None
                    watch(step, None)
                    plays[step.key] = made = await play(stage, step.case, step.wanted(order), graph)
                    store.keep(made)
                    watch(step, made)
                store.note(*stage.notes)
    problems += [f"{_words(one)}: {why}" for one in plays.values() for why in one.unjudged]
    return Suite(order, tuple(cases), tuple(plays.values()), tuple(problems), store.notes, time.monotonic() - began)


def open_steps(steps: Sequence[Step], plays: Mapping[Key, Play]) -> Iterator[Step]:
    """Those that are to be played, each the `number`th of as many as there are or may be yet: a play may show that its
    twin needs none. `plays` is looked at anew for each."""
    number = 0
    for at, step in enumerate(steps):
        if _is_open(step, plays):
            rest = sum(_is_open(one, plays) for one in steps[at:])
            yield msgspec.structs.replace(step, number=number + 1, of=number + rest)
            number += 1


def _is_open(step: Step, plays: Mapping[Key, Play]) -> bool:
    """Whether it is to be played yet. A graph that has not reached its end has no sequential twin, and one in which
    nothing ran beside anything is its own."""
    if step.key in plays or not step.sequential:
        return step.key not in plays
    first = plays.get(step.twin)
    if first is None:
        return True
    return bool(first.graph or not step.again) and not (first.succeeded and at_once(first) <= WIDE)


def key_of(one: Play) -> Key:
    return one.case, one.sequential, one.fault, one.repeat


def _words(one: Play) -> str:
    how = ", ".join(filter(None, ("sequential" if one.sequential else "", one.fault)))
    return f"{one.category}/{one.case}" + (f" ({how})" if how else "")


def quick(cases: Sequence[Case]) -> tuple[Case, ...]:
    """The first few of each category."""
    return tuple(one for name in CATEGORIES for one in [case for case in cases if case.category == name][:QUICK])


def _steps(order: Order, cases: Sequence[Case]) -> Iterator[Step]:
    """Each case with its sequential twin, then each fault over all cases.

    The twin of a gold play is played first every other time; that of another planner's plan can only be played after,
    and that of a chain needs to be only if something ran beside something all the same.
    """
    gold = order.mode == "gold"
    for repeat in range(order.repeat):
        for number, case in enumerate(cases):
            twins = [Step(case, False, "", repeat), Step(case, True, "", repeat, again=not gold)]
            yield from twins[:: -1 if gold and (number + repeat) % 2 and not is_chain(case.plan) else 1]
    for fault in order.faults:
        yield from (Step(case, False, fault, 0) for case in cases)
