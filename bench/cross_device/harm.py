"""What the seven fault scenarios do to the fleet, and how each is undone.

Invariant: after `undo` the fleet is as it was, whether the run is over or not. It must not know when to strike, nor
what came of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

import anyio
import msgspec

from planner.scripted.asked import Asked
from planner.scripted.dialogue import Fault as Mischance
from planner.scripted.dialogue import Turn

from .case import Case
from .mishap import EVERYWHERE, Mishap, befall, relieve
from .site import FiveMachines

SLOWER: Final = 10.0
CUT_S: Final = 4.0
"""How long a partition lasts, if its run does: longer than it takes to be noticed."""
DISMISSED_S: Final = 1.0
SHARE: Final = 0.25
"""Of the tasks, how many fail at their first attempt."""


class Harm:
    """One scenario for one play. This one does nothing; the others are it, but for what they say.

    `bound_s` is what wire.md allows until what was hit runs again: for pure tasks, and for those that act once; None
    where a policy decides. `at_once`: it lies there before the request comes, and no moment is chosen. `for_good`: the
    machine is gone until the run is over.
    """

    bound_s: tuple[float, float] | None = None
    at_once = False
    for_good = False

    def __init__(self, stage: FiveMachines, case: Case, dice: random.Random) -> None:
        self.stage = stage
        self.case = case
        self.dice = dice
        self.acted_at: float | None = None
        """When it was felt first, where that is not the strike."""

    async def strike(self, machine: str) -> str:
        """Do it; in words."""
        return ""

    async def heal(self, machine: str, settled: anyio.Event) -> None:
        """Undo it in the run, when it is time to; `settled`: the run is over."""

    async def undo(self) -> None:
        """Undo what is left of it; also if it never struck."""

    async def _whole(self) -> None:
        """Wait until all machines are there, but for those that the case sent away."""
        await self.stage.fleet.joined(
            self.stage.client, *(name for name in self.stage.machines if name not in self.case.absent)
        )


class SkillErrors(Harm):
    """A quarter of the tasks, and one for certain, fail once with a transient error that the case knows nothing of."""

    at_once = True

    async def strike(self, machine: str) -> str:
        tasks = self.case.plan["tasks"]
        spared = {one["id"] for one in tasks if (one.get("retry") or {}).get("max") == 0}
        rest = [one["id"] for one in tasks if one["id"] not in spared]
        certain = (self.dice.choice(rest),) if rest else ()
        found = Mishap(f"{self.dice.random()}", SHARE, certain, tuple(sorted(spared)))
        befall(self.stage.mishaps, EVERYWHERE, found)
        return f"one in {1 / SHARE:g} tasks fails once"

    async def undo(self) -> None:
        relieve(self.stage.mishaps, EVERYWHERE)


class WorkerRestart(Harm):
    """SIGKILL to a worker daemon, which is started again at once, as the same worker."""

    bound_s = (0.5, 6.0)
    _down = ""

    async def strike(self, machine: str) -> str:
        self._down = machine
        self.stage.kill(machine)
        return f"{machine} was killed and started again"

    async def heal(self, machine: str, settled: anyio.Event) -> None:
        await self.undo()

    async def undo(self) -> None:
        if self._down:
            await self.stage.back(self._down)
            self._down = ""


class MachineLost(WorkerRestart):
    """SIGKILL to a worker daemon, which stays away until the run is over.

    The fleet waits for who may come back; a second later a person says that this one won't.
    """

    for_good = True

    async def strike(self, machine: str) -> str:
        await super().strike(machine)
        return f"{machine} was lost for good"

    async def heal(self, machine: str, settled: anyio.Event) -> None:
        with anyio.move_on_after(DISMISSED_S):
            await settled.wait()
        await self.stage.dismiss(machine)


class SlowMachine(Harm):
    """From then on what a machine does takes ten times as long, from its start: simulated in its skill hosts, which
    wait for the rest."""

    _slow = ""

    async def strike(self, machine: str) -> str:
        self._slow = machine
        befall(self.stage.mishaps, machine, Mishap(slower=SLOWER, start_s=self.stage.starts_s[machine]))
        return f"{machine} became {SLOWER:g} times slower"

    async def undo(self) -> None:
        relieve(self.stage.mishaps, self._slow)


class Partition(Harm):
    """Nothing passes between a machine and the orchestrator, in either direction, for some seconds."""

    bound_s = (3.5, 6.0)
    _cut = ""

    async def strike(self, machine: str) -> str:
        self._cut = machine
        await self.stage.network.cut(machine, "both")
        return f"{machine} could not be reached for {CUT_S:g} s"

    async def heal(self, machine: str, settled: anyio.Event) -> None:
        with anyio.move_on_after(CUT_S):
            await settled.wait()
        await self._reach()

    async def undo(self) -> None:
        await self._reach()
        await self._whole()

    async def _reach(self) -> None:
        if self._cut:
            await self.stage.network.heal(self._cut)
            self._cut = ""


class OrchestratorRestart(Harm):
    """SIGKILL to the orchestrator, which is started again at once, by the bench or by a client that misses it."""

    bound_s = (2.0, 2.0)
    _pid = 0

    async def strike(self, machine: str) -> str:
        self._pid = self.stage.fleet.server_pid
        self.stage.fleet.kill_server()
        self.acted_at = time.time()
        return "the orchestrator was killed and started again"

    async def heal(self, machine: str, settled: anyio.Event) -> None:
        await self.stage.fleet.restart_server(self._pid)

    async def undo(self) -> None:
        await self._whole()


class GarbagePlanner(Harm):
    """What the model says first is none of a plan, or only half of one. What is asked after that it answers well."""

    at_once = True

    async def strike(self, machine: str) -> str:
        name = self.dice.choice(sorted(GARBAGE))
        good, left = self.stage.answer, [name]

        def answer(asked: Asked) -> Turn:
            if not left or asked.body.get("tools"):
                return good(asked)
            self.acted_at = time.time()
            return GARBAGE[left.pop()](self.case, self.dice)

        self.stage.answer = answer
        return f"the model first said {name}"


def _half(case: Case, dice: random.Random) -> str:
    text = msgspec.json.encode(case.plan).decode()
    return text[: dice.randrange(len(text) // 4, 3 * len(text) // 4)]


def _harmed(case: Case, **changes: Any) -> Turn:
    """The plan with its first task harmed, under its own id: only so can what is said next mend it."""
    first, *rest = case.plan["tasks"]
    return Turn(text=msgspec.json.encode({**case.plan, "tasks": [{**first, **changes}, *rest]}).decode())


def _circle(case: Case, dice: random.Random) -> Turn:
    """The first task reads what the last one gives."""
    first, last = case.plan["tasks"][0], case.plan["tasks"][-1]
    argument = next(iter(first.get("args", ())), "value")
    return _harmed(case, args={**first.get("args", {}), argument: {"ref": last["id"]}})


GARBAGE: Final[dict[str, Callable[[Case, random.Random], Turn]]] = {
    "prose": lambda case, dice: Turn(text="I have thought about it, and it should work out well if all do their part."),
    "half a plan": lambda case, dice: Turn(text=_half(case, dice), finish="length"),
    "half a plan, then nothing": lambda case, dice: Turn(text=_half(case, dice), faults=(Mischance("cut", at=8),)),
    "a page of HTML": lambda case, dice: Turn(text="<!doctype html><h1>502 Bad Gateway</h1>"),
    # No 500: a planner does not ask again after that, and its run fails as PlannerFailed.
    "an error 503": lambda case, dice: Turn(status=503, headers=(("retry-after-ms", "50"),), error="busy"),
    "a skill that is none": lambda case, dice: _harmed(case, skill="magic.solve"),
    "a circle": _circle,
    "plain numbers": lambda case, dice: Turn(text="[1, 2, 3]"),
}
"""By what it is, in words."""

HARMS: Final[dict[str, type[Harm]]] = {
    "skill-errors": SkillErrors,
    "worker-restart": WorkerRestart,
    "machine-lost": MachineLost,
    "slow-machine": SlowMachine,
    "partition": Partition,
    "orchestrator-restart": OrchestratorRestart,
    "garbage-planner": GarbagePlanner,
}
