"""One schedule from its first decision to the last check: chaos, then heal, then everything must be well.

Chaos: faults and people, `machine.check()` and the witness after every record. Heal: the network is whole, everybody
is back, a person does what is asked of persons; within a minute every run must be final, then nothing may be held by
anybody. The same schedule gives the same history, byte for byte.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator
from functools import cache
from random import Random
from typing import Any, Final

import msgspec

from orchestrator.core import command as c
from orchestrator.core.setting import CoreSettings, HedgeSettings, PreemptSettings, QuarantineSettings
from protocol.builtin import BUILTINS
from protocol.frame import Call, Heartbeat, Rejected, Report
from protocol.ids import AttemptId, Fence
from protocol.outcome import Failure, FailureClass, Success
from protocol.profile import WorkerProfile

from .fault import Faults
from .oracle import Oracle
from .schedule import SPAN_S, Schedule, draw
from .simulated_people import SimulatedPeople
from .simulated_skill import Program, SimulatedCallRefused, SimulatedJob, profile_of
from .simulator import Simulator, Stalled
from .tale import tale

HEAL_S: Final = 60.0
IDLE_S: Final = 30.0
PREFETCH_S: Final = 2.0
"""Long enough that work of seconds waits at workers, too; and nothing is too short to be hedged."""
_FLOW: Final = tuple(skill for skill in BUILTINS if skill.name == "flow.list")


class Outcome(msgspec.Struct, frozen=True):
    """What came of a schedule. `error`: "" or what was noticed, in one line; `story` then tells how it came to it."""

    seed: int
    digest: str
    error: str = ""
    story: str = ""
    hits: dict[str, int] = {}
    decisions: int = 0
    results: int = 0


def simulate(schedule: Schedule) -> Outcome:
    """Play it. Whatever is wrong is in the outcome; nothing is raised."""
    simulation: Simulation | None = None
    error = story = ""
    results = 0
    try:
        simulation = Simulation(schedule)
        results = simulation.play()
    except Exception as found:  # noqa: BLE001 - any defect of what is simulated ends here
        error = f"{type(found).__name__}: {found}".partition("\n")[0]
        told = tale(simulation) if simulation is not None else ""
        story = "".join([told, "\n", *traceback.format_exception(found)[-4:]])
    if simulation is None:
        return Outcome(schedule.seed, "", error, story)
    return Outcome(
        schedule.seed, simulation.history.hexdigest(), error, story, simulation.hits, simulation.decisions, results
    )


def simulate_seed(seed: int) -> Outcome:
    """The schedule of a seed, played."""
    return simulate(draw(seed))


class Simulation(Simulator):
    """See the module."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.people: SimulatedPeople
        self._replies = 1_000_000
        super().__init__(
            seed=schedule.seed,
            workers=[
                _profile(slots, schedule.speeds[n] if schedule.speeds else 1.0)
                for n, slots in enumerate(schedule.slots)
            ],
            program={"*": scripted(schedule.script)},
            faults=schedule.faults,
            settings=CoreSettings(
                planner_s=5.0,
                claim_s=6.0,
                approval_s=schedule.approval_s,
                dispatch_ahead=schedule.ahead,
                placement=schedule.policy,
                prefetch_target_s=PREFETCH_S,
                hedge=HedgeSettings(known=1, least_s=0.05, budget=1.0, move_s=0.2),
                keep_after_s=0.3,
                preempt=PreemptSettings(after_s=0.2, grace_s=0.5, soon_s=0.1, turn_s=0.5),
                quarantine=QuarantineSettings(rate=0.1, delay_s=0.05, rest_s=1.0),
            ),
            fsync_s=schedule.fsync_s,
            replay=True,
        )
        self.people = SimulatedPeople(self, schedule, {"tasks": list(schedule.tasks), "run": schedule.settings})
        for worker in self.workers:
            worker.stubborn_s = schedule.stubborn_s

    def new_reply(self) -> int:
        """A number for a request whose answer nobody waits for."""
        self._replies += 1
        return self._replies

    def planned(self, command: c.StartPlanner) -> None:
        self.people.plan(command, lambda delay_s, act: self._at_here(self.now + delay_s, act))

    def _boot(self) -> None:
        super()._boot()
        if self.restarts and self.schedule.hasty and self.chaos and self.up:
            luck = Random(f"{self.schedule.seed} {self.restarts}")
            for stimulus in self.people.rewrite(luck):
                self.handle(stimulus)

    # Phases

    def play(self) -> int:
        """Chaos, heal, checks; how many results were checked. Raises: what was found, mostly AssertionError."""
        schedule = self.schedule
        self.people.submit()
        for act in schedule.acts:
            self.at(self.started_at + act.at, lambda act=act: self.people.act(act) if self.chaos else None)  # type: ignore[misc]
        for rival in schedule.rivals:
            self.at(self.started_at + rival.at, lambda rival=rival: self.people.rival(rival))  # type: ignore[misc]
        for at, index, what in schedule.faults.hostile:
            self.at(self.started_at + at, lambda i=index, w=what: self._lie(i, w) if self.chaos else None)  # type: ignore[misc]
        self.run_until(
            self.started_at + 1.5 * SPAN_S, lambda: self.decisions >= schedule.steps or (self.up and self.settled())
        )
        self.heal()
        self.settle(HEAL_S)
        if not self.run_until(self.now + IDLE_S, self._idle):
            raise Stalled(f"everything is final, but not everybody idle: {self.story()}")
        self.prove_replay()
        self.machine.check()
        runs = self.state.runs
        return sum(Oracle(runs[number], record).check() for number, record in self.witness.ledger.runs.items())

    def heal(self) -> None:
        """No more faults; everybody comes back."""
        self.note("heal")
        self.faults = Faults(until_s=0.0)
        self.network.heal()
        self.disk_room()
        luck = Random(f"{self.schedule.seed} heals")

        def tidy() -> None:
            for worker in self.workers:
                worker.mute = False
                worker.empty_disk()
                if not worker.up:  # whoever was told to leave comes back, too
                    worker.start()
            self.people.tidy(luck)
            self.at(self.now + 0.5, tidy)

        tidy()

    def settled(self) -> bool:
        return bool(self.state.runs) and super().settled()

    def _idle(self) -> bool:
        sessions = self.machine.fleet.sessions.values()
        return (
            self.up
            and len(sessions) == len(self.workers)
            and not any(session.loads or session.holds for session in sessions)
            and not any(worker.live or worker.machine.spool.entries for worker in self.workers)
        )

    # A worker that lies

    def _lie(self, index: int, what: str) -> None:
        """An authenticated worker speaks of what is not its own, or wrongly of what is."""
        liar = self.worker(index)
        found = [
            (AttemptId(run.ix, task.ix, attempt.number), attempt)
            for run in self.state.runs.values()
            for task in run.tasks
            for attempt in task.live()
            if (attempt.worker == liar.ident) == (what in ("fence", "pin"))
        ]
        if not found or not liar.up or not self.up:
            return
        ident, attempt = self.luck.choice(found)
        lied = Success(b'{"value":"lied","by":[0,0]}')
        fence, pin = attempt.fence, attempt.pin
        if what == "call":
            liar.say(Call(ident, fence, 1, "begin_effect"))
        elif what == "rejected":
            liar.say(Rejected(ident, "BadSpec", "lied"))
        elif what == "held":
            liar.say(Heartbeat(liar.clock(), (ident, *liar.live)))
        else:
            fence = Fence(0, 1) if what == "fence" else fence
            liar.say(Report(ident, fence, b"lied" if what == "pin" else pin, lied))
        self.hit(f"lie: {what}")


@cache
def _profile(slots: int, speed: float) -> WorkerProfile:
    return profile_of(slots, speed=speed, builtins=_FLOW)


def scripted(script: dict[str, str]) -> Program:
    """The program of every task: it gives back its arguments and the fence it ran under, unless told to fail."""

    def run(job: SimulatedJob) -> Generator[Any, Any, Any]:
        rows = job.args if isinstance(job.args, list) else [job.args]
        if job.skill == "flow.list":
            return {"items": rows[0]["items"]}
        root = job.name.partition(".")[0]
        how = script.get(root, "") if job.element or "." not in job.name else script.get(job.name, "")
        yield from _calls(how)
        run_s = min(float(rows[0].get("run_s", 0.01)), 4.0)
        if job.skill == "sim.keeps":
            yield from _steps(run_s)
        else:
            yield run_s
        if job.skill == "sim.own":
            yield "begin_effect", None
            yield 0.05
        word, _, times = how.partition(" ")
        if word in _FAILS and job.number <= int(times or 99):
            return Failure("HostDied" if word == "died" else "Bad", "as told", _FAILS[word])
        if how == "spawn fails" and job.number == 1:
            return Failure("Flaky", "again", "transient")
        fence = job.assign.fence
        values = [{"value": row.get("value"), "by": [fence.epoch, fence.counter]} for row in rows]
        return values if isinstance(job.args, list) else values[0]

    return run


_FAILS: Final[dict[str, FailureClass]] = {
    "permanent": "permanent", "transient": "transient", "infra": "infra", "policy": "policy", "died": "transient",
}  # fmt: skip


def _steps(run_s: float) -> Generator[Any, Any, None]:
    """Four steps, those that an earlier attempt has kept left out."""
    for step in range((yield "restore", None) or 0, 4):
        yield run_s / 4
        yield "checkpoint", step + 1


def _calls(how: str) -> Generator[Any, Any, None]:
    if how.startswith("spawn"):
        children = []
        for value in range(2):
            spawned = yield "spawn", {"skill": "sim.work", "args": {"value": value, "run_s": 0.2}}
            children.append(spawned["id"])
        found = yield "join", {"ids": children}
        assert [one["value"] for one in found] == [0, 1], f"a join gave {found}"
    elif how == "ask":
        answer = yield "ask", {"question": "?"}
        assert answer["answer"] in (41, 42), f"an answer was {answer}"
    elif how == "goal":
        try:
            added = yield "propose", {"goal": "more of it"}
        except SimulatedCallRefused:
            return
        assert set(added) == {"version", "tasks"}, f"a goal was answered with {added}"
    elif how == "propose":
        task = {"id": "q1", "skill": "sim.work", "args": {"value": 7, "run_s": 0.05}}
        try:
            yield "propose", {"patch": {"tasks": [task]}}
        except SimulatedCallRefused:
            return
