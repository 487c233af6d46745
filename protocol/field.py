"""One field of a document: a value of the kind its key asks for, or a problem and a harmless stand-in.

Invariant: total. A reader never raises for a wrong value (only `PlanTooLarge` for a string over the limit), so that
every defect of a document is found in one pass. It must not know which keys there are.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final, NoReturn

import msgspec

from .document import Problems, kind_of, nearest, too_large
from .errors import UsageError
from .resource import size_bytes, span_s

FAR: Final = 2**63 - 1
Path = Any
"""Where a value is, cheap to build: text, or a linked pair (path of its container, key or index)."""


class FieldReader:
    """Reads values under `where`, the place of the object whose fields are being read."""

    def __init__(self, problems: Problems, max_string: int) -> None:
        self.problems = problems
        self.max_string = max_string
        self.where = ""

    def add(self, code: str, path: Path, message: str, fix: str = "") -> None:
        self.problems.add(code, self.where + spell(path), message, fix)

    def long(self, text: str, path: Path) -> NoReturn:
        """Raises: PlanTooLarge. A string over the limit ends the reading: nothing good follows it."""
        raise too_large("max_string", self.max_string, f"a string has {len(text)} characters", self.where + spell(path))

    def items(self, value: object, suffix: str) -> list[Any]:
        if isinstance(value, list):
            return value
        self.add("WrongType", suffix, f"it is a list, not {kind_of(value)}", "put it in [ ]")
        return []

    def flag(self, value: object, suffix: str) -> bool:
        if not isinstance(value, bool):
            self.add("WrongType", suffix, f"it is true or false, not {kind_of(value)}")
        return value is True

    def text(self, value: object, suffix: str) -> str:
        if not isinstance(value, str):
            self.add("WrongType", suffix, f"it is a string, not {kind_of(value)}")
            return ""
        if len(value) > self.max_string:
            self.long(value, suffix)
        return value

    def texts(self, value: object, suffix: str) -> dict[str, str]:
        return {
            key: self.text(item, f"{suffix}/{short(key)}") for key, item in self.members(value, suffix, None).items()
        }

    def members(self, value: object, suffix: str, keys: tuple[str, ...] | None) -> dict[str, Any]:
        """The members that are not null, a copy; members that are not in `keys` are problems."""
        if not isinstance(value, dict):
            self.add("WrongType", suffix, f"it is an object, not {kind_of(value)}")
            return {}
        found = {}
        for key, item in value.items():
            if keys is not None and key not in keys:
                self.add("UnknownKey", f"{suffix}/{short(key)}", "no such key", nearest(key, keys) or ", ".join(keys))
            elif item is not None:
                found[key] = item
        return found

    def integer(self, value: object, suffix: str, least: int, default: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= FAR:
            self.add(
                "BadValue", suffix, f"{short(value)} is not a whole number" + (f" from {least}" if least >= 0 else "")
            )
            return default
        return value

    def number(self, value: object, suffix: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e18:
            self.add("BadValue", suffix, f"{short(value)} is not a number from 0")
            return 0.0
        return float(value)

    def span(self, value: object, suffix: str, positive: bool = False) -> float:
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError
            seconds = span_s(value)
            if isfinite(seconds) and seconds >= 0 and (seconds > 0 or not positive):
                return seconds
        except (UsageError, ValueError, OverflowError):
            pass
        self.add("BadDuration", suffix, f"{short(value)} is not a duration", "write seconds, or 1h30m, 2m, 250ms")
        return 0.0

    def size(self, value: object, suffix: str) -> int:
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError
            size = size_bytes(value)
            if 0 <= size <= FAR:
                return size
        except (UsageError, ValueError, OverflowError):
            pass
        self.add("BadSize", suffix, f"{short(value)} is not a size", "write bytes, or 512MiB, 16GiB")
        return 0


def spell(path: Path) -> str:
    """The linked path `(("/args", "tables"), 0)` as text: `/args/tables/0`."""
    parts: list[str] = []
    while isinstance(path, tuple):
        path, key = path
        parts.append(f"/{short(key)}")
    return str(path) + "".join(reversed(parts))


def short(value: object) -> str:
    """A value as a problem shows it: never more than 60 characters of it."""
    if isinstance(value, str):
        return value if len(value) <= 60 else value[:57] + "///"
    if isinstance(value, dict | list):
        return kind_of(value)
    return str(msgspec.json.encode(value)[:60], "utf-8", "replace")
