"""The versions of a record's body, and how a body of an older one is lifted to today's.

Invariant: what any release wrote decodes for ever. A field that is appended with a default needs nothing here: a body
without it decodes. Whatever else changes (a field renamed, retyped, taken away, an event split) raises BODY_VERSION and
gets an upcaster for each kind it touches; the others pass as they are. A version above today's is refused, never
guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from protocol.errors import JournalCorrupt, VersionMismatch

BODY_VERSION: Final = 1

Upcaster = Callable[[list[Any]], list[Any]]
"""An event as its array, the kind first, in the version that wrote it -> the same in the next version."""


class Form(msgspec.Struct, frozen=True):
    """A version, and the way up to it: (kind, version) -> the step to the next."""

    version: int = BODY_VERSION
    upcasters: Mapping[tuple[str, int], Upcaster] = {}

    def lift(self, seq: int, v: int, body: bytes) -> bytes:
        """The body in this version. Raises: VersionMismatch for a newer one, JournalCorrupt."""
        if v == self.version:
            return body
        if v > self.version:
            raise newer(f"journal record {seq} has version {v}; this build reads up to {self.version}")
        try:
            events = [self._lifted(event, v) for event in msgspec.msgpack.decode(body, type=list[list[Any]])]
        except (msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
            what = f"the body of journal record {seq} is none of version {v}"
            raise JournalCorrupt(what, hint="restore the journal from a copy", where=str(seq)) from error
        return msgspec.msgpack.encode(events)

    def _lifted(self, event: list[Any], v: int) -> list[Any]:
        for version in range(v, self.version):
            step = self.upcasters.get((event[0], version))
            if step is not None:
                event = step(event)
        return event


FORM: Final = Form()


def newer(what: str) -> VersionMismatch:
    return VersionMismatch(what, hint="start the newer asterism that wrote it, or choose another ASTERISM_HOME")
