"""What the results of a simulated run must be, worked out from its plan and its values alone.

Every simulated skill gives back its arguments and the fence it ran under, so a result tells by which attempt it was
made and from what. The names and specs are the ledger's, the values the state's; how the core binds and pins is not
asked.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.core.graph import Run
from protocol.task import INPUT, AnyRef, FirstOf, Ref, references, substitute

from .ledger import RunRecord, TaskRecord


class Oracle:
    """One run at its end."""

    def __init__(self, run: Run, record: RunRecord) -> None:
        self.run = run
        self.record = record

    def check(self) -> int:
        """How many results were checked. Raises: AssertionError for one that does not follow from its task."""
        found = 0
        for ix, task in enumerate(self.record.tasks):
            made = self.run.tasks[ix]
            if task.settled == "succeeded" and task.winner and task.count == 0 and not made.reused and self._counts(ix):
                found += self._task(ix, task, msgspec.json.decode(made.value))  # type: ignore[arg-type]
        return found

    def _counts(self, ix: int) -> bool:
        """Not an element of a map that was written anew since, and expanded again."""
        parent = self.record.tasks[self.record.tasks[ix].parent]
        return self.record.tasks[ix].parent < 0 or parent.first < 0 or 0 <= ix - parent.first < parent.count

    def _task(self, ix: int, task: TaskRecord, value: Any) -> int:
        args = msgspec.json.decode(task.spec.args)
        if "literal" in args or (not isinstance(value, list) and "by" not in value):
            return 0  # a spawned child's own arguments, or a list made of itself
        rows = value if isinstance(value, list) else [value]
        attempt = self.run.tasks[ix].attempt(task.winner)
        assert attempt is not None
        for n, row in enumerate(rows):
            wanted = substitute(args, {str(ref): self._value(ix, ref, n) for ref in references(args)})["value"]
            assert row["value"] == wanted, f"{task.name} made {row['value']} of {args}, where {wanted} follows"
            by = [attempt.fence.epoch, attempt.fence.counter]
            assert row["by"] == by, f"{task.name} has the result of {row['by']}, its winner is {by}"
        return 1

    def _value(self, ix: int, ref: AnyRef, n: int) -> Any:
        if isinstance(ref, FirstOf):
            good = [one for one in ref.refs if self.record.tasks[self.record.names[one.source]].settled == "succeeded"]
            return self._value(ix, good[0], n)
        assert isinstance(ref, Ref)
        if ref.source == INPUT:
            value = msgspec.json.decode(self.record.inputs[ref.path[0]])
            return _at(value, ref.path[1:])
        value = _at(self._whole(self.record.names[ref.source]), ref.path)
        if not ref.each:
            return value
        task = self.record.tasks[ix]
        parent = self.record.tasks[task.parent]
        return _at(value[(ix - parent.first) * parent.chunk + n], ref.rest)

    def _whole(self, ix: int) -> Any:
        task, made = self.record.tasks[ix], self.run.tasks[ix]
        if task.first < 0:
            return msgspec.json.decode(made.value)  # type: ignore[arg-type]
        found: list[Any] = []
        for child in range(task.first, task.first + task.count):
            if self.record.tasks[child].settled == "succeeded":
                value = msgspec.json.decode(self.run.tasks[child].value)  # type: ignore[arg-type]
            else:
                state = self.run.tasks[child].state
                failed = {"error": {"code": state.code or state.state, "message": state.message}}  # type: ignore[union-attr]
                low = (child - task.first) * task.chunk
                value = [failed] * (min(low + task.chunk, task.items) - low) if task.chunk > 1 else failed
            found += value if task.chunk > 1 else [value]
        return found


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value
