"""Harm to the text of a plan: what models, servers and networks do to JSON.

A kind gets the good plan with luck and gives the text with what must and what might be made of it. Invariant: pure.
It must not know who reads plans.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any, Final

from .sample import Document, task_ends, text_of
from .task_damage import EVIL
from .truth import Truth, below

Damaged = tuple[str, Truth]
Harm = Callable[[Document, Random], Damaged]

_NONE: Final[frozenset[str]] = frozenset()
_OTHER: Final = json.dumps({"tasks": [EVIL, {**EVIL, "id": "evil-2"}], "outputs": []})
"""Another document, of tasks that the plan doesn't hold."""
_SKILL: Final = re.compile(r'("skill": ?"[^"]*)"')


def cut(plan: Document, at: int, way: int = 0) -> Damaged:
    """The text up to this character: every task whose brace was closed is good."""
    text = text_of(plan, way)
    done = sum(end <= at for end in task_ends(text, plan))
    return text[:at], Truth(plan, frozenset(_ids(plan)[:done]))


def _ids(plan: Document) -> list[str]:
    return [task["id"] for task in plan["tasks"]]


def _whole(plan: Document) -> Truth:
    return Truth(plan, frozenset(_ids(plan)))


def _around(write: Callable[[str, Random], str]) -> Harm:
    """What stands around the document, or how it is written, changes nothing."""

    def harm(plan: Document, luck: Random) -> Damaged:
        return write(text_of(plan, luck.randrange(3)), luck), _whole(plan)

    return harm


def _form(write: Callable[[Document], str], *, must: bool = True) -> Harm:
    """Another form of the same tasks. Not `must`: it may be read, or refused as no plan."""

    def harm(plan: Document, luck: Random) -> Damaged:
        ids = frozenset(_ids(plan))
        return write(plan), Truth(plan, ids) if must else Truth(plan, _NONE, ids)

    return harm


def _torn(tear: Callable[[str, Random], str], *, after: bool = False) -> Harm:
    """One task's text is torn: it falls with all that need it. What follows must be read, with `after` it may be."""

    def harm(plan: Document, luck: Random) -> Damaged:
        way, at = luck.randrange(3), luck.randrange(1, len(plan["tasks"]) - 1)
        text, ids = text_of(plan, way), _ids(plan)
        ends = task_ends(text, plan)
        start = text.index("{", ends[at - 1])
        torn = text[:start] + tear(text[start : ends[at]], luck) + text[ends[at] :]
        fallen = below(plan, ids[at])
        rest = frozenset(ids[at + 1 :]) - fallen
        keep = frozenset(ids[:at]) | (rest if not after else _NONE)
        return torn, Truth(plan, keep, rest if after else _NONE)

    return harm


def _between(put: Callable[[str], str], *, after: bool = False) -> Harm:
    """Something stands between two tasks, both of which are whole."""

    def harm(plan: Document, luck: Random) -> Damaged:
        at = luck.randrange(1, len(plan["tasks"]) - 1)
        text, ids = text_of(plan, luck.randrange(3)), _ids(plan)
        end = task_ends(text, plan)[at]
        start = text.index("{", end)
        torn = text[:end] + put(text[end:start]) + text[start:]
        if not after:
            return torn, _whole(plan)
        return torn, Truth(plan, frozenset(ids[: at + 1]), frozenset(ids[at + 1 :]))

    return harm


def _cut_anywhere(plan: Document, luck: Random) -> Damaged:
    way = luck.randrange(3)
    return cut(plan, luck.randrange(len(text_of(plan, way))), way)


def _twice(text: str, luck: Random) -> str:
    return text + "\n" + text


def _quoted_plan(plan: Document, luck: Random) -> Damaged:
    """A plan inside an argument is a value like any other, also where its quotes look like the end of a text."""
    at = luck.randrange(1, len(plan["tasks"]))
    rows = [dict(task) for task in plan["tasks"]]
    inner: Any = {"tasks": [EVIL], "outputs": []}
    value = luck.choice([inner, json.dumps(inner), [EVIL], "\\" + json.dumps(EVIL) + '\\"'])
    rows[at] = {"id": rows[at]["id"], "skill": "flow.echo", "args": {"value": {"literal": value}}}
    changed = {**plan, "tasks": rows}
    return text_of(changed, luck.randrange(3)), _whole(changed)


def _same_key_twice(task: str, luck: Random) -> str:
    """Readers of JSON disagree which one counts, so none does."""
    extra = luck.choice(
        [', "skill": "process.run"}', ', "args": {"argv": ["rm"]}}', ', "id": "evil"}', ', "approve": false}']
    )
    found = json.loads(task)
    key = json.loads("{" + extra[2:])
    (name,) = key
    if name not in found:
        return task[:-1].rstrip() + ', "skill": "process.run"}'
    return task[:-1].rstrip() + extra


def _too_many(plan: Document, luck: Random) -> Damaged:
    """Over the number of tasks that a planner may write: none beyond the limit."""
    rows = [*plan["tasks"], *({"id": f"x{at}", "skill": "flow.echo", "args": {"value": at}} for at in range(600))]
    changed = {**plan, "tasks": rows}
    ids = [row["id"] for row in rows]
    return text_of(changed, 1), Truth(changed, _NONE, frozenset(ids[:500]))


def _outputs_of_nobody(plan: Document, luck: Random) -> Damaged:
    changed = {**plan, "outputs": [{"name": "x", "ref": "nobody/rows"}, *plan["outputs"]]}
    return text_of(changed, luck.randrange(3)), _whole(plan)


def _fields_of_a_plan(plan: Document, luck: Random) -> Damaged:
    """What the writer may not set: its own budget. The tasks are good; the setting is never taken."""
    changed = {**plan, "run": {"budget": {"tokens": 10**9}}, "shell": "rm"}
    return text_of(changed, luck.randrange(3)), Truth(plan, _NONE, frozenset(_ids(plan)))


def _lines(plan: Document) -> str:
    return "\n".join(json.dumps(task) for task in plan["tasks"]) + "\n"


def _by_id(plan: Document) -> str:
    return json.dumps({"tasks": {task["id"]: task for task in plan["tasks"]}})


HARMS: Final[dict[str, Harm]] = {
    "cut off": _cut_anywhere,
    "fences": _around(lambda text, luck: f"```json\n{text}\n```"),
    "fences without a language": _around(lambda text, luck: f"```\n{text}\n```\nThat is the plan."),
    "fence not closed": _around(lambda text, luck: f"```json\n{text}"),
    "prose before": _around(lambda text, luck: f"Sure! Here's the plan:\n\n{text}"),
    "prose with brackets before": _around(lambda text, luck: f"For {{each}} [file] I'd say {{count: it}}.\n{text}"),
    "prose after": _around(lambda text, luck: f"{text}\n\nLet me know if {{this}} [helps]."),
    "example task in prose": _around(lambda text, luck: f"Not like {json.dumps(EVIL)}, but so: {text}"),
    "thoughts": _around(lambda text, luck: f"<think>First, find the files. {{\"a\": 1}}</think>\n{text}"),
    "another plan in the thoughts": _around(
        lambda text, luck: f"<think>Perhaps {_OTHER}? No.</think>\n{text}"
    ),
    "thoughts not closed": lambda plan, luck: (f"<think>Perhaps {text_of(plan)}", Truth(plan, _NONE)),
    "byte order mark": _around(lambda text, luck: "\ufeff" + text),
    "line ends of DOS": _form(lambda plan: text_of(plan, 2).replace("\n", "\r\n")),
    "much white space": _around(lambda text, luck: "\n" * 5_000 + text + " " * 5_000),
    "the same document twice": _around(_twice),
    "another document after it": _around(lambda text, luck: f"{text}\n{_OTHER}"),
    "another document right behind it": _around(lambda text, luck: text + _OTHER),
    "another fenced document after it": _around(
        lambda text, luck: f"```json\n{text}\n```\nOr:\n```json\n{_OTHER}\n```"
    ),
    "task after the end": _around(lambda text, luck: f"{text}\n{json.dumps(EVIL)}"),
    "escaped letters": _form(lambda plan: text_of(plan).replace('"id"', '"\\u0069d"')),
    "one task a line": _form(_lines),
    "bare list": _form(lambda plan: json.dumps(plan["tasks"])),
    "outputs first": _form(lambda plan: json.dumps({"outputs": plan["outputs"], "tasks": plan["tasks"]})),
    "with its schema": _form(lambda plan: json.dumps({"schema": "asterism/plan/v1", **plan})),
    "no outputs": _form(lambda plan: json.dumps({"tasks": plan["tasks"]})),
    "inside another object": _form(lambda plan: json.dumps({"plan": plan}), must=False),
    "inside a list": _form(lambda plan: json.dumps([plan]), must=False),
    "inside a text": _form(lambda plan: json.dumps(json.dumps(plan)), must=False),
    "tasks by id": _form(_by_id, must=False),
    "closing braces missing": _form(lambda plan: text_of(plan).rstrip("]} \n")),
    "empty": lambda plan, luck: ("", Truth(plan, _NONE)),
    "only prose": lambda plan, luck: ("I can't help with {that}.", Truth(plan, _NONE)),
    "no tasks": lambda plan, luck: ('{"tasks": [], "outputs": []}', Truth(plan, _NONE)),
    "plan in an argument": _quoted_plan,
    "comma before the end of a task": _torn(lambda task, luck: task[:-1] + ",}"),
    "single quotes": _torn(lambda task, luck: task.replace('"', "'"), after=True),
    "keys without quotes": _torn(lambda task, luck: task.replace('"skill"', "skill")),
    "comment in a task": _torn(lambda task, luck: "{ /* first */ " + task[1:]),
    "no number": _torn(lambda task, luck: task[:-1] + ', "on": NaN}'),
    "half a character": _torn(lambda task, luck: task[:-1] + ', "on": ["\\ud83d"]}'),
    "line end in a text": _torn(lambda task, luck: task.replace('"id": "', '"id": "\n').replace('"id":"', '"id":"\n')),
    "key twice": _torn(_same_key_twice),
    "colon missing": _torn(lambda task, luck: task.replace(":", " ", 1)),
    "literal of another language": _torn(lambda task, luck: task[:-1] + ', "approve": True}'),
    "brace missing": _torn(lambda task, luck: task[:-1], after=True),
    "one brace too many": _between(lambda gap: "}" + gap, after=True),
    "one bracket too many": _between(lambda gap: "]" + gap, after=True),
    "text not closed": _torn(lambda task, luck: _SKILL.sub(r"\1", task, count=1), after=True),
    "dots for the rest of a task": _torn(lambda task, luck: task[: task.index('"args"')] + "...}"),
    "comma between tasks missing": _between(lambda gap: gap.replace(",", " "), after=True),
    "two commas between tasks": _between(lambda gap: gap + ", ", after=True),
    "comment between tasks": _between(lambda gap: f"{gap} // now the {{next}} one\n", after=True),
    "prose between tasks": _between(lambda gap: f"{gap} and then: ", after=True),
    "number between tasks": _between(lambda gap: f"{gap} 7, "),
    "too many tasks": _too_many,
    "output of nobody": _outputs_of_nobody,
    "keys that a plan doesn't have": _fields_of_a_plan,
}  # fmt: skip
"""By name."""
