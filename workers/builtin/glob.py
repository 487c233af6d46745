"""File name patterns: `*.log` matches names at any depth; with a `/` the whole path below the folder is matched.

`**` crosses folders, `{a,b}` is either. Hidden names match only patterns that have a part starting with a dot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from protocol.errors import UsageError

MAX_PATTERN = 1000
Matcher = Callable[[str], bool]


def matcher(patterns: Iterable[str]) -> Matcher:
    """Whether a relative path (with `/`) matches any of the patterns. Raises: UsageError for one too long."""
    whole: list[str] = []
    names: list[str] = []
    for pattern in patterns:
        if len(pattern) > MAX_PATTERN:
            raise UsageError(f"a pattern of {len(pattern)} characters", hint=f"at most {MAX_PATTERN}")
        for one in _expand(pattern):
            bare = one.removeprefix("./").removesuffix("/")
            (whole if "/" in bare else names).append(_translate(bare))
    by_path = re.compile("|".join(whole)).fullmatch if whole else None
    by_name = re.compile("|".join(names)).fullmatch if names else None

    def matches(path: str) -> bool:
        if by_name is not None and by_name(path.rpartition("/")[2]):
            return True
        return by_path is not None and by_path(path) is not None

    return matches


def wants_hidden(pattern: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in pattern.split("/"))


def _expand(pattern: str) -> list[str]:
    """`*.{py,md}` -> two patterns; at most 64, nested braces are left as they are."""
    done: list[str] = []
    waiting = [pattern]
    while waiting and len(done) + len(waiting) <= 64:
        one = waiting.pop(0)
        found = re.search(r"\{([^{}]*,[^{}]*)\}", one)
        if found is None:
            done.append(one)
        else:
            waiting += [one[: found.start()] + part + one[found.end() :] for part in found[1].split(",")]
    return done + waiting


def _translate(pattern: str) -> str:
    made: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            made.append("(?:[^/]+/)*")
            at += 3
        elif pattern.startswith("**", at):
            made.append(".*")
            at += 2
        elif pattern[at] == "*":
            made.append("[^/]*")
            at += 1
        elif pattern[at] == "?":
            made.append("[^/]")
            at += 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", "\\\\")
            negated = inside.startswith("!")
            made.append("[" + ("^" if negated else "") + re.escape(inside[negated:]).replace(r"\-", "-") + "]")
            at = end + 1
        else:
            made.append(re.escape(pattern[at]))
            at += 1
    return "(?s:" + "".join(made) + ")"
