"""A simulated crowd: many workers in one process, each with a real gRPC stream of its own.

Real: transport, link table, worker machine, redialling. Simulated: there are no hosts and no disk; a skill's result is
its argument `value`, at once. `python -m bench.faults.simulated_crowd` reads commands as JSON lines and answers each
with one: `{"do": "join", "address", "workers": [[name, secret], ...]}`, `{"do": "leave", "workers": [name, ...]}`,
`{"do": "tell"}`. It ends with its standard input. It must not know why workers come and go.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import sys
import time
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import msgspec

from protocol.builtin import BUILTINS
from protocol.errors import AsterismError
from protocol.frame import Item, Report, Welcome
from protocol.ids import AttemptId
from protocol.link import failures_after, redial_s
from protocol.outcome import Failure, Outcome, Stopped, Success
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources
from protocol.transport import dial
from workers import instruction as do
from workers import stimulus as on
from workers.machine import Machine
from workers.session import Session
from workers.setting import MachineSettings
from workers.spool import Spools

SLOTS: Final = 2


class SimulatedMember:
    """One worker of the crowd; `run` until it is cancelled, which is its death: nobody says goodbye."""

    def __init__(self, name: str, secret: str, address: str) -> None:
        self.name = name
        self.welcomed_at = 0.0
        """Unix time of the last Welcome, 0 while it has no stream."""
        self.executed = 0
        self._secret = secret
        self._address = address
        profile = WorkerProfile(
            slots=SLOTS, capacity=Resources(cpu=float(SLOTS)), devices=(DeviceProfile("cpu"),), skills=BUILTINS
        )
        self._machine = Machine(MachineSettings(name, secrets.token_hex(16), profile), Spools())
        self._reports: dict[AttemptId, Report] = {}
        self._session: Session | None = None
        self._nudge = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._tick)
            failures = 0
            while True:
                try:
                    async with dial(self._address, self._secret) as channel:
                        self._session = Session(await channel.link(), self._heard)
                        self._step(on.Connected())
                        await self._session.run()
                except (AsterismError, OSError):
                    pass
                lived_s = time.time() - self.welcomed_at if self.welcomed_at else 0.0
                self._session, self.welcomed_at = None, 0.0
                self._step(on.Broken())
                failures = failures_after(failures, lived_s)
                await anyio.sleep(redial_s(failures, random.random()))

    def _heard(self, items: tuple[Item, ...]) -> None:
        if any(type(item) is Welcome for item in items):
            self.welcomed_at = time.time()
        self._step(on.Received(items))  # type: ignore[arg-type]

    async def _tick(self) -> None:
        while True:
            wake = self._machine.next_wake()
            self._nudge = anyio.Event()
            with anyio.move_on_after(None if wake is None else max(0.0, wake - time.monotonic())):
                await self._nudge.wait()
            if wake is not None and time.monotonic() >= wake:
                self._step(on.Tick())

    def _step(self, first: on.Stimulus) -> None:
        stimuli = [first]
        while stimuli:
            results: list[on.Result] = []
            for one in self._machine.handle(stimuli.pop(), time.monotonic()):
                match one:
                    case do.Send(item):
                        if self._session is not None:
                            self._session.put(item)
                    case do.Start(assign, work):
                        self.executed += 1
                        results.append(on.Result(assign.attempt, _outcome(work.args)))
                    case do.Kill(attempt):
                        results.append(on.Result(attempt, Stopped("told to")))
                    case do.Append(reports):
                        self._reports |= {report.attempt: report for report in reports}
                        if one.durable:
                            stimuli.append(on.Saved(tuple(report.attempt for report in reports)))
                    case do.Offer(attempts):
                        for attempt in attempts:
                            if self._session is not None and attempt in self._reports:
                                self._session.put(self._reports[attempt])
                    case do.Forget(attempts):
                        for attempt in attempts:
                            self._reports.pop(attempt, None)
                    case do.HangUp() | do.Leave():
                        if self._session is not None:
                            self._session.hang_up()
                    case _:
                        continue
            if results:
                stimuli.append(on.Ended(tuple(results)))
        self._nudge.set()


def _outcome(args: msgspec.Raw) -> Outcome:
    found = msgspec.json.decode(args)
    if "value" not in found:
        return Failure("BadArguments", "a simulated skill returns its argument `value`", "permanent")
    return Success(msgspec.json.encode(found["value"]))


class SimulatedCrowd:
    """All members of this process."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self._members: dict[str, tuple[SimulatedMember, anyio.CancelScope]] = {}

    def join(self, address: str, workers: list[tuple[str, str]]) -> None:
        for name, secret in workers:
            member, scope = SimulatedMember(name, secret, address), anyio.CancelScope()
            self._members[name] = member, scope
            self._group.start_soon(self._run, member, scope)

    @staticmethod
    async def _run(member: SimulatedMember, scope: anyio.CancelScope) -> None:
        with scope:
            await member.run()

    def leave(self, names: list[str]) -> None:
        for name in names:
            if name in self._members:
                self._members.pop(name)[1].cancel()

    def tell(self) -> dict[str, Any]:
        """How many there are, when each was welcomed, and what they executed."""
        members = [member for member, _ in self._members.values()]
        welcomed = sorted(member.welcomed_at for member in members if member.welcomed_at)
        return {"members": len(members), "welcomed": welcomed, "executed": sum(one.executed for one in members)}


async def main() -> None:
    async with anyio.create_task_group() as group:
        crowd = SimulatedCrowd(group)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            asked = msgspec.json.decode(line)
            if asked["do"] == "join":
                crowd.join(asked["address"], asked["workers"])
            elif asked["do"] == "leave":
                crowd.leave(asked["workers"])
            sys.stdout.write(msgspec.json.encode(crowd.tell()).decode() + "\n")
            sys.stdout.flush()
        group.cancel_scope.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        anyio.run(main)
