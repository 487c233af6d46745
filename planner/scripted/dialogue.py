"""What a scripted model says: one turn a call, as data, with its pace and everything that goes wrong with it.

A turn can be written in Python or in a JSON file. Invariant: nothing is drawn, so that a dialogue played twice is sent
twice the same. It must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from protocol.errors import NotFound, UsageError, WireError
from protocol.json_bytes import read_json

HEAD: Final = -1
"""A fault here comes before the reply's first byte."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that goes wrong before the token `at`; text for `at` means once that text has been sent.

    `stall` sends nothing for `seconds`, `heartbeat` only SSE comments and `hollow` only empty deltas; 0 is for ever.
    `hold` waits for `Asked.release`. `cut` ends the connection in mid-reply, `reset` with an RST. `garbage` sends
    `text` as an event, `broken` as bytes that are no chunk. `error` is an error object in the stream, after which it
    ends. `drip` sends the reply's headers with `seconds` between their bytes.
    """

    kind: Literal["stall", "heartbeat", "hollow", "hold", "cut", "reset", "garbage", "broken", "error", "drip"]
    at: int | str = 0
    seconds: float = 0.0
    text: str = ""


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tool call; `arguments` is JSON text, right or wrong."""

    name: str
    arguments: str = "{}"


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens_in: int
    tokens_out: int


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reply of the model.

    `rate` is tokens a second, 0 at once; `first_s` passes before the first token. A token is `token_chars` characters.
    `usage`: None counts the tokens. `finish`: "" is what fits, "none" leaves it out. `status` other than 200 sends
    `body`, or `error` in the server's own form, and nothing else. `constrained`: where the server enforces the schema
    asked for, a plan is written in its form, and what can't be is replaced by the least that obeys. `match`: this turn
    answers only requests that contain this text. `times`: how many calls it answers, 0 any number. `unstreamed` answers
    with one JSON document whatever was asked.
    """

    text: str = ""
    parts: tuple[str, ...] = ()
    """The tokens one by one, in place of `text`."""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    finish: str = ""
    token_chars: int = 4
    rate: float = 0.0
    first_s: float = 0.0
    usage: Usage | None = None
    faults: tuple[Fault, ...] = ()
    endless: bool = False
    done: bool = True
    split: int = 0
    """Write the stream in pieces of so many bytes, wherever that cuts a line or a character."""
    newline: str = "\n"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    error: str = ""
    body: str = ""
    unstreamed: bool = False
    constrained: bool = False
    match: str = ""
    times: int = 1


class Dialogue:
    """The turns of one model. A call gets the first turn that is left and matches it; none left is `NotFound`."""

    def __init__(self, *turns: Turn | str) -> None:
        self.turns = tuple(Turn(text=one) if isinstance(one, str) else one for one in turns)
        self._played = [0] * len(self.turns)

    def __call__(self, said: str) -> Turn:
        """The turn for a request of this text. Raises: NotFound."""
        for number, turn in enumerate(self.turns):
            if (turn.times == 0 or self._played[number] < turn.times) and turn.match in said:
                self._played[number] += 1
                return turn
        raise NotFound(f"the dialogue has no turn left for this request, after {sum(self._played)} calls")


def read_dialogue(path: Path) -> Dialogue:
    """A dialogue from a JSON file: `{"turns": [...]}`, with the fields of `Turn`; other fields are their defaults.

    A turn's `plan` may stand in place of its `text`: any JSON, written without blanks, constrained. Raises: UsageError.
    """
    try:
        document = read_json(path.read_bytes(), dict[str, Any])
        turns = document.pop("turns")
        return Dialogue(*(msgspec.convert(_written({**document, **turn}), Turn) for turn in turns))
    except (OSError, WireError, msgspec.ValidationError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no dialogue: {error}", hint='{"turns": [{"text": "..."}]}') from error


def _written(turn: Mapping[str, Any]) -> dict[str, Any]:
    row = dict(turn)
    if "plan" in row:
        text = msgspec.json.encode(row.pop("plan")).decode()
        row = {"constrained": True, **row, "text": text}
    return row


def tokens(text: str, size: int, marks: tuple[str, ...] = ()) -> Iterator[str]:
    """`text` in tokens of `size` characters; a token also ends where the first occurrence of a mark does."""
    ends = sorted(text.index(mark) + len(mark) for mark in marks if mark in text)
    start = 0
    while start < len(text):
        end = min([start + max(1, size), *(one for one in ends if one > start)])
        yield text[start:end]
        start = end
