"""The daemon's end of one host: its pipe, its outputs, the attempts it has.

Only state; `pool` moves it. Invariant: descriptors are closed once, after nobody waits for them any more.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Final

import anyio

from protocol.errors import AsterismError
from protocol.ids import AttemptId

from .pipe import FROM_HOST, Described, Finished, Unpacker

TAIL_LINES: Final = 40
"""So many last lines of stderr tell the story of a host that died."""


class HostEnd:
    """The daemon's side of one host."""

    def __init__(self, number: int, shared: bool, single: bool = False, keyed: bool = False) -> None:
        self.number = number
        self.shared = shared
        self.keyed = keyed
        """It has the key of the worker's model."""
        self.single = single
        """For one attempt only, in namespaces of its own: no signal but SIGKILL is meant for it."""
        self.sock, self.theirs = socket.socketpair()
        self.sock.setblocking(False)
        self.pipes: dict[str, int] = {}
        self.their_pipes: list[int] = []
        for name in ("stdout", "stderr"):
            mine, other = os.pipe()
            os.set_blocking(mine, False)
            self.pipes[name] = mine
            self.their_pipes.append(other)
        self.partial = {"stdout": b"", "stderr": b""}
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.attempts: dict[AttemptId, Finished | None] = {}
        self.since: dict[AttemptId, float] = {}
        """When each of them was given to it: all that is known of how long one took whose host died."""
        self.outgoing: deque[bytes] = deque()
        self.unpacker = Unpacker(FROM_HOST)
        self.wake = anyio.Event()
        self.ended: dict[AttemptId, anyio.Event] = {}
        self.loaded = anyio.Event()
        self.gone = anyio.Event()
        self.stopping = False
        self.environment: dict[str, str] = {}
        self.error: AsterismError | None = None
        self.skills: tuple[Described, ...] = ()
        self.scope = anyio.CancelScope()

    @property
    def idle(self) -> bool:
        return not (self.attempts or self.stopping or self.shared or self.single or self.gone.is_set())

    @property
    def only(self) -> AttemptId | None:
        """The attempt whose output this is; in a shared host output says itself whose it is."""
        return None if self.shared else next(iter(self.attempts), None)

    def close(self) -> None:
        self.sock.close()
        for descriptor in self.pipes.values():
            os.close(descriptor)
        self.pipes.clear()
