"""What the reactors share: the state, the fleet, and the decision that is being made. One per machine.

`emit` applies an event as it records it, so every later line of the same decision sees it. Reactors are plain
functions over a Turn, one module a concern; none keeps state of its own.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import Any, Final

from protocol.errors import AsterismError
from protocol.frame import ToWorker
from protocol.ids import AttemptId, Fence, task_name
from protocol.profile import Policy as Word
from protocol.profile import ruling
from protocol.skill import SkillSpec
from protocol.task import EFFECT_ORDER, Effect

from ..placement.policy import Policy
from ..placement.predictor import Predictor
from . import command as c
from .binding import Binder
from .event import Event, PatchAccepted, RunSubmitted, SkillsAnnounced
from .event_codec import decode_events, encode_events
from .fleet import Fleet, Session
from .graph import Attempt, Run, Task
from .ledger import Ledger
from .precedent import Precedent
from .queue import Queue
from .room import Room
from .setting import CoreSettings
from .state import State
from .watchfulness import Watchfulness

_FOREIGN: Final = frozenset((PatchAccepted, RunSubmitted, SkillsAnnounced))


class Turn:
    """See the module. `now` is run time, `luck` the caller's uniform draw."""

    def __init__(self, state: State, settings: CoreSettings, policy: Policy) -> None:
        self.state = state
        self.settings = settings
        self.policy = policy
        self.fleet = Fleet()
        self.queue = Queue()
        self.flushes = 0
        self.plans: dict[int, Any] = {}
        """Run -> what is planned of it (core.guidance)."""
        self.past: Precedent | None = None
        """What recent runs tell; None: one has ended since it was read."""
        self.drifted: set[int] = set()
        """Runs whose plan is to be made again."""
        self.owes_since = inf
        """Since when there is something to do in a Lull."""
        self.warm: dict[int, dict[str, dict[int, tuple[float, str]]]] = {}
        """Run -> skill -> worker -> until when what it has loaded is warm there, by which daemon (core.warmth)."""
        self.hoards = False
        """Some session may have work that waits there."""
        self.recalls_at = 0.0
        """Such work is looked at again from then on (core.recall); a timer comes at `recall_wakes_at`."""
        self.recall_wakes_at = 0.0
        self.binder = Binder()
        self.around: dict[tuple[object, ...], tuple[dict[str, float], bytes, bytes]] = {}
        """What stands around the arguments in what is sent of a kind of work (core.assignment)."""
        self.predictor = Predictor(keep=settings.keep_predictions)
        self.ledger = Ledger(state, dict(settings.shares), settings.share_half_life_s)
        self.resolved: dict[tuple[int, int], dict[str, Any]] = {}
        self.resolving: set[tuple[int, int]] = set()
        self.parked: dict[tuple[int, int], dict[int, None]] = {}
        """(run, map) -> ready children over the map's limit."""
        self.barred: dict[int, dict[int, None]] = {}
        """Run -> ready `once` tasks that wait until its first plan is complete."""
        self.doubts: dict[tuple[int, int], tuple[tuple[str, int, int, bool], str]] = {}
        """(run, map) -> what it was judged in, and what core.trust says of its elements."""
        self.dry: dict[int, dict[int, None]] = {}
        """Run -> ready tasks that spend, and wait for somebody to give back what it was lent of the budget."""
        self.hedges: set[tuple[int, int]] = set()
        """Running tasks of suspect workers that want one more attempt elsewhere."""
        self.watch = Watchfulness()
        self.room = Room()
        self.suspects: dict[tuple[int, int], None] = {}
        """Ready tasks that may only run alone (core.poison)."""
        self.waiting_since: dict[tuple[int, int], float] = {}
        """(run, task) that runs on all workers -> since when there has been none."""
        self.staging: dict[tuple[int, str], list[int]] = {}
        """(run, uri) -> the replies that wait for this file."""
        self.stages: dict[int, tuple[int, tuple[str, ...], int]] = {}
        """Reply -> (run, uris, how many are missing) of a worker that waits for files of other machines."""
        self.joins: dict[tuple[int, int], tuple[int, int, list[int]]] = {}
        """(run, task) -> (attempt, k, children) of a join that has no answer yet."""
        self.passed: dict[tuple[int, int], int] = {}
        """(run, task) -> the highest number of an attempt that the journal doesn't know and a worker had."""
        self.holds: dict[tuple[int, int], int] = {}
        """(run, task) -> a worker that holds an attempt of it which can't be judged yet."""
        self.refused: set[tuple[int, int, int, Fence]] = set()
        """What a worker was told to drop: it stays dropped for this epoch."""
        self.refusals: dict[int, int] = {}
        """Worker -> how many of `refused` are its own."""
        self.dirty: dict[int, None] = {}
        """Runs that may have come to an end."""
        self.failures: dict[int, dict[int, None]] = {}
        """Run -> open failures for which a planner must be asked."""
        self.serving: dict[tuple[int, int], None] = {}
        """(run, task) that are ready and served here, by no worker."""
        self.wants: dict[int, dict[int, None]] = {}
        """Run -> tasks that wait for a planner call which is not open yet."""
        self.asking: dict[int, None] = {}
        """Runs for which planner calls may be opened now."""
        self.objections: dict[tuple[int, int], tuple[str, str]] = {}
        """(run, planner call) -> why its last patch was refused."""
        self.junk = 0
        """What was inadmissible in the frame that is being read."""
        self.overspent: dict[int, None] = {}
        """Runs whose attempts have used more than their budget has."""
        self.below: dict[int, tuple[int, list[float]]] = {}
        """Run -> (tasks, seconds that hang on each) (core.urgency)."""
        self.disk_full = False
        self.started = False
        self.counter = 0
        self.now = 0.0
        self.luck = 0.5
        self.focus = 0
        """The run that is being decided on: who is to blame if that fails."""
        self.events: list[Event] = []
        self.commands: list[c.Command] = []
        self._timers: list[tuple[float, int, str, tuple[int, ...]]] = []
        self._timed = 0
        self.late_s = 0.0
        """How much later than asked the timers of this Tick came: by so long our loop stood still."""

    def emit(self, event: Event) -> None:
        """Record a fact and apply it.

        What others wrote is applied as the journal will give it back: equal values of unlike identity or number type
        must not make the live state differ from its replay.
        """
        if type(event) in _FOREIGN:
            event = decode_events(encode_events((event,)))[0]
        run = self.state.apply(event)
        self.events.append(event)
        if run:
            self.focus = run
            self.dirty[run] = None

    def command(self, command: c.Command) -> None:
        self.commands.append(command)

    def send(self, session: Session, item: ToWorker, *, after_commit: bool = False) -> None:
        self.commands.append(c.Send(session.conn, item, after_commit or not session.welcomed))

    def reply(self, reply: int, value: Any = None) -> None:
        """Answer a request, once what it changed is on disk. Reply 0 is nobody's."""
        if reply:
            self.commands.append(c.Reply(reply, value))

    def refuse(self, reply: int, error: AsterismError) -> None:
        if reply:
            self.commands.append(c.Reply(reply, None, error.to_wire()))

    def count(self, name: str) -> None:
        self.commands.append(c.Count(name))

    def inadmissible(self, worker: str, code: str, what: str, of: AttemptId | None = None) -> None:
        """A worker said what it may not: it changes nothing, and people see it."""
        self.junk += 1
        run = self.state.runs.get(of.run) if of is not None else None
        if of is None or run is None or not 0 <= of.task < len(run.tasks):
            known = 0 if run is None else run.ix
            what += f" of {task_name(of.run, str(of.task), of.number)}" if of is not None else ""
            self.commands.append(c.Refuse(f"worker:{worker}", code, what, known))
        else:
            what += f" of {self.name(run, run.tasks[of.task], of.number)}"
            self.commands.append(c.Refuse(f"worker:{worker}", code, what, run.ix, of.task))

    def fence(self) -> Fence:
        """A new fencing token: the epoch is durable, so no fence is ever issued twice."""
        self.counter += 1
        return Fence(self.state.epoch, self.counter)

    def wake(self, at: float, kind: str, *key: int) -> None:
        """Ask for a Tick at run time `at`; the machine then calls the timer `kind` with `key`."""
        self._timed += 1
        heapq.heappush(self._timers, (at, self._timed, kind, key))

    def due_timers(self) -> list[tuple[str, tuple[int, ...]]]:
        """Timers that have come, each once."""
        found = []
        self.late_s = self.now - self._timers[0][0] if self._timers else 0.0
        while self._timers and self._timers[0][0] <= self.now:
            _, _, kind, key = heapq.heappop(self._timers)
            found.append((kind, key))
        return found

    def next_wake(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def located(self, key: tuple[int, int, int]) -> tuple[Run, Task, Attempt]:
        """What is known to be there: a live attempt, or one on a session's books."""
        run = self.state.runs[key[0]]
        task = run.tasks[key[1]]
        attempt = task.attempt(key[2])
        assert attempt is not None
        return run, task, attempt

    def forget(self, run: int) -> None:
        """The run is settled: what was remembered of its tasks is not needed any more."""
        for waiting in (self.barred, self.failures, self.wants, self.dry, self.watch.done_s, self.watch.copied_s):
            waiting.pop(run, None)
        self.past = None
        self.drifted.discard(run)
        for kept in (self.below, self.warm, self.plans):
            kept.pop(run, None)
        tables: tuple[dict[tuple[int, int], Any], ...] = (
            self.resolved, self.parked, self.suspects, self.waiting_since, self.joins, self.holds, self.passed,
            self.doubts,
        )  # fmt: skip
        for table in tables:
            for key in [key for key in table if key[0] == run]:
                del table[key]
        self.hedges = {key for key in self.hedges if key[0] != run}
        for session in self.fleet.sessions.values():
            if session.kept_for is not None and session.kept_for[0] == run:
                session.keep_for(None)

    def broke(self, run: int, task: int) -> None:
        """The task has failed and is open: a planner is to be asked."""
        self.failures.setdefault(run, {})[task] = None
        self.asking[run] = None

    def want(self, run: int, task: int) -> None:
        """The task waits for a planner call."""
        self.wants.setdefault(run, {})[task] = None
        self.asking[run] = None

    def contract(self, task: Task) -> SkillSpec | None:
        """The skill of the task's current means."""
        return self.state.skill(task.skill)

    def ruling(self, skill: str) -> Word:
        """What this server's own policy says of a skill."""
        policies = self.settings.policies
        return (ruling(policies, skill) or "allow") if policies else "allow"

    def effect(self, task: Task) -> Effect:
        """The stricter of the skill's effect and the plan's."""
        spec = self.contract(task)
        return self.stricter(spec, task) if spec else "once"

    @staticmethod
    def stricter(spec: SkillSpec, task: Task) -> Effect:
        """The stricter of this contract's effect and the plan's."""
        stated = task.spec.effect
        return stated if stated is not None and EFFECT_ORDER[stated] > EFFECT_ORDER[spec.effect] else spec.effect

    def name(self, run: Run, task: Task, attempt: int = 0) -> str:
        """`r7/scan#2`."""
        return f"{run.name}/{run.name_of(task)}" + (f"#{attempt}" if attempt else "")
