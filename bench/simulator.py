"""The real core on a virtual clock, with simulated workers, a simulated network and a simulated disk.

Everything is drawn from one seed, so a run repeats exactly. What is real: `orchestrator.core.machine`, its events and
their encoding. What is simulated says so in its name: workers follow the rules of the worker link (inventory, outbox,
verdicts, calls sent again, self-fencing), their skills are small programs. It must not know threads, sockets or time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.event_codec import decode_events
from orchestrator.core.event_codec import encode_events as encode
from orchestrator.core.graph import Task
from orchestrator.core.lifecycle import Closed
from orchestrator.core.machine import Machine
from orchestrator.core.setting import CoreSettings
from orchestrator.core.state import State
from protocol.ids import AttemptId
from protocol.patch import Patch
from protocol.plan import parse_plan
from protocol.profile import WorkerProfile
from protocol.task import RunSettings

from .fault import Faults
from .simulated_stream import SimulatedStream
from .simulated_worker import SimulatedJob, SimulatedWorker, profile_of
from .witness import Witness

Program = Callable[[SimulatedJob], Generator[Any, Any, Any]]
JOURNAL = "5eed" * 8


class Stalled(AssertionError):
    """Virtual time ran out with work still open; the text says what."""


class Simulator:
    """See the module. `program`: by task name or skill, else by the simulated skills' own arguments."""

    def __init__(
        self,
        *,
        seed: int = 0,
        workers: int | Sequence[WorkerProfile] = 2,
        slots: int = 2,
        program: Mapping[str, Program] | None = None,
        faults: Faults | None = None,
        settings: CoreSettings | None = None,
        fsync_s: float = 0.004,
        check: bool = True,
        replay: bool = False,
    ) -> None:
        self.luck = random.Random(seed)
        self.now = 100.0
        self.faults = faults or Faults()
        self.settings = settings or CoreSettings()
        self.program = program or {}
        self.fsync_s, self.check, self.replay = fsync_s, check, replay
        self.disk: list[bytes] = []
        self.log: list[Any] = []
        """Events and commands in the order of their decisions: what transcripts print."""
        self.witness = Witness()
        self.effects, self.executions = self.witness.effects, self.witness.executions
        self.replies: dict[int, c.Reply] = {}
        self.planner_calls: list[c.StartPlanner] = []
        self.artifacts: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self.decisions = 0
        self.restarts = 0
        self.started_at = float("inf")
        self.up = True
        self._queue: list[tuple[float, int, Callable[[], Any]]] = []
        self._ordered = 0
        self._asked = 0
        self._streams: dict[int, SimulatedStream] = {}
        self._conns = 0
        self._uncommitted: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []
        self._committing = False
        self._flushing = False
        self._tick_at = float("inf")
        self._life = 0
        self._cut: set[int] = set()
        self.machine = self._boot()
        profiles = [profile_of(slots) for _ in range(workers)] if isinstance(workers, int) else list(workers)
        self.workers: list[SimulatedWorker] = []
        for number, profile in enumerate(profiles, 1):
            found = self.ask(lambda reply, name=f"w{number}": s.Enrolled(reply, name, "0" * 64))  # type: ignore[misc]
            self.workers.append(SimulatedWorker(self, found["worker"], found["name"], profile))
        for worker in self.workers:
            worker.start()
        self._pass(self.now + 5.0, lambda: all(worker.welcomed for worker in self.workers))
        self._pass(self.now + 5.0, lambda: all(one.welcomed for one in self.machine.fleet.sessions.values()))
        self.advance(0.05)
        self.log.clear()
        self.decisions, self.started_at = 0, self.now
        for at, index, away, what in self.faults.kills:
            worker = self.workers[index % len(self.workers)]
            self.at(self.now + at, lambda w=worker, a=away, k=what: w.kill(a, k == "boot"))  # type: ignore[misc]
        for at, index, length in self.faults.cuts:
            self.at(self.now + at, lambda i=index, t=length: self._cut_off(i % len(self.workers), t))  # type: ignore[misc]

    # The orchestrator

    @property
    def state(self) -> State:
        return self.machine.state

    def _boot(self) -> Machine:
        state = State()
        for record in self.disk:
            for event in decode_events(record):
                state.apply(event)
        self.witness.recovered(state)
        self.machine = machine = Machine(state, self.settings)
        self.up = True
        self._life += 1
        decision = machine.handle(s.Started(state.epoch + 1, JOURNAL), self.now, self.luck.random())
        self.disk.append(encode(decision.events))  # an epoch is durable before any dispatch
        self.witness.decided(decision.events)
        self._uncommitted.clear()
        self._committing = self._flushing = False
        self._tick_at = float("inf")
        self._carry_out(decision.commands)
        self._schedule()
        return machine

    def handle(self, stimulus: s.Stimulus) -> None:
        """One stimulus through the machine: its events to the disk, its commands to where they go."""
        if not self.up:
            return
        decision = self.machine.handle(stimulus, self.now, self.luck.random())
        self.decisions += 1
        self.log.append((self.now, stimulus, decision))
        if self.check and (decision.events or isinstance(stimulus, s.Flush)):
            self.machine.check()
        crashing = self.decisions in self.faults.crashes and self.started_at <= self.now
        if crashing and self.luck.random() < 0.5:
            self.crash()
            return
        self._carry_out(tuple(command for command in decision.commands if not command.after_commit))
        late = tuple(command for command in decision.commands if command.after_commit)
        if decision.events or late:
            self._uncommitted.append((decision.events, late))
            if not self._committing:
                self._committing = True
                self.at(self.now + self.fsync_s, self._owned(self._commit))
        if crashing:
            self.crash()
            return
        self._schedule()

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.at(self.now, self._owned(self._flush))
        wake = self.machine.next_wake()
        if wake is not None and wake < self._tick_at:
            self._tick_at = max(wake, self.now)
            self.at(self._tick_at, self._owned(self._tick))

    def _flush(self) -> None:
        self.handle(s.Flush())
        self._flushing = False

    def _tick(self) -> None:
        wake = self.machine.next_wake()
        self._tick_at = float("inf")
        if wake is not None and wake <= self.now:
            self.handle(s.Tick())
        self._schedule_tick()

    def _schedule_tick(self) -> None:
        if not self.up:
            return
        wake = self.machine.next_wake()
        if wake is not None and wake < self._tick_at:
            self._tick_at = max(wake, self.now)
            self.at(self._tick_at, self._owned(self._tick))

    def _commit(self) -> None:
        group, self._uncommitted, self._committing = self._uncommitted, [], False
        for events, _ in group:
            if events:
                self.disk.append(encode(events))
                self.witness.decided(events)
        for _, commands in group:
            self._carry_out(commands)

    def crash(self, away_s: float = 0.2) -> None:
        """The orchestrator dies: what was not committed is gone, all streams break; it is back after `away_s`."""
        self.restarts += 1
        self._life += 1
        self.up = False
        for stream in list(self._streams.values()):
            self.break_stream(stream)
        self._streams.clear()
        self.at(self.now + away_s, self._restart)

    def _restart(self) -> None:
        self._boot()
        if self.replay:
            self.prove_replay()

    def _carry_out(self, commands: Sequence[Any]) -> None:
        for command in commands:
            if isinstance(command, c.Send):
                stream = self._streams.get(command.conn)
                if stream is not None:
                    self._to_worker(stream, command.item)
            elif isinstance(command, c.Close):
                stream = self._streams.get(command.conn)
                if stream is not None:
                    self.break_stream(stream)
            elif isinstance(command, c.Reply):
                self.replies[command.reply] = command
            elif isinstance(command, c.StartPlanner):
                self.planner_calls.append(command)
            elif isinstance(command, c.Resolve):
                self._resolve(command)
            elif isinstance(command, c.Count):
                self.counts[command.name] = self.counts.get(command.name, 0) + 1

    def _resolve(self, command: c.Resolve) -> None:
        value, found = self.artifacts[command.ref.digest], True
        for part in command.pointer:
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError):
                found = False
                break
        if found and command.what == "length":
            value = len(value) if isinstance(value, list) else -1
        answer = s.Resolved(
            command.run, command.task, command.key, msgspec.json.encode(value if found else None), found
        )
        self.at(self.now + 0.001, self._owned(lambda: self.handle(answer)))

    def _owned(self, act: Callable[[], None]) -> Callable[[], None]:
        """An action of this life of the orchestrator: it dies with it."""
        life = self._life

        def only() -> None:
            if self._life == life:
                act()

        return only

    # The network

    def dial(self, worker: SimulatedWorker) -> SimulatedStream:
        """A new stream of the worker."""
        self._conns += 1
        stream = self._streams[self._conns] = SimulatedStream(self._conns, worker)
        return stream

    def reachable(self, worker: SimulatedWorker) -> bool:
        return self.up and self.workers.index(worker) not in self._cut

    def send(self, stream: SimulatedStream, item: Any) -> None:
        """An item of a worker, as a frame of its own."""
        seen = stream.seen

        def arrive() -> None:
            if not stream.open or stream.conn not in self._streams:
                return
            if type(item).__name__ == "Hello":
                self.handle(s.WorkerJoined(stream.conn, stream.worker.ident, item))
                return
            delivered = tuple(attempt for n, attempt in stream.assigns if n <= seen)
            stream.assigns = [(n, attempt) for n, attempt in stream.assigns if n > seen]
            self.handle(s.WorkerSent(stream.conn, stream.worker.ident, (item,), delivered))

        self._deliver(stream, True, self._owned(arrive))

    def _to_worker(self, stream: SimulatedStream, item: Any) -> None:
        stream.sent += 1
        n = stream.sent
        if type(item).__name__ == "Assign":
            stream.assigns.append((n, item.attempt))

        def arrive() -> None:
            if stream.open and stream.worker.stream is stream:
                stream.seen = n
                stream.worker.receive(item)

        self._deliver(stream, False, arrive)

    def _deliver(self, stream: SimulatedStream, up: bool, arrive: Callable[[], None]) -> None:
        chaos = self.started_at <= self.now < self.started_at + self.faults.until_s
        if (chaos and self.luck.random() < self.faults.loss) or not self.reachable(stream.worker):
            return
        low, high = self.faults.delay_s
        at = max(self.now + self.luck.uniform(low, high), stream.last[up])
        stream.last[up] = at
        self.at(at, arrive)

    def break_stream(self, stream: SimulatedStream) -> None:
        """Both ends notice; what was on its way is lost."""
        if not stream.open:
            return
        stream.open = False
        conn, worker = stream.conn, stream.worker

        def gone() -> None:
            if self._streams.pop(conn, None) is not None:
                self.handle(s.WorkerGone(conn, worker.ident))

        self.at(self.now + 0.003, self._owned(gone))
        self.at(self.now + 0.003, lambda: worker.broken(stream))

    def _cut_off(self, index: int, length_s: float) -> None:
        worker = self.workers[index]
        self._cut.add(index)
        stream = worker.stream
        if stream is not None:
            self.at(self.now + 2.5, lambda: self.break_stream(stream) if index in self._cut else None)
        self.at(self.now + length_s, lambda: self._cut.discard(index))

    # Time

    def at(self, when: float, act: Callable[[], Any]) -> None:
        self._ordered += 1
        heapq.heappush(self._queue, (when, self._ordered, act))

    def advance(self, seconds: float) -> None:
        """Let this much virtual time pass."""
        self._pass(self.now + seconds, lambda: False)

    def _pass(self, until: float, enough: Callable[[], bool]) -> bool:
        while self._queue and self._queue[0][0] <= until:
            if enough():
                return True
            at, _, act = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            act()
        if enough():
            return True
        self.now = until
        return False

    def settle(self, limit_s: float = 60.0) -> None:
        """Run until every run is settled and on disk. Raises: Stalled after `limit_s` virtual seconds."""

        def enough() -> bool:
            runs = self.state.runs.values()
            return self.up and not self._uncommitted and all(type(run.state) is Closed for run in runs)

        if not self._pass(self.now + limit_s, enough):
            raise Stalled(self.story())

    def story(self) -> str:
        """What is still open, and why."""
        lines = [f"at {self.now:.3f} after {self.decisions} decisions and {self.restarts} restarts"]
        for run in self.state.runs.values():
            lines.append(f"{run.name} {run.state} planned={run.planned} unsettled={run.unsettled} calls={run.calls}")
            lines += [
                f"  {run.name_of(task)} {task.state} waits={task.waits} {task.attempts} {task.spread or ''}"
                for task in run.tasks
                if not task.final
            ]
        for session in self.machine.fleet.sessions.values():
            lines.append(f"  {session.name} {session.phase} {list(session.loads.items())} queue={list(session.queue)}")
        for worker in self.workers:
            lines.append(f"  {worker.story()}")
        return "\n".join(lines)

    # Requests

    def ask(self, make: Callable[[int], s.Stimulus], wait_s: float = 0.02) -> Any:
        """Post a request until it is answered (a crash loses it). Raises: Refused with the wire error."""
        self._asked += 1
        number = self._asked
        life = -1
        for _ in range(500):
            if self.up and life != self._life:
                life = self._life
                self.handle(make(number))
            if self._pass(self.now + wait_s, lambda: number in self.replies):
                break
        reply = self.replies.pop(number)
        if reply.error is not None:
            raise Refused(reply.error)
        return reply.value

    def is_element(self, attempt: AttemptId) -> bool:
        """Whether this is an attempt of a map's child: those share their map's program."""
        tasks = self.state.runs[attempt.run].tasks if attempt.run in self.state.runs else []
        parent = tasks[attempt.task].parent if attempt.task < len(tasks) else -1
        return parent >= 0 and tasks[parent].spread is not None

    def submit(self, plan: Mapping[str, Any], *, home: str = "w1", key: str = "") -> int:
        """A plan document as a new run; its number."""
        found = parse_plan(dict(plan))
        inputs = {one.name: one.default for one in found.inputs if one.default is not None}
        patch = Patch("person:sim", found.tasks, outputs=found.outputs or None)
        key = key or f"request-{self._asked}"
        made = self.ask(lambda reply: s.Submitted(reply, "", key, "sim", found.settings, inputs, home, patch=patch))
        return int(made["run"])

    def request(self, settings: RunSettings | None = None) -> int:
        """A request without a plan: its planner is asked. The run's number."""
        settings = settings or RunSettings()
        made = self.ask(lambda reply: s.Submitted(reply, "do it", "", "sim", settings, {}, "w1", plan=True))
        return int(made["run"])

    def task(self, name: str, run: int = 1) -> Task:
        """The task a person calls `name`."""
        found = self.state.runs[run].find(name)
        assert found is not None, name
        return found

    def states(self, run: int = 1) -> dict[str, str]:
        """Every task's settled word by name; "" while it is open."""
        record = self.state.runs[run]
        return {record.name_of(task): getattr(task.state, "state", "") for task in record.tasks}

    # Proofs

    def prove_replay(self) -> None:
        """G5: replaying the journal, with what waits for the disk, gives the live state byte for byte; so does a
        snapshot restored."""
        state = State()
        for record in self.disk:
            for event in decode_events(record):
                state.apply(event)
        for events, _ in self._uncommitted:
            for event in decode_events(encode(events)):
                state.apply(event)
        live = self.state.snapshot()
        unlike = [part for part, data in state.snapshot().items() if live.get(part) != data]
        assert state.snapshot() == live, f"G5: replay differs in {unlike}"
        assert State.restore(live).snapshot() == live, "G5: a restored snapshot differs"


class Refused(Exception):
    """A request was refused; `error` is its wire error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')} {error.get('problems', '')}")
        self.error = error
        self.code = str(error.get("code"))
        self.codes = [str(problem["code"]) for problem in error.get("problems", ())]
