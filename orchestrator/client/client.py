"""The client of a server, awaited: find or start one, join it as `here`, hand in work.

The command line and the blocking client are built on it. It finds a server or starts a private one, joins as the
worker `here` at its first submission, and outlives restarts of the server. One event loop per process may use it (a
limit of gRPC). It must not know terminals.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio

from protocol.config import load
from protocol.errors import CalledWhileLoading, NotFound, ServerUnreachable, Unavailable, UsageError
from protocol.graph import Graph, skill_name
from protocol.loading import loading
from protocol.security import ServerFile

from ..local import given_endpoint, has_journal, keep_client, read_endpoint, start_server
from .connection import Connection
from .home import Home, HomeOptions
from .live import AsyncLive
from .reader import Reader, RunRef, run_number
from .result import Result
from .submission import Work, submission

SkillSource = str | Path | Callable[..., Any]
"""A file, a module name, or a decorated function (loaded by its file)."""


class AsyncClient(Reader):
    """Use it as `async with AsyncClient(...) as client`.

    Args:
        server: Address of a server; None finds the local one or starts a private one.
        skills: What `here` can do besides the built-ins: files, module names, decorated functions.
        local: So many workers besides `here`, for trials; `slots` of each.
        root: The folder whose files `here` may use; `roots` are further ones (`DIR:ro`).
        allow: Patterns of skills that need no approval on `here`.
        start: Whether a private server may be started; False for looking only.
        home: False: never join as a worker.

    Raises (entering): ServerUnreachable, NotAllowed, VersionMismatch, ConfigInvalid, CalledWhileLoading.
    """

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
        if name := loading():
            raise CalledWhileLoading(
                f"{name} is being loaded for its skills, and starts a run of its own",
                hint='put the script part under `if __name__ == "__main__":`',
            )
        self._environ = dict(os.environ if environ is None else environ)
        settings = load({"server": server}, self._environ).settings
        if settings.home:
            self._environ["ASTERISM_HOME"] = settings.home
        self._settings = settings
        self._start = start
        self._server = settings.server
        self._joins = home
        options = HomeOptions(
            skills=(*settings.here.skills, *(source_of(skill) for skill in skills)),
            root=str(root),
            roots=(*settings.here.roots, *roots),
            allow=(*settings.here.allow, *allow),
            here_slots=settings.here.slots,
            local=local,
            slots=slots,
        )
        self._home = Home(options, self._environ)
        self._home_lock = anyio.Lock()
        super().__init__(Connection(self._locate, kept=lambda endpoint, tls: keep_client(self._environ, endpoint, tls)))

    async def __aenter__(self) -> Self:
        await self.connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._home.stop(self.connection)
            await self.connection.aclose()

    # Work

    async def submit(
        self,
        work: Work,
        *,
        inputs: Mapping[str, Any] | None = None,
        id: str = "",
        on_failure: str = "",
        deadline: float | str = 0,
        budget: Mapping[str, Any] | None = None,
        replan: Mapping[str, int] | None = None,
        review: int = 0,
        priority: int | None = None,
        sla: str = "",
        prefer: str = "",
        best_effort: bool = False,
        schedule_grace: float | str | None = None,
        labels: Mapping[str, str] | None = None,
        planner: str = "",
        detach: bool = False,
        request: str = "",
    ) -> AsyncLive:
        """Hand in a request, a plan file, a plan document or a Graph. Returns once the server has it on disk.

        `id` makes it idempotent: the same id is the same run. `prefer` (time, price, energy): what placement spares
        once the deadline allows it; `best_effort`: start although the deadline can't be met. `schedule_grace`: how
        long a task may be without any worker that could run it. `request` says in words what a plan is for, so that it
        can be an example for planners. Raises: PlanRefused with every problem,
        PlannerAbstained, DeadlineTooShort with the forecast in `partial`, UsageError.
        """
        defaults = self._settings.run
        budget = {**{k: v for k, v in defaults.budget.model_dump().items() if v}, **(budget or {})}
        if isinstance(work, Graph):
            self._home.bring(source_of(skill) for skill in work.skills)
        home = await self.join() if self._joins else ""
        ready = submission(
            work,
            inputs=inputs,
            id=id,
            on_failure=on_failure or defaults.on_failure,
            deadline=deadline or defaults.deadline,
            budget=budget,
            replan=replan,
            review=review,
            priority=priority if priority is not None else (defaults.priority or None),
            sla=sla or defaults.sla,
            prefer=prefer,
            best_effort=best_effort,
            schedule_grace=schedule_grace,
            labels=labels,
            planner=planner,
            detach=detach,
            home=home,
            request=request,
        )
        answer = await self.connection.submit(ready.header, ready.chunks)
        live = self._live(int(answer["run"]))
        if detach:
            await live.detach()
        return live

    async def check(self, work: Work, **options: Any) -> dict[str, Any] | None:
        """What the server would say to a plan and expects of it (protocol/forecast_row); nothing is made of it.
        `options` are those of submit. `here` joins, since it is one of those that the plan may run on.

        Raises: PlanRefused with every problem.
        """
        home = await self.join() if self._joins else ""
        ready = submission(work, home=home, dry=True, **options)
        answer = await self.connection.submit(ready.header, ready.chunks)
        found = answer.get("forecast")
        return found if isinstance(found, dict) else None

    async def run(self, work: Work, *, timeout: float | str | None = None, **options: Any) -> Result:
        """`submit`, then `result`."""
        live = await self.submit(work, **options)
        return await live.result(timeout)

    async def call(self, skill: str | Callable[..., Any], *, on: str | Sequence[str] | None = None, **args: Any) -> Any:
        """Run one skill and return its value."""
        graph = Graph()
        graph.output("value", graph.add(skill, id="call", on=on, args=args))
        return (await self.run(graph))["value"]

    async def map(
        self,
        skill: str | Callable[..., Any],
        items: Iterable[Any],
        *,
        param: str = "",
        limit: int = 0,
        on: str | Sequence[str] | None = None,
        **args: Any,
    ) -> list[Any]:
        """Run a skill once per item, at most `limit` at once; the values in order.

        The item goes into `param`, by default the skill's first parameter that `args` leaves open.
        """
        name = param or await self._first_param(skill, args)
        graph = Graph(inputs={"items": list(items)})
        each = graph.input("items").each()
        options: dict[str, Any] = {"map": {"limit": limit}} if limit else {}
        graph.output("values", graph.add(skill, id="map", on=on, args={**args, name: each}, **options))
        found = (await self.run(graph))["values"]
        return list(found)

    async def live(self, run: RunRef = "last") -> AsyncLive:
        """A run that is there already. Raises: NotFound."""
        status = await self.ask("status", run)
        return self._live(run_number(status["run"]))

    async def join(self) -> str:
        """Join as `here`, once; returns the name that `here` stands for."""
        async with self._home_lock:
            if not self._home.running:
                try:
                    await self._home.start(self.connection)
                except BaseException:
                    await self._home.stop(self.connection)
                    raise
        return self._home.name

    def check_home(self) -> None:
        """Raises: the error of a worker of ours that has ended."""
        self._home.check()

    def keep_home(self) -> None:
        """Leave `here` to the server: a run goes on without us."""
        self._home.keep()

    def _live(self, run: int) -> AsyncLive:
        return AsyncLive(self, run, self._home.keep)

    async def _first_param(self, skill: str | Callable[..., Any], args: Mapping[str, Any]) -> str:
        name = skill_name(skill)
        params = getattr(getattr(skill, "spec", None), "params", None)
        if params is None:
            if self._joins:
                await self.join()  # what only our own worker offers is known to the server once that has joined
            known = {row["name"]: row for row in (await self.connection.call("skills"))["skills"]}
            if name not in known:
                raise NotFound(f"no worker offers the skill {name}", hint="asterism skills lists what there is")
            params = known[name]["params"]
        for param in params["properties"]:
            if param not in args:
                return str(param)
        raise UsageError(f"{name} has no parameter left for the items", hint="name it: map(..., param=...)")

    async def _locate(self, lost: ServerFile | None) -> ServerFile:
        """The server to use; after a loss the same address if it was given, else whatever is there now."""
        if self._server:
            return given_endpoint(self._server, self._environ)
        found = read_endpoint(self._environ)
        if found is not None:
            return found
        if not self._start and not has_journal(self._environ):
            raise ServerUnreachable("there is no server and nothing to look back at", hint='asterism run "REQUEST"')
        if lost is not None:
            try:
                return await start_server(self._environ, listen=lost.address)
            except Unavailable:
                pass  # somebody took its port: any other will do
        return await start_server(self._environ)


def source_of(skill: SkillSource) -> str:
    """Where a worker finds a skill: its file, or the module's name. Raises: UsageError for what has no file."""
    if isinstance(skill, str | Path):
        return str(skill)
    home = getattr(skill, "home", None)
    if home is None:
        skill_name(skill)
        raise UsageError(f"{skill!r} has no file", hint="give the file or module that defines it")
    return str(home())
