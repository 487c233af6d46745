"""Every setting there is, by section, with its default and what it means. How the layers are read is config's affair.

Invariant: a value that passes is in range; a section's class documents its keys, and the reference is made of that.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .errors import UsageError
from .profile import Policies, Policy, strict
from .resource import size_bytes, span_s
from .skill import Level

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(gt=0, le=1e6)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetDefaults(Section):
    """Caps that a run gets unless it says otherwise; 0 is the server's own default."""

    tasks: Count = 0
    attempts: Count = 0
    calls: Count = 0
    tokens: Count = 0
    price: Amount = 0.0
    wall: Amount = 0.0


class RunDefaults(Section):
    """What `run` assumes where neither flags nor the plan say anything."""

    on_failure: Literal["", "continue", "stop", "replan"] = ""
    deadline: Amount = 0.0
    priority: int = 0
    sla: Literal["", "interactive", "standard", "batch"] = ""
    budget: BudgetDefaults = BudgetDefaults()

    @field_validator("deadline", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class HereDefaults(Section):
    """The temporary worker `here` that joins with each run. `slots` 0: one per core."""

    slots: Count = 0
    roots: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()


Kind = Annotated[str, Field(pattern="^(cpu|gpu|edge)$")]


class DeviceDefaults(Section):
    """What the devices of this machine cost and draw: `price` an hour and `watts` at work, of one core or one card, by
    kind (`{gpu = 2.5}`), in whatever currency budgets are. Without `watts` the power limit counts, where it is told."""

    price: dict[Kind, Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]] = {}
    watts: dict[Kind, Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]] = {}


class ServerDefaults(Section):
    """What `server start` assumes. `idle`: a private server ends itself after this long without work or client.

    `name`: what a server is called in join strings and its certificate; `tls`: also on loopback; `certificate_life`:
    how long a worker may stay away before it has to enrol again; `session_age`: when a stream is opened anew.
    """

    listen: str = "127.0.0.1:0"
    name: tuple[str, ...] = ()
    tls: bool = False
    certificate_life: Annotated[float, Field(ge=1)] = 30 * 86400.0
    session_age: Annotated[float, Field(ge=1)] = 86400.0
    dispatch: Literal["ahead", "durable"] = "ahead"
    idle: Amount = 300.0

    @field_validator("idle", "certificate_life", "session_age", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class PolicyDefaults(Section):
    """What skills may do, for the server and for every worker of this machine. `skills`: patterns of names and a word
    each; of several that fit the most restrictive counts. `self_approval`: who submitted a run may approve its tasks.
    `untrusted`: what becomes of a task that was not in the plan, or whose sink holds a value of nobody's word.
    """

    default: Policy = "allow"
    skills: dict[str, Policy] = {}
    self_approval: bool = True
    untrusted: Literal["ask", "deny"] = "ask"

    def rules(self, allow: tuple[str, ...] = ()) -> Policies:
        """In the order in which they count; `allow` are patterns that were allowed beside."""
        rest: tuple[tuple[str, Policy], ...] = (("*", self.default),) if self.default != "allow" else ()
        return (*strict([*self.skills.items(), *((pattern, "allow") for pattern in allow)]), *rest)


class RetryDefaults(Section):
    """How often a run may try again, so that an outage can't multiply its load: `floor` times, and `ratio` times for
    each task that succeeded. Work of lost workers is counted apart, against a budget of its own."""

    floor: Count = 100
    ratio: Amount = 0.2


class PlacementDefaults(Section):
    """Who gets a ready task. `eft`: the device that is expected to finish it first. `heft`: by a plan of the whole run
    that is made again when it drifts; `auto` does so where it pays. The others are there to compare with."""

    policy: Literal["auto", "eft", "heft", "fastest", "round_robin", "random"] = "auto"


class HedgeDefaults(Section):
    """Second attempts of tasks that take too long, on capacity that idles. `factor`: how many times the expected run
    time is too long (the predicted p95 and `least` at least); `budget`: the share of a run's finished work that copies
    may take beyond its first; `known`: so many runs of the skill must be known; `move`: what has so long to go on a
    slow device goes on where it is faster."""

    enabled: bool = True
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    budget: Annotated[float, Field(ge=0, le=1)] = 0.05
    least: Amount = 0.5
    known: Annotated[int, Field(ge=1)] = 3
    move: Amount = 2.0

    @field_validator("least", "move", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class QuarantineDefaults(Section):
    """Workers where things go wrong that go well elsewhere get no new work: when `rate` of the last attempts failed, or
    their word comes `delay` later than it used to. They are tried after `rest`, twice as long each further time."""

    enabled: bool = True
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    delay: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25
    rest: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0

    @field_validator("delay", "rest", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class LendingDefaults(Section):
    """How many tokens of a run's budget are lent at most to a planner's `call`, and to an `attempt` of a skill that
    spends: who finds nothing left to borrow waits, or does not start."""

    call: Annotated[int, Field(ge=1)] = 32_000
    attempt: Annotated[int, Field(ge=1)] = 16_000


class SandboxDefaults(Section):
    """How workers of this machine hold skills. `skills`: patterns of names and the lowest level each gets."""

    minimum: Level = "none"
    maximum: Level = "bubblewrap"
    skills: dict[str, Level] = {}


class SecretDefaults(Section):
    """Which skills may be handed which secret: names, and patterns of skills. Nobody otherwise."""

    allow: dict[str, tuple[str, ...]] = {}


class HttpDefaults(Section):
    """What the skills of http may reach beside public addresses: HOST, HOST:PORT, ADDRESS, ADDRESS/BITS."""

    allow: tuple[str, ...] = ()


class LlmDefaults(Section):
    """The language model of this machine, for its planner and its workers' skills. The key is no setting.

    `max_tokens`: of one answer. `first_token`, `stall`: how long the server may be silent, before and within an answer.
    Prices are per million tokens. `plain_key`: send the key also where others can read it on its way. `extra`: fields
    that only this server or model knows, added to each request as they are.
    """

    base_url: str = ""
    model: str = ""
    profile: Literal["auto", "openai", "vllm", "llama.cpp", "ollama", "generic"] = "auto"
    max_tokens: Annotated[int, Field(ge=1)] = 8192
    first_token: Annotated[float, Field(gt=0)] = 60.0
    stall: Annotated[float, Field(gt=0)] = 30.0
    price_in: Amount = 0.0
    price_out: Amount = 0.0
    plain_key: bool = False
    extra: dict[str, Any] = {}

    @field_validator("first_token", "stall", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class PlannerDefaults(Section):
    """Who plans. `default` "": the model if there is one, else the catalog. `fallback`: who plans when the model can't.
    `examples`: at most so many earlier plans, and `shortlist`: so many skills, are shown to a model; `pinned` ones
    always: what joins others is in no request's words."""

    default: Literal["", "llm", "catalog"] = ""
    deadline: Annotated[float, Field(gt=0)] = 120.0
    fallback: Literal["catalog", "none"] = "catalog"
    examples: Count = 6
    shortlist: Annotated[int, Field(ge=1)] = 24
    pinned: tuple[str, ...] = ("data.sql", "flow.echo", "flow.list", "report.markdown")

    @field_validator("deadline", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class ReplanDefaults(Section):
    """How far planners may change a run under way, where it doesn't say so itself (`run.replan`): `rounds` of
    re-planning; `edits` and new `tasks` of one call; `proposals`, goals that its running tasks may ask for. What hangs
    on a failure is held back for `claim` at most."""

    rounds: Count = 3
    edits: Count = 8
    tasks: Count = 6
    proposals: Count = 10
    claim: Annotated[float, Field(gt=0)] = 150.0

    @field_validator("claim", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class PredictorDefaults(Section):
    """What a server remembers of how long things took: the last `keep` predictions with what came true, 0 for none
    beyond its own life."""

    keep: Count = 100_000


class RetentionDefaults(Section):
    """Which settled runs a server keeps: so many, so long, while its journal is no larger. 0 is no limit."""

    keep_runs: Count = 0
    days: Amount = 0.0
    max_bytes: Count = 0

    @field_validator("max_bytes", mode="before")
    @classmethod
    def _read_size(cls, value: Any) -> int:
        try:
            return size_bytes(value)
        except UsageError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None


class FairDefaults(Section):
    """How a server divides its fleet while several runs wait. `shares`: users and their weights, 1 for everybody else;
    `half_life`: after so long, half of what somebody used is forgotten. `preempt`: room is made for a task that has
    waited for `preempt_after`; an attempt that is asked to make it has `preempt_grace` for its next checkpoint."""

    shares: dict[str, Weight] = {}
    half_life: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    preempt: bool = True
    preempt_after: Amount = 2.0
    preempt_grace: Amount = 10.0

    @field_validator("half_life", "preempt_after", "preempt_grace", mode="before")
    @classmethod
    def _read_span(cls, value: Any) -> float:
        return _seconds(value)


class Settings(Section):
    """Every setting there is. `server` is an address to use instead of the local server, `home` moves all files."""

    home: str = ""
    server: str = ""
    run: RunDefaults = RunDefaults()
    here: HereDefaults = HereDefaults()
    device: DeviceDefaults = DeviceDefaults()
    daemon: ServerDefaults = ServerDefaults()
    policy: PolicyDefaults = PolicyDefaults()
    retention: RetentionDefaults = RetentionDefaults()
    predictor: PredictorDefaults = PredictorDefaults()
    retry: RetryDefaults = RetryDefaults()
    placement: PlacementDefaults = PlacementDefaults()
    hedge: HedgeDefaults = HedgeDefaults()
    quarantine: QuarantineDefaults = QuarantineDefaults()
    lending: LendingDefaults = LendingDefaults()
    replan: ReplanDefaults = ReplanDefaults()
    sandbox: SandboxDefaults = SandboxDefaults()
    secrets: SecretDefaults = SecretDefaults()
    http: HttpDefaults = HttpDefaults()
    llm: LlmDefaults = LlmDefaults()
    planner: PlannerDefaults = PlannerDefaults()
    fair: FairDefaults = FairDefaults()


def _seconds(value: Any) -> float:
    """A duration as config files write it. ValueError, so that pydantic names the key."""
    try:
        return span_s(value)
    except UsageError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None
