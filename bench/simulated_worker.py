"""A simulated worker: follows the rules of the worker link on a virtual clock; its skills are small programs.

It keeps what a real one keeps on disk (identity, outbox) across the death of its daemon, forgets the rest, and never
acts on a `once` task after its lease. A program is a generator: it yields seconds to sleep, or `(call, body)` to ask
the orchestrator, and returns a value or an Outcome.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping
from random import Random
from typing import Any, Protocol

import msgspec

from protocol.artifact import ArtifactRef
from protocol.builtin import BUILTINS
from protocol.frame import (
    Ack,
    Assign,
    Bye,
    Call,
    Cancel,
    Drain,
    Drained,
    Heartbeat,
    HeartbeatAck,
    Held,
    HeldVerdict,
    Hello,
    Input,
    Report,
    Return,
    Welcome,
    WorkSpec,
)
from protocol.ids import AttemptId
from protocol.outcome import Failure, Outcome, Stopped, Success, Usage
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import NOTHING, Resources
from protocol.skill import SkillSpec, Variant
from protocol.task import substitute

_OPEN = {"type": "object", "properties": {"value": {}, "run_s": {"type": "number"}}, "additionalProperties": False}
SIMULATED_SKILLS = (
    SkillSpec(name="sim.work", doc="Simulated work on one core.", params=_OPEN, effect="pure"),
    SkillSpec(name="sim.other", doc="Simulated work by another skill.", params=_OPEN, effect="pure"),
    SkillSpec(name="sim.light", doc="Waits, without a core.", params=_OPEN, effect="pure",
              variants=(Variant("cpu", NOTHING),)),
    SkillSpec(name="sim.idem", doc="Simulated idempotent work.", params=_OPEN, effect="idempotent"),
    SkillSpec(name="sim.once", doc="A simulated effect.", params=_OPEN, effect="once", retry_max=0),
    SkillSpec(name="sim.asks", doc="Asks before it runs.", params=_OPEN, effect="pure", asks=True),
    SkillSpec(name="sim.gpu", doc="Simulated work on a card.", params=_OPEN, effect="pure",
              variants=(Variant("gpu", Resources(cpu=1.0, gpu=1.0)),)),
    SkillSpec(name="sim.parent", doc="Spawns and joins.", params=_OPEN, effect="pure", spawns=True),
)  # fmt: skip


def profile_of(slots: int = 2, *, gpu: int = 0, skills: tuple[SkillSpec, ...] = (), **more: Any) -> WorkerProfile:
    """A profile with the built-in and the simulated skills."""
    devices = (DeviceProfile("cpu"), *((DeviceProfile("gpu", speed=4.0),) if gpu else ()))
    capacity = Resources(cpu=float(slots), gpu=float(gpu))
    known = (*BUILTINS, *SIMULATED_SKILLS, *skills)
    return WorkerProfile(slots=slots, capacity=capacity, devices=devices, skills=known, **more)


class SimulatedJob(msgspec.Struct):
    """What a program knows: its task's name, attempt number, arguments (a list of them for a chunk) and worker."""

    name: str
    number: int
    skill: str
    args: Any
    worker: str
    assign: Assign


class World(Protocol):
    """What a simulated worker needs of the simulator: time, luck, a network, and programs to run."""

    now: float
    luck: Random
    program: Mapping[str, Callable[[SimulatedJob], Generator[Any, Any, Any]]]
    effects: dict[tuple[int, int], int]
    artifacts: dict[str, Any]

    def at(self, when: float, act: Callable[[], Any]) -> None: ...
    def dial(self, worker: Any) -> Any: ...
    def reachable(self, worker: Any) -> bool: ...
    def send(self, stream: Any, item: Any) -> None: ...
    def break_stream(self, stream: Any) -> None: ...
    def is_element(self, attempt: AttemptId) -> bool: ...


class SimulatedCallRefused(Exception):
    """The orchestrator answered a call with an error."""


class _Live(msgspec.Struct):
    assign: Assign
    work: WorkSpec
    phase: str = "queued"
    steps: Generator[Any, Any, Any] | None = None
    k: int = 0
    call: Call | None = None
    answer: Any = None
    hold: bool = False


class SimulatedWorker:
    """See the module."""

    def __init__(self, sim: World, ident: int, name: str, profile: WorkerProfile) -> None:
        self.sim, self.ident, self.name, self.profile = sim, ident, name, profile
        self.up = False
        self.boot = 0
        self.stream: Any = None
        self.welcomed = False
        self.live: dict[AttemptId, _Live] = {}
        self.spool: dict[AttemptId, Report] = {}
        self.held_reports: set[AttemptId] = set()
        self.refused: set[tuple[AttemptId, Any]] = set()
        self.slots = profile.slots
        self.queue: deque[AttemptId] = deque()
        self.resuming: deque[AttemptId] = deque()
        self.acked_beat = -1e9
        self.mute = False
        """Frozen: it sends nothing and reads nothing."""

    def start(self) -> None:
        """The daemon starts: a new boot id, nothing live."""
        self.up, self.boot = True, self.boot + 1
        self.live.clear()
        self.queue.clear()
        self.resuming.clear()
        self.refused.clear()
        self.slots = self.profile.slots
        self._dial()
        self._beat(self.boot)
        self._resend(self.boot)

    def kill(self, away_s: float, boot: bool = True) -> None:
        """Its daemon dies and is back after `away_s` with another boot id; or only its stream breaks."""
        if not self.up:
            return
        if self.stream is not None:
            self.sim.break_stream(self.stream)
        if boot:
            self.up = False
            self.stream = None
            self.live.clear()
            self.sim.at(self.sim.now + away_s, lambda: None if self.up else self.start())

    def _dial(self) -> None:
        if not self.up or self.stream is not None:
            return
        sim = self.sim
        if not sim.reachable(self) or self.mute:
            sim.at(sim.now + 0.5, self._dial)
            return
        stream = self.stream = sim.dial(self)
        self.welcomed = False
        running = tuple(Held(a, one.assign.fence, one.assign.pin) for a, one in self.live.items())
        spooled = tuple(Held(a, one.fence, one.pin, b"digest") for a, one in self.spool.items())
        boot = f"{self.name}.{self.boot}"
        sim.send(stream, Hello(self.name, boot, self.profile, running=running, spooled=spooled))

        def late() -> None:
            if self.stream is stream and not self.welcomed:
                sim.break_stream(stream)

        sim.at(sim.now + 2.0, late)

    def broken(self, stream: object) -> None:
        """Its end of a stream broke: dial again, with jitter."""
        if self.stream is stream:
            self.stream = None
            self.sim.at(self.sim.now + self.sim.luck.uniform(0.1, 0.5), self._dial)

    def _send(self, item: Any) -> None:
        if self.stream is not None and self.welcomed and not self.mute:
            self.sim.send(self.stream, item)

    def _beat(self, boot: int) -> None:
        if not self.up or boot != self.boot:
            return
        self._send(Heartbeat(self.sim.now, (*self.live, *self.spool)))
        self.sim.at(self.sim.now + (5.0 if self.profile.edge else 1.0), lambda: self._beat(boot))

    def _resend(self, boot: int) -> None:
        if not self.up or boot != self.boot:
            return
        for attempt, report in list(self.spool.items()):
            if attempt not in self.held_reports:
                self._send(report)
        for one in self.live.values():
            if one.call is not None:
                self._send(one.call)
        self.sim.at(self.sim.now + 2.0, lambda: self._resend(boot))

    # What comes from the orchestrator

    def receive(self, item: Any) -> None:
        if self.mute or not self.up:
            return
        if isinstance(item, Assign):
            self._assigned(item)
        elif isinstance(item, Cancel):
            self._cancelled(item.attempt)
        elif isinstance(item, Ack):
            for attempt in item.attempts:
                self.spool.pop(attempt, None)
        elif isinstance(item, Return):
            self._returned(item)
        elif isinstance(item, Welcome):
            self.welcomed, self.acked_beat = True, self.sim.now
            self._judged(item.verdicts)
            for one in self.live.values():
                if one.call is not None:
                    self._send(one.call)
        elif isinstance(item, HeartbeatAck):
            self.acked_beat = item.at
            self._judged(item.verdicts)
        elif isinstance(item, Drain):
            self._send(Drained())
        elif isinstance(item, Bye) and self.stream is not None:
            self.sim.break_stream(self.stream)

    def _judged(self, verdicts: tuple[HeldVerdict, ...]) -> None:
        for one in verdicts:
            if one.attempt in self.live:
                self.live[one.attempt].hold = one.verdict == "hold"
                if one.verdict in ("kill", "drop"):
                    self._end(one.attempt)
            elif one.attempt in self.spool:
                self.held_reports.discard(one.attempt)
                if one.verdict == "hold":
                    self.held_reports.add(one.attempt)
                elif one.verdict in ("kill", "drop"):
                    del self.spool[one.attempt]
                else:
                    self._send(self.spool[one.attempt])

    def _assigned(self, assign: Assign) -> None:
        known = self.live.get(assign.attempt) or self.spool.get(assign.attempt)
        if known is not None or (assign.attempt, assign.fence) in self.refused:
            return
        self.live[assign.attempt] = _Live(assign, msgspec.json.decode(assign.spec, type=WorkSpec))
        self.queue.append(assign.attempt)
        self._start_queued()

    def _cancelled(self, attempt: AttemptId) -> None:
        one = self.live.get(attempt)
        if one is not None:
            self._finish(attempt, Stopped("cancelled"))

    def _returned(self, item: Return) -> None:
        one = self.live.get(item.attempt)
        if one is None or one.call is None or one.call.k != item.k:
            return
        what, one.call = one.call.what, None
        fenced = self.sim.now > self.acked_beat + 5.0
        if item.error:
            one.answer = SimulatedCallRefused(msgspec.json.decode(item.error)["message"])
        elif what == "begin_effect" and fenced:
            one.answer = SimulatedCallRefused("the lease is over")
        else:
            one.answer = msgspec.json.decode(item.value)
        if one.phase == "waiting":
            self.resuming.append(item.attempt)
            self._start_queued()
        else:
            self._step(item.attempt)

    # Execution

    def _start_queued(self) -> None:
        for line in (self.resuming, self.queue):
            for attempt in list(line):
                if attempt not in line:
                    continue  # started by what another one's start led to
                one = self.live.get(attempt)
                if one is None:
                    line.remove(attempt)
                elif not one.work.cpu or self.slots > 0:
                    line.remove(attempt)
                    self.slots -= bool(one.work.cpu)
                    self._begin(attempt, one)

    def _begin(self, attempt: AttemptId, one: _Live) -> None:
        one.phase = "running"
        if one.steps is None:
            one.steps = self._program(one)
        self._step(attempt)

    def _program(self, one: _Live) -> Generator[Any, Any, Any]:
        assign, work = one.assign, one.work
        args = msgspec.json.decode(work.args)
        values = {entry.key: self._value(entry) for entry in assign.inputs}
        if assign.items:
            rows = [values | {entry.key: self._value(entry) for entry in row} for row in assign.items]
            found: Any = [substitute(args, row) for row in rows]
        else:
            found = substitute(args, values)
        name = assign.name.partition("/")[2].partition("#")[0]
        job = SimulatedJob(name, assign.attempt.number, work.skill, found, self.name, assign)
        known = self.sim.program
        element = self.sim.is_element(assign.attempt)
        names = (name, work.skill, name.partition(".")[0] if element else name, "*")
        program = next((known[one] for one in names if one in known), default_program)
        if work.effect == "once":
            try:
                yield "begin_effect", None
            except SimulatedCallRefused as error:
                return Stopped(str(error))
            key = (assign.attempt.run, assign.attempt.task)
            self.sim.effects[key] = self.sim.effects.get(key, 0) + 1
        return (yield from program(job))

    def _value(self, entry: Input) -> Any:
        if entry.parts is not None:
            parts = [self._read(part, ()) for part in entry.parts]
            return [one for part in parts for one in part] if entry.flat else parts
        return self._read(entry.value, entry.pointer)

    def _read(self, value: Any, pointer: tuple[str, ...]) -> Any:
        if isinstance(value, ArtifactRef):
            found = self.sim.artifacts[value.digest]
            for part in pointer:
                found = found[int(part)] if isinstance(found, list) else found[part]
            return found
        return msgspec.json.decode(value)

    def _step(self, attempt: AttemptId) -> None:
        one = self.live.get(attempt)
        if one is None or one.steps is None:
            return
        answer, one.answer = one.answer, None
        phase, one.phase = one.phase, "stepping"
        try:
            if isinstance(answer, SimulatedCallRefused):
                wanted = one.steps.throw(answer)
            else:
                wanted = one.steps.send(answer)
        except StopIteration as end:
            one.phase, one.steps = phase, None
            self._finish(attempt, _outcome(end.value))
        except SimulatedCallRefused as error:
            one.phase, one.steps = phase, None
            self._finish(attempt, Failure("CallRefused", str(error)))
        else:
            one.phase = phase
            self._wait(attempt, one, wanted)

    def _wait(self, attempt: AttemptId, one: _Live, wanted: Any) -> None:
        boot = self.boot
        if isinstance(wanted, tuple):
            what, body = wanted
            one.k += 1
            one.call = Call(attempt, one.assign.fence, one.k, what, msgspec.json.encode(body))
            if what in ("join", "ask"):
                one.phase = "waiting"
                self.slots += bool(one.work.cpu)
                self._start_queued()
            self._send(one.call)
            return

        def wake() -> None:
            if self.boot == boot and self.up and self.live.get(attempt) is one:
                self._step(attempt)

        self.sim.at(self.sim.now + float(wanted), wake)

    def _end(self, attempt: AttemptId) -> _Live | None:
        one = self.live.pop(attempt, None)
        if one is not None:
            self.refused.add((attempt, one.assign.fence))
            if one.phase == "running":
                self.slots += bool(one.work.cpu)
            if one.steps is not None and one.phase != "stepping":
                one.steps.close()
            self._start_queued()
        return one

    def _finish(self, attempt: AttemptId, outcome: Outcome) -> None:
        one = self._end(attempt)
        if one is None:
            return
        usage = Usage(run_s=0.01, device=one.work.device)
        self.spool[attempt] = Report(attempt, one.assign.fence, one.assign.pin, outcome, usage)
        if one.hold:
            self.held_reports.add(attempt)
        else:
            self._send(self.spool[attempt])

    def story(self) -> str:
        live = {str(tuple(map(int, (a.run, a.task, a.number)))): one.phase for a, one in self.live.items()}
        return (
            f"{self.name} up={self.up} boot={self.boot} stream={self.stream is not None} {live} spool={len(self.spool)}"
        )


def _outcome(value: Any) -> Outcome:
    return value if isinstance(value, Success | Failure | Stopped) else Success(msgspec.json.encode(value))


def default_program(job: SimulatedJob) -> Generator[Any, Any, Any]:
    """Sleeps `run_s` (default 10 ms), then gives back what the skill of that name would."""
    rows = job.args if isinstance(job.args, list) else [job.args]
    found = []
    for args in rows:
        yield float(args.get("run_s", args.get("seconds", 0.01)))
        found.append({"items": args["items"]} if job.skill == "flow.list" else {"value": args.get("value")})
    return found if isinstance(job.args, list) else found[0]
