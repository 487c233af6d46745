"""A run while it lives: its events, its end, and every way to steer it.

Steering is asked of the server, which judges it; nothing is assumed to have happened before it answers. It must not
know how the run was submitted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from protocol.errors import AsterismError, RunFailed, TimedOut, from_wire
from protocol.graph import Graph
from protocol.report import FINAL_RUN
from protocol.resource import span_s

from .reader import Reader
from .result import Result
from .submission import plan_text

AGAIN_S: Final = 0.2
"""A server whose watches end although the run goes on is asked so often."""


class AsyncLive:
    """One run, while it lives and after. `run` is its number, `name` what people call it."""

    def __init__(self, reader: Reader, run: int, keep: Callable[[], None]) -> None:
        self._reader = reader
        self._keep = keep
        self.run = run

    @property
    def name(self) -> str:
        return f"r{self.run}"

    async def events(
        self, after: int = 0, *, kinds: Sequence[str] = (), states: Sequence[str] = ()
    ) -> AsyncGenerator[Any, None]:
        """Events from number `after` on, until the run is settled.

        `kinds`: only these (with `run_settled` among them it ends); `states`: of settled tasks only those in these.
        """
        async with aclosing(self._reader.events(self.run, after=after, kinds=kinds, states=states)) as rows:
            async for row in rows:
                yield row

    async def wait(self, timeout: float | str | None = None) -> str:
        """Until the run is settled; its state. Raises: TimedOut with the report so far in `partial`."""
        limit = span_s(timeout) if timeout is not None else None
        pause_s = 0.0  # a run that has settled between the two questions is asked again at once
        with anyio.move_on_after(limit):
            while True:
                state = str((await self._reader.ask("status", self.run))["state"])
                if state in FINAL_RUN:
                    return state
                async with aclosing(self._reader.events(self.run, after=-1, kinds=["run_settled"])) as rows:
                    async for row in rows:
                        return str(row["state"])
                await anyio.sleep(pause_s)
                pause_s = AGAIN_S
        partial = await self._reader.report(self.run)
        raise TimedOut(
            f"{self.name} is {partial['state']} after {limit:g} s",
            hint=f"it goes on; asterism wait {self.name}",
            ref=self.name,
            partial=partial,
        )

    async def result(self, timeout: float | str | None = None) -> Result:
        """Wait and return the result.

        Raises: RunFailed (or the kind of it that the report names: NoEligibleWorker, BudgetSpent, ...) for a run that
        did not succeed, TimedOut; both carry what was reached in `partial`.
        """
        await self.wait(timeout)
        result = await self._reader.result_of(self.run)
        if result.state != "succeeded":
            raise failure(result.report)
        return result

    async def approve(self, task: str, message: str = "") -> None:
        await self._tell("approve", task=task, message=message)

    async def reject(self, task: str, message: str = "") -> None:
        await self._tell("reject", task=task, message=message)

    async def answer(self, task: str, value: Any) -> None:
        """Answer `human.ask` or `ctx.ask`."""
        await self._tell("answer", task=task, value=value)

    async def resolve(self, task: str, how: str, value: Any = None) -> None:
        """Settle an unknown `once` task: how is succeeded (with its value), retry or fail."""
        await self._tell("resolve", task=task, how=how, **({"value": value} if how == "succeeded" else {}))

    async def cancel(self, task: str = "") -> None:
        await self._tell("cancel", **({"task": task} if task else {}))

    async def pause(self) -> None:
        await self._tell("pause")

    async def resume(self) -> None:
        await self._tell("resume")

    async def detach(self) -> None:
        """Let it go on when nobody watches; our `here` stays with it."""
        await self._tell("detach")
        self._keep()

    async def patch(self, change: Graph | Mapping[str, Any] | Path, *, why: str = "", base: int | None = None) -> int:
        """Change the graph while it runs; the new version. Raises: PlanRefused with every problem, Conflict."""
        if isinstance(change, Graph):
            known: dict[str, Any] = {}
            if change.updates:
                now = await self._reader.ask("graph", self.run)
                base = now["version"] if base is None else base
                known = {row.pop("id"): row for row in now["tasks"]}
                known = {key: {"id": key, **_written(row)} for key, row in known.items()}
            document = change.patch(base=base, why=why, known=known)
        elif isinstance(change, Path):
            document = msgspec.json.decode(plan_text(change))
        else:
            document = dict(change)
        if why and isinstance(document, dict):
            document.setdefault("why", why)
        answer = await self._tell("patch", document=document)
        return int(answer["version"])

    async def _tell(self, method: str, **body: Any) -> Any:
        return await self._reader.ask(method, self.run, **body)


def failure(report: Mapping[str, Any]) -> AsterismError:
    """The error that a report of an unsuccessful run stands for, the report in `partial`."""
    found = report.get("error")
    name = report["run"]
    error: AsterismError = RunFailed(f"{name} is {report['state']}", hint=f"asterism tasks {name}")
    if found:
        known = from_wire(found)
        if type(known) is not AsterismError:
            error = known
        elif found.get("message"):  # a code that is only the run's
            error = RunFailed(str(found["message"]), hint=known.hint)
    error.ref = error.ref or name
    error.partial = report
    return error


def _written(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the graph report without what the run added to what was written."""
    return {key: value for key, value in row.items() if key != "state"}
