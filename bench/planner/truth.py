"""What a harmed plan may still come to, and the judgement of what was made of it.

Invariant: pure. It must not know how a plan was harmed, nor who reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from protocol.plan import parse_plan
from protocol.task import FirstOf, Output, Ref, TaskSpec, references

from .sample import Document


class Truth(msgspec.Struct, frozen=True):
    """`good` before the harm. Tasks by id: `keep` is unharmed and must come through, `may` might; all else must not."""

    good: Document
    keep: frozenset[str]
    may: frozenset[str] = frozenset()


class Verdict(msgspec.Struct, frozen=True):
    """What is wrong with what was accepted. Empty is right."""

    false_accepts: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def judge(truth: Truth, accepted: Sequence[TaskSpec], outputs: Iterable[Output] = ()) -> Verdict:
    """`accepted` in the order in which it was.

    A false accept: a task that is not, word for word, in the good plan; one that the harm has touched; one accepted
    before a task that it needs; an output that names no accepted task or is not in the good plan.
    """
    plan = parse_plan(truth.good)
    good = {task.id: task for task in plan.tasks}
    seen: set[str] = set()
    wrong: list[str] = []
    for task in accepted:
        if good.get(task.id) != task:
            wrong.append(f"{task.id}: not as in the plan")
        elif task.id not in truth.keep | truth.may:
            wrong.append(f"{task.id}: was harmed")
        elif needs(task) - seen:
            wrong.append(f"{task.id}: needs {', '.join(sorted(needs(task) - seen))}, which was not accepted")
        elif task.id in seen:
            wrong.append(f"{task.id}: accepted twice")
        seen.add(task.id)
    for output in outputs:
        refs = output.ref.refs if isinstance(output.ref, FirstOf) else (output.ref,)
        if output not in plan.outputs or any(ref.source not in seen for ref in refs):
            wrong.append(f"output {output.name}: {output.ref}")
    return Verdict(tuple(wrong), tuple(task.id for task in plan.tasks if task.id in truth.keep - seen))


def needs(task: TaskSpec) -> set[str]:
    """The ids that the task names."""
    found: set[str] = {*task.after, *(line.ref.source for line in task.when)}
    found |= {word.source for word in task.on if isinstance(word, Ref)}
    for one in references(msgspec.json.decode(task.args)):
        found |= {ref.source for ref in (one.refs if isinstance(one, FirstOf) else (one,))}
    return found


def below(plan: Document, *roots: str) -> frozenset[str]:
    """These tasks and all that need them, however indirectly."""
    found = set(roots)
    for task in parse_plan(plan).tasks:
        if needs(task) & found:
            found.add(task.id)
    return frozenset(found)
