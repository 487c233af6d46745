"""A task as written: what to run, where it may run, what it reads. Frozen; the orchestrator adds the life.

References are data, never text substitution: `{"ref": "scan/files[]/file"}` anywhere inside `args`, or
`{"ref": ["a/x", "b/x"]}` for the first that succeeded. `{"secret": "NAME"}` stands for what only the worker has.
`{"literal": ...}` protects an object that looks like one of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from sys import intern
from typing import Any, Final, Literal, get_args

import msgspec

from .pointer import EACH
from .resource import Resources

Effect = Literal["pure", "idempotent", "once"]
EFFECT_ORDER: Final = {"pure": 0, "idempotent": 1, "once": 2}
INPUT: Final = "input"
"""The reserved source of run inputs: `input/NAME`."""
_NESTED: Final = (dict, list)
SECRET_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


class Ref(msgspec.Struct, frozen=True, array_like=True, tag="ref", gc=False):
    """One reference. `source` is a task id or "input"; `path` is the JSON pointer before `[]`, `rest` the one after.

    `each` means once per element of what `path` names; then `rest` is applied to each element.
    """

    source: str
    path: tuple[str, ...] = ()
    each: bool = False
    rest: tuple[str, ...] = ()

    @property
    def listed(self) -> tuple[str, ...]:
        """Where the list lies over whose elements `[]` goes: what is gathered from a list (`*`) is as long as that."""
        return self.path[: self.path.index(EACH)] if EACH in self.path else self.path

    def item(self, index: int) -> tuple[str, ...]:
        """Where `[]` leads for one element."""
        head = self.listed
        return (*head, str(index), *self.path[len(head) + 1 :], *self.rest)

    def __str__(self) -> str:
        if not self.each and "/" not in (text := "".join(self.path)) and "~" not in text:
            return "/".join((self.source, *self.path))
        head = "/".join((self.source, *map(_escape, self.path)))
        return head + ("[]" if self.each else "") + "".join("/" + _escape(part) for part in self.rest)


class FirstOf(msgspec.Struct, frozen=True, array_like=True, tag="first", gc=False):
    """The first of these, in order, whose task succeeded; waits until all are final."""

    refs: tuple[Ref, ...]

    def __str__(self) -> str:
        return "|".join(map(str, self.refs))


AnyRef = Ref | FirstOf


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def parse_reference(text: str) -> Ref:
    """`scan/files[]/file` -> Ref. Raises: ValueError with the reason.

    Names are interned: a graph of 100,000 tasks says the same ones again and again.
    """
    head, bracket, tail = text.partition("[]")
    if "[]" in tail:
        raise ValueError("only one [] per reference: nested maps need a task in between")
    if bracket and tail and not tail.startswith("/"):
        raise ValueError("write a / after []")
    parts = head.split("/")
    if not bracket and "~" not in head and parts[0] and (parts[0] != INPUT or len(parts) > 1):
        return Ref(intern(parts[0]), tuple(map(intern, parts[1:])))
    if not parts[0]:
        raise ValueError("a reference starts with a task id or input/")
    if parts[0] == INPUT and len(parts) < 2:
        raise ValueError("name the input: input/NAME")
    rest = tuple(_unescape(part) for part in tail.split("/")[1:]) if tail else ()
    return Ref(intern(parts[0]), tuple(intern(_unescape(part)) for part in parts[1:]), bool(bracket), rest)


def reference_in(node: object) -> AnyRef | None:
    """The reference that this JSON object is, or None. Raises: ValueError for a malformed one."""
    if not isinstance(node, dict) or len(node) != 1 or "ref" not in node:
        return None
    target = node["ref"]
    if isinstance(target, str):
        return parse_reference(target)
    if isinstance(target, list) and target and all(isinstance(one, str) for one in target):
        refs = tuple(parse_reference(one) for one in target)
        if any(ref.each for ref in refs):
            raise ValueError("a first-of reference can't be mapped with []")
        return FirstOf(refs)
    raise ValueError('a reference is {"ref": "task/path"} or {"ref": ["a/x", "b/x"]}')


def references(args: object) -> Iterator[AnyRef]:
    """Every reference inside decoded arguments, in document order (iterative: nesting can't overflow the stack)."""
    stack: list[object] = [args]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if len(node) == 1:
                found = reference_in(node)
                if found is not None:
                    yield found
                    continue
                if "literal" in node:
                    continue
            stack.extend(reversed(node.values()))
        elif isinstance(node, list):
            stack.extend(reversed(node))


def references_of(args: bytes) -> tuple[AnyRef, ...]:
    """Every reference inside encoded arguments once, in document order."""
    return tuple(dict.fromkeys(references(msgspec.json.decode(args)))) if b'"ref"' in args else ()


def secret_in(node: object) -> str | None:
    """The name of the secret that this JSON object stands for, or None. Raises: ValueError for a malformed one."""
    if not isinstance(node, dict) or len(node) != 1 or "secret" not in node:
        return None
    name = node["secret"]
    if not isinstance(name, str) or SECRET_NAME.fullmatch(name) is None:
        raise ValueError("a secret is named by capital letters, digits and _")
    return name


def secrets_in(args: object) -> Iterator[str]:
    """Every secret named inside decoded arguments. Raises: ValueError for a malformed one."""
    stack: list[object] = [args]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            name = secret_in(node)
            if name is not None:
                yield name
            elif set(node) != {"literal"}:
                stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def substitute(args: Any, values: dict[str, Any], secrets: Mapping[str, str] | None = None) -> Any:
    """Arguments with each reference replaced by `values[str(ref)]` and each `{"literal": x}` unwrapped.

    A value is never scanned again, so none can name a secret. Without `secrets` the name of each stands for it.
    Raises: KeyError for a reference or a secret without a value.
    """
    if isinstance(args, dict):
        if len(args) == 1:
            if "ref" in args:
                text = args["ref"]
                if isinstance(text, str) and text in values:  # as it was written: the usual case
                    return values[text]
                return values[str(reference_in(args))]
            if "literal" in args:
                return args["literal"]
            name = secret_in(args) if "secret" in args else None
            if name is not None:
                return name if secrets is None else secrets[name]
        return {
            key: substitute(item, values, secrets) if isinstance(item, _NESTED) else item for key, item in args.items()
        }
    if isinstance(args, list):
        return [substitute(item, values, secrets) if isinstance(item, _NESTED) else item for item in args]
    return args


class Condition(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """One line of `when`: `ref op value` on a value, or `ref is state` on a task."""

    ref: Ref
    op: Literal["==", "!=", "<", "<=", ">", ">=", "in", "exists", "is"]
    value: bytes = b"null"
    """JSON. For `is`: "succeeded", "failed", "skipped" or "finished"."""


class MapSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a task with `[]` references is spread. `chunk` 0 means auto, 1 one child per item."""

    limit: int = 0
    chunk: int = 1
    on_error: Literal["fail", "collect"] = "fail"
    max: int = 10_000


class Retry(msgspec.Struct, frozen=True, omit_defaults=True):
    """`max` counts further attempts after the first; `backoff_s` is the base of the exponential."""

    max: int = 2
    backoff_s: float = 0.2


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One task of a plan. `args` is canonical JSON (sorted keys, no spaces) with references inside.

    `on` holds `any here all cpu gpu edge NAME label=value` or a `Ref` to a task ("where that ran"). None in an
    optional field means the skill's own default. A plan may tighten (effect, approve, retry, timeout), never loosen.
    """

    id: str
    skill: str
    args: bytes = b"{}"
    on: tuple[str | Ref, ...] = ()
    when: tuple[Condition, ...] = ()
    after: tuple[str, ...] = ()
    map: MapSpec = MapSpec()
    alt: tuple[str, ...] = ()
    needs: Resources | None = None
    retry: Retry | None = None
    timeout_s: float | None = None
    deadline_s: float | None = None
    priority: int = 0
    effect: Effect | None = None
    cache: bool | None = None
    approve: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "skill", intern(self.skill))  # one name for the thousands that share it


class RunBudget(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hard caps of one run; 0 means the server's default, for `wall_s` none."""

    tasks: int = 0
    depth: int = 8
    attempts: int = 0
    calls: int = 0
    tokens: int = 0
    price: float = 0.0
    wall_s: float = 0.0


class ReplanBounds(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much planners may change of a run under way; -1 means the server's default.

    `rounds`: re-plans, and reviews that changed something; `edits` and new `tasks` of one call; `proposals`: goals that
    running tasks may ask for.
    """

    rounds: int = -1
    edits: int = -1
    tasks: int = -1
    proposals: int = -1


Sla = Literal["interactive", "standard", "batch"]
"""What a run is for: one of a class goes before all of the next."""
SLA_CLASSES: Final[tuple[Sla, ...]] = get_args(Sla)


class RunSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `run` object of a plan, merged with the submitter's flags."""

    on_failure: Literal["continue", "stop", "replan"] = "continue"
    deadline_s: float = 0.0
    budget: RunBudget = RunBudget()
    review: int = 0
    home: str = ""
    schedule_grace_s: float = 30.0
    priority: int = 0
    labels: dict[str, str] = {}
    attached: bool = False
    """Cancelled some seconds after its last watcher left; set by the submitter, never by a plan."""
    replan: ReplanBounds = ReplanBounds()
    sla: Sla = "standard"
    prefer: Literal["time", "price", "energy"] = "time"
    """What placement spares once the deadline allows it."""
    best_effort: bool = False
    """Start although the forecast says that the deadline can't be met."""


class Output(msgspec.Struct, frozen=True, array_like=True):
    """A declared output of the run."""

    name: str
    ref: Ref | FirstOf


class InputSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A declared input of a plan; `default` is JSON or None when it must be given."""

    name: str
    type: str = "string"
    default: bytes | None = None
    doc: str = ""


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A whole plan document, parsed: the same noun for a planner's first plan, a file and the Python API."""

    tasks: tuple[TaskSpec, ...]
    inputs: tuple[InputSpec, ...] = ()
    settings: RunSettings = RunSettings()
    outputs: tuple[Output, ...] = ()
