"""Values of a run for people: the outputs of its report, and one task's value at a pointer.

A value that is small travels in the answer; a large one is named as `{digest, media, size, pointer}` and read by the
client from the artifact store. The list a map made is put together here when somebody asks for it, never before.
"""

from __future__ import annotations

from typing import Any, Final

import anyio.lowlevel
import anyio.to_thread
import msgspec

from protocol.artifact import ArtifactRef, Value
from protocol.errors import NotFound
from protocol.frame import Input
from protocol.pointer import MISSING, descend
from protocol.task import INPUT, Output, Ref

from ..core.binding import Binder, RefMissing
from ..core.graph import Run, Task
from ..engine.artifact_desk import Store, joined
from .lookup import find_task, task_state

ANSWER_BYTES: Final = 1024 * 1024
"""How many bytes of values one answer may hold; what is above goes by digest."""
TURN_OUTPUTS: Final = 500


class Values:
    """Reads values of runs; `store` is the artifact store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._binder = Binder()

    async def outputs(self, run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
        """The outputs that were produced: (by value, by digest). None declared: the tasks that nobody references.

        Small values beyond what an answer holds share one artifact, an object by name, under the name "".
        """
        small: dict[str, Any] = {}
        large: dict[str, Any] = {}
        rest: list[bytes] = []
        room = ANSWER_BYTES
        for number, output in enumerate(run.outputs or default_outputs(run), 1):
            if number % TURN_OUTPUTS == 0:
                await anyio.lowlevel.checkpoint()
            found = self._input(run, output)
            if found is None:
                continue
            value = await self._whole(found, ANSWER_BYTES)
            if isinstance(value, ArtifactRef):
                large[output.name] = _named(value, found.pointer)
            elif len(value) > room:
                rest.append(msgspec.json.encode(output.name) + b":" + value)
            else:
                room -= len(value)
                small[output.name] = msgspec.json.decode(value)
        if rest:
            shared = await anyio.to_thread.run_sync(self._store.put, b"{" + b",".join(rest) + b"}")
            large[""] = _named(shared, ())
        return small, large

    async def get(self, run: Run, name: str, pointer: tuple[str, ...]) -> dict[str, Any]:
        """`get`: the value of a task (`count`, `count.3`) or of the output `name`, at a pointer. Raises: NotFound."""
        try:
            found = self._named_input(run, name, pointer)
        except RefMissing as error:
            raise NotFound(f"{run.name}: {error}", hint=f"asterism get {run.name}/{name} shows the whole") from None
        value = await self._whole(found, ANSWER_BYTES)
        if isinstance(value, ArtifactRef):
            return {"artifact": _named(value, found.pointer)}
        return {"value": msgspec.json.decode(value)}

    def _named_input(self, run: Run, name: str, pointer: tuple[str, ...]) -> Input:
        """Raises: NotFound, RefMissing."""
        task = run.find(name)
        if task is None:
            for output in run.outputs:
                if output.name == name and isinstance(output.ref, Ref):
                    ref = output.ref
                    return self._binder.input(run, Ref(ref.source, (*ref.path, *pointer)))
            task = find_task(run, name)
        if task.parent >= 0:
            return self._child(run, task, name, pointer)
        if not task.succeeded:
            raise _not_there(run, task)
        return self._binder.input(run, Ref(task.spec.id, pointer))

    def _child(self, run: Run, task: Task, name: str, pointer: tuple[str, ...]) -> Input:
        if not task.succeeded or task.value is None:
            raise _not_there(run, task)
        if isinstance(task.value, ArtifactRef):
            return Input(name, task.value, pointer)
        found = descend(msgspec.json.decode(task.value), pointer)
        if found is MISSING:
            raise RefMissing(f"no /{'/'.join(pointer)} in the result of {name}")
        return Input(name, msgspec.json.encode(found))

    def _input(self, run: Run, output: Output) -> Input | None:
        ref = output.ref
        try:
            if isinstance(ref, Ref) and ref.source != INPUT and not run.tasks[run.names[ref.source]].succeeded:
                return None
            return self._binder.input(run, output.ref)
        except (RefMissing, KeyError):
            return None

    async def _whole(self, found: Input, room: int) -> Value:
        """The value as JSON bytes if it fits `room`, else as an artifact that holds it."""
        if found.parts is not None:
            size = sum(len(part) if isinstance(part, bytes) else part.size for part in found.parts)
            if size <= room and not found.pointer and all(isinstance(part, bytes) for part in found.parts):
                return joined(found.parts, found.flat, self._store)
            return await anyio.to_thread.run_sync(self._keep, found)
        if isinstance(found.value, bytes) and len(found.value) > room:
            return await anyio.to_thread.run_sync(self._store.put, found.value)
        return found.value

    def _keep(self, found: Input) -> ArtifactRef:
        assert found.parts is not None
        return self._store.put(joined(found.parts, found.flat, self._store))


def default_outputs(run: Run) -> list[Output]:
    """The tasks that nobody references, each under its own name."""
    return [
        Output(task.spec.id, Ref(task.spec.id))
        for task in run.roots()
        if not task.down and not task.chained and task.succeeded and task.owner < 0
    ]


def _named(ref: ArtifactRef, pointer: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"digest": ref.digest, "media": ref.media, "size": ref.size}
    return found | ({"pointer": list(pointer)} if pointer else {})


def _not_there(run: Run, task: Task) -> NotFound:
    name = run.name_of(task)
    return NotFound(
        f"{run.name}/{name} has no value: it is {task_state(task)}",
        hint=f"asterism explain {run.name}/{name}",
        ref=f"{run.name}/{name}",
    )
