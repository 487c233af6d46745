"""Looking at runs: reports, values, files, events and log lines, as a server tells them.

Everything here may be repeated and changes nothing. Streams go on where they stopped when the server restarts. It
must not know workers or how a server is found.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from protocol.artifact import is_digest, parse_file
from protocol.errors import NotFound, UsageError
from protocol.ids import parse_ref
from protocol.pointer import MISSING, descend

from .connection import Connection
from .result import Result

RunRef = int | str
"""7, "7", "r7", or "last" (also 0)."""
_HERE: Final = re.compile(r"(here|local-[0-9]+)-[0-9a-f]{6}")
CONTENT_LIMIT: Final = 64 * 1024 * 1024
T = TypeVar("T")


class Reader:
    """What can be asked about runs over one connection. `run` is a number, `r7`, or `last`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def ask(self, method: str, run: RunRef = "last", **body: Any) -> Any:
        """One request about a run, as the server answers it (protocol/report)."""
        return await self.connection.call(method, run=run_number(run), **body)

    async def result_of(self, run: RunRef = "last") -> Result:
        """The result of a run as it stands. Its `.value` and `.save` are for other threads than the loop's."""
        report = await self.report(run)
        number = run_number(report["run"])
        return Result(
            report,
            lambda task: _from_thread(self.value, number, task),
            lambda uri, target: _from_thread(self.fetch, number, uri, target),
        )

    async def report(self, run: RunRef = "last") -> dict[str, Any]:
        """The report of cli.md, outputs that were too large for one message read in."""
        report: dict[str, Any] = await self.ask("result", run)
        large = report.pop("large", None) or {}
        for name, artifact in large.items():
            content = await self._content(artifact)
            report["outputs"].update({name: content} if name else content)
        return report

    async def value(self, run: RunRef, task: str, pointer: str = "") -> Any:
        """The value of a task (or of the output `task`), at a JSON pointer. Raises: NotFound."""
        answer = await self.ask("get", run, task=task, pointer=pointer)
        return await self._content(answer["artifact"]) if "artifact" in answer else answer.get("value")

    async def fetch(self, run: RunRef, uri: str, target: Path) -> None:
        """Copy a file of a run to a local path. Raises: NotFound, NotAllowed."""
        found = self.local_file(uri)
        if found is not None:
            await anyio.to_thread.run_sync(shutil.copyfile, found, target)
            return
        digest = uri
        if not is_digest(uri):
            digest = (await self.ask("stage", run, uri=uri))["digest"]
        part = target.with_name(target.name + ".part")
        async with await anyio.open_file(part, "wb") as file, aclosing(self.connection.artifact(digest)) as content:
            async for chunk in content:
                await file.write(chunk)
        part.replace(target)

    def local_file(self, uri: str) -> Path | None:
        """Where a file is on this machine, if it is: `here` of any client of a local server was here."""
        where = parse_file(uri)
        if where is None or _HERE.fullmatch(where.worker) is None or not self.connection.endpoint.pid:
            return None
        path = Path(where.path)
        return path if path.is_file() else None

    async def events(
        self,
        run: RunRef = "last",
        *,
        after: int = 0,
        follow: bool = True,
        kinds: Sequence[str] = (),
        states: Sequence[str] = (),
    ) -> AsyncGenerator[Any, None]:
        """Events of a run, each once, in order; with `follow` until the run is settled.

        `after` -1: only those to come. `kinds`: only these; `states`: of settled tasks only those in one of these.
        """
        body: dict[str, Any] = {"run": run_number(run), "follow": follow, "kinds": list(kinds), "states": list(states)}
        stream = self.connection.stream("events", after=after, **body)
        async with aclosing(stream) as rows:
            async for row in rows:
                yield row
                if follow and row["kind"] == "run_settled":
                    return

    async def fleet_events(self, *, after: int = 0, follow: bool = True) -> AsyncGenerator[Any, None]:
        """Events about the server and its workers: epochs, enrolments, tokens, refusals, workers lost and back."""
        async with aclosing(self.connection.stream("events", after=after, fleet=True, follow=follow)) as rows:
            async for row in rows:
                yield row

    async def logs(self, run: RunRef = "last", task: str = "", *, follow: bool = False) -> AsyncGenerator[Any, None]:
        """Log lines of a run or of one task, each once, in order."""
        body: dict[str, Any] = {"run": run_number(run), "follow": follow, **({"task": task} if task else {})}
        async with aclosing(self.connection.stream("logs", mark="n", **body)) as rows:
            async for row in rows:
                yield row

    async def _content(self, artifact: Mapping[str, Any]) -> Any:
        if int(artifact["size"]) > CONTENT_LIMIT:
            raise UsageError(f"a value of {artifact['size']} bytes is too large to read", hint="asterism get --out DIR")
        found = bytearray()
        async with aclosing(self.connection.artifact(artifact["digest"])) as chunks:
            async for chunk in chunks:
                found += chunk
        value: Any = msgspec.json.decode(bytes(found))
        pointer = artifact.get("pointer", ())
        value = descend(value, pointer)
        if value is MISSING:
            raise NotFound(
                f"there is nothing at /{'/'.join(pointer)} in that value", hint="asterism get shows the whole"
            )
        return value


def run_number(run: RunRef) -> int:
    """The number the server knows a run by; 0 is the last one. Raises: UsageError."""
    if isinstance(run, int):
        return run
    found = parse_ref(f"r{run}" if run.isdecimal() else run)
    if found is None or found.task is not None or found.pointer:
        raise UsageError(f"{run!r} is not a run", hint="write r7, or last")
    return found.run or 0


def _from_thread(work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    try:
        return anyio.from_thread.run(work, *args)
    except anyio.NoEventLoopError:
        raise UsageError(
            "values are awaited here", hint="await client.value(run, task), or client.fetch(run, uri, path) for a file"
        ) from None
