"""A run played through the orchestrator's own parts in one process: how much CPU each task costs them.

Real: the reader of plans, the core, the link tables, the codec both ways, the records for the journal. Simulated: the
workers, which answer whatever they are given at once, with frames as full as a stream would carry. Streams, disk and
watchers are left out. So what is measured is what has to grow linearly, without the noise of other processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.event import Event
from orchestrator.core.lifecycle import Closed
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from orchestrator.engine.recording import records_of
from protocol.builtin import BUILTINS
from protocol.codec import decode_frame, encode_frame
from protocol.errors import RunFailed
from protocol.frame import Assign, Frame, FromWorker, Hello, Report
from protocol.link import Fault, Link, Taken
from protocol.outcome import Success, Usage
from protocol.patch import Patch
from protocol.plan import read_plan
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources
from protocol.task import RunSettings

SLOTS: Final = 4
VALUE: Final = b'{"value":[1,2,3]}'
_TURN_S: Final = 0.0005
_HINT: Final = "the numbers of a failed run mean nothing"


class Cost(msgspec.Struct, frozen=True):
    """CPU seconds of one run: until its plan is accepted, and from there until it is settled. Where they were measured:
    seconds on the wall from its submission to its end, and bytes of memory that it left behind."""

    workers: int
    tasks: int
    submit_s: float
    run_s: float
    wall_s: float | None = None
    kept_bytes: int | None = None

    @property
    def cpu_s(self) -> float:
        return self.submit_s + self.run_s


class _Worker:
    """Both ends of one worker's stream; the far one answers every Assign with a Report."""

    def __init__(self) -> None:
        self.near = Link("orchestrator")
        self.far = Link("worker")

    def hears(self, data: bytes) -> None:
        for item in _taken(self.far, data).items:
            if isinstance(item, Assign):
                self.says(Report(item.attempt, item.fence, item.pin, Success(VALUE), Usage(1e-5)))

    def says(self, item: FromWorker) -> None:
        _accept(self.far.put(item))

    def frame(self) -> bytes | None:
        cut = self.far.cut()
        return encode_frame(cut) if cut is not None else None


class Rehearsal:
    """A machine with so many simulated workers; `play` runs one plan on it, as often as wanted."""

    def __init__(self, workers: int) -> None:
        self._machine = Machine(State())
        self._now = self._cpu_s = 0.0
        self._seq = 0
        self._workers = {conn: _Worker() for conn in range(1, workers + 1)}
        self._turn([s.Started(1, "rehearsal")])
        capacity = Resources(cpu=float(SLOTS), memory=8 << 30)
        profile = WorkerProfile(SLOTS, capacity, (DeviceProfile("cpu", count=SLOTS),), skills=BUILTINS)
        for conn, worker in self._workers.items():
            self._turn([s.Enrolled(0, f"w{conn}", f"hash{conn}")])
            worker.says(Hello(f"w{conn}", f"boot{conn}", profile))
        self._exchange()

    def play(self, plan: Mapping[str, Any]) -> Cost:
        """One run from its document to its end. Raises: RunFailed."""
        text = msgspec.json.encode(plan)
        began, self._cpu_s = time.thread_time(), 0.0
        read = read_plan(text)
        read.problems.raise_any("the plan")
        patch = Patch("person:bench", read.plan.tasks, outputs=read.plan.outputs)
        self._cpu_s += time.thread_time() - began
        self._turn([s.Submitted(0, "bench", "", "bench", RunSettings(), patch=patch)])
        submit_s, run = self._cpu_s, next(reversed(self._machine.state.runs.values()))
        while type(run.state) is not Closed and self._exchange():
            pass
        if type(run.state) is not Closed or run.state.state != "succeeded":
            raise RunFailed(f"{run.name} is {run.state}", hint=_HINT)
        found = Cost(len(self._workers), len(run.tasks), submit_s, self._cpu_s - submit_s)
        self._turn([s.RemoveRequested(0, run.ix)])
        return found

    def _exchange(self) -> bool:
        """What the workers have to say, a frame each, in one turn of the core. False when nobody said anything."""
        said = [(conn, data) for conn, worker in self._workers.items() if (data := worker.frame()) is not None]
        self._now += _TURN_S
        began = time.thread_time()
        stimuli: list[s.Stimulus] = []
        for conn, data in said:
            taken = _taken(self._workers[conn].near, data)
            first = taken.items[0]
            if isinstance(first, Hello):
                stimuli.append(s.WorkerJoined(conn, conn, first))
            else:
                stimuli.append(s.WorkerSent(conn, conn, taken.items, taken.delivered))  # type: ignore[arg-type]
        self._cpu_s += time.thread_time() - began
        if stimuli:
            self._turn(stimuli)
        return bool(stimuli)

    def _turn(self, stimuli: list[s.Stimulus]) -> None:
        """As the engine's: each stimulus, Flush and Lull; what was decided as records, what is to be sent as frames."""
        began = time.thread_time()
        events: list[Event] = []
        told: dict[int, None] = {}
        later: list[c.Command] = []
        for stimulus in (*stimuli, s.Flush(brief=True), s.Lull()):
            decision = self._machine.handle(stimulus, self._now, 0.5)
            events += decision.events
            for command in decision.commands:
                if command.after_commit:
                    later.append(command)
                else:
                    self._perform(command, told)
        records_of(events, self._seq + 1, self._now)
        self._seq += len(events)
        for command in later:
            self._perform(command, told)
        frames = [(conn, encode_frame(cut)) for conn in told for cut in _cuts(self._workers[conn].near)]
        self._cpu_s += time.thread_time() - began
        for conn, data in frames:
            self._workers[conn].hears(data)

    def _perform(self, command: c.Command, told: dict[int, None]) -> None:
        if type(command) is c.Send:
            _accept(self._workers[command.conn].near.put(command.item))
            told[command.conn] = None
        elif type(command) is c.Reply and command.error is not None:
            raise RunFailed(str(command.error), hint=_HINT)


def _cuts(link: Link) -> Iterator[Frame]:
    while (cut := link.cut()) is not None:
        yield cut


def _taken(link: Link, data: bytes) -> Taken:
    taken = link.take(decode_frame(data))
    if isinstance(taken, Fault):
        raise RunFailed(f"a link broke: {taken.message}", hint=_HINT)
    return taken


def _accept(fault: Fault | None) -> None:
    if fault is not None:
        raise RunFailed(f"a link broke: {fault.message}", hint=_HINT)
