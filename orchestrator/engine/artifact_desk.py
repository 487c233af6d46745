"""What the engine does with artifacts: reads JSON out of them for the core, and keeps Assigns small.

An input over INLINE_LIMIT, given inline or as a manifest of parts, is put into the store and the Assign names its
digest, so no frame exceeds its limits. While one item of a stream waits for that, the later items of the same stream
wait behind it: order on a stream is never changed. Everything that touches content runs in a thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import anyio
import anyio.to_thread
import msgspec

from protocol.artifact import INLINE_LIMIT, ArtifactRef, Value
from protocol.errors import AsterismError, NotFound
from protocol.frame import Assign, Input, ToWorker

from ..core.command import Resolve
from ..core.stimulus import Resolved, Stimulus

ASSIGN_BYTES: Final = 192 * 1024
_REF_BYTES: Final = 120
_KEPT: Final = 32


class Store(Protocol):
    """What the desk needs of the artifact store. All of it blocks and is called in threads."""

    def size(self, digest: str) -> int:
        """Raises: NotFound."""

    def json_at(self, digest: str, pointer: tuple[str, ...] = ()) -> bytes:
        """The JSON text at a pointer. Raises: NotFound for an absent pointer, and an error beyond the limits."""

    def length_at(self, digest: str, pointer: tuple[str, ...] = ()) -> int:
        """How many elements the list there has. Raises: as json_at; SchemaMismatch when it is no list."""

    def put(self, data: bytes, media: str = "application/json") -> ArtifactRef:
        """Keep it under its digest; content that is there already is not written again."""


Sender = Callable[[int, ToWorker], None]


def heavy(assign: Assign) -> bool:
    """Whether its inputs may be too large to travel inline. Cheap: asked for every Assign."""
    total = 0
    for one in assign.inputs:
        total += len(one.value) if type(one.value) is bytes and one.parts is None else _weight(one)
    for row in assign.items:
        for one in row:
            total += _weight(one)
    return total > INLINE_LIMIT


def _weight(one: Input) -> int:
    if one.parts is not None:
        return sum(map(_size, one.parts))
    return _size(one.value)


def _size(value: Value) -> int:
    return len(value) if isinstance(value, bytes) else _REF_BYTES


class ArtifactDesk:
    """One per engine; `run` in its task group."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: list[tuple[int, ToWorker, Sender]] = []
        self._waiting: dict[int, int] = {}
        self._news = anyio.Event()
        self._kept: OrderedDict[int, tuple[tuple[Value, ...], ArtifactRef]] = OrderedDict()
        """Manifests written lately, by identity: the children of a map share one."""

    async def resolve(self, command: Resolve, post: Callable[[Stimulus], None]) -> None:
        """Read what the core asked for and post Resolved, whatever happens."""
        key = (command.run, command.task, command.key)
        try:
            found = await anyio.to_thread.run_sync(self._read, command)
        except (AsterismError, OSError) as error:
            post(Resolved(*key, found=False, error=str(error)))
        else:
            post(found)

    def holds(self, conn: int) -> bool:
        """Whether items of this stream wait here: then later ones must too."""
        return conn in self._waiting

    def send_light(self, conn: int, item: ToWorker, send: Sender) -> None:
        """Send `item` once its heavy inputs are in the store, after everything given for the same stream before."""
        self._queue.append((conn, item, send))
        self._waiting[conn] = self._waiting.get(conn, 0) + 1
        self._news.set()

    async def run(self) -> None:
        """One after the other: heavy inputs are rare, and a manifest that many tasks share is then written once."""
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            queue, self._queue = self._queue, []
            for conn, item, send in queue:
                if type(item) is Assign and heavy(item):
                    item = await anyio.to_thread.run_sync(self._lighten, item)
                send(conn, item)
                self._waiting[conn] -= 1
                if not self._waiting[conn]:
                    del self._waiting[conn]

    # in threads

    def _read(self, command: Resolve) -> Resolved:
        store, digest, key = self._store, command.ref.digest, (command.run, command.task, command.key)
        store.size(digest)
        try:
            if command.what == "length":
                return Resolved(*key, b"%d" % store.length_at(digest, command.pointer))
            return Resolved(*key, store.json_at(digest, command.pointer))
        except NotFound:  # the content is here, so it is the pointer that leads nowhere
            return Resolved(*key, found=False)

    def _lighten(self, assign: Assign) -> Assign:
        """Every input over the limit goes to the store, then the largest others until the rest fits."""
        budget = ASSIGN_BYTES
        weights = sorted((_weight(one) for one in _inputs(assign)), reverse=True)
        limit = INLINE_LIMIT
        total = sum(weight for weight in weights if weight <= limit)
        for weight in weights:
            if total <= budget:
                break
            if weight <= limit:
                limit = weight - 1
                total -= weight
        try:
            return msgspec.structs.replace(
                assign,
                inputs=tuple(self._light(one, limit) for one in assign.inputs),
                items=tuple(tuple(self._light(one, limit) for one in row) for row in assign.items),
            )
        except (AsterismError, OSError):
            return assign  # an artifact that is gone: the worker says so in its own words

    def _light(self, one: Input, limit: int) -> Input:
        if _weight(one) <= limit or isinstance(one.value, ArtifactRef):
            return one
        if one.parts is None:
            assert isinstance(one.value, bytes)
            return Input(one.key, self._store.put(one.value), one.pointer)
        kept = self._kept.get(id(one.parts))
        if kept is None:
            kept = (one.parts, self._store.put(joined(one.parts, one.flat, self._store)))
            self._kept[id(one.parts)] = kept
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return Input(one.key, kept[1], one.pointer)


def joined(parts: tuple[Value, ...], flat: bool, store: Store) -> bytes:
    """The JSON list that a manifest stands for. Blocks on parts that are artifacts."""
    texts = [part if isinstance(part, bytes) else store.json_at(part.digest) for part in parts]
    if flat:
        texts = [inner for text in texts if (inner := text.strip()[1:-1].strip())]
    return b"[" + b",".join(texts) + b"]"


def _inputs(assign: Assign) -> list[Input]:
    return [*assign.inputs, *(one for row in assign.items for one in row)]
