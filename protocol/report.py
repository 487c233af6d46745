"""The JSON that people and programs read: the one place that defines it (cli.md).

Values and pure functions: plain records in, frozen Structs out, `to_dict()` is what is printed. Every whole answer
carries `"schema": "asterism/v1"`. States are lower snake case, runs are `"r7"`, tasks go by their names, `*_s` are
seconds since the run was submitted, absent times are null. A key, once published, keeps its name and meaning.

It must not know the core, the journal or a terminal: the service calls it with what it found, the command line
prints what it gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from .artifact import ArtifactRef, Value
from .errors import AsterismError, from_wire
from .event_row import LogRow as LogRow
from .event_row import event_kind as event_kind
from .event_row import event_report as event_report
from .forecast_row import ForetoldRow as ForetoldRow
from .ids import run_name
from .prediction_row import Accuracy, Predicted
from .profile import DeviceProfile, LinkProfile
from .share_row import ShareRow as ShareRow
from .spend_row import SpendRow as SpendRow
from .task import FirstOf, Output, TaskSpec, references
from .task_form import task_document

SCHEMA: Final = "asterism/v1"
FINAL_RUN: Final = frozenset({"succeeded", "failed", "cancelled"})
FINAL_TASK: Final = frozenset({"succeeded", "failed", "skipped", "cancelled"})


class _Answer(msgspec.Struct, frozen=True):
    """Base of every whole answer: `to_dict` puts the schema first and leaves out optional keys that are None."""

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **_shown(self)}


# The report of a run


class TaskRow(msgspec.Struct, frozen=True):
    """One task as the report shows it: its winning attempt, else its last one.

    `queued_s`: when it became ready; `attempts`: how many were dispatched, hedges included. `error` is a wire error
    of a failed task; `children` counts the children of a map, spawn or `on: ["all"]` by state. Both are absent, not
    null, where there is nothing to say.
    """

    state: str
    skill: str
    worker: str | None = None
    device: str | None = None
    attempts: int = 0
    queued_s: float | None = None
    started_s: float | None = None
    finished_s: float | None = None
    error: dict[str, Any] | None = None
    children: dict[str, int] | None = None


class Width(msgspec.Struct, frozen=True):
    """How many winning attempts ran at once."""

    mean: float
    max: int


class PlannerUse(msgspec.Struct, frozen=True):
    """`kind`: catalog, llm, scripted, or none for a plan that was given; `first_task_s`: request to first task."""

    kind: str = "none"
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    first_task_s: float | None = None


class Recovered(msgspec.Struct, frozen=True):
    """What went wrong and was made good: further attempts, lost attempts, hedges, accepted re-plans."""

    retries: int = 0
    lost: int = 0
    hedges: int = 0
    replans: int = 0


class RunReport(_Answer, frozen=True):
    """The whole of `run -o json` and `result -o json`. `error` says why a run that is final did not succeed.

    `large`: outputs that the server left out of `outputs` for their size, as `{digest, media, size}`; the client reads
    them in before anybody sees the report.
    """

    run: str
    state: str
    outputs: dict[str, Any]
    tasks: dict[str, TaskRow]
    makespan_s: float | None
    task_s: float
    width: Width
    versions: int
    planner: PlannerUse = PlannerUse()
    recovered: Recovered = Recovered()
    error: dict[str, Any] | None = None
    large: dict[str, Any] | None = None
    spend: SpendRow = SpendRow()
    predictions: Accuracy = Accuracy()
    forecast: ForetoldRow | None = None


def run_report(
    run: int,
    state: str,
    *,
    outputs: Mapping[str, Any],
    tasks: Mapping[str, TaskRow],
    spans: Iterable[tuple[float, float]],
    makespan_s: float | None,
    versions: int,
    planner: PlannerUse | None = None,
    recovered: Recovered | None = None,
    error: dict[str, Any] | None = None,
    large: dict[str, Any] | None = None,
    spend: SpendRow | None = None,
    predictions: Accuracy | None = None,
    forecast: ForetoldRow | None = None,
) -> RunReport:
    """Build the report.

    `tasks` are the tasks of the graph by name, without children; `spans` are (started_s, finished_s) of every winning
    attempt, children included. `makespan_s` is the end of the run (so far, while it is open) since submission.
    """
    intervals = list(spans)
    task_s = sum(end - start for start, end in intervals)
    mean = task_s / makespan_s if makespan_s else 0.0
    return RunReport(
        run=run_name(run),
        state=state,
        outputs=dict(outputs),
        tasks=dict(tasks),
        makespan_s=makespan_s,
        task_s=task_s,
        width=Width(mean=mean, max=_most_at_once(intervals)),
        versions=versions,
        planner=planner or PlannerUse(),
        recovered=recovered or Recovered(),
        error=error,
        large=large,
        spend=spend or SpendRow(),
        predictions=predictions or Accuracy(),
        forecast=forecast,
    )


def _most_at_once(spans: list[tuple[float, float]]) -> int:
    """The most intervals open at one moment; one that ends as another starts does not overlap it."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for start, end in spans if end > start])
    most = depth = 0
    for _, step in edges:
        depth += step
        most = max(most, depth)
    return most


def exit_code(report: Mapping[str, Any]) -> int:
    """The exit code that a printed report stands for (cli.md): 0, 1, or the one of its error's code.

    A run that somebody cancelled failed, for who waited for it; 130 is for who pressed Ctrl-C.
    """
    if report.get("state") == "succeeded":
        return 0
    error = report.get("error")
    if isinstance(error, Mapping):
        return from_wire(error).exit_code or 1
    return 1


def tasks_report(run: int, state: str, tasks: Mapping[str, TaskRow]) -> dict[str, Any]:
    """`tasks -o json`."""
    return {"schema": SCHEMA, "run": run_name(run), "state": state, "tasks": {k: _shown(v) for k, v in tasks.items()}}


def error_report(error: AsterismError) -> dict[str, Any]:
    """What `-o json` prints where there is no run to report on."""
    return {"schema": SCHEMA, "error": error.to_wire()}


# Lists: what is going on


class RunRow(msgspec.Struct, frozen=True):
    """One line of `ps`. `submitted_at` is Unix time; `tasks` counts by state; `label` are the run's labels;
    `tokens` and `price` are what it has used."""

    run: str
    state: str
    request: str
    submitted_at: float
    makespan_s: float | None
    tasks: dict[str, int]
    version: int = 1
    labels: dict[str, str] = {}
    tokens: int = 0
    price: float = 0.0


class WorkerRow(msgspec.Struct, frozen=True):
    """One line of `workers`. `state`: connected, suspect, draining, full, quarantine or away; `devices` by kind, name.

    `sandbox`: the highest level at which skills can be held there; `short`: why one is full, or in quarantine;
    `model`: it offers the skills that ask a language model; `hardware` and `link`: as it announced them.
    """

    worker: str
    state: str
    slots: int
    running: int
    devices: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    skills: int = 0
    capacity: dict[str, float] = {}
    in_use: dict[str, float] = {}
    serves: str | None = None
    silent_s: float | None = None
    sandbox: str | None = None
    short: str = ""
    model: bool = False
    hardware: tuple[DeviceProfile, ...] = ()
    link: LinkProfile | None = None


class SkillRow(msgspec.Struct, frozen=True):
    """One line of `skills`: the contract, and who offers it now."""

    name: str
    doc: str
    effect: str
    place: str
    devices: tuple[str, ...]
    workers: tuple[str, ...]
    params: dict[str, Any]
    result: dict[str, Any]


class RunList(_Answer, frozen=True):
    runs: tuple[RunRow, ...]


class WorkerList(_Answer, frozen=True):
    workers: tuple[WorkerRow, ...]


class SkillList(_Answer, frozen=True):
    skills: tuple[SkillRow, ...]


class ClientRow(msgspec.Struct, frozen=True):
    """A client that came with a token."""

    name: str
    since: float


class TokenRow(msgspec.Struct, frozen=True):
    """One line of `token list`. `state`: open, used up, expired, revoked; null `uses`: any number; times are Unix."""

    token: str
    role: str
    state: str
    used: int
    uses: int | None
    expires_at: float | None
    by: str
    created_at: float
    clients: tuple[ClientRow, ...] = ()


class TokenList(_Answer, frozen=True):
    tokens: tuple[TokenRow, ...]


class TlsInfo(msgspec.Struct, frozen=True):
    """A server's TLS: the digest of its CA, the address for join strings, its certificate's times (since 1970)."""

    ca: str
    address: str
    since: float
    until: float
    certificate_life_s: float
    session_age_s: float


class ServerInfo(_Answer, frozen=True):
    """`server info`. `runs` counts by state; `dropped` counts what was inadmissible, by name; `tls` null without;
    `loop_tasks` are those of the server's own event loop: many more than streams and clients mean a leak; `planner`
    plans what names none."""

    version: str
    address: str
    pid: int
    journal: str
    epoch: int
    home: str
    private: bool
    uptime_s: float
    workers: int
    runs: dict[str, int] = {}
    dropped: dict[str, int] = {}
    warnings: tuple[str, ...] = ()
    tls: TlsInfo | None = None
    loop_tasks: int = 0
    planner: str = ""


class RunStatus(_Answer, frozen=True):
    """`status`: a run without its tasks. `waiting`: task name -> what it waits for, in words."""

    run: str
    state: str
    request: str
    submitted_at: float
    makespan_s: float | None
    version: int
    tasks: dict[str, int]
    waiting: dict[str, str] = {}
    error: dict[str, Any] | None = None
    spend: SpendRow = SpendRow()
    share: ShareRow | None = None


# Why it is where it is


class WorkerVerdict(msgspec.Struct, frozen=True):
    """Whether a worker could take the task; `reasons` names each thing that speaks against it."""

    worker: str
    eligible: bool
    reasons: tuple[str, ...] = ()


class AttemptRow(msgspec.Struct, frozen=True):
    """One attempt and its story. `state`: running, succeeded, failed, lost, cancelled."""

    number: int
    worker: str
    device: str
    state: str
    why: str = ""
    hedge: bool = False
    started_s: float | None = None
    finished_s: float | None = None
    error: dict[str, Any] | None = None
    predicted: Predicted | None = None


class Explanation(_Answer, frozen=True):
    """`explain`: the state in words, what speaks for and against each worker, every attempt, every decision kept."""

    run: str
    task: str
    state: str
    why: str
    waits_for: tuple[str, ...] = ()
    workers: tuple[WorkerVerdict, ...] = ()
    attempts: tuple[AttemptRow, ...] = ()
    history: tuple[str, ...] = ()


# The graph


def graph_report(
    run: int, version: int, tasks: Iterable[tuple[TaskSpec, str]], outputs: Iterable[Output] = (), after: Any = None
) -> dict[str, Any]:
    """`graph -o json`: the graph as written, each task with its state, and its edges `[from, to, kind]`.

    `tasks` are (spec, state) in order of acceptance; `after` maps a task id to further upstreams that `link` edits
    added. `kind` is data, when or after; one edge per pair, the strongest kind wins in that order.
    """
    rows: list[dict[str, Any]] = []
    edges: list[list[str]] = []
    for spec, state in tasks:
        rows.append({**task_document(spec), "state": state})
        seen: set[str] = set()
        extra = tuple((after or {}).get(spec.id, ()))
        for source, kind in _upstreams(spec, extra):
            if source not in seen:
                seen.add(source)
                edges.append([source, spec.id, kind])
    named = [{"name": output.name, "ref": str(output.ref)} for output in outputs]
    return {
        "schema": SCHEMA,
        "run": run_name(run),
        "version": version,
        "tasks": rows,
        "edges": edges,
        "outputs": named,
    }


def _upstreams(spec: TaskSpec, extra: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    for found in references(msgspec.json.decode(spec.args)):
        for ref in found.refs if isinstance(found, FirstOf) else (found,):
            if ref.source != "input":
                yield ref.source, "data"
    for condition in spec.when:
        if condition.ref.source != "input":
            yield condition.ref.source, "when"
    for source in (*spec.after, *extra):
        yield source, "after"


# Values


def value_report(value: Value) -> dict[str, Any]:
    """The answer to `get`: `{"value": ...}`, or `{"artifact": {digest, media, size}}` to be read on its own."""
    if isinstance(value, ArtifactRef):
        return {"artifact": msgspec.structs.asdict(value)}
    return {"value": msgspec.json.decode(value)}


_OPTIONAL: Final = frozenset({"error", "children", "large", "predicted", "forecast"})


def _shown(value: Any) -> Any:
    """Builtins of an answer: keys that may be absent are left out when None, our own floats keep microseconds.

    What people's tasks returned passes through untouched.
    """
    if isinstance(value, msgspec.Struct):
        fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
        return {name: _shown(item) for name, item in fields if item is not None or name not in _OPTIONAL}
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _shown(item) if isinstance(item, msgspec.Struct) else item for key, item in value.items()}
    if isinstance(value, tuple):
        return [_shown(item) for item in value]
    return value
