"""The client for ordinary code: `Client`, `Live` and `run`, blocking, over the awaited client in one background thread.

One thread with one event loop serves every client of the process (a limit of gRPC) and ends with the last of them.
A `Result` stays usable after its client is closed: what it still has to fetch opens a short connection of its own.
It must not decide anything: every method is the awaited one of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from anyio.from_thread import BlockingPortal, BlockingPortalProvider

from protocol.errors import UsageError
from protocol.graph import Graph

from .client import AsyncClient, SkillSource
from .live import AsyncLive
from .reader import RunRef, run_number
from .result import Result
from .submission import Work

_LOOP: Final = BlockingPortalProvider(backend="asyncio")
"""The one event loop of this process's blocking clients: started by the first, ended after the last."""


class Client:
    """`with Client(...) as client`; the arguments are those of AsyncClient."""

    def __init__(
        self,
        server: str | None = None,
        *,
        skills: Iterable[SkillSource] = (),
        local: int = 0,
        slots: int = 0,
        root: str | Path = ".",
        roots: Sequence[str] = (),
        allow: Sequence[str] = (),
        start: bool = True,
        home: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        skills = tuple(skills)
        self._options: dict[str, Any] = {
            "skills": skills,
            "local": local,
            "slots": slots,
            "root": root,
            "roots": roots,
            "allow": allow,
            "start": start,
            "environ": environ,
        }
        self._server = server
        self._client = AsyncClient(server, home=home, **self._options)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            portal = stack.enter_context(_LOOP)
            stack.enter_context(portal.wrap_async_context_manager(self._client))
            self._stack = stack.pop_all()
        self._portal = portal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._portal = None
        return self._stack.__exit__(kind, error, trace)

    def submit(self, work: Work, **options: Any) -> Live:
        """Hand in a request, a plan file, a plan document or a Graph (AsyncClient.submit has the options)."""
        return Live(self, self._do(lambda: self._client.submit(work, **options)))

    def check(self, work: Work, **options: Any) -> dict[str, Any] | None:
        """What the server would say to a plan, and expects of it. Raises: PlanRefused with every problem."""
        found: dict[str, Any] | None = self._do(lambda: self._client.check(work, **options))
        return found

    def run(self, work: Work, *, timeout: float | str | None = None, **options: Any) -> Result:
        """`submit`, then `result`."""
        return self.submit(work, **options).result(timeout)

    def call(self, skill: str | Callable[..., Any], *, on: str | Sequence[str] | None = None, **args: Any) -> Any:
        """Run one skill and return its value."""
        return self._do(lambda: self._client.call(skill, on=on, **args))

    def map(
        self,
        skill: str | Callable[..., Any],
        items: Iterable[Any],
        *,
        param: str = "",
        limit: int = 0,
        on: str | Sequence[str] | None = None,
        **args: Any,
    ) -> list[Any]:
        """Run a skill once per item, at most `limit` at once; the values in order."""
        rows = list(items)
        return list(self._do(lambda: self._client.map(skill, rows, param=param, limit=limit, on=on, **args)))

    def live(self, run: RunRef = "last") -> Live:
        """A run that is there already. Raises: NotFound."""
        return Live(self, self._do(lambda: self._client.live(run)))

    def ask(self, method: str, run: RunRef = "last", **body: Any) -> Any:
        """One request about a run, as the server answers it (protocol/report)."""
        return self._do(lambda: self._client.ask(method, run, **body))

    def result_of(self, run: RunRef = "last") -> Result:
        """The result of a run as it stands. Raises: NotFound."""
        report = self.report(run)
        number = run_number(report["run"])
        return Result(
            report, lambda task: self.value(number, task), lambda uri, target: self.fetch(number, uri, target)
        )

    def report(self, run: RunRef = "last") -> dict[str, Any]:
        return dict(self._do(lambda: self._client.report(run)))

    def value(self, run: RunRef, task: str, pointer: str = "") -> Any:
        """The value of a task at a JSON pointer; also after the client was closed."""
        return self._again(lambda client: client.value(run, task, pointer))

    def fetch(self, run: RunRef, uri: str, target: Path) -> None:
        """Copy a file of a run to a local path; also after the client was closed."""
        self._again(lambda client: client.fetch(run, uri, target))

    def _do(self, work: Callable[[], Any]) -> Any:
        if self._portal is None:
            raise UsageError("this client is not open", hint="use it inside `with Client(...) as client:`")
        return self._portal.call(work)

    def _again(self, work: Callable[[AsyncClient], Any]) -> Any:
        if self._portal is not None:
            return self._portal.call(work, self._client)
        client = AsyncClient(self._server, home=False, **self._options)
        with _LOOP as portal, portal.wrap_async_context_manager(client):
            return portal.call(work, client)


class Live:
    """One run, while it lives and after; every method is AsyncLive's of the same name."""

    def __init__(self, client: Client, live: AsyncLive) -> None:
        self._client = client
        self._live = live

    @property
    def run(self) -> int:
        return self._live.run

    @property
    def name(self) -> str:
        return self._live.name

    def events(
        self, after: int = 0, *, kinds: Sequence[str] = (), states: Sequence[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """Events from number `after` on, until the run is settled; `kinds` and `states` leave the others out."""
        rows = self._live.events(after, kinds=kinds, states=states)
        try:
            while True:
                row = self._client._do(lambda: anext(rows, None))
                if row is None:
                    return
                yield row
        finally:
            self._client._do(rows.aclose)

    def wait(self, timeout: float | str | None = None) -> str:
        return str(self._client._do(lambda: self._live.wait(timeout)))

    def result(self, timeout: float | str | None = None) -> Result:
        """Wait and return the result. Raises: RunFailed or the kind of it the report names, TimedOut."""
        self._client._do(lambda: self._live.result(timeout))
        return self._client.result_of(self.run)

    def approve(self, task: str, message: str = "") -> None:
        self._client._do(lambda: self._live.approve(task, message))

    def reject(self, task: str, message: str = "") -> None:
        self._client._do(lambda: self._live.reject(task, message))

    def answer(self, task: str, value: Any) -> None:
        self._client._do(lambda: self._live.answer(task, value))

    def resolve(self, task: str, how: str, value: Any = None) -> None:
        self._client._do(lambda: self._live.resolve(task, how, value))

    def cancel(self, task: str = "") -> None:
        self._client._do(lambda: self._live.cancel(task))

    def pause(self) -> None:
        self._client._do(self._live.pause)

    def resume(self) -> None:
        self._client._do(self._live.resume)

    def detach(self) -> None:
        self._client._do(self._live.detach)

    def patch(self, change: Graph | Mapping[str, Any] | Path, *, why: str = "", base: int | None = None) -> int:
        return int(self._client._do(lambda: self._live.patch(change, why=why, base=base)))


def run(
    work: Work,
    *,
    skills: Iterable[SkillSource] = (),
    server: str | None = None,
    local: int = 0,
    slots: int = 0,
    root: str | Path = ".",
    roots: Sequence[str] = (),
    allow: Sequence[str] = (),
    timeout: float | str | None = None,
    **options: Any,
) -> Result:
    """Run a request, a plan or a Graph to its end and return the result; no server is needed.

    Skills that a Graph names as functions are brought along. `options` are those of `Client.submit`. Ctrl-C cancels
    the run with grace. Raises: RunFailed or the kind of it the report names (with `.partial`), PlanRefused,
    PlannerAbstained, TimedOut, CalledWhileLoading.
    """
    found = (*skills, *(work.skills if isinstance(work, Graph) else ()))
    with Client(server, skills=found, local=local, slots=slots, root=root, roots=roots, allow=allow) as client:
        live = client.submit(work, **options)
        try:
            return live.result(timeout)
        except KeyboardInterrupt:
            live.cancel()
            raise
