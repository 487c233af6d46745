"""The explicit notation: `find(logs, *.log) -> count(ERROR) each -> markdown(Errors)`.

    pipeline := stage { "->" stage }            in sequence, the results of a stage feed the next one
    stage    := step { "&" step }               in parallel, all fed by the stage before
    step     := NAME [ "(" args ")" ] { "each" | "as" ID | "on" PLACE { "," PLACE } }  |  "(" pipeline ")"
    args     := value { "," value }             value, or NAME=value; quote a text with , ( ) or = in it
    request  := pipeline { ";" pipeline }       independent of each other

NAME is a skill's full name or its last part where that is unique. Arguments without a name are taken in the order of
the skill's schema, over those that the arrow doesn't fill. Invariant: parsing is total and linear; a text that is not
of this form is None, so that another way of reading it may be tried. It must not know skills: names are only names.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from protocol.ids import TASK_ID

from .value import Quoted

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_PLACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:=[^\s,;&()]+)?")
_NAMED: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(?!=)")
_ARROW: Final = re.compile(r"->|→")
_DEPTH: Final = 20
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}


class Call(msgspec.Struct, frozen=True):
    """One step as written. `text` is what to show when something is wrong with it."""

    name: str
    args: tuple[tuple[str, str], ...] = ()
    """(name, value); the name is empty for a positional one."""
    called: bool = False
    each: bool = False
    on: tuple[str, ...] = ()
    id: str = ""
    text: str = ""


class Pipeline(msgspec.Struct, frozen=True):
    """Stages in sequence, each of them steps in parallel."""

    stages: tuple[tuple[Call | Pipeline, ...], ...]


class _NotThis(Exception):
    """The text is not of this form."""


def parse_notation(text: str) -> tuple[Pipeline, ...] | None:
    """The pipelines of a request, or None when it isn't written in the notation.

    One bare word is no notation: an arrow, a call or a pair joined by & has to be there.
    """
    if len(text) > 65_536:
        return None
    reader = _Reader(text)
    try:
        found = [reader.pipeline(0)]
        while reader.take(";"):
            if reader.done():
                break
            found.append(reader.pipeline(0))
        if not reader.done():
            return None
    except _NotThis:
        return None
    explicit = any(len(one.stages) > 1 or len(one.stages[0]) > 1 for one in found) or any(
        isinstance(step, Pipeline) or step.called for one in found for step in one.stages[0]
    )
    return tuple(found) if explicit else None


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def done(self) -> bool:
        self._blank()
        return self.at >= len(self.text)

    def take(self, token: str) -> bool:
        self._blank()
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def pipeline(self, depth: int) -> Pipeline:
        if depth > _DEPTH:
            raise _NotThis
        stages = [self._stage(depth)]
        while self._match(_ARROW):
            stages.append(self._stage(depth))
        return Pipeline(tuple(stages))

    def _stage(self, depth: int) -> tuple[Call | Pipeline, ...]:
        steps = [self._step(depth)]
        while self.take("&"):
            steps.append(self._step(depth))
        return tuple(steps)

    def _step(self, depth: int) -> Call | Pipeline:
        if self.take("("):
            inner = self.pipeline(depth + 1)
            if not self.take(")"):
                raise _NotThis
            return inner
        self._blank()
        start = self.at
        name = self._match(_NAME)
        if not name:
            raise _NotThis
        called = self.text.startswith("(", self.at)
        args = self._arguments() if called else ()
        each, task_id = False, ""
        on: tuple[str, ...] = ()
        while word := self._word():
            if word == "each" and not each:
                each = True
            elif word == "on" and not on:
                on = self._places()
            elif word == "as" and not task_id:
                self._blank()
                task_id = self._match(TASK_ID)
                if not task_id:
                    raise _NotThis
            else:
                raise _NotThis
        return Call(name, args, called, each, on, task_id, self.text[start : self.at].strip())

    def _word(self) -> str:
        self._blank()
        return self._match(re.compile(r"[A-Za-z]+"))

    def _places(self) -> tuple[str, ...]:
        found: list[str] = []
        while True:
            self._blank()
            place = self._match(_PLACE)
            if not place:
                raise _NotThis
            found.append(place)
            if not self.take(","):
                return tuple(found)

    def _arguments(self) -> tuple[tuple[str, str], ...]:
        self.at += 1
        found: list[tuple[str, str]] = []
        if self.take(")"):
            return ()
        while True:
            named = _NAMED.match(self.text, self.at)
            if named is not None:
                self.at = named.end()
            found.append((named[1] if named else "", self._value()))
            if self.take(")"):
                return tuple(found)
            if not self.take(","):
                raise _NotThis

    def _value(self) -> str:
        """Up to a comma or the closing parenthesis; brackets and quotes inside are kept together."""
        self._blank()
        start, waiting = self.at, [""]
        quoted = self._quoted()
        if quoted is not None:
            self._blank()
            if self.text[self.at : self.at + 1] in (",", ")"):
                return quoted
            self.at = start
        while self.at < len(self.text):
            char = self.text[self.at]
            if len(waiting) == 1 and char in ",)":
                found = self.text[start : self.at].strip()
                if not found:
                    raise _NotThis
                return found
            if char in _CLOSING:
                waiting.append(_CLOSING[char])
            elif char == waiting[-1]:
                waiting.pop()
            elif char == '"' and self._quoted() is not None:
                continue
            self.at += 1
        raise _NotThis

    def _quoted(self) -> Quoted | None:
        """A text in double quotes (with JSON escapes) or in single quotes (as it is); nothing is read otherwise."""
        quote = self.text[self.at : self.at + 1]
        if quote == "'":
            end = self.text.find("'", self.at + 1)
            if end < 0:
                return None
            found = self.text[self.at + 1 : end]
            self.at = end + 1
            return Quoted(found)
        if quote != '"':
            return None
        end = self.at + 1
        while end < len(self.text) and self.text[end] != '"':
            end += 2 if self.text[end] == "\\" else 1
        if end >= len(self.text):
            return None
        try:
            text = msgspec.json.decode(self.text[self.at : end + 1], type=str)
        except ValueError:
            text = self.text[self.at + 1 : end]  # no JSON escape, such as \d in a pattern: taken as it is
        self.at = end + 1
        return Quoted(text)

    def _match(self, pattern: re.Pattern[str]) -> str:
        if pattern is _ARROW:
            self._blank()
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def _blank(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
