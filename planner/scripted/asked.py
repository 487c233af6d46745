"""One chat request as the scripted server got it, and what became of it: what tests look at and wait for.

It must not know sockets.
"""

from __future__ import annotations

from typing import Any

import anyio

from protocol.errors import WireError
from protocol.json_bytes import check_json, read_json

from .request import HttpRequest


class Asked:
    """`body` is the request's JSON, None if it is none. Wait for the events, don't poll.

    `ended`: "" while it is answered, then complete, refused, cut (by a fault) or closed (by the client).
    """

    def __init__(self, number: int, request: HttpRequest, at: float) -> None:
        self.number = number
        self.request = request
        self.at = at
        self.written: list[tuple[float, str]] = []
        """(when, what it said) of each token that went out; the time is just before that."""
        self.ended = ""
        self.ended_at = 0.0
        self.over = anyio.Event()
        """The reply has ended, in whatever way."""
        self.closed = anyio.Event()
        """The client has closed its connection before the reply's end."""
        self.holding = anyio.Event()
        """A `hold` of the turn waits for `release`."""
        self._released = anyio.Event()
        try:
            check_json(request.body)
            self.body: Any = read_json(request.body)
        except WireError:
            self.body = None

    @property
    def said(self) -> str:
        """All text of the request's messages."""
        messages = self.body.get("messages") if isinstance(self.body, dict) else None
        rows = messages if isinstance(messages, list) else []
        return "\n".join(str(one.get("content")) for one in rows if isinstance(one, dict))

    @property
    def text(self) -> str:
        """What the tokens said that went out."""
        return "".join(part for _, part in self.written)

    def release(self) -> None:
        """Let a `hold` go on, now or when it comes."""
        self._released.set()

    async def hold(self) -> None:
        self.holding.set()
        await self._released.wait()

    def end(self, how: str, at: float) -> None:
        """The first end is the one that counts."""
        self.ended = self.ended or how
        self.ended_at = at
        if self.ended == "closed":
            self.closed.set()
        self.over.set()
