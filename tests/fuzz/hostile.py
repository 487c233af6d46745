"""Both machines of the link under frames that decode but make no sense: nothing raises, nothing is broken by it.

The orchestrator has runs in every state of a task and one honest worker; a hostile one, or the honest one gone mad,
sends the frame. The worker has attempts queued, running, waiting and owed; the orchestrator has gone mad.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any, Final

import msgspec

from orchestrator.core import stimulus as s
from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from protocol.artifact import ArtifactRef, digest_of
from protocol.builtin import BUILTINS
from protocol.codec import decode_frame, encode_frame
from protocol.errors import WireError
from protocol.frame import (
    Assign,
    Call,
    Frame,
    Held,
    Hello,
    Item,
    Progress,
    Report,
    Welcome,
    WorkSpec,
)
from protocol.ids import AttemptId, Fence
from protocol.link import SAYS
from protocol.outcome import Failure, Success
from protocol.patch import Patch
from protocol.plan import parse_plan
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources
from protocol.skill import SkillSpec
from protocol.task import RunSettings, TaskSpec
from workers import stimulus as on
from workers.machine import Machine as WorkerMachine
from workers.setting import MachineSettings

JOURNAL: Final = "5eed" * 8
PIN: Final = b"p" * 32
_ANY: Final[dict[str, Any]] = {"type": "object", "properties": {"value": {}}, "additionalProperties": False}
SKILLS: Final = (
    SkillSpec("x.pure", params=_ANY, effect="pure"),
    SkillSpec("x.once", params=_ANY, effect="once", retry_max=0),
    SkillSpec("x.parent", params=_ANY, effect="pure", spawns=("x.pure",)),
)
PROFILE: Final = WorkerProfile(
    slots=4, capacity=Resources(cpu=4.0), devices=(DeviceProfile("cpu"),), skills=(*BUILTINS, *SKILLS)
)
PLAN: Final = {
    "tasks": [
        {"id": "l", "skill": "flow.list", "args": {"items": [1, 2]}},
        {"id": "m", "skill": "x.pure", "args": {"value": {"ref": "l/items[]"}}},
        {"id": "a", "skill": "x.pure", "args": {"value": 1}},
        {"id": "p", "skill": "x.parent"},
        {"id": "o", "skill": "x.once"},
        {"id": "b", "skill": "x.pure", "args": {"value": {"ref": "a/value"}}, "alt": ["x.parent"]},
    ]
}


class _World:
    """A run half done, journaled: the worker w1 has it all, w2 nothing."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        machine = Machine(State())
        self.machine = machine
        self.now = 10.0
        self._do(s.Started(1, JOURNAL))
        for name in ("w1", "w2"):
            self._do(s.Enrolled(0, name, "0" * 64))
        self._do(s.WorkerJoined(1, 1, Hello("w1", "b1", PROFILE)))
        plan = parse_plan(PLAN)
        self._do(s.Submitted(0, "", "", "ann", plan.settings, patch=Patch("person:ann", plan.tasks)))
        self._do(s.Flush())
        self._sent(self._report("l", b'{"items":[1,2]}'))
        self._do(s.Flush())
        spawn = b'{"skill":"x.pure","args":{"value":3}}'
        self._sent(self._call("p", 1, "spawn", spawn), self._call("p", 2, "join", b'{"ids":["p.0"]}'))
        self._sent(self._call("o", 1, "begin_effect", b"null"), self._report("m.0", b'{"value":1}'))
        self._do(s.Flush())
        self.snapshot = machine.state.snapshot()

    def _do(self, stimulus: Any) -> None:
        decision = self.machine.handle(stimulus, self.now)
        if decision.events:
            self.records.append(encode_events(decision.events))

    def _sent(self, *items: Any) -> None:
        self._do(s.WorkerSent(1, 1, items))

    def _attempt(self, name: str) -> tuple[AttemptId, Fence, bytes]:
        run = self.machine.state.runs[1]
        task = run.find(name)
        assert task is not None
        live = task.attempts[-1]
        return AttemptId(1, task.ix, live.number), live.fence, live.pin

    def _report(self, name: str, value: bytes) -> Report:
        return Report(*self._attempt(name), Success(value))

    def _call(self, name: str, k: int, what: Any, body: bytes) -> Call:
        attempt, fence, _ = self._attempt(name)
        return Call(attempt, fence, k, what, body)


WORLD: Final = _World()


def hostile_frames() -> list[Frame]:
    """Seeds: what the worker of the half-done run could really say, item by item."""
    run = WORLD.machine.state.runs[1]
    found: list[Item] = []
    for task in run.tasks:
        for attempt in task.attempts:
            ident = AttemptId(1, task.ix, attempt.number)
            found.append(Report(ident, attempt.fence, attempt.pin, Success(b'{"value":7}')))
            found.append(Report(ident, attempt.fence, attempt.pin, Failure("Bad", "no", "transient")))
            for what, body in (
                ("spawn", b'{"skill":"x.pure","args":{"value":4},"key":"k"}'), ("join", b'{"ids":["p.0"]}'),
                ("propose", b'{"patch":{"tasks":[{"id":"z","skill":"x.pure","after":["a"]}]}}'),
                ("ask", b'{"question":"?","choices":[1]}'), ("begin_effect", b"null"), ("checkpoint", b"{}"),
                ("emit", b'{"kind":"seen","body":1}'),
            ):  # fmt: skip
                found.append(Call(ident, attempt.fence, 9, what, body))
    return [Frame(2, 0, (item,)) for item in found]


def orchestrator_hears(data: bytes) -> bool:
    """The frame from w1, after a restart of the orchestrator; then time passes. Raises: WireError."""
    frame = decode_frame(data)
    machine = Machine(State.restore(WORLD.snapshot))
    records: list[bytes] = []

    def do(stimulus: Any, now: float) -> None:
        decision = machine.handle(stimulus, now)
        if decision.events:
            records.append(encode_events(decision.events))

    do(s.Started(2, JOURNAL), 20.0)
    run = machine.state.runs[1]
    mine = tuple((AttemptId(1, task.ix, one.number), one.fence, one.pin) for task in run.tasks for one in task.live())
    held = tuple(Held(*one) for one in mine)
    do(s.WorkerJoined(1, 1, Hello("w1", "b1", PROFILE, JOURNAL, 1, held)), 20.1)
    for conn, item in enumerate(frame.items, 2):
        if isinstance(item, Hello):
            do(s.WorkerJoined(conn, 1, msgspec.structs.replace(item, worker="w1")), 20.2)
            machine.check()
    spoken = tuple(one for one in frame.items if type(one) in SAYS["worker"] and not isinstance(one, Hello | Progress))
    conn = machine.fleet.sessions[1].conn
    do(s.WorkerSent(conn, 1, spoken, tuple(ident for ident, _, _ in mine)), 20.3)
    machine.check()
    for named in list(machine.state.digests):  # whoever uses what the worker has announced
        skill = machine.state.skill(named)
        if skill not in BUILTINS:
            spec = TaskSpec("t", named, b'{"value":[{"ref":"input/x"},1],"other":{"a":1.5}}')
            patch = Patch("person:ann", (spec,))
            do(s.Submitted(7, "", "", "ann", RunSettings(), {"x": b"1"}, patch=patch), 20.35)
    for stimulus, now in (
        (s.Flush(), 20.3), (s.WorkerGone(machine.fleet.sessions[1].conn, 1), 20.4), (s.Tick(), 60.0), (s.Flush(), 60.0)
    ):  # fmt: skip
        do(stimulus, now)
        machine.check()
    again = State.restore(WORLD.snapshot)
    for record in records:
        for event in decode_events(record):
            again.apply(event)
    assert again.snapshot() == machine.state.snapshot(), "G5: the replay differs"
    return True


def _assign(number: int, skill: str, effect: Any) -> Assign:
    digest = next(one.digest() for one in PROFILE.skills if one.name == skill)
    spec = msgspec.json.encode(WorkSpec(skill, digest, msgspec.Raw(b"{}"), "cpu", effect, 60.0, 1.0))
    return Assign(AttemptId(1, number, 1), Fence(1, number + 1), PIN, spec, f"r1/t{number}#1")


def worker_hears(data: bytes) -> bool:
    """The frame from the orchestrator; then everything the worker asked for happens. Raises: WireError."""
    frame = decode_frame(data)
    machine = WorkerMachine(MachineSettings("w1", "b1", PROFILE))
    first = tuple(_assign(n, skill, effect) for n, (skill, effect) in enumerate(_WORK))
    for stimulus in (
        on.Connected(), on.Received((Welcome(JOURNAL, 1, 1),)), on.Received(first),
        on.Ended((on.Result(AttemptId(1, 0, 1), Success(b"1")),)),
        on.Ended((on.Result(AttemptId(1, 1, 1), Success(ArtifactRef(digest_of(b""), "application/json", 0))),)),
        on.Asked(AttemptId(1, 2, 1), 1, "join", b'{"ids":[]}'),
        on.Asked(AttemptId(1, 3, 1), 1, "begin_effect", b"null"),
    ):  # fmt: skip
        machine.handle(stimulus, 5.0)
    spoken = tuple(one for one in frame.items if type(one) in SAYS["orchestrator"])
    machine.handle(on.Received(spoken), 6.0)
    for now in (7.0, 100.0):
        machine.handle(on.Tick(), now)
    machine.handle(on.Ended(tuple(on.Result(ident, Success(b"2")) for ident in list(machine.attempts))), 101.0)
    machine.handle(on.Broken(), 102.0)
    machine.handle(on.Connected(), 103.0)
    assert machine.next_wake() is None or machine.next_wake() == machine.next_wake(), "its next wake is no time"
    return True


_WORK: Final = (
    ("x.pure", "pure"), ("x.pure", "pure"), ("x.parent", "pure"), ("x.once", "once"), ("x.pure", "pure"),
    ("x.once", "once"),
)  # fmt: skip


# Frames that decode: one field of an item, however deep, is another value of its kind

_JSON: Final[tuple[Any, ...]] = (None, 1.0, -1, "x", "file", True, [], {}, [1], {"type": "file"}, [{"type": 5}], 2**60)
_KEYWORDS: Final = ("type", "properties", "required", "items", "enum", "anyOf", "additionalProperties", "maximum")
_INTS: Final = (0, 1, 2, 3, 9, 2**31, 2**32 - 1)
_FLOATS: Final = (0.0, -1.0, 1e-9, 5.0, 5e-324, 1e15, 1e300, -1e300)
_TEXTS: Final = ("", "w1", "p.0", "x.pure", "../..", "file://w1/a", "A" * 5000, "\0", "r1/a", "cpu", "é‮")
_BODIES: Final = (
    b"null", b"1", b'"a"', b"[]", b"{}", b'{"ids":["p.0","p.1",5]}', b'{"ids":[]}', b'{"skill":"x.once","key":"../x"}',
    b'{"skill":"x.pure","args":[1]}', b'{"skill":"x.pure","args":{"value":{"ref":"a"}},"on":"gpu"}', b'{"skill":5}',
    b'{"skill":"x.pure","on":[1,"#9","","a=b"],"key":7}', b'{"patch":{"tasks":[{"id":"z","skill":"x.once"}]}}',
    b'{"patch":{"edits":[{"op":"remove","id":"b"}]}}', b'{"patch":{"edits":[{"op":"finish"}]}}', b'{"patch":5}',
    b'{"patch":{"links":[["b","a"],["a","b"]]}}', b'{"patch":{"base":99,"tasks":[{"id":"a","skill":"x.pure"}]}}',
    b'{"patch":{"outputs":[{"name":"o","ref":"nobody"}]}}', b'{"kind":{"a":1}}', b'{"question":["a"],"choices":5}',
    b'{"patch":{"edits":[{"op":"cancel","id":"p"},{"op":"cancel","id":"m"},{"op":"cancel","id":"o"}]}}',
)  # fmt: skip


@cache
def _by_kind(seeds: tuple[bytes, ...]) -> dict[type, list[Item]]:
    kinds: dict[type, list[Item]] = {}
    for data in seeds:
        for item in decode_frame(data).items:
            kinds.setdefault(type(item), []).append(item)
    return kinds


def mutate_frame(luck: Random, seeds: Sequence[bytes]) -> bytes:
    """One to three fields of the items of a seed, or of two; every kind of item comes as often as any other."""
    kinds = _by_kind(tuple(seeds))
    items = [luck.choice(kinds[luck.choice(list(kinds))]) for _ in range(luck.choice((1, 1, 2)))]
    for _ in range(luck.choice((1, 1, 2, 3))):
        at = luck.randrange(len(items))
        items[at] = _other(luck, items[at])
    try:
        return encode_frame(Frame(2, 0, tuple(items)))
    except WireError:
        return luck.choice(seeds)


def _other(luck: Random, value: Any) -> Any:
    if isinstance(value, msgspec.Struct) and value.__struct_fields__:
        name = luck.choice(value.__struct_fields__)
        return msgspec.structs.replace(value, **{name: _other(luck, getattr(value, name))})
    if isinstance(value, tuple | list) and value:
        at = luck.randrange(len(value))
        more = (*value[:at], _other(luck, value[at]), *value[at + luck.choice((0, 1, 1)) :])
        return type(value)(more)
    if isinstance(value, dict):
        if value and luck.random() < 0.7:
            name = luck.choice(list(value))
            return {**value, name: _other(luck, value[name]) if luck.random() < 0.7 else luck.choice(_JSON)}
        return {**value, luck.choice((*_TEXTS, *_KEYWORDS)): luck.choice([*value.values(), *_JSON])}
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return luck.choice((*_INTS, value + 1, max(0, value - 1)))
    if isinstance(value, float):
        return luck.choice((*_FLOATS, value + 1.0))
    if isinstance(value, str):
        return luck.choice((*_TEXTS, *_WORDS)) if luck.random() < 0.9 else value + "x"
    if isinstance(value, bytes):
        return luck.choice((*_BODIES, *_BODIES, value[:-1], value + b"x"))
    return value


_WORDS: Final = (
    "spawn", "propose", "join", "ask", "begin_effect", "checkpoint", "emit", "keep", "hold", "kill", "resend", "drop",
    "infra", "transient", "permanent", "policy",
)  # fmt: skip
