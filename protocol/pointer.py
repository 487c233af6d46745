"""JSON pointers into values that were read: the place they name, or MISSING.

On a list `*` stands for every element: `count/*/matches` is the list of what each has there, in order. No list has such
an index, so nothing else can be meant; in an object it is a name like any other. Invariant: pure; a place that one
element lacks is missing as a whole, so what is gathered is never shorter than its list. It must not know references.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

EACH: Final = "*"


class Missing:
    """No value at the pointer; distinct from JSON null."""


MISSING: Final = Missing()


def descend(value: Any, path: Sequence[str]) -> Any:
    """The value at a JSON pointer, or MISSING."""
    for at, part in enumerate(path):
        if isinstance(value, dict):
            if part not in value:
                return MISSING
            value = value[part]
        elif isinstance(value, list):
            if part == EACH:
                found = [descend(one, path[at + 1 :]) for one in value]
                return MISSING if any(one is MISSING for one in found) else found
            if not part.isdecimal() or int(part) >= len(value):
                return MISSING
            value = value[int(part)]
        else:
            return MISSING
    return value
