"""A model's answer becoming a plan: text in, patches out, the moment each task is whole and right.

A task that is wrong is set aside with its problems, one that names such a task waits; the others go on. A second answer
may mend the first (`mend`). A change to a running graph is one patch, at the end: applied by halves it could be worse
than none. Invariant: pure; what leaves here has passed the same parser and compiler as any plan, and is never taken
back; nothing is guessed. It must not know models, clocks or streams.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from protocol.document import PLANNER_LIMITS, Limits, Problems
from protocol.errors import PlanTooLarge, Problem
from protocol.ids import TASK_ID
from protocol.patch import Edit, Patch
from protocol.plan_form import PATCH_KEYS, SCHEMA, PlanReader
from protocol.task import INPUT, FirstOf, Output, Ref, TaskSpec
from protocol.task_form import TaskReader

from .catalog import Catalog
from .compiler import check_task
from .decoder import TASKS, Decoder, Piece
from .view import PlanView
from .wire_form import read_output, read_task

AUTHOR: Final = "planner"


class _Waiting(msgspec.Struct, frozen=True):
    """A task with nothing wrong but that it needs some that are set aside."""

    spec: TaskSpec
    where: str
    needs: frozenset[str]


class Reply:
    """One plan, written in one answer or two. `accepted` holds the tasks that have left, in that order."""

    def __init__(self, view: PlanView, catalog: Catalog, limits: Limits = PLANNER_LIMITS) -> None:
        self.accepted: dict[str, TaskSpec] = {}
        self.streamed = view.digest is None or view.digest.kind == "plan"
        self._view = view
        self._catalog = catalog
        self._limits = limits
        self._graph = {task.id for task in view.digest.tasks} if view.digest is not None else set()
        self._decoder = Decoder(limits)
        self._written: set[str] = set()  # ids in this answer
        self._wrong: dict[str, list[Problem]] = {}  # by id, else by place
        self._waiting: dict[str, _Waiting] = {}
        self._members: dict[str, Any] = {}
        self._odd: list[Problem] = []  # of members

    @property
    def stopped(self) -> bool:
        """Nothing more is read of this answer."""
        return self._decoder.stopped is not None

    @property
    def whole(self) -> bool:
        """The end of the plan was read."""
        return self._decoder.whole

    @property
    def waiting(self) -> tuple[str, ...]:
        """Ids of tasks that are right, but need others that are not there."""
        return tuple(self._waiting)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs that can be."""
        return self._outputs(self.accepted.keys())[0]

    @property
    def empty(self) -> bool:
        """It asks for nothing, and nothing is wrong with that."""
        return not (self.accepted or self._wrong or self._waiting or self._odd or self._edits())

    def feed(self, text: str) -> Patch | None:
        """The tasks that this text made whole, if they may go on."""
        before = len(self.accepted)
        for piece in self._decoder.feed(text):
            if piece.index >= 0:
                self._task(piece)
            else:
                self._member(piece)
        new = tuple(self.accepted.values())[before:]
        return Patch(AUTHOR, new) if new and self.streamed else None

    def end(self) -> tuple[Problem, ...]:
        """The answer is over: all that is wrong and could be mended by another. Empty: it is a whole, good plan."""
        cut = self._decoder.end()
        whole = [*self._odd, *([cut] if cut is not None and cut.code != "TwoPlans" else [])]
        _, problems = self._outputs({*self.accepted, *self._waiting, *self._wrong})
        return (*(one for some in self._wrong.values() for one in some), *whole, *problems)

    def mend(self) -> None:
        """Another answer begins. What had no id in the first is not waited for."""
        self._decoder = Decoder(self._limits)
        self._written = set()
        self._wrong = {name: found for name, found in self._wrong.items() if "/" not in name}
        self._odd = []

    def close(self) -> tuple[Patch | None, tuple[Problem, ...]]:
        """The last patch, and everything that is refused with it."""
        problems = [*self.end()]
        for one in self._waiting.values():
            lost = ", ".join(sorted(one.needs - self.accepted.keys()))
            problems.append(Problem("UnknownReference", one.where, f"it needs {lost}, which was refused"))
        outputs, found = self._outputs(self.accepted.keys())
        problems += [one for one in found if one not in problems]
        patch = Patch(AUTHOR, outputs=outputs) if outputs else None
        if not self.streamed:
            why = self._members.get("why")
            patch = Patch(
                AUTHOR,
                tuple(self.accepted.values()),
                why=why if isinstance(why, str) else "",
                base=self._view.base,
                edits=self._edits(),
                outputs=outputs or None,
            )
            if problems or not (patch.tasks or patch.edits or patch.outputs):
                patch = None
        return patch, tuple(problems)

    # tasks

    def _task(self, piece: Piece) -> None:
        if piece.problem is not None:
            self._wrong[piece.where] = [piece.problem]
            return
        raw = read_task(piece.value, self._catalog)
        problems = Problems()
        reader = TaskReader(problems, self._limits.max_string)
        try:
            spec = reader.read(raw, piece.where)
        except PlanTooLarge as error:
            spec, problems.found = None, list(error.problems)
        name = raw.get("id") if isinstance(raw, dict) else None
        key = name if isinstance(name, str) and TASK_ID.fullmatch(name) else piece.where
        repeated = key in self._written
        self._written.add(key)
        if spec is None or repeated:
            if repeated:
                problems.add("DuplicateId", f"{piece.where}/id", f"{key} is written twice", "use each id once")
                key = piece.where
            self._wrong[key] = problems.found
            return
        if spec.id in self.accepted:
            if spec != self.accepted[spec.id]:
                said = f"{spec.id} was accepted as it was written first"
                self._wrong[piece.where] = [Problem("DuplicateId", f"{piece.where}/id", said, "choose another id")]
            return
        self._wrong.pop(spec.id, None)
        self._waiting.pop(spec.id, None)
        needs = frozenset(source for source, _, _ in reader.uses)
        self._judge(_Waiting(spec, piece.where, needs & (self._wrong.keys() | self._waiting.keys())))

    def _judge(self, task: _Waiting) -> None:
        """Accept it and all that waited for it, or let it wait, or set it aside."""
        open_tasks = [task]
        while open_tasks:
            task = open_tasks.pop(0)
            spec, graph = task.spec, self._graph | task.needs
            problems = check_task(spec, self._catalog, self.accepted, self._view.inputs, task.where, graph=graph)
            if problems:
                self._wrong[spec.id] = problems
            elif task.needs - self.accepted.keys():
                self._waiting[spec.id] = task
            else:
                self.accepted[spec.id] = spec
                freed = [one for one in self._waiting.values() if one.needs <= self.accepted.keys()]
                open_tasks += [self._waiting.pop(one.spec.id) for one in freed]

    # the rest of the document

    def _member(self, piece: Piece) -> None:
        if piece.problem is not None:
            self._odd.append(piece.problem)
        elif piece.key == TASKS:
            self._odd.append(Problem("WrongType", TASKS, "it is a list of tasks", 'write "tasks": [...]'))
        elif piece.key == "schema":
            if piece.value != SCHEMA:
                self._odd.append(Problem("SchemaVersion", "schema", "it is not read here", f'write "{SCHEMA}"'))
        elif piece.key not in PATCH_KEYS:
            self._odd.append(Problem("UnknownKey", piece.key[:60], "no such key of a plan", "tasks, outputs"))
        else:
            self._members[piece.key] = piece.value
            if piece.key == "edits":
                reader = self._reader("edits")
                reader.edits()
                self._odd += reader.problems.found

    def _reader(self, key: str, known: Iterable[str] = ()) -> PlanReader:
        """The reader of one member, having read it."""
        value = self._members.get(key)
        if key == "outputs" and isinstance(value, list):
            value = [read_output(one) for one in value]
        reader = PlanReader(self._limits, {key: value})
        reader.order = dict.fromkeys(known, 0)
        reader.known_inputs = self._view.inputs
        return reader

    def _edits(self) -> tuple[Edit, ...]:
        return () if self.streamed else self._reader("edits").edits()

    def _outputs(self, known: Iterable[str]) -> tuple[tuple[Output, ...], list[Problem]]:
        there = {*known, *self._graph, INPUT}
        reader = self._reader("outputs", there)
        good = [one for one in reader.outputs() if all(ref.source in there for ref in _refs(one))]
        return tuple(good), reader.problems.found


def _refs(output: Output) -> tuple[Ref, ...]:
    return output.ref.refs if isinstance(output.ref, FirstOf) else (output.ref,)
