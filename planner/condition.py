"""`if n is more than 20, ..., otherwise ...`: the words of a condition, and the lines of `when` that they stand for.

Invariant: pure, and only what is certain: a field that exactly one result before it has, or one that is named, compared
with a number, a text in quotes, true or false.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from protocol.task import Condition, Ref

from .phrase import Phrase
from .value import Quoted
from .wiring import Source

_NUMBER: Final = r"-?[0-9]+(?:\.[0-9]+)?"
_IF: Final = re.compile(
    r"if (?:the )?(?P<field>[a-z_]\w*)(?: of (?:the )?(?P<name>\w+))? (?:is )?"
    r"(?P<how>(?:more|greater|higher|larger|less|lower|fewer|smaller) than"
    rf"|above|over|below|under|at least|at most|not|[<>]=?|[=!]=)? ?(?P<value>{_NUMBER}|true|false|\ue000[0-9]+\ue001)"
    r"(?P<or> or (?:more|less))?,? (?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)
_ELSE: Final = re.compile(r"(?:,|\s)\s*(?:otherwise|else),?\s+", re.IGNORECASE)
_JOINED: Final = re.compile(r"[.;]\s+(?=(?:otherwise|else)\b)", re.IGNORECASE)
_IF_THEN: Final = re.compile(r"((?:\A|[.;]\s+|\bthen\s+)if [^,.;]+), then\s+", re.IGNORECASE)
_OPS: Final[dict[str, str]] = {
    **dict.fromkeys(("more than", "greater than", "higher than", "larger than", "above", "over", ">"), ">"),
    **dict.fromkeys(("less than", "lower than", "fewer than", "smaller than", "below", "under", "<"), "<"),
    **dict.fromkeys(("at least", "or more", ">="), ">="),
    **dict.fromkeys(("at most", "or less", "<="), "<="),
    **dict.fromkeys(("not", "!="), "!="),
    **dict.fromkeys(("", "=="), "=="),
}
_OPPOSITE: Final = {">": "<=", "<=": ">", "<": ">=", ">=": "<", "==": "!=", "!=": "=="}
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "integer": (int, float), "number": (int, float), "string": (str,), "boolean": (bool,),
}  # fmt: skip


class Said(msgspec.Struct, frozen=True):
    """A condition in words: `field op value`, what is done if it holds, and what if it doesn't ("": nothing). `name`:
    of what, if that is said."""

    field: str
    name: str
    op: str
    value: Any
    rest: str
    otherwise: str = ""


def joined(text: str) -> str:
    """The request with `otherwise` in the sentence of its `if`, and without the `then` of one."""
    return _IF_THEN.sub(r"\1, ", _JOINED.sub(", ", text))


def read_condition(text: str, phrase: Phrase) -> Said | None:
    """The condition that a stage begins with; None if it has none that is understood."""
    match = _IF.fullmatch(text)
    if match is None or (match["or"] and match["how"]):
        return None
    how = " ".join((match["or"] or match["how"] or "").lower().split())
    folded = phrase.unfold(match["value"])
    value = str(folded) if isinstance(folded, Quoted) else msgspec.json.decode(match["value"].lower())
    parts = _ELSE.split(match["rest"])
    if how not in _OPS or len(parts) > 2 or (_OPS[how] not in ("==", "!=") and not _is_number(value)):
        return None
    return Said(match["field"], match["name"] or "", _OPS[how], value, *parts)


def lines_of(said: Said, sources: Iterable[Source]) -> tuple[Condition, Condition] | None:
    """That it holds, and that it doesn't; None unless exactly one of the sources has such a field, and one value."""
    found = [ref for source in sources if (ref := _field(source, said)) is not None]
    if len(found) != 1:
        return None
    value = msgspec.json.encode(said.value)
    return Condition(found[0], said.op, value), Condition(found[0], _OPPOSITE[said.op], value)  # type: ignore[arg-type]


def _field(source: Source, said: Said) -> Ref | None:
    if source.mapped or source.other:
        return None
    if said.field in source.columns:
        return Ref(source.id, ("rows", "0", said.field)) if source.single else None
    schema = source.fields().get(said.field)
    if schema is None or ("type" in schema and not isinstance(said.value, _TYPES.get(str(schema["type"]), ()))):
        return None
    fits = not isinstance(said.value, bool) or schema.get("type", "boolean") == "boolean"
    return Ref(source.id, (said.field,)) if fits else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
