"""The real core with a scripted fleet, as data: it can be stopped at any effect, copied, and gone on with.

One thing happens at a time and nothing is drawn by luck. Workers keep the rules of the worker link (inventory, outbox,
verdicts, calls sent again); their skills are pure functions of what they were given and answered. It shares no code
with the simulator, so a mistake of one is not a mistake of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.core.lifecycle import Closed
from orchestrator.core.machine import Machine
from orchestrator.core.setting import CoreSettings
from orchestrator.core.state import State
from protocol.builtin import BUILTINS
from protocol.frame import (
    Ack,
    Assign,
    Call,
    Cancel,
    Heartbeat,
    HeartbeatAck,
    Held,
    HeldVerdict,
    Hello,
    Report,
    Return,
    Welcome,
    WorkSpec,
)
from protocol.ids import AttemptId
from protocol.outcome import Failure, Outcome, Stopped, Success, Usage
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources
from protocol.skill import SkillSpec
from protocol.task import substitute

JOURNAL: Final = "5eed" * 8
_ANY: Final[dict[str, Any]] = {"type": "object", "properties": {"value": {}}, "additionalProperties": False}
SKILLS: Final = (
    SkillSpec("x.pure", params=_ANY, effect="pure"),
    SkillSpec("x.idem", params=_ANY, effect="idempotent"),
    SkillSpec("x.once", params=_ANY, effect="once", retry_max=0),
    SkillSpec("x.parent", params=_ANY, effect="pure", spawns=("x.pure",)),
)
PROFILE: Final = WorkerProfile(
    slots=2, capacity=Resources(cpu=2.0), devices=(DeviceProfile("cpu"),), skills=(*BUILTINS, *SKILLS)
)
RUNS: Final = "runs for ever"
"""What a program says that only ends when it is stopped."""


class Job(msgspec.Struct, frozen=True):
    """What a program is told. `args` is a list of arguments for a chunk of a map; `answers` are those of its calls."""

    name: str
    number: int
    args: Any
    answers: tuple[Any, ...]


Program = Callable[[Job], Any]
"""What the attempt does next: `(call, body)`, an Outcome, RUNS, or a value as its result."""


def give_back(job: Job) -> Any:
    """The program of every task that has none of its own: its argument `value`, or its items."""
    rows = job.args if isinstance(job.args, list) else [job.args]
    found = [{"items": row["items"]} if "items" in row else {"value": row.get("value")} for row in rows]
    return found if isinstance(job.args, list) else found[0]


class Live(msgspec.Struct):
    """An attempt that a worker runs."""

    assign: Assign
    answers: tuple[Any, ...] = ()
    waits: Call | None = None
    on_hold: bool = False


class Hand(msgspec.Struct):
    """A worker: all that it is."""

    ident: int
    name: str
    conn: int = 0
    boot: int = 1
    live: dict[AttemptId, Live] = {}
    spool: dict[AttemptId, Report] = {}
    held: set[AttemptId] = set()
    """Reports that are on hold."""
    ended: set[tuple[AttemptId, Any]] = set()
    seen: list[AttemptId] = []
    """Assigns that it will confirm with the next frame."""

    def copy(self) -> Hand:
        live = {key: msgspec.structs.replace(one) for key, one in self.live.items()}
        return Hand(
            self.ident, self.name, self.conn, self.boot, live, dict(self.spool), set(self.held), set(self.ended),
            list(self.seen),
        )  # fmt: skip


class Fleet(msgspec.Struct):
    """Everything that survives the death of the orchestrator: workers, the client, the clock."""

    now: float = 100.0
    hands: list[Hand] = []
    inbox: list[tuple[int, int, Any]] = []
    """(conn, worker, item) on their way to the orchestrator."""
    executions: dict[str, int] = {}
    effects: dict[str, int] = {}
    done: dict[str, int] = {}
    """Attempts that succeeded at a worker."""
    step: int = 0
    asked: bool = False
    """The step's request was sent at least once."""
    conns: int = 0
    replied: dict[int, Any] = {}

    def copy(self) -> Fleet:
        return Fleet(
            self.now, [hand.copy() for hand in self.hands], [], dict(self.executions), dict(self.effects),
            dict(self.done), self.step, self.asked, self.conns, dict(self.replied),
        )  # fmt: skip


class Step(msgspec.Struct, frozen=True):
    """What the client does once `when` holds. It asks, and asks again after a crash; or something happens to the fleet.

    `refusable`: the answer to a repetition may be a refusal, because the first was heard after all.
    """

    when: Callable[[World], bool]
    ask: Callable[[int], Any] | None = None
    act: Callable[[World], None] | None = None
    refusable: bool = False


class Stuck(AssertionError):
    """Nothing more happens and something is still open."""


class World:
    """See the module. `watch` is called before every effect with a word for it: a crash may be put there.

    `lag`: so many decisions may wait for the disk together, as in a group commit.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        programs: dict[str, Program] | None = None,
        *,
        workers: int = 2,
        settings: CoreSettings | None = None,
        planner: Callable[[c.StartPlanner], list[Any]] | None = None,
        lag: int = 0,
        fleet: Fleet | None = None,
        disk: Sequence[bytes] = (),
        one_by_one: bool = False,
    ) -> None:
        self.steps, self.programs = steps, programs or {}
        self.settings = settings or CoreSettings()
        self.planner, self.lag, self.workers = planner, lag, workers
        self.watch: Callable[[World, str], None] = lambda world, word: None
        self.fleet = fleet or Fleet()
        self.disk = list(disk)
        self.states: list[dict[int, bytes]] = []
        """The live state after each record, as a snapshot."""
        self.plans: list[Any] = []
        self._queued: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []
        self._beat_at = self.fleet.now + 1.0
        self.machine = Machine(replayed(self.disk), self.settings)
        first = not self.disk
        self._do(s.Started(self.machine.state.epoch + 1, JOURNAL))
        self._commit()
        if first:
            for number in range(1, workers + 1):
                self._do(s.Enrolled(0, f"w{number}", "0" * 64))
                self.fleet.hands.append(Hand(number, f"w{number}"))
            self._commit()
        for hand in self.fleet.hands:
            self.join(hand)
            if one_by_one:
                self._do(s.Flush())
        self._do(s.Flush())
        self._commit()

    @property
    def state(self) -> State:
        return self.machine.state

    # The orchestrator's shell

    def _do(self, stimulus: Any) -> None:
        decision = self.machine.handle(stimulus, self.fleet.now)
        self.machine.check()
        for command in decision.commands:
            if not command.after_commit:
                self._effect(command)
        late = tuple(one for one in decision.commands if one.after_commit)
        if decision.events or late:
            self._queued.append((decision.events, late))
        if len(self._queued) > self.lag:
            self._commit()

    def _commit(self) -> None:
        """The group goes to the disk as one, then what waited for it leaves."""
        group, self._queued = self._queued, []
        records = [encode_events(events) for events, _ in group if events]
        if records:
            self.watch(self, "record")
            self.disk += records
            self.states += [{}] * (len(records) - 1)
            self.states.append(self.state.snapshot())
        for _, commands in group:
            for command in commands:
                self._effect(command)

    def _effect(self, command: Any) -> None:
        if isinstance(command, c.Send):
            hand = next((one for one in self.fleet.hands if one.conn == command.conn), None)
            self.watch(self, f"send {type(command.item).__name__}")
            if hand is not None:
                self._receive(hand, command.item)
        elif isinstance(command, c.Reply):
            self.watch(self, "reply")
            self.fleet.replied[command.reply] = command.error
        elif isinstance(command, c.StartPlanner) and self.planner is not None:
            self.watch(self, "planner")
            self.plans += self.planner(command)

    # What happens next

    def run(self, most: int = 2000) -> None:
        """Go on until every step is done and every run is settled, on disk. Raises: Stuck."""
        for _ in range(most):
            if not self.turn():
                self._commit()
                return
        raise Stuck(self.story())

    def turn(self) -> bool:
        """One thing happens. False when nothing is left to do."""
        fleet = self.fleet
        if fleet.inbox:
            self._hear()
        elif self.plans:
            self._do(self.plans.pop(0))
        elif self._client():
            pass
        elif not self._workers():
            if fleet.step == len(self.steps) and all(type(run.state) is Closed for run in self.state.runs.values()):
                owing = any(hand.spool or hand.live for hand in fleet.hands)
                if not owing:
                    return False
            self._wait()
        self._do(s.Flush())
        return True

    def _hear(self) -> None:
        conn, worker, item = self.fleet.inbox.pop(0)
        hand = self.fleet.hands[worker - 1]
        seen, hand.seen = tuple(hand.seen), []
        self._do(s.WorkerSent(conn, worker, (item,), seen))

    def deliver(self) -> None:
        """Everything that is under way arrives."""
        self._do(s.Flush())
        while self.fleet.inbox:
            self._hear()
            self._do(s.Flush())

    def ask(self, make: Callable[[int], Any]) -> Any:
        """One request, at once: its error, None when it was carried out."""
        self._do(make(1_000_000))
        self._commit()
        return self.fleet.replied.pop(1_000_000)

    def crashed(self, *, one_by_one: bool = False) -> World:
        """The world after the orchestrator died here: what was not on the disk is gone, and all that was under way."""
        return World(
            self.steps, self.programs, settings=self.settings, planner=self.planner, lag=self.lag,
            fleet=self.fleet.copy(), disk=self.disk, one_by_one=one_by_one,
        )  # fmt: skip

    def wait(self, seconds: float) -> None:
        """Time passes, and everything that it brings."""
        until = self.fleet.now + seconds
        while self.fleet.now < until:
            self._wait()
            self.deliver()

    def _client(self) -> bool:
        fleet = self.fleet
        if fleet.step == len(self.steps):
            return False
        step, number = self.steps[fleet.step], fleet.step + 1
        if number in fleet.replied:
            error = fleet.replied.pop(number)
            assert error is None or step.refusable, f"step {number}: {error}"
            fleet.step, fleet.asked = fleet.step + 1, False
            return True
        if self._pending == number or not (fleet.asked or step.when(self)):
            return False
        fleet.asked = True
        if step.ask is not None:
            self._pending = number
            self._do(step.ask(number))
        elif step.act is not None:
            fleet.step, fleet.asked = fleet.step + 1, False
            step.act(self)
        return True

    _pending = 0
    """The step whose request this life of the orchestrator has."""

    def _workers(self) -> bool:
        """The first attempt that can go on does so."""
        for hand in self.fleet.hands:
            for attempt, live in hand.live.items():
                if live.waits is None and hand.conn and self._advance(hand, attempt, live):
                    return True
        return False

    def _wait(self) -> None:
        """Time passes: everybody waits for something. What is owed is sent again with the heartbeat."""
        self._commit()
        wake = self.machine.next_wake()
        fleet = self.fleet
        fleet.now = min(self._beat_at, wake) if wake is not None and wake > fleet.now else self._beat_at
        if fleet.now >= self._beat_at:
            self._beat_at = fleet.now + 1.0
            for hand in fleet.hands:
                self._say(hand, Heartbeat(fleet.now, (*hand.live, *hand.spool)))
                for report in hand.spool.values():
                    if report.attempt not in hand.held:
                        self._say(hand, report)
                for live in hand.live.values():
                    if live.waits is not None and not live.on_hold:
                        self._say(hand, live.waits)
        self._do(s.Tick())

    # The workers

    def join(self, hand: Hand) -> None:
        """A stream of the worker says Hello."""
        self.fleet.conns += 1
        hand.conn, hand.seen = self.fleet.conns, []
        running = tuple(Held(key, live.assign.fence, live.assign.pin) for key, live in hand.live.items())
        spooled = tuple(Held(key, one.fence, one.pin, b"digest") for key, one in hand.spool.items())
        hello = Hello(hand.name, f"{hand.name}.{hand.boot}", PROFILE, JOURNAL, 0, running, spooled)
        self._do(s.WorkerJoined(hand.conn, hand.ident, hello))
        self._say(hand, Heartbeat(self.fleet.now, (*hand.live, *hand.spool)))

    def die(self, hand: Hand) -> None:
        """The daemon dies and is back at once with another boot; only its outbox is left."""
        conn, hand.conn = hand.conn, 0
        hand.boot += 1
        hand.live.clear()
        hand.ended.clear()
        self.fleet.inbox = [one for one in self.fleet.inbox if one[0] != conn]
        self._do(s.WorkerGone(conn, hand.ident))
        self.join(hand)

    def _say(self, hand: Hand, item: Any) -> None:
        if hand.conn:
            self.fleet.inbox.append((hand.conn, hand.ident, item))

    def _receive(self, hand: Hand, item: Any) -> None:
        if isinstance(item, Assign):
            hand.seen.append(item.attempt)
            old: Any = hand.live.get(item.attempt)
            older = old.assign.fence if old is not None else getattr(hand.spool.get(item.attempt), "fence", None)
            if older is not None and older < item.fence:  # the orchestrator forgot the old one and gave its number anew
                hand.live.pop(item.attempt, None)
                hand.spool.pop(item.attempt, None)
                hand.held.discard(item.attempt)
                older = None
            if older is None and (item.attempt, item.fence) not in hand.ended:
                hand.live[item.attempt] = Live(item)
                name = item.name.partition("#")[0]
                self.fleet.executions[name] = self.fleet.executions.get(name, 0) + 1
        elif isinstance(item, Cancel) and item.attempt in hand.live:
            self._end(hand, item.attempt, Stopped("cancelled"))
        elif isinstance(item, Ack):
            for attempt in item.attempts:
                hand.spool.pop(attempt, None)
                hand.held.discard(attempt)
        elif isinstance(item, Return):
            self._returned(hand, item)
        elif isinstance(item, Welcome | HeartbeatAck):
            if isinstance(item, Welcome):
                hand.held.clear()
                for live in hand.live.values():
                    live.on_hold = False
            for verdict in item.verdicts:
                self._judged(hand, verdict)

    def _judged(self, hand: Hand, one: HeldVerdict) -> None:
        if one.attempt in hand.live:
            live = hand.live[one.attempt]
            live.on_hold = one.verdict == "hold"
            if one.verdict in ("kill", "drop"):
                hand.ended.add((one.attempt, live.assign.fence))
                del hand.live[one.attempt]
            elif live.waits is not None and not live.on_hold:
                self._say(hand, live.waits)
        elif one.attempt in hand.spool:
            hand.held.discard(one.attempt)
            if one.verdict == "hold":
                hand.held.add(one.attempt)
            elif one.verdict in ("kill", "drop"):
                del hand.spool[one.attempt]
            else:
                self._say(hand, hand.spool[one.attempt])

    def _returned(self, hand: Hand, item: Return) -> None:
        live = hand.live.get(item.attempt)
        if live is None or live.waits is None or live.waits.k != item.k:
            return
        name = live.assign.name.partition("#")[0]
        if live.waits.what == "begin_effect" and not item.error:
            self.fleet.effects[name] = self.fleet.effects.get(name, 0) + 1
        live.answers = (*live.answers, msgspec.json.decode(item.error or item.value))
        live.waits = None

    def _advance(self, hand: Hand, attempt: AttemptId, live: Live) -> bool:
        """Whether the attempt did something."""
        name = live.assign.name.partition("/")[2].partition("#")[0]
        program = self.programs.get(name) or self.programs.get(name.partition(".")[0]) or give_back
        done = program(Job(name, attempt.number, _arguments(live.assign), live.answers))
        if done is RUNS:
            return False
        if isinstance(done, tuple):
            call = Call(attempt, live.assign.fence, len(live.answers) + 1, done[0], msgspec.json.encode(done[1]))
            live.waits = call
            if not live.on_hold:
                self._say(hand, call)
            return True
        is_end = isinstance(done, Failure | Stopped)
        self._end(hand, attempt, done if is_end else Success(msgspec.json.encode(done)))
        return True

    def _end(self, hand: Hand, attempt: AttemptId, outcome: Outcome) -> None:
        live = hand.live.pop(attempt)
        hand.ended.add((attempt, live.assign.fence))
        report = hand.spool[attempt] = Report(attempt, live.assign.fence, live.assign.pin, outcome, Usage())
        if isinstance(outcome, Success):
            name = live.assign.name.partition("#")[0]
            self.fleet.done[name] = self.fleet.done.get(name, 0) + 1
        if live.on_hold:
            hand.held.add(attempt)
        else:
            self._say(hand, report)

    def story(self) -> str:
        """What is open, and why."""
        lines = [f"step {self.fleet.step} of {len(self.steps)} at {self.fleet.now}"]
        for run in self.state.runs.values():
            lines.append(f"{run.name} {run.state} calls={run.calls} claims={run.claims}")
            lines += [f"  {run.name_of(task)} {task.state} {task.attempts}" for task in run.tasks if not task.final]
        lines += [f"  {hand.name} live={list(hand.live)} spool={list(hand.spool)}" for hand in self.fleet.hands]
        return "\n".join(lines)


def _arguments(assign: Assign) -> Any:
    args = msgspec.json.decode(msgspec.json.decode(assign.spec, type=WorkSpec).args)

    def filled(inputs: tuple[Any, ...]) -> Any:
        values: dict[str, Any] = {}
        for one in inputs:
            if one.parts is not None:
                parts = [msgspec.json.decode(part) for part in one.parts]
                values[one.key] = [item for part in parts for item in part] if one.flat else parts
            else:
                values[one.key] = msgspec.json.decode(one.value)
        return substitute(args, values)

    if assign.items:
        return [filled((*assign.inputs, *row)) for row in assign.items]
    return filled(assign.inputs)


def replayed(disk: Sequence[bytes]) -> State:
    """The state that the records tell."""
    state = State()
    for record in disk:
        for event in decode_events(record):
            state.apply(event)
    return state
