"""The real core and the real worker machine on a virtual clock, with simulated networks, disks and processes.

Everything is drawn from one seed, so a run repeats exactly. What is real: `orchestrator.core.machine` with its events
and their encoding, `workers.machine` with its spool and agenda, and the link table at both ends of every stream. What
is simulated says so in its name. It must not know threads, sockets or time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.core import stimulus as s
from orchestrator.core.graph import Task
from orchestrator.core.lifecycle import Closed
from orchestrator.core.setting import CoreSettings
from protocol.frame import Assign, Report
from protocol.ids import AttemptId
from protocol.patch import Patch
from protocol.plan import parse_plan
from protocol.profile import WorkerProfile
from protocol.task import RunSettings

from .fault import Faults
from .simulated_network import SimulatedStream
from .simulated_orchestrator import JOURNAL as JOURNAL
from .simulated_orchestrator import SimulatedOrchestrator
from .simulated_skill import Program, profile_of
from .simulated_worker import SimulatedWorker


class Stalled(AssertionError):
    """Virtual time ran out with work still open; the text says what."""


class Simulator(SimulatedOrchestrator):
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
        super().__init__(seed, faults or Faults(), settings or CoreSettings(), fsync_s, check, replay)
        self.program = program or {}
        self.workers: list[SimulatedWorker] = []
        self._asked = 0
        profiles = [profile_of(slots) for _ in range(workers)] if isinstance(workers, int) else list(workers)
        for number, profile in enumerate(profiles, 1):
            found = self.ask(lambda reply, name=f"w{number}": s.Enrolled(reply, name, "0" * 64))  # type: ignore[misc]
            self.workers.append(SimulatedWorker(self, found["worker"], found["name"], profile))
        for worker in self.workers:
            worker.start()
        self.run_until(self.now + 5.0, lambda: all(worker.welcomed for worker in self.workers))
        self.run_until(self.now + 5.0, lambda: all(one.welcomed for one in self.machine.fleet.sessions.values()))
        self.advance(0.05)
        self.log.clear()
        self.decisions = self.performed = self.happenings = self.aheads = 0
        self.started_at = self.now
        self._plan_faults()

    @property
    def effects(self) -> dict[tuple[int, int], int]:
        """How often the effect of each `once` task has really happened."""
        return self.witness.effects

    @property
    def executions(self) -> dict[tuple[int, int], int]:
        """Committed dispatches by task."""
        return self.witness.executions

    # Faults

    def _plan_faults(self) -> None:
        faults, start = self.faults, self.now
        later = self._while_chaos
        for at, index, away, how in faults.kills:
            self.at(start + at, later(lambda i=index, a=away, h=how: self._kill(i, a, h)))  # type: ignore[misc]
        for at, index, length in faults.cuts:
            self.at(start + at, later(lambda i=index, t=length: self.network.cut(self.worker(i).line, t)))  # type: ignore[misc]
        for at, index, length, way in faults.one_way:
            self.at(
                start + at,
                later(lambda i=index, t=length, w=way: self.network.cut(self.worker(i).line, t, (w == "up",))),  # type: ignore[misc]
            )
        for at, index, length in faults.freezes:
            self.at(start + at, later(lambda i=index, t=length: self._freeze(self.worker(i), t)))  # type: ignore[misc]
        for at, index, length in faults.outboxes:
            self.at(start + at, later(lambda i=index, t=length: self._fill(self.worker(i), t)))  # type: ignore[misc]
        for at, length, what in faults.disks:
            self.at(start + at, later(lambda t=length, w=what: self.disk_trouble(t, w)))  # type: ignore[misc]

    def _while_chaos(self, act: Callable[[], None]) -> Callable[[], None]:
        return lambda: act() if self.chaos else None

    def worker(self, index: int) -> SimulatedWorker:
        """The worker at this place, counted round."""
        return self.workers[index % len(self.workers)]

    def _kill(self, index: int, away_s: float, how: str) -> None:
        worker = self.worker(index)
        if worker.up:
            self.hit(f"kill: {how}")
            if how == "half":
                worker.lose_line()
            else:
                worker.kill(away_s, how != "stream", power=how == "power")

    def _fill(self, worker: SimulatedWorker, length_s: float) -> None:
        self.hit("worker disk full")
        worker.fill_disk()
        self.at(self.now + length_s, worker.empty_disk)

    def _freeze(self, worker: SimulatedWorker, length_s: float) -> None:
        if worker.mute or not worker.up:
            return
        self.hit("freeze")
        worker.mute = True
        boot = worker.boot

        def thaw() -> None:
            if worker.boot == boot:
                worker.mute = False

        self.at(self.now + length_s, thaw)

    # What workers need (simulated_worker.World)

    def dial(self, worker: SimulatedWorker) -> SimulatedStream | None:
        if not self.up or not self.network.reachable(worker.line):
            return None
        stream = self.network.dial(worker.line, worker, self.gateway, edge=worker.profile.edge)
        self.gateway.accept(stream, worker.ident, worker.name)
        return stream

    def break_stream(self, stream: SimulatedStream | None) -> None:
        """The line breaks; what was on its way is lost."""
        if stream is not None:
            self.network.break_stream(stream)

    def is_element(self, attempt: AttemptId) -> bool:
        """Whether this is an attempt of a map's child: those share their map's program."""
        tasks = self.state.runs[attempt.run].tasks if attempt.run in self.state.runs else []
        parent = tasks[attempt.task].parent if attempt.task < len(tasks) else -1
        return parent >= 0 and tasks[parent].spread is not None

    def assigned(self, assign: Assign) -> None:
        """An Assign has arrived: if its dispatch is not on disk yet, the orchestrator may die of it."""
        ident = assign.attempt
        if self.chaos and self.written.holds(ident.run, ident.task, ident.number):
            self.aheads += 1
            if self.aheads in self.faults.aheads:
                self.hit("crash behind a dispatch")
                self.crash()

    def began_effect(self, assign: Assign) -> None:
        self.witness.began_effect(assign)

    def reported(self, worker: SimulatedWorker, report: Report) -> None:
        self.witness.reported(worker.ident, report)

    def forgot(self, worker: SimulatedWorker, attempt: AttemptId) -> None:
        report = worker.outbox.read(attempt)
        if report is not None:
            self.witness.forgot(worker.ident, attempt, report.fence)

    # Requests

    def settle(self, limit_s: float = 60.0) -> None:
        """Run until every run is settled and on disk. Raises: Stalled after `limit_s` virtual seconds."""
        if not self.run_until(self.now + limit_s, self.settled):
            raise Stalled(self.story())

    def settled(self) -> bool:
        """Every run is settled, and all of it on disk."""
        return self.up and self.durable and all(type(run.state) is Closed for run in self.state.runs.values())

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
        return "\n".join([*lines, *(f"  {worker.story()}" for worker in self.workers)])

    def ask(self, make: Callable[[int], s.Stimulus], wait_s: float = 0.02) -> Any:
        """Post a request until it is answered (a crash loses it). Raises: Refused with the wire error."""
        self._asked += 1
        number = self._asked
        life = -1
        for _ in range(500):
            if self.up and life != self._life:
                life = self._life
                self.handle(make(number))
            if self.run_until(self.now + wait_s, lambda: number in self.replies):
                break
        reply = self.replies.pop(number)
        if reply.error is not None:
            raise Refused(reply.error)
        return reply.value

    def submit(self, plan: Mapping[str, Any], *, home: str = "w1", key: str = "", author: str = "sim") -> int:
        """A plan document as a new run; its number."""
        found = parse_plan(dict(plan))
        inputs = {one.name: one.default for one in found.inputs if one.default is not None}
        patch = Patch("person:sim", found.tasks, outputs=found.outputs or None)
        key = key or f"request-{self._asked}"
        made = self.ask(lambda reply: s.Submitted(reply, "", key, author, found.settings, inputs, home, patch=patch))
        return int(made["run"])

    def request(self, settings: RunSettings | None = None, words: str = "do it") -> int:
        """A request without a plan: its planner is asked. The run's number."""
        settings = settings or RunSettings()
        made = self.ask(lambda reply: s.Submitted(reply, words, "", "sim", settings, {}, "w1", plan=True))
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


class Refused(Exception):
    """A request was refused; `error` is its wire error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')} {error.get('problems', '')}")
        self.error = error
        self.code = str(error.get("code"))
        self.codes = [str(problem["code"]) for problem in error.get("problems", ())]
