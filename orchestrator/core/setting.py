"""The core's constants, as one frozen value given to its constructor."""

from __future__ import annotations

from typing import Literal

import msgspec

from protocol.profile import Policies


class HedgeSettings(msgspec.Struct, frozen=True):
    """When an attempt is a straggler: over its p95 and `factor` times what it is expected to run, and over `least_s`;
    `known` runs of its skill are known. Copies may take `budget` of the work that is done. What is only slow is moved
    when it has `move_s` to go."""

    on: bool = True
    factor: float = 1.5
    budget: float = 0.05
    least_s: float = 0.5
    known: int = 3
    move_s: float = 2.0


class PreemptSettings(msgspec.Struct, frozen=True):
    """Room is made for a task that has waited for `after_s`, by what has more than `soon_s` to go. An attempt that was
    asked has `grace_s` for its next checkpoint; for a user of its own class it is, once it has run for `turn_s`."""

    on: bool = True
    after_s: float = 2.0
    grace_s: float = 10.0
    soon_s: float = 5.0
    turn_s: float = 30.0


class QuarantineSettings(msgspec.Struct, frozen=True):
    """A worker where `rate` of the last attempts went wrong, or whose word comes `delay_s` late, rests for `rest_s`,
    twice as long each further time."""

    on: bool = True
    rate: float = 0.5
    delay_s: float = 0.25
    rest_s: float = 10.0


class CoreSettings(msgspec.Struct, frozen=True):
    """Seconds and counts; the defaults are those of the design pages."""

    max_tasks: int = 200_000
    max_planner_tasks: int = 500
    max_depth: int = 8
    max_losses: int = 5
    poison_deaths: int = 2
    """Deaths of daemons that a task may be present at; from then on it is tried alone, once."""
    retry_floor: int = 100
    """A run may retry so often, and a further `retry_ratio` times for each task that succeeded; losses likewise."""
    retry_ratio: float = 0.2
    loss_floor: int = 2000
    loss_ratio: float = 1.0
    backoff_cap_s: float = 30.0
    broken_grace_s: float = 0.3
    approval_s: float = 24 * 3600.0
    planner_s: float = 120.0
    claim_s: float = 150.0
    replan_rounds: int = 3
    edits_a_round: int = 8
    tasks_a_round: int = 6
    call_tokens: int = 32_000
    """What a planner's call is lent at most of a run's budget of tokens, so that two fit; `attempt_tokens` an attempt
    of a skill that spends."""
    attempt_tokens: int = 16_000
    proposals: int = 10
    """Goals that running tasks of one run may ask their planner for."""
    calls_at_once: int = 4
    """Open planner calls of one run; one of them at most is its plan, a re-plan or a review."""
    lost_plans: int = 3
    """How often a first plan that was cut off by a restart is asked for again."""
    cancel_grace_s: float = 2.0
    placement: str = "auto"
    """The policy, by its name in placement.selection."""
    prefetch_target_s: float = 0.05
    prefetch_max: int = 64
    dispatch_ahead: bool = True
    keep_predictions: bool = False
    """Whether what came true of predictions is handed out to be stored (command.Keep)."""
    lease_factor: float = 1.2
    shares: tuple[tuple[str, float], ...] = ()
    """(user, weight) where several users wait; who is not among them has 1."""
    share_half_life_s: float = 60.0
    """After so long half of what was used is forgotten."""
    preempt: PreemptSettings = PreemptSettings()
    keep_after_s: float = 5.0
    """A large task that is first in turn and has waited so long has a worker kept for it."""
    policies: Policies = ()
    """What this server allows, asks for, denies; a worker may be stricter."""
    self_approval: bool = True
    """Who submitted a run, or wrote the task, may approve it."""
    untrusted: Literal["ask", "deny"] = "ask"
    """What is done with a task that the rules of trust (core.trust) let nobody but a person allow."""
    hedge: HedgeSettings = HedgeSettings()
    quarantine: QuarantineSettings = QuarantineSettings()
