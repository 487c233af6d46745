"""What a model writes, read while it is written: each task of a plan the moment its last brace is there.

Read are one document (`{"tasks": [...]}` with base, why, edits, outputs beside it), a bare list of tasks, one task a
line, each in prose, fences or after `<think>`; tasks without a document count only where they begin a line. Invariant:
the same text gives the same pieces however it is cut into chunks; the cost is linear in it, what is kept of it bounded;
whatever the text, nothing is raised. One plan is read: a second one in the same text stops the reading. It must not
know what a task means, nor who sent the text.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from protocol.document import PLANNER_LIMITS, Limits
from protocol.errors import Problem

TASKS: Final = "tasks"
MEMBERS: Final = frozenset(("schema", "base", "why", "relies", "edits", TASKS, "outputs"))
"""What stands at the top of a document. One object with none of these is a task, if it has an id or a skill."""

_OUTSIDE: Final = re.compile(r"[{\[<]")
_TEXT: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT: Final = re.compile(rf"(?:[^\"{{}}\[\],:]++|{_TEXT})*+", re.DOTALL)
_NESTED: Final = re.compile(rf"(?:[^\"{{}}\[\]]++|{_TEXT})*+", re.DOTALL)
"""What stands between two marks, whole strings included: between items commas and colons are marks, inside one not."""
_MEMBER: Final = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"\s*:')
_REST: Final = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""The rest of a string: up to its quote, to a backslash that nothing follows yet, or to the end of the text."""
_WORD: Final = re.compile(r"\S")
_FIRST: Final = {"{": '"}', "[": "{]"}
"""What makes a bracket in prose the start of JSON: the character that follows it."""
_CLOSER: Final = {"{": "}", "[": "]"}
_THINK: Final = "<think>"
_THOUGHT: Final = "</think>"


class Piece(msgspec.Struct, frozen=True):
    """One whole part of a plan. `key`: "tasks" (then `index` counts them), or the member of the document it is.

    `problem`: the text was no JSON, or too deep; then there is no value.
    """

    key: str
    value: Any = None
    index: int = -1
    problem: Problem | None = None

    @property
    def where(self) -> str:
        return f"{self.key}/{self.index}" if self.index >= 0 else self.key


class Decoder:
    """One text. `stopped` is why nothing more is read: a limit, a second plan, brackets that don't match."""

    def __init__(self, limits: Limits = PLANNER_LIMITS) -> None:
        self.limits = limits
        self.stopped: Problem | None = None
        self.tasks = 0
        self._room = limits.max_bytes
        self._found: list[Piece] = []  # not handed out yet
        self._due = 0  # how many of them the last bracket made whole
        self._later: list[str] = []  # text that ends nothing, not looked at yet
        self._held = ""  # prose that may turn out to begin something
        self._thinking = False
        self._fresh = True  # nothing but blanks since the line began
        self._stack: list[str] = []  # the closers that are awaited
        self._level = 1  # how many of them are awaited between two items: members, tasks
        self._parts: list[str] = []  # the item so far, as far as it was scanned
        self._string = self._escaped = self._deep = False
        self._key: str | None = None
        self._members: list[Piece] = []  # of an object that may be a task or a document
        self._roots = 0
        self._home = 0  # the root with the plan; -1: each line is a task
        self._known = False  # something was a part of a document

    @property
    def whole(self) -> bool:
        """The end of the plan was seen. Of tasks that stand a line each it never is."""
        return self._home > 0 and (self._home < self._roots or not self._stack)

    def feed(self, text: str) -> list[Piece]:
        """What became whole with this text, in order."""
        self._room -= len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if self._room < 0:
            return self._last(text) if self.stopped is None else []
        if self._stack and "}" not in text and "]" not in text:
            self._later.append(text)
            return []
        return self._scan(text)

    def _last(self, text: str) -> list[Piece]:
        """As much of the text as the limit leaves room for."""
        data = text.encode("utf-8", "replace")
        found = self._scan(data[: max(0, len(data) + self._room)].decode("utf-8", "ignore"))
        self._stop("PlanTooLarge", f"max_bytes is {self.limits.max_bytes}; the text goes on")
        return found

    def _scan(self, text: str) -> list[Piece]:
        if self._held or self._later:
            text = "".join((self._held, *self._later, text))
            self._held = ""
            self._later.clear()
        at = 0
        while at < len(text) and self.stopped is None:
            at = self._inside(text, at) if self._stack else self._outside(text, at)
        found, self._found = self._found[: self._due], self._found[self._due :]
        self._due = 0
        return found

    def end(self) -> Problem | None:
        """Why the text is no whole plan, or None. A line of its own can't tell that more were meant."""
        self._scan("")
        if self.whole:  # what followed it is prose, or a second one
            return self.stopped if self.stopped is not None and self.stopped.code == "TwoPlans" else None
        if self._stack:
            self._stop("CutOff", "the text ends before the plan does")
        if self.stopped is None and not self.tasks and not self._known:
            self._stop("NoPlan", "there is no plan in the text", 'write {"tasks": [...]}')
        return self.stopped

    def _outside(self, text: str, at: int) -> int:
        """Through prose and thoughts, to where JSON begins. What can't be told yet is held back."""
        if self._thinking:
            end = text.find(_THOUGHT, at)
            if end < 0:
                self._held = text[max(at, len(text) - len(_THOUGHT) + 1) :]
                return len(text)
            self._thinking, self._fresh = False, True
            return end + len(_THOUGHT)
        match = _OUTSIDE.search(text, at)
        line, end = text.rfind("\n", at, match.start() if match else None), match.start() if match else len(text)
        self._fresh = (self._fresh or line >= 0) and not text[max(line, at) : end].strip()
        if match is None:
            return end
        at, char = match.start(), match[0]
        if char == "<":
            self._thinking = text.startswith(_THINK, at)
            if not self._thinking and _THINK.startswith(text[at:]):
                self._held = text[at:]
                return len(text)
            self._fresh = self._thinking
            return at + 1
        follows = _WORD.search(text, at + 1)
        if follows is None:
            self._held = char
            return len(text)
        if follows[0] in _FIRST[char]:
            self._stack.append(_CLOSER[char])
            self._level, self._key, self._members = 1, None, []
            self._roots += 1
        else:
            self._fresh = False
        return at + 1

    def _inside(self, text: str, at: int) -> int:
        """Through one root, to its end or to that of the text."""
        begin, stack = at, self._stack
        if self._escaped:
            self._escaped = False
            at += 1
        while True:
            if self._string:
                match = _REST.match(text, at)
                assert match is not None
                at = match.end()
                if at == len(text):
                    break
                if text[at] == "\\":
                    self._escaped = True
                    break
                self._string = False
                at += 1
            between = (_FLAT if len(stack) == self._level else _NESTED).match(text, at)
            assert between is not None
            at = between.end()
            if at == len(text):
                break
            char, at = text[at], at + 1
            if char == '"':
                self._string = True
                continue
            if char in "{[":
                if self._key == TASKS and char == "[" and len(stack) == 1 and self._level == 1:
                    self._level, begin, self._known = 2, at, True
                    self._home = self._home or self._roots
                    self._parts.clear()
                stack.append(_CLOSER[char])
                self._deep = self._deep or len(stack) > self.limits.max_depth
                continue
            if char in ",:":
                if char == "," or (stack == ["}"] and self._key is None):
                    self._item(text[begin : at - 1], char)
                    begin = at
            elif stack[-1] != char:
                self._stop("NotJson", f"{char} where {stack[-1]} was due")
            else:
                begin = self._closer(char, text, begin, at)
            if self.stopped is not None or not stack:
                return at
        self._parts.append(text[begin:])
        return len(text)

    def _closer(self, char: str, text: str, begin: int, at: int) -> int:
        """The end of an item, of something inside it, or of the items; where what follows begins."""
        if len(self._stack) > self._level:
            self._stack.pop()
            if len(self._stack) == self._level:
                self._item(text[begin:at])
                begin = at
        else:
            self._item(text[begin : at - 1])
            begin = at
            self._stack.pop()
            if self._stack:
                self._level, self._key = 1, None
            else:
                self._close(char)
        self._due = len(self._found)
        return begin

    def _item(self, tail: str, mark: str = "") -> None:
        """Something between two marks is over: a task, a member, or (before a colon) the name of one."""
        self._parts.append(tail)
        text = "".join(self._parts).strip()
        self._parts.clear()
        deep, self._deep = self._deep, False
        if not text:
            return
        listed = self._stack[self._level - 1] == "]"
        piece = self._read(text, TASKS if listed else self._key or "", deep, self.tasks if listed else -1)
        if mark == ":":
            self._key = piece.value if isinstance(piece.value, str) else text[:64]
        elif listed:
            if self._level == 2 or (self._fresh and (piece.problem is not None or _is_task(piece.value))):
                self._task(piece, self._roots)
        else:
            self._key = None
            if piece.key in MEMBERS:
                self._found.append(piece)
                self._known = True
            else:
                self._members.append(piece)

    def _close(self, char: str) -> None:
        """A root is over. An object without a member of a document was a task, or nothing."""
        members, self._members = self._members, []
        if char == "]" or not members:
            return
        value = {piece.key: piece.value for piece in members}
        if _is_task(value) and self._fresh and self._home <= 0:
            where = f"{TASKS}/{self.tasks}"
            problem = next((piece.problem for piece in members if piece.problem is not None), None)
            if problem is not None:
                problem = msgspec.structs.replace(problem, where=f"{where}/{problem.where}")
            elif len(value) < len(members):
                problem = _twice(where)
            self._task(Piece(TASKS, None if problem else value, self.tasks, problem), -1)
        elif self._home == self._roots:
            self._found.extend(members)

    def _task(self, piece: Piece, home: int) -> None:
        if self._home not in (0, home):
            self._stop("TwoPlans", "a second plan follows the first and is not read", "write one document")
        elif self.tasks >= self.limits.max_tasks:
            self._stop("PlanTooLarge", f"max_tasks is {self.limits.max_tasks}; the plan goes on")
        else:
            self._home = home
            self.tasks += 1
            self._found.append(piece)

    def _read(self, text: str, key: str, deep: bool, index: int) -> Piece:
        where = f"{key}/{index}" if index >= 0 else key
        if deep:
            limit = self.limits.max_depth
            return Piece(key, None, index, Problem("PlanTooLarge", where, f"it nests deeper than max_depth={limit}"))
        try:
            value = msgspec.json.decode(text)
        except ValueError as error:
            return Piece(key, None, index, Problem("NotJson", where, str(error), "write it as JSON"))
        if index >= 0 and _repeats(text):
            return Piece(key, None, index, _twice(where))
        return Piece(key, value, index)

    def _stop(self, code: str, message: str, fix: str = "") -> None:
        self.stopped = self.stopped or Problem(code, "document", message, fix)


def _is_task(value: object) -> bool:
    return isinstance(value, dict) and ("id" in value or "skill" in value)


def _repeats(text: str) -> bool:
    """Whether an object of this JSON has a key twice, of which a reader might see either."""
    names = _MEMBER.findall(text)
    if len(set(names)) == len(names) and ("\\" not in text or "\\" not in "".join(names)):
        return False
    try:
        json.loads(text, object_pairs_hook=_once)
    except KeyError:
        return True
    return False


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise KeyError


def _twice(where: str) -> Problem:
    return Problem("DuplicateKey", where, "a key is there twice", "write each key once")
