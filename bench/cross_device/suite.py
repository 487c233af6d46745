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
from .case import CATEGORIES, Case, Loaded
from .play import Play, play
from .site import FiveMachines
from .store import Store
from .warm import NOTE, warm

QUICK: Final = 2
"""Cases of each category with --quick."""
Mode = Literal["gold", "catalog", "llm"]


class Order(msgspec.Struct, frozen=True):
    """What is to be played. `model`: the environment that names the model of the llm mode."""

    mode: Mode = "gold"
    seed: int = 1
    repeat: int = 1
    faults: tuple[str, ...] = ()
    quick: bool = False
    model: Mapping[str, str] = {}

    def settings(self) -> dict[str, Any]:
        """What plays must have in common to be told of together."""
        return {"schema": "asterism/plays/v1", "mode": self.mode, "seed": self.seed}


class Step(msgspec.Struct, frozen=True):
    """A play that is to be made, the `number`th of `of`."""

    case: Case
    sequential: bool
    fault: str
    repeat: int
    number: int = 0
    of: int = 0

    def key(self) -> dict[str, Any]:
        return {
            "case": self.case.name, "sequential": self.sequential, "fault": self.fault, "repeat": self.repeat,
        }  # fmt: skip


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
    """Play it all. Raises: what keeps the server or the network of the machines from starting."""
    began = time.monotonic()
    cases = quick(loaded.cases) if order.quick else loaded.cases
    steps = [*_steps(order, cases)]
    steps = [msgspec.structs.replace(one, number=at, of=len(steps)) for at, one in enumerate(steps, 1)]
    plays = {step.number: store.find(**step.key()) for step in steps}
    problems = [*loaded.problems]
    notes: tuple[str, ...] = ()
    left = [step for step in steps if plays[step.number] is None]
    if left:
        with guarded("asterism-suite-") as guard:
            async with FiveMachines(guard, order.seed, model=order.model) as stage:
                problems += [f"{name} could not be started: {why}" for name, why in stage.missing.items()]
                await warm(stage, stage.machines)
                notes = (*stage.notes, NOTE)
                for step in left:
                    watch(step, None)
                    made = await play(
                        stage,
                        step.case,
                        mode=order.mode,
                        seed=order.seed,
                        sequential=step.sequential,
                        repeat=step.repeat,
                    )
                    store.keep(made)
                    plays[step.number] = made
                    watch(step, made)
    made_all = tuple(one for one in plays.values() if one is not None)
    for one in made_all:
        name = f"{one.category}/{one.case}{' (sequential)' if one.sequential else ''}{one.fault and f' ({one.fault})'}"
        problems += [f"{name}: {why}" for why in (one.problem, *one.unfailing) if why]
    return Suite(order, tuple(cases), made_all, tuple(problems), notes, time.monotonic() - began)


def quick(cases: Sequence[Case]) -> tuple[Case, ...]:
    """The first few of each category."""
    return tuple(one for name in CATEGORIES for one in [case for case in cases if case.category == name][:QUICK])


def _steps(order: Order, cases: Sequence[Case]) -> Iterator[Step]:
    """Each case with its sequential twin, which is played first every other time; then each fault over all cases."""
    for repeat in range(order.repeat):
        for number, case in enumerate(cases):
            twins = (False, True) if order.mode == "gold" else (False,)
            for sequential in twins if (number + repeat) % 2 else twins[::-1]:
                yield Step(case, sequential, "", repeat)
    for fault in order.faults:
        for case in cases:
            yield Step(case, False, fault, 0)
