"""Falsified outcomes: a check that still holds of one is no check.

What a play really came to is changed in memory, one claim at a time: the value that the claim looks at, and the file it
reads. Invariant: every falsification contradicts every claim that can fail. It must not know how an outcome was got.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from .case import Case, Claim
from .check import Outcome, judge, look, place, unlike
from .content import Content, Misread
from .truth import MISSING

_NEXT_DIGIT: Final = bytes.maketrans(b"0123456789", b"1234567890")
_FOREIGN: Final = {"tampered": "tampered"}


def unfailing(case: Case, outcome: Outcome, truths: Mapping[str, Any]) -> list[str]:
    """The claims that hold of this outcome and, tampered with, hold all the same: each with what was done to it."""
    found: list[str] = []
    for claim in (*case.subtasks, *case.checks):
        if not judge(claim, outcome, truths).ok:
            continue
        for what, changed in _outcomes(claim, outcome):
            if judge(claim, changed, truths).ok:
                found.append(f"{claim.name}: holds also when {what}")
        found += unfailing_of(claim, look(claim, outcome), truths)
    return found


def unfailing_of(claim: Claim, value: Any, truths: Mapping[str, Any]) -> list[str]:
    """The same of one claim and the value that it looks at."""
    other = _values(claim, value)
    return [f"{claim.name}: holds also when {what}" for what, one in other if not _unlike(claim, one, truths)]


def _unlike(claim: Claim, value: Any, truths: Mapping[str, Any]) -> bool:
    try:
        return bool(unlike(claim, value, truths))
    except (Misread, TypeError, ValueError):
        return True


def _outcomes(claim: Claim, outcome: Outcome) -> Iterator[tuple[str, Outcome]]:
    """What the claim looks at is gone (or there, if it must not be); a file's content is other."""
    replace = msgspec.structs.replace
    if claim.id:
        yield "its task has no value", replace(outcome, values=_without(outcome.values, claim.id))
    elif claim.output and not claim.form:
        yield "the output is missing", replace(outcome, outputs=_without(outcome.outputs, claim.output))
    else:
        where = place(claim)
        content = outcome.files.get(where)
        if content is None:
            yield "a file is there", replace(outcome, files={**outcome.files, where: b"tampered"})
            return
        yield "the file is gone", replace(outcome, files={**outcome.files, where: None})
        if claim.expects.keys() - {"exists", "count"}:
            other = replace(outcome, files={**outcome.files, where: _garbled(content)})
            yield "every letter and digit of the file is another", other


def _values(claim: Claim, value: Any) -> Iterator[tuple[str, Any]]:
    """Other values in the place of this one."""
    if value is MISSING:
        yield "something is there", _FOREIGN
        return
    strict = claim.expects.keys() & {"equals", "near", "same_set", "rows", "sha256"}
    if claim.expects.keys() - {"exists"}:
        yield "something else is there", _FOREIGN
    if claim.expects.keys() - {"exists", "count"}:
        yield "all of it is other", _other(value, None)
    if isinstance(value, list) and value and (claim.expects.keys() & {"equals", "near", "rows", "count"}):
        yield "its last element is gone", value[:-1]
        yield "its last element stands there twice", [*value, value[-1]]
    for number in {0, _leaves(value) // 2, _leaves(value) - 1} if strict else ():
        yield f"one value in it is other (number {number})", _other(value, [number])


def _other(value: Any, only: list[int] | None) -> Any:
    """Every leaf changed; with `only`, the one of this number, counted down in place."""
    if isinstance(value, dict) and value:
        return {key: _other(one, only) for key, one in value.items()}
    if isinstance(value, list) and value:
        return [_other(one, only) for one in value]
    if only is not None:
        only[0] -= 1
        if only[0] != -1:
            return value
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value * 2 + (1 if value >= 0 else -1)
    if isinstance(value, bytes):
        return value + b"~"
    return codecs.encode(f"{value}~"[::-1], "rot13") if isinstance(value, str) else _FOREIGN


def _leaves(value: Any) -> int:
    if isinstance(value, dict | list) and value:
        return sum(map(_leaves, value.values() if isinstance(value, dict) else value))
    return 1


def _garbled(content: Content) -> Content:
    if isinstance(content, dict):
        return {name: data + b"~" for name, data in content.items()}
    letters = codecs.encode(content.decode("latin-1"), "rot13").encode("latin-1")
    return letters.translate(_NEXT_DIGIT) or b"tampered"


def _without(rows: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in rows.items() if key != name}
