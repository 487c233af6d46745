"""Small contents that travel together: how they are cut into messages, and what was refused of them.

Invariant: no message exceeds what the link carries, and one content that can't travel never holds up the others. It
must not know transports, nor where contents come from or go to.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Final

from .artifact import CHUNK_BYTES, SMALL_BYTES, Content
from .codec import Bundle, Refusal, Refusals
from .errors import AsterismError, UsageError, WireError, from_wire
from .json_bytes import read_json

ASKED_LIMIT: Final = 4096
"""Digests of one ask."""
_MOST: Final = 512
_ENVELOPE: Final = 128


def weight(contents: Iterable[Content]) -> int:
    """About how many bytes these take on the link."""
    return sum(len(one.data) + _ENVELOPE for one in contents)


def oversized(digest: str, size: int) -> UsageError:
    return UsageError(
        f"{digest[:80]} has {size} bytes, {SMALL_BYTES} are allowed in a bundle", hint="put it on its own"
    )


def split(contents: Iterable[Content]) -> Iterator[tuple[Content, ...]]:
    """The same contents in groups that fit a message."""
    group: list[Content] = []
    size = 0
    for one in contents:
        more = len(one.data) + _ENVELOPE
        if group and (size + more > CHUNK_BYTES or len(group) >= _MOST):
            yield tuple(group)
            group, size = [], 0
        group.append(one)
        size += more
    if group:
        yield tuple(group)


async def bundles(groups: AsyncIterable[Sequence[Content]], refused: dict[str, AsterismError]) -> AsyncIterator[Bundle]:
    """The messages of an upload, the last one marked: at least one. What is too large is left out and noted."""
    ready: Bundle | None = None
    async for group in groups:
        refused.update((one.digest, oversized(one.digest, len(one.data))) for one in group if _is_large(one))
        for contents in split(one for one in group if not _is_large(one)):
            if ready is not None:
                yield ready
            ready = Bundle(contents)
    yield Bundle(ready.contents if ready is not None else (), last=True)


def _is_large(one: Content) -> bool:
    return len(one.data) > SMALL_BYTES


def asks(digests: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The digests in lists that fit a message."""
    for start in range(0, len(digests), ASKED_LIMIT):
        yield tuple(digests[start : start + ASKED_LIMIT])


def refusals(refused: Mapping[str, AsterismError]) -> Refusals:
    return Refusals(tuple(Refusal(digest, json.dumps(error.to_wire()).encode()) for digest, error in refused.items()))


def refused_of(message: Refusals) -> dict[str, AsterismError]:
    return {one.digest: _error(one.error) for one in message.refused}


def _error(data: bytes) -> AsterismError:
    try:
        return from_wire(read_json(data))
    except WireError as error:
        return WireError(f"an error of the far side can't be read: {error.message}")
