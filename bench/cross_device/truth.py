"""What a check expects, and whether it is so: pointers into values, truths of fixtures, the predicates.

Invariant: pure and strict. A number is no boolean, a missing place satisfies nothing but `exists = false`, and what a
predicate can't compare it does not hold for. It must not know runs or files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from protocol.errors import NotFound

from .content import cell, digest

MISSING: Final = object()
"""What is found where nothing is."""
_LONGEST: Final = 160


def at(value: Any, pointer: str) -> Any:
    """The place in a value: keys and numbers between slashes, `[]` for each element. Raises: NotFound."""
    here = value
    parts = [part for part in pointer.replace("[]", "/[]/").split("/") if part]
    for number, part in enumerate(parts):
        if part == "[]":
            if not isinstance(here, list):
                raise NotFound(f"{shown(here)} is no list, for {pointer}")
            rest = "/".join(parts[number + 1 :])
            return [at(one, rest) for one in here]
        try:
            here = here[int(part)] if isinstance(here, list) else here[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise NotFound(f"there is no {part} of {pointer} in {shown(here)}") from None
    return here


def filled(expected: Any, truths: Mapping[str, Any]) -> Any:
    """`expected` with every `{truth = "NAME/pointer"}` replaced. Raises: NotFound."""
    if isinstance(expected, dict):
        if [*expected] == ["truth"]:
            return at(dict(truths), str(expected["truth"]))
        return {key: filled(one, truths) for key, one in expected.items()}
    return [filled(one, truths) for one in expected] if isinstance(expected, list) else expected


def unmet(predicate: str, found: Any, expected: Any, within: float) -> str:
    """ "" if the predicate holds of what was found, else why not."""
    if predicate == "exists":
        return "" if (found is not MISSING) is bool(expected) else "it is not there" if expected else "it is there"
    if found is MISSING:
        return "it is not there"
    if predicate == "near":
        return "" if _near(found, expected, within) else f"{shown(found)} is not within {within:g} of {shown(expected)}"
    if PREDICATES[predicate](found, expected):
        return ""
    return f"{shown(found)} does not satisfy {predicate} {shown(expected)}"


def same(left: Any, right: Any) -> bool:
    """As JSON values, 1 and 1.0 the same and true neither."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(one, right[key]) for key, one in left.items())
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def as_cells(value: Any) -> Any:
    """A value as a table of text would give it back."""
    if isinstance(value, dict):
        return {key: as_cells(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_cells(one) for one in value]
    if value is None:
        return ""
    return cell(str(value))


def nodes(value: Any) -> Iterator[Any]:
    """The value and everything in it."""
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from nodes(one)


def shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _key(value: Any) -> str:
    """Equal for what is the same."""

    def plain(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: plain(value) for key, value in one.items()}
        if isinstance(one, list | tuple):
            return [plain(value) for value in one]
        return int(one) if isinstance(one, float) and one.is_integer() else one

    return json.dumps(plain(value), sort_keys=True, default=repr)


def _near(found: Any, expected: Any, within: float) -> bool:
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(_near(*pair, within) for pair in zip(found, expected, strict=True))
        )
    numbers = [one for one in (found, expected) if isinstance(one, int | float) and not isinstance(one, bool)]
    return len(numbers) == 2 and math.isclose(found, expected, rel_tol=within, abs_tol=1e-12)


def _contains(found: Any, expected: Any) -> bool:
    if isinstance(found, str):
        wanted = expected if isinstance(expected, list) else [expected]
        return bool(wanted) and all(str(one) in found for one in wanted)
    if isinstance(found, list):
        keys = {_key(one) for one in found}
        wanted = expected if isinstance(expected, list) else [expected]
        return bool(wanted) and all(_key(one) in keys for one in wanted)
    if isinstance(found, dict) and isinstance(expected, dict):
        return bool(expected) and all(key in found and same(found[key], one) for key, one in expected.items())
    return False


def _same_set(found: Any, expected: Any) -> bool:
    return _lists(found, expected) and {_key(one) for one in found} == {_key(one) for one in expected}


def _same_rows(found: Any, expected: Any) -> bool:
    return _lists(found, expected) and sorted(map(_key, found)) == sorted(map(_key, expected))


def _lists(found: Any, expected: Any) -> bool:
    return isinstance(found, list) and isinstance(expected, list)


def _hash(found: Any, expected: Any) -> bool:
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(_hash(*pair) for pair in zip(found, expected, strict=True))
    said = digest(found) if isinstance(found, bytes) else found
    return isinstance(said, str) and said.removeprefix("sha256:") == str(expected).removeprefix("sha256:")


def _count(found: Any, expected: Any) -> bool:
    return isinstance(found, list | dict | str | bytes) and len(found) == expected


PREDICATES: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "equals": same,
    "contains": _contains,
    "same_set": _same_set,
    "rows": _same_rows,
    "sha256": _hash,
    "count": _count,
}
