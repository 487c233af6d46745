"""The processes in which a simulated worker runs its skills: programs that sleep, ask, act, end, and can be killed.

They do what `workers.runner` does around a skill: a `once` skill acts only after `begin_effect` was granted, an error
that nobody catches ends the attempt. They live as long as their daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, Protocol

import msgspec

from protocol.frame import Assign, WorkSpec
from protocol.ids import AttemptId
from protocol.outcome import Failure, Outcome, Stopped, Usage
from workers import instruction as do
from workers import stimulus as on

from .simulated_skill import Program, SimulatedCallRefused, SimulatedJob, job_of, outcome_of, program_for

EXIT_S: Final = 0.001


class Host(msgspec.Struct):
    """The process of one attempt."""

    assign: Assign
    work: WorkSpec
    steps: Generator[Any, Any, Any]
    at: float
    begun: bool = False
    k: int = 0
    asked: str = ""


class World(Protocol):
    @property
    def program(self) -> Mapping[str, Program]: ...
    @property
    def artifacts(self) -> Mapping[str, Any]: ...
    def began_effect(self, assign: Assign) -> None: ...


class Daemon(Protocol):
    """Whose hosts these are. `stubborn_s`: how long a program takes to die, at most the grace it is given."""

    name: str
    stubborn_s: float

    @property
    def world(self) -> World: ...
    def clock(self) -> float: ...
    def later(self, delay_s: float, act: Callable[[], None]) -> None: ...
    def step(self, stimulus: on.Stimulus) -> None: ...


class SimulatedHosts:
    """All of one daemon's."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._hosts: dict[AttemptId, Host] = {}

    def start(self, instruction: do.Start, element: bool) -> None:
        """Begin the attempt. `element`: it is a child of a map."""
        daemon, assign, work = self._daemon, instruction.assign, instruction.work
        job = job_of(assign, work, daemon.name, element, daemon.world.artifacts)
        steps = _steps(program_for(job, daemon.world.program), job)
        host = self._hosts[assign.attempt] = Host(assign, work, steps, daemon.clock())
        if work.effect == "once" and instruction.skill.begin_effect == "runner":
            daemon.later(0.0, lambda: self._ask(host, "begin_effect", None))
        else:
            daemon.later(0.0, lambda: self._go_on(host, None))

    def answer(self, instruction: do.Answer) -> None:
        """Hand the answer of a call to the program that waits for it."""
        host = self._hosts.get(instruction.attempt)
        if host is None or host.k != instruction.k or not host.asked:
            return
        what, host.asked = host.asked, ""
        answer: Any
        if instruction.error:
            answer = SimulatedCallRefused.of(msgspec.json.decode(instruction.error))
        else:
            answer = msgspec.json.decode(instruction.value)
            if what == "begin_effect":
                self._daemon.world.began_effect(host.assign)
        self._daemon.later(0.0, lambda: self._go_on(host, answer))

    def kill(self, instruction: do.Kill) -> None:
        """SIGTERM, grace, SIGKILL: its end is told after its exit."""
        host = self._hosts.get(instruction.attempt)
        if host is not None:
            delay = max(EXIT_S, min(instruction.grace_s, self._daemon.stubborn_s))
            self._daemon.later(delay, lambda: self._exit(host, Stopped("killed")))

    def close(self) -> None:
        """The daemon is gone."""
        for host in self._hosts.values():
            host.steps.close()
        self._hosts.clear()

    def _ask(self, host: Host, what: str, body: Any) -> None:
        if self._hosts.get(host.assign.attempt) is host:
            host.k, host.asked = host.k + 1, what
            self._daemon.step(on.Asked(host.assign.attempt, host.k, what, msgspec.json.encode(body)))

    def _go_on(self, host: Host, answer: Any) -> None:
        if self._hosts.get(host.assign.attempt) is not host:
            return
        try:
            if isinstance(answer, SimulatedCallRefused):
                wanted = host.steps.throw(answer)
            else:
                wanted = host.steps.send(answer if host.begun else None)
            host.begun = True
        except StopIteration as end:
            self._exit(host, outcome_of(end.value))
        except SimulatedCallRefused as error:
            self._exit(host, Failure("CallRefused", str(error), error.klass))
        else:
            if isinstance(wanted, tuple):
                self._ask(host, *wanted)
            else:
                self._daemon.later(float(wanted), lambda: self._go_on(host, None))

    def _exit(self, host: Host, outcome: Outcome) -> None:
        attempt = host.assign.attempt
        if self._hosts.get(attempt) is host:
            del self._hosts[attempt]
            host.steps.close()
            usage = Usage(run_s=self._daemon.clock() - host.at, device=host.work.device)
            self._daemon.step(on.Ended((on.Result(attempt, outcome, usage),)))


def _steps(program: Program, job: SimulatedJob) -> Generator[Any, Any, Any]:
    return (yield from program(job))
