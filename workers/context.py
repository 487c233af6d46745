"""What a skill may ask of the fabric while it runs: `ctx: SkillContext`.

The object lives in the process that runs the skill and speaks over its host's pipe; the daemon numbers nothing itself:
the k-th question of an attempt is the k-th for ever, so a repeated attempt gets the answers the first one got.
It knows no link, no daemon and no registry.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import msgspec

from protocol.errors import from_wire
from protocol.frame import Assign
from protocol.ids import AttemptId

from .file import File
from .model import Model
from .root import Roots


class Wire(Protocol):
    """The way from a context to its daemon."""

    def ask(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        """Blocks for the answer (JSON). Raises: the error that was answered."""

    def ask_async(self, attempt: AttemptId, k: int, what: str, body: bytes) -> Awaitable[bytes]:
        """The same, awaited."""

    def note(self, attempt: AttemptId, body: bytes) -> None:
        """Lossy progress."""

    def log(self, attempt: AttemptId, text: str) -> None:
        """A line of the attempt's log."""

    def fetch(self, attempt: AttemptId, digest: str) -> str:
        """Blocks until the artifact is on this machine; where. Raises: the refusal."""

    def fetch_async(self, attempt: AttemptId, digest: str) -> Awaitable[str]:
        """The same, awaited."""


class Handle(msgspec.Struct, frozen=True):
    """A spawned child: `id` is its name within the run. Usable as an argument of another spawn: a reference."""

    id: str


class Situation(msgspec.Struct, frozen=True):
    """What is true of one attempt on this machine. `stops_at` is a monotonic time."""

    assign: Assign
    device: str
    folder: str
    run_folder: str
    roots: Roots
    stops_at: float
    uri: Callable[[str], str]
    cancelled: Callable[[], bool] = lambda: False
    secrets: tuple[str, ...] = ()
    pay: Callable[[int, int, float], None] = lambda tokens_in, tokens_out, price: None
    lent: tuple[int, float] = (0, 0.0)
    model: Model | None = None
    """The worker's language model: only where its own skills alone run."""


class SkillContext:
    """Handed to a skill that has a parameter annotated with it. Use `AsyncSkillContext` in an `async def` skill.

    `attempt` is the name people see (`r7/scan#2`); `idempotency_key` stays the same for every attempt of a task and
    makes an outside effect happen once where the outside honours it.
    """

    def __init__(self, wire: Wire, situation: Situation) -> None:
        self._wire = wire
        self._situation = situation
        self._calls = 0
        assign = situation.assign
        self._id = assign.attempt
        self.attempt = assign.name
        self.number = assign.attempt.number
        self.idempotency_key = assign.idempotency_key
        self.approved = assign.approved
        self.device = situation.device
        self.worker = situation.roots.worker
        self.roots = situation.roots
        self.run_folder = Path(situation.run_folder)

    @cached_property
    def folder(self) -> Path:
        """A folder of this attempt's own; what is written here and returned as a File stays until the run is gone."""
        made = Path(self._situation.folder)
        made.mkdir(parents=True, exist_ok=True, mode=0o700)
        return made

    @property
    def cancelled(self) -> bool:
        """True once the attempt has been asked to stop; SIGKILL follows after the grace."""
        return self._situation.cancelled()

    @property
    def deadline_s(self) -> float:
        """Seconds left until the attempt is stopped for taking too long."""
        return max(0.0, self._situation.stops_at - time.monotonic())

    @property
    def lent(self) -> tuple[int, float]:
        """(tokens, price) that this attempt may use of a language model; 0 is no cap."""
        return self._situation.lent

    @property
    def elements(self) -> int:
        """How many elements of a map this attempt works on, one call of the skill each; 0 outside a map."""
        return len(self._situation.assign.items)

    @property
    def model(self) -> Model | None:
        """The worker's language model: for built-in skills alone, which run apart from everybody's code."""
        return self._situation.model

    def holds_secret(self, text: str) -> bool:
        """Whether a secret that this attempt was handed stands in the text: then it must not be shown to others."""
        return any(secret in text for secret in self._situation.secrets)

    def spent(self, *, tokens_in: int = 0, tokens_out: int = 0, price: float = 0.0) -> None:
        """Say what was paid for: it counts against the run's budget with the outcome, whatever that is."""
        self._situation.pay(tokens_in, tokens_out, price)

    def file(self, name: str) -> File:
        """A new file in the attempt's folder, to be written by the skill and returned."""
        return File(str(self.folder / Path(name).name))

    def progress(self, value: object) -> None:
        """Tell watchers how far it is: a fraction, or any small JSON value. Lossy."""
        self._wire.note(self._id, self._json(value))

    def log(self, text: str) -> None:
        self._wire.log(self._id, text)

    def emit(self, kind: str, **body: object) -> None:
        """An event of the skill's own kind, kept in the journal."""
        self._ask("emit", {"kind": kind, "body": body})

    def spawn(
        self,
        skill: object,
        key: str | None = None,
        *,
        on: Sequence[str] = (),
        needs: Mapping[str, Any] | None = None,
        **args: object,
    ) -> Handle:
        """Start a child task. Its place in the order of spawns (or `key`) is its identity across attempts.

        Raises: SpawnDiverged (as AsterismError) when another attempt spawned something else at this place.
        """
        answer = self._ask("spawn", _spawn(skill, key, on, needs, args))
        return Handle(str(answer["id"]))

    def join(self, *handles: Handle) -> list[Any]:
        """Wait for children and return their values in order. The slot is given to others meanwhile."""
        values = self._ask("join", {"ids": [handle.id for handle in handles]})
        wire, attempt = self._wire, self._id
        return [value if (digest := _large(value)) is None else _read(wire.fetch(attempt, digest)) for value in values]

    def propose(self, patch: Mapping[str, Any] | str) -> Any:
        """Change the run's graph: a plan document, or a goal (text) for the planner. Makes a version."""
        return self._ask("propose", _proposal(patch))

    def ask(self, question: str, choices: Sequence[str] | None = None) -> Any:
        """Ask a person and wait for the answer."""
        return self._ask("ask", {"question": question, "choices": choices})["answer"]

    def begin_effect(self) -> None:
        """Declare that the outside effect happens from here: a loss after this is never silently run again.

        Raises: Unavailable when this worker's lease is over: then the skill must not act.
        """
        self._ask("begin_effect", None)

    def checkpoint(self, value: object) -> None:
        """Keep a value in the journal for later attempts of this task, wherever they run: see `restored`."""
        self._ask("checkpoint", value)

    def restored(self) -> Any:
        """The last checkpoint of any attempt of this task with this skill; None at the first start."""
        return self._ask("restore", None)

    def _ask(self, what: str, body: object) -> Any:
        self._calls += 1
        return msgspec.json.decode(self._wire.ask(self._id, self._calls, what, self._json(body)))

    def _json(self, value: object) -> bytes:
        """JSON in which a handle is a reference and a file goes by its URI."""

        def plain(part: Any) -> Any:
            if isinstance(part, Handle):
                return {"ref": part.id}
            if isinstance(part, File):
                return part.uri or self._situation.uri(str(part))
            if isinstance(part, Path):
                return self._situation.uri(str(part))
            if isinstance(part, Mapping):
                return {str(key): plain(inner) for key, inner in part.items()}
            if isinstance(part, list | tuple):
                return [plain(inner) for inner in part]
            return part

        return msgspec.json.encode(plain(value), enc_hook=plain)


class AsyncSkillContext(SkillContext):
    """The same names for `async def` skills: what waits for an answer is awaited."""

    async def emit(self, kind: str, **body: object) -> None:  # type: ignore[override]
        await self._ask_async("emit", {"kind": kind, "body": body})

    async def spawn(  # type: ignore[override]
        self,
        skill: object,
        key: str | None = None,
        *,
        on: Sequence[str] = (),
        needs: Mapping[str, Any] | None = None,
        **args: object,
    ) -> Handle:
        answer = await self._ask_async("spawn", _spawn(skill, key, on, needs, args))
        return Handle(str(answer["id"]))

    async def join(self, *handles: Handle) -> list[Any]:  # type: ignore[override]
        values = await self._ask_async("join", {"ids": [handle.id for handle in handles]})
        wire, attempt = self._wire, self._id
        return [
            value if (digest := _large(value)) is None else _read(await wire.fetch_async(attempt, digest))
            for value in values
        ]

    async def propose(self, patch: Mapping[str, Any] | str) -> Any:
        return await self._ask_async("propose", _proposal(patch))

    async def ask(self, question: str, choices: Sequence[str] | None = None) -> Any:
        return (await self._ask_async("ask", {"question": question, "choices": choices}))["answer"]

    async def begin_effect(self) -> None:  # type: ignore[override]
        await self._ask_async("begin_effect", None)

    async def checkpoint(self, value: object) -> None:  # type: ignore[override]
        await self._ask_async("checkpoint", value)

    async def restored(self) -> Any:
        return await self._ask_async("restore", None)

    async def _ask_async(self, what: str, body: object) -> Any:
        self._calls += 1
        return msgspec.json.decode(await self._wire.ask_async(self._id, self._calls, what, self._json(body)))


def answered(value: bytes, error: bytes) -> bytes:
    """The answer of a call. Raises: the error it carries."""
    if error:
        raise from_wire(msgspec.json.decode(error))
    return value


def _large(value: Any) -> str | None:
    """The digest of the artifact that stands for a child's large value; None for a value that is there itself."""
    return str(value["$artifact"][0]) if isinstance(value, dict) and tuple(value) == ("$artifact",) else None


def _read(path: str) -> Any:
    return msgspec.json.decode(Path(path).read_bytes())


def _spawn(
    skill: object, key: str | None, on: Sequence[str], needs: Mapping[str, Any] | None, args: Mapping[str, object]
) -> dict[str, object]:
    name = skill if isinstance(skill, str) else getattr(skill, "name", None)
    body: dict[str, object] = {"skill": name, "args": args}
    if key is not None:
        body["key"] = key
    if on:
        body["on"] = list(on)
    if needs:
        body["needs"] = dict(needs)
    return body


def _proposal(patch: Mapping[str, Any] | str) -> dict[str, object]:
    return {"goal": patch} if isinstance(patch, str) else {"patch": patch}
