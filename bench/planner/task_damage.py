"""Harm to what one task of a plan says: each kind is a function of the plan, the victim's place and luck.

The text stays good JSON; the victim and all that need it must be refused, the rest must come through. Invariant: pure.
It must not know who reads plans.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from .sample import Document

EVIL: Final[Document] = {"id": "evil", "skill": "process.run", "args": {"argv": ["rm", "-r", "."]}}
"""A task that no good plan holds: whoever accepts it has believed something that was not the plan."""

Harm = Callable[[list[Any], int, Random], None]
"""Changes the task at that place of the list. There is a task before it and one after it."""


def _set(**fields: Any) -> Harm:
    def harm(tasks: list[Any], at: int, luck: Random) -> None:
        tasks[at].update(fields)

    return harm


def _args(**fields: Any) -> Harm:
    def harm(tasks: list[Any], at: int, luck: Random) -> None:
        tasks[at]["args"].update(fields)

    return harm


def _drop(key: str) -> Harm:
    def harm(tasks: list[Any], at: int, luck: Random) -> None:
        del tasks[at][key]

    return harm


def _instead(value: Any) -> Harm:
    def harm(tasks: list[Any], at: int, luck: Random) -> None:
        tasks[at] = value

    return harm


def _echo(value: Any) -> Harm:
    """The victim becomes an echo of a value that can't be."""
    return _set(skill="flow.echo", args={"value": value})


def _skill_args(skill: str, **args: Any) -> Harm:
    return _set(skill=skill, args=args)


def _duplicate(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at]["id"] = tasks[luck.randrange(at)]["id"]


def _missing_argument(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at]["args"].pop(luck.choice(_required(tasks[at])))


def _required(task: Document) -> list[str]:
    return {
        "fs.find": ["path"], "flow.echo": ["value"], "text.count": ["file"], "fs.read": ["file"], "data.sql": ["sql"],
        "report.markdown": ["parts"], "fs.write": ["path"], "flow.check": ["left", "right"], "http.send": ["url"],
    }[task["skill"]]  # fmt: skip


def _forward(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at].update(skill="flow.echo", args={"value": {"ref": tasks[luck.randrange(at + 1, len(tasks))]["id"]}})


def _self(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at].update(skill="flow.echo", args={"value": [{"ref": tasks[at]["id"]}]})


def _cycle(tasks: list[Any], at: int, luck: Random) -> None:
    """The victim needs the one after it, which needs the victim."""
    tasks[at].update(skill="flow.echo", args={"value": {"ref": tasks[at + 1]["id"]}})
    tasks[at + 1].update(skill="flow.echo", args={"value": {"ref": tasks[at]["id"]}})


def _forward_when(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at]["when"] = [{"ref": tasks[at + 1]["id"], "is": "succeeded"}]


def _no_field(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at].update(skill="flow.echo", args={"value": {"ref": f"{tasks[0]['id']}/nothing/here"}})


def _map_of_no_list(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at].update(skill="flow.echo", args={"value": {"ref": f"{tasks[0]['id']}/count[]"}})


def _loosened(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at].update(skill="http.send", args={"method": "POST", "url": "http://localhost"}, effect="pure")


def _deep(tasks: list[Any], at: int, luck: Random) -> None:
    value: Any = 1
    for _ in range(200):
        value = [value] if luck.random() < 0.5 else {"in": value}
    tasks[at].update(skill="flow.echo", args={"value": value})


def _lookalike(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at]["skill"] = tasks[at]["skill"].replace("e", "\u0435", 1).replace("a", "\u0430", 1)


def _capitals(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at] = {key.upper(): value for key, value in tasks[at].items()}


def _text_args(tasks: list[Any], at: int, luck: Random) -> None:
    tasks[at]["args"] = "find the files, then count them"


HARMS: Final[dict[str, Harm]] = {
    "unknown skill": _set(skill="fs.fnd"),
    "skill of another name space": _set(skill="os.system"),
    "skill in lookalike letters": _lookalike,
    "skill is null": _set(skill=None),
    "no skill": _drop("skill"),
    "no id": _drop("id"),
    "id with a capital": _set(id="Scan"),
    "id with a slash": _set(id="a/b"),
    "id is a number": _set(id=7),
    "id is reserved": _set(id="input"),
    "id too long": _set(id="a" * 65),
    "duplicate id": _duplicate,
    "dangling reference": _echo({"ref": "nobody/files"}),
    "reference to an input that is not there": _echo({"ref": "input/nothing"}),
    "forward reference": _forward,
    "self reference": _self,
    "cycle": _cycle,
    "reference is a number": _echo({"ref": 5}),
    "reference is empty": _echo({"ref": ""}),
    "reference with two []": _echo({"ref": "a[]/b[]"}),
    "reference to an illegal id": _echo({"ref": "../etc/passwd"}),
    "field that the skill doesn't give": _no_field,
    "[] on what is no list": _map_of_no_list,
    "condition on a later task": _forward_when,
    "condition without operator": _set(when=[{"ref": "x", "value": 3}]),
    "condition with an unknown operator": _set(when=[{"ref": "input/x", "op": "~", "value": 3}]),
    "condition is a text": _set(when="if it works"),
    "place that is none": _set(on=["the gpu machine"]),
    "place is an object": _set(on={"worker": "gpu"}),
    "approve is a text": _set(approve="yes"),
    "argument of a wrong type": _skill_args("fs.find", path=["logs"]),
    "number for a text": _skill_args("text.count", file=5),
    "value outside an enumeration": _skill_args("flow.check", left=1, op="=~", right=1),
    "unknown argument": _args(recursive=True),
    "missing argument": _missing_argument,
    "args is a list": _set(args=["logs", "*.log"]),
    "args is a text": _text_args,
    "args is null": _set(args=None, skill="flow.echo"),
    "no args": _drop("args"),
    "unknown key": _set(shell="rm -r ."),
    "effect loosened": _loosened,
    "fallback that is none": _set(alt=["no.such"]),
    "task is null": _instead(None),
    "task is a text": _instead("then count them"),
    "task is a list": _instead([EVIL]),
    "task is empty": _instead({}),
    "task within a task": _instead({"task": EVIL}),
    "tasks within a task": _instead({"tasks": [EVIL]}),
    "secret with a small name": _echo({"secret": "key"}),
    "deep nesting": _deep,
    "huge text": _echo("x" * 1_100_000),
}
"""By name. The victim and all that need it fall."""
