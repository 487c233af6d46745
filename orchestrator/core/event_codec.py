"""Events as the body of a journal record: msgpack arrays, tagged by name, and back.

Invariant: `encode_events(decode_events(body)) == body`. It must not know what an event means.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .event import Event

_DECODER = msgspec.msgpack.Decoder(tuple[Event, ...])
_ENCODER = msgspec.msgpack.Encoder()


def encode_events(events: tuple[Any, ...]) -> bytes:
    """The body of a journal record: one or more events of one decision, as msgpack arrays."""
    return _ENCODER.encode(events)


def decode_events(body: bytes) -> tuple[Event, ...]:
    """Raises: msgspec.DecodeError, and nothing else, for anything `encode_events` can't have made."""
    try:
        return _DECODER.decode(body)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
