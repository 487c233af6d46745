"""A noun as the list of its fields in a protobuf message: both ways from one line of text.

Invariant: a form names every field of its noun, in the noun's order, so a field added to a noun can't be forgotten on
the wire. It must not know which nouns there are, nor the generated code: messages are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, get_args

import msgspec

from .errors import WireError
from .json_bytes import check_json

LIST_LIMIT: Final = 65_536
"""Entries of one list: an inventory, an Ack, what Hello holds."""


class Part(msgspec.Struct, frozen=True):
    """One field of a noun: how it is written into the message, and read from it."""

    name: str
    put: Callable[[Any, Any], None]
    take: Callable[[Any], Any]


class Form(msgspec.Struct, frozen=True):
    """One noun: fill its message, build it from one."""

    put: Callable[[Any, Any], None]
    take: Callable[[Any], Any]


def form(kind: type[Any], *fields: str | Part) -> Form:
    """The form of a noun by its fields, in the noun's order; a plain name has the same name and type in the message.

    Raises: TypeError when a field of the noun is left out: it would be lost on the wire.
    """
    parts = tuple(_plain(field) if isinstance(field, str) else field for field in fields)
    if tuple(part.name for part in parts) != kind.__struct_fields__:
        raise TypeError(
            f"{kind.__name__} has fields {kind.__struct_fields__}; bring the proto file and its form in line"
        )

    def put(message: Any, noun: Any) -> None:
        for part in parts:
            part.put(message, getattr(noun, part.name))

    def take(message: Any) -> Any:
        return kind(*[part.take(message) for part in parts])

    return Form(put, take)


def _plain(name: str) -> Part:
    def take(message: Any) -> Any:
        value = getattr(message, name)
        if isinstance(value, float):
            finite(value)
        return value

    return Part(name, lambda message, value: setattr(message, name, value), take)


def finite(*numbers: float) -> None:
    """Raises: WireError for NaN and infinities, which no comparison survives."""
    if not math.isfinite(sum(numbers)):
        raise WireError("a number is not finite")


def texts(name: str) -> Part:
    """Repeated strings, or numbers."""
    return Part(
        name,
        lambda message, texts: getattr(message, name).extend(texts),
        lambda message: tuple(getattr(message, name)),
    )


def word(name: str, words: Any) -> Part:
    """A Literal as an enum: its words count from 1, 0 is refused."""
    number = {word: k for k, word in enumerate(get_args(words), 1)}
    of = {k: word for word, k in number.items()}

    def put(message: Any, word: str) -> None:
        setattr(message, name, number[word])

    return Part(name, put, lambda message: of[getattr(message, name)])


def listed(name: str, one: Form) -> Part:
    """Repeated messages of one form, at most LIST_LIMIT."""

    def put(message: Any, values: Iterable[Any]) -> None:
        out = getattr(message, name)
        for value in values:
            one.put(out.add(), value)

    def take(message: Any) -> tuple[Any, ...]:
        found = getattr(message, name)
        if len(found) > LIST_LIMIT:
            raise WireError(f"{len(found)} {name} are too many")
        return tuple([one.take(inner) for inner in found])

    return Part(name, put, take)


def json_part(name: str) -> Part:
    """Bytes that are JSON, checked when they arrive."""

    def take(message: Any) -> bytes:
        data: bytes = getattr(message, name)
        check_json(data)
        return data

    return Part(name, lambda message, data: setattr(message, name, data), take)
