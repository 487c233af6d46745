"""What a task may do without a person: the commit barrier, the capability envelope, and taint.

Why (CaMeL, arXiv 2503.18813): a plan is made from a person's words before any value of the run is seen, so it may be
trusted; values may not be, and neither may what is written by who saw them. Everything here follows from journaled
facts: who wrote a task, what it names, which skills there are. Invariant: values are never looked at, so no wording of
one can change the answer. Decides nothing: dispatch asks it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocol.builtin import BUILTINS
from protocol.profile import ruling
from protocol.skill import SkillSpec
from protocol.task import INPUT, FirstOf, Ref, TaskSpec, reference_in, references, substitute

from .binding import Bound
from .graph import LATER, PERSON, Attempt, Run, Task
from .turn import Turn

_HARMLESS: Final = frozenset(one.name for one in BUILTINS if one.inline and one.effect == "pure")
"""They only hand on what they are given: inside every envelope."""
_SHOWN: Final = 160


def barred(run: Run, task: Task, spec: SkillSpec) -> bool:
    """The commit barrier: what acts once waits until the first plan is whole."""
    return not run.planned and "once" in (spec.effect, task.spec.effect)


def gate(turn: Turn, run: Run, task: Task, spec: SkillSpec, pin: bytes) -> str:
    """Why a person has to allow this piece of work first, for whatever reason; "" if it may go. Nothing of a worker's
    policy: that is asked where one is chosen."""
    if pin == task.approved:
        return ""
    return doubt(turn, run, task, spec) or asked(turn, task, spec)


def asked(turn: Turn, task: Task, spec: SkillSpec) -> str:
    """Whether the plan or this server asks before every such task."""
    if task.spec.approve:
        return "the plan asks for approval"
    return f"this server asks before {spec.name} runs" if turn.ruling(spec.name) == "ask" else ""


def doubt(turn: Turn, run: Run, task: Task, spec: SkillSpec) -> str:
    """Why a person has to allow this task first, by the rules of trust; "" if nobody has to."""
    granted = run.envelope.get(task.skill)
    if granted is None:
        granted = _is_tool(turn, run, task)
    effect = turn.stricter(spec, task)
    if granted and (effect == "pure" or not spec.sinks) and not (run.partial and effect == "once"):
        return ""
    if _freely(turn, spec.name):
        return ""
    written = holder(run, task)
    if written is task:
        return _doubts(turn, run, task, spec, granted)
    stamp = (task.skill, run.version, len(run.versions[-1].patches), run.partial)
    known = turn.doubts.get((run.ix, written.ix))  # all elements of a map have the same edges
    if known is None or known[0] != stamp:
        known = turn.doubts[run.ix, written.ix] = stamp, _doubts(turn, run, task, spec, granted)
    return known[1]


def _doubts(turn: Turn, run: Run, task: Task, spec: SkillSpec, granted: bool | None) -> str:
    origin, effect = holder(run, task).origin, turn.stricter(spec, task)
    found = []
    if run.partial and effect == "once" and origin != PERSON:
        found.append(f"the plan is not whole, and {spec.name} acts once")
    if granted is None and spec.name not in _HARMLESS:
        found.append(f"{spec.name} is not one of the skills of the plan")
    elif granted is False and origin == LATER:
        found.append(f"the plan has {spec.name} only with an approval or under a condition")
    if effect != "pure":
        for name in spec.sinks:
            path = _taint(turn, run, task, name)
            if path:
                found.append(f"its {name} comes from {path}")
    return "; ".join(found)


def shown(turn: Turn, task: Task, spec: SkillSpec, bound: Bound) -> str:
    """The sinks as they would be filled, for who is asked to allow it; "" without any."""
    values = {
        one.key: turn.binder.decoded(one.value) if isinstance(one.value, bytes) and one.parts is None else "(a file)"
        for one in (*bound.inputs, *(one for row in bound.items[:1] for one in row))
    }
    args = substitute(msgspec.json.decode(task.spec.args), values) if spec.sinks else {}
    found = (f"{name}={_short(args[name])}" for name in spec.sinks if isinstance(args, dict) and name in args)
    return ", ".join(found)


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _is_tool(turn: Turn, run: Run, task: Task) -> bool | None:
    """Its parent may start it: the plan names the skill where the parent's skill takes the names of its tools."""
    above = task.parent if task.parent >= 0 and run.tasks[task.parent].spread is None else holder(run, task).owner
    parent = run.tasks[above] if above >= 0 else None
    if parent is None or holder(run, parent).origin == LATER:
        return None
    spec = turn.contract(parent)
    for name in spec.spawns if spec is not None and not isinstance(spec.spawns, bool) else ():
        listed = _plain(_argument(holder(run, parent).spec, name[1:])) if name.startswith("@") else None
        if isinstance(listed, list) and task.skill in listed:
            return True
    return None


def holder(run: Run, task: Task) -> Task:
    """The task as it was written: for the child of a map its map."""
    if task.parent >= 0 and run.tasks[task.parent].spread is not None:
        return run.tasks[task.parent]
    return task


def _freely(turn: Turn, skill: str) -> bool:
    """The server's policy states `allow` for it. Where the default is another word, that only lets it run at all."""
    rules = turn.settings.policies
    return ruling(rules, skill) == "allow" and not any(name == "*" and word != "allow" for name, word in rules)


def _taint(turn: Turn, run: Run, task: Task, sink: str) -> str:
    """The way on which something untrusted gets into this argument, in words; "" if none does.

    A value of a worker is no one's word: it may fill a sink only where a person wrote that very edge. What strangers
    wrote (a `tainted` skill, and all that was made of it along data edges) may not even there. Of an author who may
    have seen values, what was written down counts as one, unless the plan has it in the same place.
    """
    written = holder(run, task)
    args = _argument(written.spec, sink)
    ref = reference_in(args)
    if args is None or (type(ref) is Ref and ref.source == INPUT):
        return ""
    sources = {
        one.source: str(ref)
        for ref in references(args)
        for one in (ref.refs if isinstance(ref, FirstOf) else (ref,))
        if one.source != INPUT
    }
    for source, text in sources.items():
        path = _foreign(turn, run, run.names[source])
        if path:
            return " <- ".join((text, *(f"{name} ({skill})" for name, skill in path)))
        if written.origin != PERSON:
            return f"{text}, a result of {run.tasks[run.names[source]].spec.skill}"
    if written.origin == LATER and not sources and not _is_known(run, written, sink, args):
        return "what was written after the plan" + (
            f" by {run.name_of(run.tasks[task.parent])}" if task.parent >= 0 else ""
        )
    if task.parent >= 0 and written is task:  # a spawned child: its parent computed it, from what the parent was given
        path = _foreign(turn, run, task.parent)
        if path:
            return " <- ".join(f"{name} ({skill})" for name, skill in path)
    return ""


def _argument(spec: TaskSpec, name: str) -> Any:
    args = msgspec.json.decode(spec.args)
    if isinstance(args, dict) and set(args) == {"literal"}:
        args = {key: {"literal": value} for key, value in args["literal"].items()}
    if not isinstance(args, dict) or set(args) == {"ref"}:
        return args
    return args.get(name)


def _is_known(run: Run, task: Task, sink: str, value: Any) -> bool:
    """A person, or the first plan, wrote the same there."""
    wanted = _plain(value)
    return any(
        one.origin != LATER and task.skill in (one.spec.skill, *one.spec.alt)
        and _plain(_argument(one.spec, sink)) == wanted
        for one in run.roots()
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return value["literal"] if isinstance(value, dict) and set(value) == {"literal"} else value


def _foreign(turn: Turn, run: Run, start: int) -> list[tuple[str, str]]:
    """The way back along data edges to a task whose skill is `tainted`: (task, skill) each; [] if there is none.

    A control edge (`after`, `when`, `on`) carries no value. What a parent joins is part of what it gives.
    """
    came = {start: -1}
    stack = [start]
    while stack:
        ix = stack.pop()
        task = run.tasks[ix]
        if any(
            (skill := turn.state.skill(name)) is None or skill.tainted for name in (task.spec.skill, *task.spec.alt)
        ):
            path = []
            while ix >= 0:
                path.append((run.name_of(run.tasks[ix]), run.tasks[ix].skill))
                ix = came[ix]
            return path[::-1]
        ups = _sources(run, task)
        if task.parent >= 0:
            ups.append(task.parent)
        if task.spawned is not None:
            ups.extend(task.spawned.children.values())
        for up in ups:
            if up not in came:
                came[up] = ix
                stack.append(up)
    return []


def _sources(run: Run, task: Task) -> list[int]:
    wiring = task.wiring
    found = [*wiring.needs, *wiring.chain, *(ix for group in wiring.firsts for ix in group)]
    if wiring.when and b'"ref"' in task.spec.args:  # a task that the condition names too stands there alone
        named = {ref.source for ref in references(msgspec.json.decode(task.spec.args)) if type(ref) is Ref}
        found.extend(ix for ix in wiring.when if run.tasks[ix].spec.id in named)
    return found


def check_trust(turn: Turn, run: Run, task: Task, attempt: Attempt) -> None:
    """Nothing runs that a person would have had to allow first. Raises: AssertionError with the story."""
    spec = turn.state.skill(attempt.skill)
    why = doubt(turn, run, task, spec) if spec is not None and attempt.skill == task.skill else ""
    assert not why or attempt.pin == task.approved, f"{turn.name(run, task, attempt.number)} runs though {why}"
