"""Built-in skills on text files: text.count, text.match.

Work is bounded: files are read line by line, patterns see at most LINE_CHARS of a line, rows are limited; what a
pattern may still cost is bounded by the attempt's timeout. Must not know: where the file came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypedDict

from protocol.builtin import BY_NAME
from protocol.errors import UsageError
from workers.file import File
from workers.skill import skill

LINE_CHARS: Final = 16 * 1024
MAX_PATTERN: Final = 1000
MAX_ROWS: Final = 100_000
_CHUNK: Final = 1 << 20


class CountResult(TypedDict):
    file: File
    lines: int
    words: int
    bytes: int
    matches: int


@skill(spec=BY_NAME["text.count"])
def count(file: File, pattern: str = "") -> CountResult:
    """Counts; a last line without a newline is a line. `matches` is 0 without a pattern."""
    lines = words = size = matches = 0
    find = compiled(pattern).finditer if pattern else None
    literal = pattern.encode() if pattern and re.escape(pattern) == pattern else None
    if find is None or literal is not None:
        for block in _blocks(file):
            lines += block.count(b"\n") + (not block.endswith(b"\n"))
            words += len(block.split())
            size += len(block)
            matches += block.count(literal) if literal else 0
        return CountResult(file=file, lines=lines, words=words, bytes=size, matches=matches)
    with file.open("rb") as handle:
        for raw in handle:
            lines += 1
            words += len(raw.split())
            size += len(raw)
            matches += sum(1 for found in find(_line(raw)) if found.group() or not found.string)
    return CountResult(file=file, lines=lines, words=words, bytes=size, matches=matches)


def _blocks(file: File) -> Iterator[bytes]:
    """Blocks that end at a newline wherever there is one, so that no word or match is cut."""
    with file.open("rb") as handle:
        rest: list[bytes] = []
        while block := handle.read(_CHUNK):
            head, newline, tail = block.rpartition(b"\n")
            if not newline:
                rest.append(block)
                continue
            yield b"".join((*rest, head, newline))
            rest = [tail] if tail else []
        if rest:
            yield b"".join(rest)


class MatchResult(TypedDict):
    file: File
    count: int
    rows: list[dict[str, Any]]


@skill(spec=BY_NAME["text.match"])
def match(file: File, pattern: str, limit: int = 1000) -> MatchResult:
    """One row a match: `line`, then each named group, or `text` if the pattern names none."""
    found = compiled(pattern)
    groups = list(found.groupindex)
    limit = min(limit, MAX_ROWS)
    rows: list[dict[str, Any]] = []
    total = 0
    with file.open("rb") as handle:
        for number, raw in enumerate(handle, 1):
            for one in found.finditer(_line(raw)):
                total += 1
                if len(rows) < limit:
                    cells = one.groupdict() if groups else {"text": one.group()}
                    rows.append({"line": number, **cells})
    return MatchResult(file=file, count=total, rows=rows)


def _line(raw: bytes) -> str:
    return raw.rstrip(b"\r\n")[: LINE_CHARS * 4].decode("utf-8", "replace")[:LINE_CHARS]


def compiled(pattern: str) -> re.Pattern[str]:
    """Raises: UsageError for what is no pattern, or a too long one."""
    if len(pattern) > MAX_PATTERN:
        raise UsageError(f"the pattern has {len(pattern)} characters, at most {MAX_PATTERN}")
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{pattern!r} is no regular expression: {error}", hint="escape special characters") from None
