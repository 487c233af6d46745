"""A document from outside, read into plain values without trusting it: JSON or TOML bytes in, one object out.

Invariant: total. Whatever the bytes, the answer is an object within the limits or `PlanRefused` / `PlanTooLarge`;
nesting is measured in the bytes before anything recurses over them. It must not know what a plan is.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from .errors import PlanRefused, PlanTooLarge, Problem
from .toml_text import read_toml

Form = Literal["json", "toml"]
Source = bytes | str | Mapping[str, Any]

_MANY: Final = 200
_STRING: Final = re.compile(rb'"[^"]*"')
_BYTE: Final = re.compile(r"\(byte ([0-9]+)\)")
_LONE: Final = re.compile(r"[\ud800-\udfff]")
_NOISE: Final = bytes(set(range(256)) - set(b'"[]{},:'))
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")


class Limits(msgspec.Struct, frozen=True):
    """How large a document may be. The names are those of the settings and of `PlanTooLarge`."""

    max_bytes: int = 64 * 1024 * 1024
    max_tasks: int = 200_000
    max_depth: int = 64
    max_string: int = 1024 * 1024


FILE_LIMITS: Final = Limits()
PLANNER_LIMITS: Final = Limits(max_bytes=1024 * 1024, max_tasks=500)


class Problems:
    """Every defect found so far. At most 200 are kept; the rest are counted, so a bad file can't fill the memory."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.more = 0

    def add(self, code: str, where: str, message: str, fix: str = "") -> None:
        if len(self.found) < _MANY:
            self.found.append(Problem(code, where, message, fix))
        else:
            self.more += 1

    def raise_any(self, what: str) -> None:
        """Raises: PlanRefused with all of them, if there is any."""
        if not self.found:
            return
        count = len(self.found) + self.more
        said = f"{what} has {count} problem{'s' if count > 1 else ''}"
        raise PlanRefused(said + (f"; the first {_MANY} are" if self.more else ""), problems=self.found)


def read_document(source: Source, form: Form = "json", limits: Limits = FILE_LIMITS) -> dict[str, Any]:
    """The object that `source` holds: JSON or TOML text, or an object already decoded (checked all the same).

    Raises: PlanRefused (`NotJson`, `NotToml`, `LoneSurrogate`, `NotAPlan`), PlanTooLarge naming the limit.
    """
    if isinstance(source, Mapping):
        data = _encode(source, limits)
    elif isinstance(source, str):
        data = _utf8(source)
    else:
        data = bytes(source)
    if len(data) > limits.max_bytes:
        raise too_large("max_bytes", limits.max_bytes, f"it is {len(data)} bytes")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if form == "toml" and not isinstance(source, Mapping):
        data = _encode(_toml(data), limits)
    if _deeper(data, limits.max_depth):
        raise too_large("max_depth", limits.max_depth, "objects and lists are nested deeper")
    found = _json(data, limits)
    if not isinstance(found, dict):
        raise refused("NotAPlan", f"it is {kind_of(found)}, not an object", 'start with {"tasks": [...]}')
    return found


def too_large(name: str, limit: int, why: str, where: str = "document") -> PlanTooLarge:
    return PlanTooLarge(
        f"the document is over the limit {name}={limit}: {why}",
        hint=f"split it into several, or raise the setting {name}",
        problems=[Problem("PlanTooLarge", where, f"{name} is {limit}; {why}")],
    )


def refused(code: str, message: str, fix: str = "", where: str = "document") -> PlanRefused:
    return PlanRefused(f"not a plan: {message}", problems=[Problem(code, where, message, fix)])


def kind_of(value: object) -> str:
    """The JSON name of a value's type, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


def nearest(word: str, names: Iterable[str]) -> str:
    """`did you mean ...?` with up to three names like `word`, or "" when none is near."""
    short = word[:80]
    found = difflib.get_close_matches(short, list(names)[:5000], n=3, cutoff=0.6)
    return f"did you mean {' or '.join(found)}?" if found else ""


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values have equal bytes."""
    return msgspec.json.encode(value, order="deterministic")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise refused(
            "LoneSurrogate", f"a lone surrogate at character {error.start}", "write whole characters"
        ) from None


def _encode(value: Mapping[str, Any], limits: Limits) -> bytes:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_foreign)
    except RecursionError:
        raise too_large("max_depth", limits.max_depth, "objects and lists are nested deeper") from None
    except (TypeError, ValueError) as error:
        raise refused("NotJson", str(error), "use text, numbers, booleans, lists and objects only") from None
    return _utf8(text)


def _foreign(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!s:.40} is not a JSON value")


def _toml(data: bytes) -> dict[str, Any]:
    try:
        return read_toml(data.decode())
    except UnicodeDecodeError as error:
        raise refused("NotToml", f"byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    except ValueError as error:
        raise refused("NotToml", str(error)) from None


def _deeper(data: bytes, limit: int) -> bool:
    """Whether brackets nest deeper than `limit`, at the speed of `bytes`: each round peels the innermost level."""
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data
    bare = bare.translate(None, _NOISE).replace(b'""', b"")
    if b'"' in bare:
        bare = _STRING.sub(b"", bare)
    bare = bare.translate(_SQUARE, b',:"')
    for _ in range(limit):
        if not bare:
            return False
        peeled = bare.replace(b"[]", b"")
        if len(peeled) == len(bare):
            return bare.count(b"[") > limit  # not balanced: no JSON either, so only the depth of a recursion matters
        bare = peeled
    return bool(bare)


def _json(data: bytes, limits: Limits) -> Any:
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise too_large("max_depth", limits.max_depth, "objects and lists are nested deeper") from None
    except UnicodeDecodeError as error:
        raise refused("NotJson", f"byte {error.start} of a string is not UTF-8", "save it as UTF-8") from None
    except ValueError as error:
        raise _why_not_json(data, str(error)) from None


def _why_not_json(data: bytes, said: str) -> PlanRefused:
    """Say it with a line and a column; what the lenient decoder of the library accepts is told apart by name."""
    if not data.strip():
        return refused("NotJson", "it is empty")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return refused("NotJson", f"byte {error.start} is not UTF-8", "save it as UTF-8")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return refused(
            "NotJson", f"{error.msg}, line {error.lineno} column {error.colno}", where=_at(error.lineno, error.colno)
        )
    except (ValueError, RecursionError):
        return refused("NotJson", said)
    found = _BYTE.search(said)
    before = data[: int(found[1])].decode(errors="replace") if found else ""
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    place = f", line {line} column {column}" if found else ""
    if re.search(r"\\u[dD][89a-fA-F]", text) and _LONE.search(json.dumps(json.loads(text), ensure_ascii=False)):
        return refused("LoneSurrogate", f"a lone surrogate{place}", "write whole characters")
    return refused("NotJson", f"{said.split(' (byte')[0]}{place}", "NaN and Infinity are not JSON")


def _at(line: int, column: int) -> str:
    return f"line {line} column {column}"
