"""What a task's references stand for, now that its upstreams are final: the inputs of an Assign, and its pin.

Inline values are resolved here, a pointer into an artifact on the worker that runs the task. The pin is
SHA-256(canonical spec, input digests, journal id): equal pins mean equal work.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol.artifact import ArtifactRef, Value
from protocol.frame import Input
from protocol.pointer import EACH, MISSING, descend
from protocol.task import INPUT, AnyRef, FirstOf, Ref

from .graph import Run, Task
from .lifecycle import Settled

_CACHED: Final = 64
_POINTED: Final = 1024
_GATHERED: Final = 256 * 1024
"""Bytes of elements out of which something is gathered here; out of more it is on the worker that reads it."""
_SMALL: Final = 4096
"""Bytes of a value of which is remembered what was pointed at."""
_SPEC: Final = msgspec.json.Encoder(order="deterministic")
_JSON: Final = msgspec.json.Encoder()


class RefMissing(Exception):
    """A reference points at nothing: the upstream has no such path, element or value."""


class Bound(msgspec.Struct, frozen=True, gc=False):
    """The inputs of one attempt. `items` only for a chunk of a map."""

    inputs: tuple[Input, ...]
    items: tuple[tuple[Input, ...], ...]
    pin: bytes


class _Pointed(msgspec.Struct, frozen=True, gc=False):
    """What a reference finds in a value, and its part of the pin: whoever else reads the same there shares it."""

    input: Input
    pinned: bytes


class Binder:
    """Resolves references. Keeps the last decoded values: a map over one list decodes it once; and what was found in
    the last small ones: several readers of one result share it."""

    def __init__(self) -> None:
        self._decoded: OrderedDict[bytes, Any] = OrderedDict()
        self._pointed: dict[tuple[bytes, Ref], _Pointed] = {}
        self._head: tuple[tuple[object, ...], bytes] = ((), b"")

    def bind(self, run: Run, task: Task, journal: str, digest: str) -> Bound:
        """Inputs and pin of the next attempt of `task`; `digest` is its skill's contract. Raises: RefMissing."""
        refs = task.wiring.refs
        mapped = run.tasks[task.parent] if task.parent >= 0 else None
        spread = mapped.spread if mapped is not None else None
        if not refs:
            return Bound((), (), self._pin(task, (), journal, digest))
        each: list[Ref] = []
        inputs: list[Input] = []
        pinned: list[bytes] = []
        for ref in refs:
            if type(ref) is Ref:
                if ref.each:
                    each.append(ref)
                    continue
                if (found := self._shared(run, ref)) is not None:
                    inputs.append(found.input)
                    pinned.append(found.pinned)
                    continue
            inputs.append(one := self.input(run, ref))
            pinned.append(_pinned(one))
        items: tuple[tuple[Input, ...], ...] = ()
        if spread is not None and each:
            low = task.k * spread.chunk
            rows = tuple(
                tuple(self.element(run, ref, index) for ref in each)
                for index in range(low, min(low + spread.chunk, spread.items))
            )
            if spread.chunk == 1:
                inputs.extend(rows[0])
            else:
                items = rows
            pinned.extend(_pinned(one) for row in rows for one in row)
        return Bound(tuple(inputs), items, self._pin(task, pinned, journal, digest))

    def _shared(self, run: Run, ref: Ref) -> _Pointed | None:
        """What is found in a small value of a plain task; None for all others. Raises: RefMissing."""
        task = run.tasks[run.names[ref.source]] if ref.source != INPUT else None
        if task is None or task.plan is not None or task.spread is not None or not task.succeeded:
            return None
        value = task.value
        if type(value) is not bytes or len(value) > _SMALL:
            return None
        found = self._pointed.get((value, ref))
        if found is None:
            key = str(ref)
            one = Input(key, self._at(value, ref.path, key))
            if len(self._pointed) >= _POINTED:
                self._pointed.clear()
            found = self._pointed[value, ref] = _Pointed(one, _pinned(one))
        return found

    def input(self, run: Run, ref: AnyRef) -> Input:
        """The value of a whole reference. Raises: RefMissing."""
        if type(ref) is FirstOf:
            for one in ref.refs:
                if one.source == INPUT or run.tasks[run.names[one.source]].succeeded:
                    return msgspec.structs.replace(self.input(run, one), key=str(ref))
            raise RefMissing(f"none of {ref} succeeded")
        assert type(ref) is Ref
        key, path = str(ref), ref.path
        if ref.source != INPUT:
            task = run.tasks[run.names[ref.source]]
            if task.plan is None and task.spread is None:
                return self._point(self._value(run, task, key), path, key)
        followed = self.follow(run, ref)
        if followed is not ref:
            return msgspec.structs.replace(self.input(run, followed), key=key)
        if ref.source == INPUT:
            return Input(key, self._at(run.inputs.get(path[0], b"null"), path[1:], key))
        task = run.tasks[run.names[ref.source]]
        if task.spread is not None:
            if not path:
                return Input(key, b"null", (), self.parts(run, task), task.spread.chunk > 1)
            if path[0] == EACH:
                return self._gathered(run, task, path, key)
            if not path[0].isdigit() or int(path[0]) >= task.spread.items:
                raise RefMissing(f"{key}: {ref.source} has {task.spread.items} elements")
            return self._element_of(run, task, int(path[0]), path[1:], key)
        return self._point(self._value(run, task, key), path, key)

    def follow(self, run: Run, ref: Ref) -> Ref:
        """A reference to an output of a sub-plan as the one to where that comes from: outputs are never copied."""
        task = run.tasks[run.names[ref.source]] if ref.source != INPUT else None
        if task is None or task.plan is None or not ref.path or not task.succeeded:
            return ref
        wanted, rest = ref.path[0], ref.path[1:]
        outputs = {output.name: output.ref for output in task.plan.outputs}
        found = outputs.get(wanted) if outputs else Ref(f"{task.plan.prefix}.{wanted}")
        if type(found) is FirstOf:
            found = next((one for one in found.refs if one.source == INPUT or _succeeded(run, one)), found.refs[0])
        if type(found) is not Ref or (found.source != INPUT and found.source not in run.names):
            return ref
        return self.follow(run, Ref(found.source, (*found.path, *rest), ref.each, ref.rest))

    def element(self, run: Run, ref: Ref, index: int) -> Input:
        """The value of a `[]` reference for element `index`. Raises: RefMissing."""
        key = str(ref)
        followed = self.follow(run, ref)
        if followed is not ref:
            return msgspec.structs.replace(self.element(run, followed, index), key=key)
        if ref.source == INPUT:
            return Input(key, self._at(run.inputs.get(ref.path[0], b"null"), ref.item(index)[1:], key))
        task, path = run.tasks[run.names[ref.source]], ref.item(index)
        if task.spread is not None:
            return self._element_of(run, task, int(path[0]), path[1:], key)
        return self._point(self._value(run, task, key), path, key)

    def _gathered(self, run: Run, task: Task, path: tuple[str, ...], key: str) -> Input:
        """What each element of a map has at the rest of this path."""
        spread, parts = task.spread, self.parts(run, task)
        assert spread is not None
        found = Input(key, b"null", path, parts, spread.chunk > 1)
        if any(type(part) is ArtifactRef for part in parts) or sum(map(len, parts)) > _GATHERED:  # type: ignore[arg-type]
            return found
        rows = []
        for index, row in enumerate(self.rows(found)):
            rows.append(one := descend(row, path[1:]))
            if one is MISSING:
                raise RefMissing(f"{key} points at nothing: no /{'/'.join(path[1:])} in element {index}")
        return Input(key, _JSON.encode(rows))

    def rows(self, found: Input) -> list[Any]:
        """The list that a manifest of inline parts stands for, before what its pointer names in it."""
        rows = [msgspec.json.decode(part) for part in found.parts or () if isinstance(part, bytes)]
        return [one for row in rows for one in row] if found.flat else rows

    def _element_of(self, run: Run, task: Task, index: int, rest: tuple[str, ...], key: str) -> Input:
        spread = task.spread
        assert spread is not None
        child = run.tasks[spread.first + index // spread.chunk]
        if spread.chunk > 1 and child.succeeded:
            rest = (str(index % spread.chunk), *rest)
        return self._point(self._value(run, child, key), rest, key)

    def _value(self, run: Run, task: Task, key: str) -> Value:
        if task.succeeded:
            return task.value if task.value is not None else b"null"
        if type(task.state) is Settled and task.parent >= 0:
            return collected(task)
        raise RefMissing(f"{key}: {run.name_of(task)} has no result")

    def parts(self, run: Run, task: Task) -> tuple[Value, ...]:
        """A map's result as its manifest: one value a child, in order; of a chunk that is the list of its elements."""
        return tuple(self._part(run, task, run.tasks[ix]) for ix in run.children(task))

    def _part(self, run: Run, task: Task, child: Task) -> Value:
        value, spread = self._value(run, child, task.spec.id), task.spread
        if spread is None or spread.chunk == 1 or child.succeeded:
            return value
        assert isinstance(value, bytes)  # what stands for a failure stands for each of the chunk's elements
        elements = min(spread.chunk, spread.items - child.k * spread.chunk)
        return b"[" + b",".join([value] * elements) + b"]"

    def _point(self, value: Value, path: tuple[str, ...], key: str) -> Input:
        if type(value) is ArtifactRef:
            return Input(key, value, path)
        assert isinstance(value, bytes)
        return Input(key, self._at(value, path, key))

    def _at(self, data: bytes, path: tuple[str, ...], key: str) -> bytes:
        if not path:
            return data
        found = descend(self.decoded(data), path)
        if found is MISSING:
            raise RefMissing(f"{key} points at nothing: no /{'/'.join(path)} in the result")
        return _JSON.encode(found)

    def decoded(self, data: bytes) -> Any:
        """The JSON value of inline bytes, remembered for a while."""
        cache = self._decoded
        if data in cache:
            cache.move_to_end(data)
            return cache[data]
        value = msgspec.json.decode(data)
        cache[data] = value
        if len(cache) > _CACHED:
            cache.popitem(last=False)
        return value

    def _pin(self, task: Task, pinned: Sequence[bytes], journal: str, digest: str) -> bytes:
        spec = task.spec
        alike = task.skill, digest, spec.effect, spec.approve, journal, task.at
        if alike != self._head[0]:
            skill, digest, effect, approve, journal, at = alike
            self._head = alike, f"\0{skill}\0{digest}\0{effect}\0{approve}\0{journal}\0{at}".encode()
        found = spec.args + self._head[1]
        if spec.needs is not None or spec.timeout_s is not None:
            found += _SPEC.encode((spec.needs, spec.timeout_s))
        return hashlib.sha256(b"".join((found, *pinned))).digest()


def _pinned(one: Input) -> bytes:
    """What stands in a pin for an input."""
    found = [f"\0{one.key}\0{'/'.join(one.pointer)}\0".encode()]
    for value in one.parts if one.parts is not None else (one.value,):
        found.append(value.digest.encode() if type(value) is ArtifactRef else hashlib.sha256(value).digest())  # type: ignore
    return b"".join(found)


def _succeeded(run: Run, ref: Ref) -> bool:
    return run.tasks[run.names[ref.source]].succeeded


def collected(task: Task) -> bytes:
    """What stands in the place of a failed child of a map with `on_error: collect`."""
    state = task.state
    assert type(state) is Settled
    return msgspec.json.encode({"error": {"code": state.code or state.state, "message": state.message}})
