"""What a server does for its clients and workers: the Services of protocol/port, one method each.

Every call got here authenticated and with a role that may make it. What changes something goes through the engine and
is answered after its commit; what only looks reads the state, once all of it is on disk: nobody is shown what a crash
could take back. Bodies are read strictly, an unknown key is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from protocol.artifact import Content
from protocol.errors import AsterismError, NotAllowed, NotFound, Unavailable, UsageError, WireError
from protocol.json_bytes import read_json
from protocol.port import Artifacts, FrameStream
from protocol.report import RunList
from protocol.security import Principal

from ..core import stimulus as s
from ..core.graph import Run
from ..engine.engine import Engine
from . import ask, query
from .account import Accounts
from .attachment import Attachments
from .enrolment import Enrolment
from .garbage import Garbage
from .lookup import find_run, find_task, find_worker, is_open, run_state
from .reading import Reading
from .submission import Submissions
from .value import Values
from .watching import LOOK_PATIENCE_S, Wanted, Watching

SHOWN: Final = frozenset({"ps", "status", "tasks", "result", "get", "explain", "graph", "tokens"})
"""Methods that show what is journaled: an answer waits until all that it was made of is on disk."""


FULL_PATIENCE_S: Final = 0.5
"""How long a look waits for a disk that is full, which may have room again in a moment."""


class Links(Protocol):
    """The gateway: serves one worker stream until it ends."""

    async def link(self, stream: FrameStream) -> None: ...


class Place(Protocol):
    """The process around the service: what `info` says of it, and its end."""

    def info(self) -> dict[str, Any]: ...

    def touch(self) -> None:
        """Somebody called."""

    def shut_down(self) -> None: ...


Act = Callable[["Service", Principal, Any], Awaitable[Any]]


class Service:
    """One per server; see the module."""

    def __init__(
        self,
        engine: Engine,
        links: Links,
        artifacts: Artifacts,
        values: Values,
        submissions: Submissions,
        watching: Watching,
        attachments: Attachments,
        enrolment: Enrolment,
        garbage: Garbage,
        reading: Reading,
        place: Place,
    ) -> None:
        self._engine = engine
        self._links = links
        self._artifacts = artifacts
        self._values = values
        self._submissions = submissions
        self._watching = watching
        self._attachments = attachments
        self._enrolment = enrolment
        self._garbage = garbage
        self._reading = reading
        self._place = place
        self._accounts = Accounts(engine, values)

    # protocol.port.Services

    async def link(self, stream: FrameStream) -> None:
        await self._links.link(stream)

    async def invoke(self, who: Principal, method: str, body: bytes) -> bytes:
        """Raises: NotFound for a method that is not there, UsageError for a body that doesn't fit it."""
        self._place.touch()
        found = _METHODS.get(method)
        if found is None:
            raise NotFound(f"this server has no method {method}", hint="client and server may differ in version")
        kind, act = found
        answer = await act(self, who, _body(method, body, kind))
        if method in SHOWN:  # only now: what the answer was made of may be newer than what was on disk before
            await self._on_disk()
        return answer if isinstance(answer, bytes) else msgspec.json.encode(answer)

    async def watch(self, who: Principal, method: str, body: bytes) -> AsyncIterator[bytes]:
        self._place.touch()
        if method == "events":
            events = _body(method, body, ask.Events)
            wanted = Wanted(events.kinds, events.states)
            if events.fleet:
                stream = self._watching.fleet(events.after, events.follow, wanted)
            else:
                stream = self._watching.events(events.run, events.after, events.follow, wanted)
        elif method == "logs":
            logs = _body(method, body, ask.Logs)
            stream = self._watching.logs(logs.run, logs.task or "", logs.after, logs.follow)
        else:
            raise NotFound(f"this server has no stream {method}", hint="client and server may differ in version")
        try:
            async for message in stream:
                yield message
        finally:
            with anyio.CancelScope(shield=True):
                await stream.aclose()  # type: ignore[attr-defined]
            self._place.touch()

    async def submit(self, who: Principal, header: bytes, chunks: AsyncIterator[bytes]) -> bytes:
        self._place.touch()
        return msgspec.json.encode(await self._submissions.submit(who, header, chunks))

    async def put(self, who: Principal, digest: str, media: str, offset: int, chunks: AsyncIterator[bytes]) -> int:
        return await self._artifacts.put(who, digest, media, offset, chunks)

    async def has(self, who: Principal, digest: str) -> int:
        return await self._artifacts.has(who, digest)

    async def get(self, who: Principal, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Raises: NotYours for a worker that has no attempt with this input; NotFound."""
        await self._reading.digests(who, (digest,))
        async with aclosing(self._artifacts.get(who, digest, offset)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk

    async def put_many(
        self, who: Principal, bundles: AsyncIterator[tuple[Content, ...]]
    ) -> Mapping[str, AsterismError]:
        return await self._artifacts.put_many(who, bundles)

    async def has_many(self, who: Principal, digests: Sequence[str]) -> Sequence[int]:
        return await self._artifacts.has_many(who, digests)

    async def get_many(self, who: Principal, digests: Sequence[str]) -> AsyncIterator[tuple[Content, ...]]:
        """Raises: as get."""
        await self._reading.digests(who, digests)
        async with aclosing(self._artifacts.get_many(who, digests)) as groups:  # type: ignore[type-var]
            async for group in groups:
                yield group

    # looking

    async def _ps(self, _: Principal, __: ask.Nothing) -> Any:
        now = self._engine.clock()
        rows = []
        for run in list(self._state.runs.values()):
            rows.append(query.run_row(run, now))
            if len(run.tasks) > query.SLICE_TASKS:
                await anyio.lowlevel.checkpoint()
        return RunList(runs=tuple(rows)).to_dict()

    async def _status(self, _: Principal, body: ask.OfRun) -> Any:
        run = self._find(body.run)
        return query.run_status(self._state, run, self._engine.clock(), self._engine.machine.standing(run)).to_dict()

    async def _tasks(self, _: Principal, body: ask.Tasks) -> Any:
        run = self._find(body.run)
        return await self._accounts.tasks(run, body.children)

    async def _result(self, _: Principal, body: ask.OfRun) -> Any:
        return await self._accounts.result(self._find(body.run))

    async def _get_value(self, _: Principal, body: ask.Get) -> Any:
        run = self._find(body.run)
        if not body.task:
            raise UsageError("name a task or an output", hint=f"asterism get {run.name}/TASK")
        return await self._values.get(run, body.task, ask.pointer_parts(body.pointer))

    async def _explain(self, _: Principal, body: ask.OfTask) -> Any:
        run = self._find(body.run)
        return await self._accounts.explain(run, find_task(run, body.task))

    async def _graph(self, _: Principal, body: ask.Graph) -> Any:
        run = self._find(body.run)
        return query.graph(run, -1 if body.version is None else body.version)

    async def _workers(self, _: Principal, __: ask.Nothing) -> Any:
        return query.workers(self._state, self._engine.machine.fleet, self._engine.clock()).to_dict()

    async def _skills(self, _: Principal, __: ask.Nothing) -> Any:
        return query.skills(self._state, self._engine.machine.fleet).to_dict()

    async def _predictor(self, _: Principal, __: ask.Nothing) -> Any:
        return self._accounts.predictor()

    async def _info(self, _: Principal, __: ask.Nothing) -> Any:
        return self._place.info()

    # steering

    async def _patch(self, who: Principal, body: ask.Patch) -> Any:
        return await self._submissions.patch(body.run, body.document, f"person:{who.name}")

    async def _plan(self, _: Principal, body: ask.Plan) -> Any:
        return await self._submissions.plan(body.request, body.inputs, body.planner, body.home)

    async def _cancel(self, who: Principal, body: ask.Cancel) -> Any:
        run = self._find(body.run)
        return await self._engine.ask(
            lambda reply: s.CancelRequested(reply, run.ix, body.task or "", who.name, body.why)
        )

    async def _pause(self, who: Principal, body: ask.OfRun) -> Any:
        run = self._find(body.run)
        return await self._engine.ask(lambda reply: s.PauseRequested(reply, run.ix, who.name))

    async def _resume(self, who: Principal, body: ask.OfRun) -> Any:
        run = self._find(body.run)
        return await self._engine.ask(lambda reply: s.PauseRequested(reply, run.ix, who.name, resume=True))

    async def _detach(self, who: Principal, body: ask.OfRun) -> Any:
        run = self._find(body.run)
        found = await self._engine.ask(lambda reply: s.DetachRequested(reply, run.ix, who.name))
        self._attachments.detached(run.ix)
        return found

    async def _approve(self, who: Principal, body: ask.Decide) -> Any:
        return await self._decide(who, body, approved=True)

    async def _reject(self, who: Principal, body: ask.Decide) -> Any:
        return await self._decide(who, body, approved=False)

    async def _decide(self, who: Principal, body: ask.Decide, approved: bool) -> Any:
        run = self._find(body.run)
        return await self._engine.ask(
            lambda reply: s.ApprovalDecided(reply, run.ix, body.task or "", who.name, approved, body.message)
        )

    async def _answer(self, who: Principal, body: ask.Answer) -> Any:
        run = self._find(body.run)
        value = msgspec.json.encode(body.value)
        return await self._engine.ask(lambda reply: s.AnswerGiven(reply, run.ix, body.task, who.name, value))

    async def _resolve(self, who: Principal, body: ask.Resolve) -> Any:
        run = self._find(body.run)
        value = msgspec.json.encode(body.value)
        return await self._engine.ask(
            lambda reply: s.UnknownResolved(reply, run.ix, body.task, who.name, body.how, value)
        )

    async def _fork(self, who: Principal, body: ask.Fork) -> Any:
        run = self._find(body.run)
        at = -1 if body.at is None else body.at
        return await self._engine.ask(lambda reply: s.ForkRequested(reply, run.ix, at, who.name, body.key, body.home))

    async def _retry(self, who: Principal, body: ask.Fork) -> Any:
        run = self._find(body.run)
        if is_open(run):
            raise UsageError(f"{run.name} is still {run_state(run)}", hint=f"asterism wait {run.name}")
        return await self._fork(who, body)

    async def _undo(self, who: Principal, body: ask.Undo) -> Any:
        run = self._find(body.run)
        return await self._engine.ask(lambda reply: s.UndoRequested(reply, run.ix, body.version, who.name))

    async def _remove(self, _: Principal, body: ask.OfRun) -> Any:
        run = self._find(body.run)
        return await self._engine.ask(lambda reply: s.RemoveRequested(reply, run.ix))

    # the fleet and the server

    async def _enroll(self, who: Principal, body: ask.Enroll) -> Any:
        return await self._enrolment.enroll(who, body.name, body.serves, body.csr)

    async def _connect(self, who: Principal, body: ask.Connect) -> Any:
        return await self._enrolment.connect(who, body.name, body.csr)

    async def _renew(self, who: Principal, body: ask.Renew) -> Any:
        return self._enrolment.renew(who, body.csr)

    async def _preflight(self, _: Principal, body: ask.Preflight) -> Any:
        self._enrolment.preflight(body.versions, body.certificate, body.at)
        return {"ok": True}

    async def _echo(self, _: Principal, body: ask.Echo) -> Any:
        return bytes(body.size)

    async def _token(self, who: Principal, body: ask.NewToken) -> Any:
        return await self._enrolment.create(who, body.role, body.uses, body.ttl_s)

    async def _tokens(self, _: Principal, __: ask.Nothing) -> Any:
        return self._enrolment.tokens().to_dict()

    async def _revoke(self, who: Principal, body: ask.OfToken) -> Any:
        return await self._enrolment.revoke(who, body.token)

    async def _drain(self, _: Principal, body: ask.Drain) -> Any:
        return await self._engine.ask(lambda reply: s.DrainAsked(reply, body.worker, body.deadline_s))

    async def _dismiss(self, who: Principal, body: ask.OfWorker) -> Any:
        record = find_worker(self._state, body.worker)
        if not record.serves and who.role != "admin":
            raise NotAllowed(f"{record.name} serves everybody", hint="only an admin may dismiss it")
        self._enrolment.dismiss(record.ix)
        return {"worker": record.name}

    async def _stage(self, who: Principal, body: ask.Stage) -> Any:
        """For a worker: {uri: [digest, media, size]} of files of other machines; for a client: one file's digest."""
        run = self._find(body.run)
        uris = tuple(body.uris) or (body.uri,)
        await self._reading.files(who, run.ix, uris)
        found = await self._engine.ask(lambda reply: s.StageAsked(reply, who.worker_id, run.ix, uris), patient=True)
        return found if body.uris else {"digest": found[body.uri][0]}

    async def _gc(self, _: Principal, body: ask.Collect) -> Any:
        if self._engine.forgetting or not self._engine.pressure.full:  # on a full disk this is what makes room
            await self._on_disk()
        return await self._garbage.collect(self._engine.clock(), body.grace_s, body.dry)

    async def _shutdown(self, _: Principal, __: ask.Nothing) -> Any:
        self._place.shut_down()
        return {"stopping": True}

    # shared

    @property
    def _state(self) -> Any:
        return self._engine.machine.state

    def _find(self, number: int) -> Run:
        return find_run(self._state, number)

    async def _on_disk(self) -> None:
        with anyio.move_on_after(FULL_PATIENCE_S if self._engine.pressure.full else LOOK_PATIENCE_S):
            await self._engine.on_disk()
            return
        why = "the disk of the server is full" if self._engine.pressure.full else "the disk of the server is behind"
        raise Unavailable(
            f"{why}: what is going on can't be written down, so it can't be shown yet",
            hint="make room on the disk of ASTERISM_HOME (asterism gc), or wait; nothing that was accepted is lost",
        )


_METHODS: Final[dict[str, tuple[type[msgspec.Struct], Act]]] = {
    "ps": (ask.Nothing, Service._ps),
    "status": (ask.OfRun, Service._status),
    "tasks": (ask.Tasks, Service._tasks),
    "result": (ask.OfRun, Service._result),
    "get": (ask.Get, Service._get_value),
    "explain": (ask.OfTask, Service._explain),
    "graph": (ask.Graph, Service._graph),
    "workers": (ask.Nothing, Service._workers),
    "skills": (ask.Nothing, Service._skills),
    "predictor": (ask.Nothing, Service._predictor),
    "info": (ask.Nothing, Service._info),
    "patch": (ask.Patch, Service._patch),
    "plan": (ask.Plan, Service._plan),
    "cancel": (ask.Cancel, Service._cancel),
    "pause": (ask.OfRun, Service._pause),
    "resume": (ask.OfRun, Service._resume),
    "detach": (ask.OfRun, Service._detach),
    "approve": (ask.Decide, Service._approve),
    "reject": (ask.Decide, Service._reject),
    "answer": (ask.Answer, Service._answer),
    "resolve": (ask.Resolve, Service._resolve),
    "fork": (ask.Fork, Service._fork),
    "retry": (ask.Fork, Service._retry),
    "undo": (ask.Undo, Service._undo),
    "rm": (ask.OfRun, Service._remove),
    "enroll": (ask.Enroll, Service._enroll),
    "connect": (ask.Connect, Service._connect),
    "renew": (ask.Renew, Service._renew),
    "echo": (ask.Echo, Service._echo),
    "preflight": (ask.Preflight, Service._preflight),
    "token": (ask.NewToken, Service._token),
    "tokens": (ask.Nothing, Service._tokens),
    "revoke": (ask.OfToken, Service._revoke),
    "drain": (ask.Drain, Service._drain),
    "dismiss": (ask.OfWorker, Service._dismiss),
    "stage": (ask.Stage, Service._stage),
    "gc": (ask.Collect, Service._gc),
    "shutdown": (ask.Nothing, Service._shutdown),
}


def methods() -> frozenset[str]:
    """The names of every method and stream that is served."""
    return frozenset(_METHODS) | {"events", "logs"}


def _body(method: str, body: bytes, kind: Any) -> Any:
    try:
        return read_json(body or b"{}", kind)
    except WireError as error:
        raise UsageError(f"{method} does not take that: {error}") from None
