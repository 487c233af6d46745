"""A worker and a client by hand, for tests of a server: every move of theirs can be seen.

The worker runs `flow.*` itself and keeps its reports until they are acknowledged, as the real one does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import msgspec

from protocol.artifact import ArtifactRef
from protocol.builtin import BUILTINS
from protocol.frame import Ack, Assign, Bye, Cancel, Held, Hello, Report, Welcome
from protocol.ids import AttemptId
from protocol.link import Fault, Link
from protocol.membership import buy
from protocol.outcome import Failure, Outcome, Stopped, Success, Usage
from protocol.port import Channel, FrameStream
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources
from protocol.security import ServerFile
from protocol.task import substitute
from protocol.transport import dial

Skill = Callable[[Any, "HandWorker", Assign], Awaitable[Outcome | None]]


class HandWorker:
    """A worker whose every move a test can see: runs `flow.*` by hand, keeps what is not acknowledged."""

    def __init__(self, identity: dict[str, Any], *, slots: int = 4, serves: str = "") -> None:
        self.identity = identity
        self.slots = slots
        self.serves = serves
        self.run_s = 0.01
        """What it says that each attempt took."""
        self.welcomes: list[Welcome] = []
        self.assigns: list[Assign] = []
        self.acked: list[AttemptId] = []
        self.byes: list[Bye] = []
        self.cancelled: list[AttemptId] = []
        self.spool: dict[AttemptId, Report] = {}
        self.skills: dict[str, Skill] = {"flow.echo": echo, "flow.fail": fail, "flow.list": echo_items}
        self.news = anyio.Event()
        self._sending = anyio.Lock()
        self._link = Link("worker")
        self.stream: FrameStream | None = None

    async def run(self, channel: Channel, journal: str = "", epoch: int = 0, running: tuple[Held, ...] = ()) -> None:
        """Until the stream ends."""
        stream = self.stream = await channel.link()
        self._link = Link("worker")
        profile = WorkerProfile(
            slots=self.slots,
            capacity=Resources(cpu=float(self.slots)),
            devices=(DeviceProfile("cpu"),),
            skills=tuple(spec for spec in BUILTINS if spec.name.startswith("flow.")),
            serves=self.serves,
        )
        spooled = tuple(Held(report.attempt, report.fence, report.pin, b"digest") for report in self.spool.values())
        await self.say(
            Hello(
                str(self.identity["name"]),
                "boot",
                profile,
                journal=journal,
                last_epoch=epoch,
                running=running,
                spooled=spooled,
            )
        )
        async with anyio.create_task_group() as group:
            while (frame := await stream.receive()) is not None:
                taken = self._link.take(frame)
                assert not isinstance(taken, Fault), taken
                for item in taken.items:
                    self._note(item)
                    if isinstance(item, Assign):
                        group.start_soon(self._work, item)
                    elif isinstance(item, Cancel) and any(one.attempt == item.attempt for one in self.assigns):
                        await self.report(item.attempt, Stopped("cancelled"))
                    elif isinstance(item, Welcome):
                        for report in list(self.spool.values()):
                            await self.say(report)

    async def say(self, *items: Any) -> None:
        assert self.stream is not None
        for item in items:
            fault = self._link.put(item)
            assert fault is None, fault
        async with self._sending:
            while (frame := self._link.cut()) is not None:
                await self.stream.send(frame)

    async def report(self, attempt: AttemptId, outcome: Outcome) -> None:
        assign = next(one for one in self.assigns if one.attempt == attempt)
        self.spool[attempt] = Report(attempt, assign.fence, assign.pin, outcome, Usage(run_s=self.run_s))
        await self.say(self.spool[attempt])

    async def until(self, seen: Callable[[], bool]) -> None:
        while not seen():
            self.news = anyio.Event()
            await self.news.wait()

    def _note(self, item: Any) -> None:
        if isinstance(item, Welcome):
            self.welcomes.append(item)
        elif isinstance(item, Assign):
            self.assigns.append(item)
        elif isinstance(item, Bye):
            self.byes.append(item)
        elif isinstance(item, Cancel):
            self.cancelled.append(item.attempt)
        elif isinstance(item, Ack):
            self.acked.extend(item.attempts)
            for attempt in item.attempts:
                self.spool.pop(attempt, None)
        self.news.set()

    async def _work(self, assign: Assign) -> None:
        spec = msgspec.json.decode(assign.spec)
        values = {one.key: _value(one) for one in assign.inputs}
        outcome = await self.skills[spec["skill"]](substitute(spec["args"], values), self, assign)
        if outcome is not None:
            await self.report(assign.attempt, outcome)


def _value(one: Any) -> Any:
    if one.parts is not None:
        return [msgspec.json.decode(part) for part in one.parts]
    if isinstance(one.value, ArtifactRef):
        return {"artifact": one.value.digest}
    return msgspec.json.decode(one.value)


async def echo(args: Any, _: HandWorker, __: Assign) -> Outcome:
    return Success(msgspec.json.encode(args["value"]))


async def echo_items(args: Any, _: HandWorker, __: Assign) -> Outcome:
    return Success(msgspec.json.encode(args["items"]))


async def fail(args: Any, _: HandWorker, __: Assign) -> Outcome:
    return Failure("Boom", "it broke", "permanent")


@asynccontextmanager
async def client(file: ServerFile) -> AsyncIterator[Channel]:
    async with dial(file.address, file.token, tls=file.tls) as channel:
        yield channel


async def enrolled(file: ServerFile, name: str, serves: str = "") -> dict[str, Any]:
    """An identity, bought by the owner: `{worker, name, secret}`, and `tls` on a server with TLS."""
    async with client(file) as channel:
        answer, tls = await buy(channel, "enroll", file.tls, name=name, serves=serves)
    return {"secret": "", **answer, "tls": tls}


def line(file: ServerFile, identity: dict[str, Any]) -> AbstractAsyncContextManager[Channel]:
    """A channel of this worker's."""
    return dial(file.address, identity["secret"], tls=identity["tls"])


async def ask(channel: Channel, method: str, **body: Any) -> Any:
    return msgspec.json.decode(await channel.invoke(method, msgspec.json.encode(body)))


async def submit(channel: Channel, document: dict[str, Any] | None, **header: Any) -> int:
    async def chunks() -> AsyncIterator[bytes]:
        if document is not None:
            text = msgspec.json.encode(document)
            for start in range(0, len(text), 1000):
                yield text[start : start + 1000]

    answer = msgspec.json.decode(await channel.submit(msgspec.json.encode(header), chunks()))
    return int(answer["run"])


async def events(channel: Channel, run: int, **body: Any) -> list[dict[str, Any]]:
    """Until the run is settled."""
    rows: list[dict[str, Any]] = []
    asked = msgspec.json.encode({"run": run, "follow": True, **body})
    async for message in channel.watch("events", asked):
        rows += [msgspec.json.decode(line) for line in message.splitlines()]
    return rows
