"""What a worker may read: what the attempts that are at it now were given, and what that names. Clients read it all.

An attempt was given its arguments, the inputs it is bound to and the answers to its calls. Their digests may be read,
and so may what stands in them as a text, `sha256:HEX` or `file://WORKER/PATH`: in the inline ones, and in the contents
of those that are artifacts. All of it follows from the state, so it is the same after a restart. Cheap questions come
first; contents are read in threads, each once. It must not know links or how contents travel.
"""

from __future__ import annotations

import json
import mmap
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import anyio.to_thread
import msgspec

from protocol.artifact import ArtifactRef, Value
from protocol.errors import AsterismError, NotYours
from protocol.security import Principal

from ..artifacts.store import ArtifactStore
from ..core.binding import Binder, Bound, RefMissing
from ..core.graph import Run, Task
from ..core.state import State
from ..engine.artifact_desk import joined

Key = tuple[int, int, int]
_NAMED: Final = re.compile(rb'(?:file://|sha256:)(?:[^"\\]|\\.)*')
_CONTENTS: Final = 64
_CALLS: Final = 1_000_000


class _Reach(msgspec.Struct, frozen=True):
    """Of one attempt: digests it was given, texts it was given, manifests that it may have got as one artifact."""

    digests: frozenset[str]
    texts: tuple[bytes, ...]
    manifests: tuple[tuple[tuple[Value, ...], bool], ...]


class Reading:
    """One per server. What is remembered belongs to live attempts, and to the last few contents looked into."""

    def __init__(self, state: Callable[[], State], store: ArtifactStore) -> None:
        self._state = state
        self._store = store
        self._binder = Binder()
        self._reaches: dict[int, dict[Key, _Reach]] = {}
        self._named: OrderedDict[str, frozenset[bytes]] = OrderedDict()
        self._pinned: dict[int, tuple[int, frozenset[str]]] = {}

    async def digests(self, who: Principal, wanted: Iterable[str]) -> None:
        """Raises: NotYours unless `who` may read all of these contents."""
        if who.role != "worker":
            return
        left = set(wanted)
        reaches = self._of(who.worker_id)
        for key, reach in reaches.items():
            left -= reach.digests
            left -= self._pinned_in(key[0])
        await self._look(reaches.values(), left)
        if left:
            raise NotYours(f"{min(left)[:19]} is no input of an attempt at {who.name}", hint="only inputs are read")

    async def files(self, who: Principal, run: int, uris: Iterable[str]) -> None:
        """Raises: NotYours unless attempts of that run at `who` name all of these files."""
        if who.role != "worker":
            return
        left = set(uris)
        await self._look([reach for key, reach in self._of(who.worker_id).items() if key[0] == run], left)
        if left:
            raise NotYours(
                f"{min(left)} is in no input of an attempt of r{run} at {who.name}",
                hint="only inputs are read",
            )

    async def _look(self, reaches: Iterable[_Reach], left: set[str]) -> None:
        """Take out of `left` what the texts name, then what the contents do."""
        reaches = [*reaches]
        forms = {text: _forms(text) for text in left}
        for reach in reaches:
            if not left:
                return
            for text in [one for one in left if any(form in given for form in forms[one] for given in reach.texts)]:
                left.discard(text)
        for reach in reaches:
            manifests = (
                [await anyio.to_thread.run_sync(self._manifest, *one) for one in reach.manifests] if left else []
            )
            left.difference_update(manifests)
            for digest in (*reach.digests, *manifests):
                if not left:
                    return
                named = await self._names(digest)
                left.difference_update([one for one in left if any(form in named for form in forms[one])])

    async def _names(self, digest: str) -> frozenset[bytes]:
        if digest in self._named:
            self._named.move_to_end(digest)
            return self._named[digest]
        found = await anyio.to_thread.run_sync(self._scan, digest)
        self._named[digest] = found
        if len(self._named) > _CONTENTS:
            self._named.popitem(last=False)
        return found

    def _of(self, worker: int) -> dict[Key, _Reach]:
        """Of each attempt that is live at this worker; those that ended are forgotten."""
        state = self._state()
        known = self._reaches.get(worker, {})
        found: dict[Key, _Reach] = {}
        for key in list(state.live.get(worker, ())):
            run = state.runs[key[0]]
            found[key] = known.get(key) or self._reach(run, run.tasks[key[1]])
        if found:
            self._reaches[worker] = found
        else:
            self._reaches.pop(worker, None)
        return {
            key: msgspec.structs.replace(reach, texts=(*reach.texts, *_answers(state, key)))
            for key, reach in found.items()
        }

    def _reach(self, run: Run, task: Task) -> _Reach:
        try:
            bound = self._binder.bind(run, task, "", "")
        except RefMissing:
            bound = Bound((), (), b"")
        digests: set[str] = set()
        texts = [task.spec.args]
        manifests: list[tuple[tuple[Value, ...], bool]] = []
        for one in (*bound.inputs, *(one for row in bound.items for one in row)):
            if one.parts is not None:
                manifests.append((one.parts, one.flat))
            for value in one.parts if one.parts is not None else (one.value,):
                if isinstance(value, ArtifactRef):
                    digests.add(value.digest)
                else:
                    texts.append(value)
        return _Reach(frozenset(digests), tuple(texts), tuple(manifests))

    def _pinned_in(self, number: int) -> frozenset[str]:
        """The files of other machines that were moved for a run."""
        files = self._state().runs[number].files
        count, found = self._pinned.get(number, (0, frozenset()))
        if count != len(files):
            found = frozenset(ref.digest for ref in files.values())
            self._pinned = {run: one for run, one in self._pinned.items() if run in self._state().runs}
            self._pinned[number] = (len(files), found)
        return found

    # in threads

    def _manifest(self, parts: tuple[Value, ...], flat: bool) -> str:
        """As which artifact these parts travel when they are too many for a frame."""
        try:
            return self._store.put(joined(parts, flat, self._store)).digest
        except (AsterismError, OSError):
            return ""

    def _scan(self, digest: str) -> frozenset[bytes]:
        """The digests and file names that stand in a content."""
        try:
            with self._store.open(digest) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return frozenset(match.group() for match in _NAMED.finditer(content))
        except (AsterismError, OSError, ValueError):  # not here, or empty
            return frozenset()


def _answers(state: State, key: Key) -> Iterator[bytes]:
    """What an attempt was told in answer to its calls."""
    spawned = state.runs[key[0]].tasks[key[1]].spawned
    if spawned is None:
        return
    for call, (value, bad) in spawned.calls.items():
        if call // _CALLS == key[2] and not bad:
            yield value


def _forms(text: str) -> tuple[bytes, ...]:
    """How a text may stand in JSON: plain, and with all but ASCII escaped."""
    plain = msgspec.json.encode(text)[1:-1]
    return tuple({plain, json.dumps(text).encode()[1:-1]})
