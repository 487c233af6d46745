"""The @skill decorator: a Python function becomes a named callable with schemas, an effect and needs per device.

    @skill(effect="pure", needs=Resources(cpu=1), timeout="30s")
    def word_count(file: File) -> dict[str, int]: ...

    @word_count.on("gpu", needs=Resources(gpu=1, vram="6GiB"))
    def _(file: File) -> dict[str, int]: ...

The schemas come from the signature, the docs from the docstring; the decorated object stays callable as written.
Must not know: links, daemons, hosts; how its code is carried anywhere (it never is).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar, cast, overload

import msgspec

from protocol.errors import UsageError
from protocol.resource import NOTHING, Resources, size_bytes, span_s
from protocol.schema import has_files
from protocol.skill import LEVELS, LONGEST_S, SkillSpec, Variant
from protocol.task import EFFECT_ORDER, Effect

from .file import File as File
from .signature import Signature

P = ParamSpec("P")
R = TypeVar("R")

DEVICES: Final = ("cpu", "gpu", "edge")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
MOST_BATCHED: Final = 4096
_ONE_CORE: Final = Resources(cpu=1)


class Skill(Generic[P, R]):
    """A skill as written. Calling it calls the function it was made from, nothing more."""

    __name__: str
    __qualname__: str
    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], spec: SkillSpec, signature: Signature) -> None:
        update_wrapper(self, function)
        self.function = function
        self.spec = spec
        self.signature = signature
        self.variants: dict[str, Callable[..., Any]] = {spec.variants[0].device: function}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<skill {self.spec.name}>"

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def on(
        self, device: Literal["cpu", "gpu", "edge"], needs: Resources | Mapping[str, Any] | None = None
    ) -> Callable[[Callable[P, R]], Skill[P, R]]:
        """Declares an implementation for another kind of device: same arguments, same result.

        Raises: UsageError when the device is unknown or taken, or the arguments differ.
        """
        if device not in DEVICES:
            raise UsageError(f"{self.name}: there is no device kind {device!r}", hint=f"one of {', '.join(DEVICES)}")
        if device in self.variants:
            raise UsageError(f"{self.name} has a variant for {device} already", hint="remove one of the two")
        default = Resources(cpu=1, gpu=1) if device == "gpu" else _ONE_CORE
        variant = Variant(device, resources(needs) if needs is not None else default)

        def add(function: Callable[P, R]) -> Skill[P, R]:
            theirs = Signature(function, batched=self.spec.batch > 0)
            if set(theirs.params["properties"]) != set(self.signature.params["properties"]):
                raise UsageError(
                    f"the {device} variant of {self.name} takes other arguments",
                    hint=f"take {', '.join(self.signature.params['properties']) or 'none'}, as the first one does",
                )
            if inspect.iscoroutinefunction(function) != self.is_async or theirs.context != self.signature.context:
                raise UsageError(
                    f"the {device} variant of {self.name} is called differently",
                    hint="make both async or neither, and let both take the same ctx or none",
                )
            self.variants[device] = function
            self.spec = msgspec.structs.replace(self.spec, variants=(*self.spec.variants, variant))
            return self

        return add

    def home(self) -> Path:
        """The file that defines it. Raises: UsageError where there is none, or it can't be found by name there."""
        module = sys.modules.get(self.function.__module__)
        file = getattr(module, "__file__", None)
        if file is None or not Path(file).is_file():
            raise UsageError(
                f"skill {self.name} is not in a file, so no worker can load it",
                hint="put it into a .py file and import it from there (code never travels, only its file's name does)",
            )
        if "<locals>" in self.function.__qualname__:
            raise UsageError(
                f"skill {self.name} is defined inside {self.function.__qualname__.split('.')[0]}",
                hint="move it to the top level of its file, where a worker finds it by name",
            )
        return Path(file)


def _check_batch(name: str, size: int, signature: Signature, effect: Effect, more: object) -> None:
    """Raises: UsageError for what can't be called for several tasks at once."""
    if not 1 <= size <= MOST_BATCHED:
        raise UsageError(f"{name}: a batch of {size}", hint=f"from 1 to {MOST_BATCHED:,} elements")
    if effect == "once":
        why = "a call that failed is made again for its halves, and its effect is once"
        raise UsageError(f"{name} can't be batched: {why}", hint='declare effect="pure" or "idempotent"')
    if signature.context or more or not signature.params["properties"] or has_files(signature.result):
        raise UsageError(
            f"{name} can't be batched",
            hint="let it take arguments and no ctx, return no File, and declare no spawns, spends, checkpoints, inline",
        )


def stated(name: str, takes: object) -> tuple[str, float]:
    """`takes` as written: (the argument that says how long a run takes, the seconds themselves). Raises: UsageError."""
    if isinstance(takes, str):
        return takes, 0.0
    if isinstance(takes, bool) or not isinstance(takes, int | float) or not 0 < takes <= LONGEST_S:
        raise UsageError(f"{name}: takes is {takes!r:.40}", hint="seconds, such as 2.5, or the argument that says them")
    return "", float(takes)


def resources(needs: Resources | Mapping[str, Any]) -> Resources:
    """Needs as written: a Resources, or a table; sizes may be text such as "6GiB"."""
    if isinstance(needs, Resources):
        table = {name: getattr(needs, name) for name in Resources.__struct_fields__}
    else:
        table = dict(needs)
    for name in ("memory", "vram", "disk"):
        if name in table:
            table[name] = size_bytes(table[name])
    counters = dict(table.get("counters", {}))
    for name in list(table):
        if name not in Resources.__struct_fields__:
            counters[name] = table.pop(name)
    if counters:
        table["counters"] = counters
    try:
        return msgspec.convert(table, Resources)
    except msgspec.ValidationError as error:
        raise UsageError(f"needs: {error}", hint="write amounts, such as cpu=1, gpu=1, vram='6GiB'") from error


@overload
def skill(function: Callable[P, R], /) -> Skill[P, R]: ...


@overload
def skill(
    function: None = None,
    /,
    *,
    name: str | None = None,
    effect: Effect = "once",
    needs: Resources | Mapping[str, Any] | None = None,
    timeout: float | str = "1h",
    retry: int | None = None,
    local: bool = False,
    inline: bool = False,
    asks: bool = False,
    hedge: bool = False,
    sinks: Iterable[str] = (),
    examples: Iterable[str] = (),
    tags: Iterable[str] = (),
    tainted: bool = False,
    cached: bool = True,
    spawns: bool | Iterable[str] = False,
    begin_effect: Literal["runner", "own"] = "runner",
    device: str = "cpu",
    sandbox: Literal["", "process", "cgroup", "bubblewrap"] = "",
    network: bool = False,
    spends: bool = False,
    checkpoints: bool = False,
    batch: int = 0,
    batch_wait: float | str = "10ms",
    takes: str | float = "",
    warm: float | str = 0.0,
    spec: SkillSpec | None = None,
) -> Callable[[Callable[P, R]], Skill[P, R]]: ...


def skill(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    effect: Effect = "once",
    needs: Resources | Mapping[str, Any] | None = None,
    timeout: float | str = "1h",
    retry: int | None = None,
    local: bool = False,
    inline: bool = False,
    asks: bool = False,
    hedge: bool = False,
    sinks: Iterable[str] = (),
    examples: Iterable[str] = (),
    tags: Iterable[str] = (),
    tainted: bool = False,
    cached: bool = True,
    spawns: bool | Iterable[str] = False,
    begin_effect: Literal["runner", "own"] = "runner",
    device: str = "cpu",
    sandbox: Literal["", "process", "cgroup", "bubblewrap"] = "",
    network: bool = False,
    spends: bool = False,
    checkpoints: bool = False,
    batch: int = 0,
    batch_wait: float | str = "10ms",
    takes: str | float = "",
    warm: float | str = 0.0,
    spec: SkillSpec | None = None,
) -> Skill[P, R] | Callable[[Callable[P, R]], Skill[P, R]]:
    """Makes a skill of a function.

    Args:
        function: The function, when used without parentheses.
        name: What plans call it; the function's own name otherwise.
        effect: pure (a value, nothing else), idempotent (may run twice), once (the default: never silently again).
        needs: What it reserves while it runs.
        timeout: Longest run of one attempt, in seconds or as `30s`, `1h30m`.
        retry: Further attempts after a failed one: 2, or 0 where the effect is once.
        local: Acts on the files of one machine: runs `here` unless a plan says otherwise.
        inline: Runs on the worker's own loop; for built-ins only.
        asks: Needs an approval unless the worker allows it.
        hedge: A slow attempt may get a second one beside it, although it is not pure.
        sinks: Arguments that leave the system (a url, a recipient, a path).
        examples: Sentences with slots, `count {pattern} in {file}`, for the catalog planner.
        tags: More words to find it by.
        tainted: Its result may be anybody's text.
        cached: Whether a fork may reuse an equal result.
        spawns: It uses ctx.spawn: for skills of the plan and its own, and for those named here.
        begin_effect: `own` when the code itself calls ctx.begin_effect() just before it acts.
        device: What the function itself drives; further ones by `.on(...)`.
        sandbox: The lowest level that may hold it: bubblewrap for what handles untrusted input. No worker that reaches
            less runs it.
        network: It needs the network also at level bubblewrap, where there is none otherwise.
        spends: It uses tokens or money, and reports them: nothing of it starts once the budget of a run is spent.
        checkpoints: It calls ctx.checkpoint as it goes on and begins from ctx.restored(): an attempt may be stopped
            behind a checkpoint, to give its place to others or to go on where it is faster.
        batch: It takes and returns lists, one entry per element, and gets up to so many tasks in one call; an entry of
            the result may be the exception that its task fails with. It takes no ctx and no slot: its worker makes one
            call at a time. `needs` beside cpu are those of one element, so that a full call has all of a card.
        batch_wait: How long a call waits at most for more elements.
        takes: How many seconds a run takes on a core of speed 1, as you reckon: what is expected until it has run. Or
            the argument that says so: forecasts take that at its word.
        warm: How long what it keeps in memory or in a cache (a loaded model, a session) serves the next task of the
            same run that comes to the same worker: such tasks are then sent there rather than elsewhere.
        spec: The whole of it as data, for built-ins; then nothing else is given.

    Raises: UsageError when the signature can't be described or a setting is wrong.
    """

    def make(target: Callable[P, R]) -> Skill[P, R]:
        signature = Signature(target, batched=batch > 0)
        if spec is not None:
            return Skill(target, spec, signature)
        called = name or target.__name__
        if _NAME.fullmatch(called) is None or len(called) > 64:
            raise UsageError(
                f"{called!r} is no name for a skill", hint="lower case letters, digits, _ and dots, such as text.count"
            )
        if sandbox and sandbox not in LEVELS[1:]:
            raise UsageError(f"{called}: there is no sandbox level {sandbox!r}", hint=f"one of {', '.join(LEVELS[1:])}")
        if effect not in EFFECT_ORDER:
            raise UsageError(f"{called}: effect {effect!r} is unknown", hint="pure, idempotent or once")
        named, run_s = stated(called, takes)
        for what, given in (("sinks", sinks), ("takes", filter(None, (named,)))):
            missing = [one for one in given if one not in signature.params["properties"]]
            if missing:
                raise UsageError(f"{called}: {what} name {', '.join(missing)}", hint="name its own arguments")
        wanted = resources(needs) if needs is not None else NOTHING if batch else _ONE_CORE
        if batch:
            wanted = msgspec.structs.replace(wanted, cpu=0.0)
            _check_batch(called, batch, signature, effect, spawns or spends or checkpoints or inline)
        made = SkillSpec(
            name=called,
            doc=signature.doc,
            params=signature.params,
            result=signature.result,
            effect=effect,
            place="local" if local else "any",
            variants=(Variant(device, wanted),),
            timeout_s=span_s(timeout),
            retry_max=retry if retry is not None else (0 if effect == "once" else 2),
            cached=cached and effect == "pure",
            inline=inline,
            asks=asks,
            hedge=hedge,
            tainted=tainted,
            begin_effect=begin_effect,
            spawns=spawns if isinstance(spawns, bool) else tuple(spawns),
            sinks=tuple(sinks),
            examples=tuple(examples),
            tags=tuple(tags),
            sandbox=sandbox,
            network=network,
            spends=spends,
            checkpoints=checkpoints,
            batch=batch,
            batch_wait_s=span_s(batch_wait) if batch else 0.0,
            takes=named,
            run_s=run_s,
            warm_s=span_s(warm),
        )
        return Skill(target, made, signature)

    return make(function) if function is not None else cast("Callable[[Callable[P, R]], Skill[P, R]]", make)
