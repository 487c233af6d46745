"""Whether what a case claims is so: a finding for each subtask, each check, and how the run ended.

Invariant: a finding is either true of what was really there, or says why it isn't. A claim that can't be judged, for
whatever reason, is a finding that fails, and the others are judged all the same. It must not know how a case is played.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from protocol.errors import NotFound

from .case import Case, Claim
from .content import Content, Misread, read_content
from .truth import MISSING, as_cells, at, filled, nodes, unmet

STATE: Final = "state"
OUTPUT: Final = "output "
"""Before the name of an output that is a file."""
_MOST_NODES: Final = 20_000


class Unfounded(Exception):
    """What is expected is the truth at a place that no fixture gave."""


class Finding(msgspec.Struct, frozen=True):
    """`id` names the claim: a task, an output or a file, with the pointer into it. `why` is "" if it is so.

    `broken`: it could not be judged, whatever the outcome was.
    """

    kind: Literal["subtask", "check"]
    id: str
    ok: bool
    why: str = ""
    broken: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What a play came to. `state`: succeeded, partial (it failed, and something was reached), failed.

    `values`: of the tasks that succeeded, by id. `files`: what lies in the place that a check names ("MACHINE:PATH", or
    "output NAME" for an output that is a file), None for nothing.
    """

    state: str
    values: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    files: dict[str, Content | None] = {}


def check(case: Case, outcome: Outcome, truths: Mapping[str, Any], *, loose: bool = False) -> list[Finding]:
    """`loose`: the graph is not the gold one, so what is expected may stand anywhere in the values of the run."""
    wanted = ("partial", "failed") if case.state == "failed" else (case.state,)
    why = "" if outcome.state in wanted else f"the run is {outcome.state}, not {case.state}"
    return [
        Finding("check", STATE, not why, why),
        *(judge(claim, outcome, truths, loose=loose) for claim in (*case.subtasks, *case.checks)),
    ]


def judge(claim: Claim, outcome: Outcome, truths: Mapping[str, Any], *, loose: bool = False) -> Finding:
    """One claim."""
    broken = False
    try:
        if loose and not claim.file:
            why = _anywhere(claim, outcome, truths)
        else:
            why = unlike(claim, look(claim, outcome), truths)
    except (NotFound, Misread) as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001 - a claim that can't be judged is named, and costs no other
        kind = "" if isinstance(error, Unfounded) else f"{type(error).__name__}: "
        why, broken = f"the check itself broke: {kind}{error}", True
    return Finding(claim.kind, claim.name, not why, why, broken)


def unlike(claim: Claim, found: Any, truths: Mapping[str, Any]) -> str:
    """Why what was found is not as claimed; "" if it is. Raises: Unfounded."""
    for predicate, raw in claim.expects.items():
        try:
            expected = filled(raw, truths)
        except NotFound as error:
            raise Unfounded(str(error)) from None
        if claim.form == "csv":
            expected = as_cells(expected)
        why = unmet(predicate, found, expected, claim.within)
        if why:
            return why
    return ""


def look(claim: Claim, outcome: Outcome) -> Any:
    """What is in the place that the claim names; MISSING if there is no such place. Raises: NotFound, Misread."""
    if claim.id:
        value = outcome.values.get(claim.id, MISSING)
    elif claim.output and not claim.form:
        value = outcome.outputs.get(claim.output, MISSING)
    else:
        content = outcome.files.get(place(claim))
        form = "bytes" if {"sha256", "exists"} & claim.expects.keys() and not claim.form else claim.form or "text"
        if content is None:
            value = MISSING
        elif isinstance(content, dict) and [*claim.expects] == ["exists"]:
            value = sorted(content)
        else:
            value = read_content(content, form, claim.query)
    return value if value is MISSING else at(value, claim.value)


def place(claim: Claim) -> str:
    """The name among an outcome's files of what the claim reads."""
    return claim.file or OUTPUT + claim.output


def _anywhere(claim: Claim, outcome: Outcome, truths: Mapping[str, Any]) -> str:
    """Of another graph nobody knows the ids and shapes: some value of the run, or a part of it, must be as claimed."""
    why = "nothing of the run satisfies it"
    for found, number in zip(_candidates(claim, outcome), range(_MOST_NODES)):
        said = unlike(claim, found, truths)
        if not said:
            return ""
        why = said if not number else why
    return why


def _readings(content: Content, claim: Claim) -> Iterator[Any]:
    """The file in the form that is claimed; nothing if it is in another one, since any file may be looked at."""
    try:
        yield read_content(content, claim.form, claim.query)
    except Misread:
        pass


def _candidates(claim: Claim, outcome: Outcome) -> Iterator[Any]:
    values = [*outcome.outputs.values(), *outcome.values.values()]
    if claim.form:
        contents = [one for name, one in outcome.files.items() if one is not None and name.startswith(OUTPUT)]
        values = [value for one in contents for value in _readings(one, claim)]
    corners = "exists" not in claim.expects  # that is too weak to be looked for in every corner
    for whole in values:
        for value in nodes(whole) if corners and claim.value else [whole]:
            try:
                yield at(value, claim.value)
            except NotFound:
                pass
    counted = "count" in claim.expects  # texts and records have a length, too, which is no answer
    if corners:
        for value in values:
            yield from (one for one in nodes(value) if isinstance(one, list) or not counted)
