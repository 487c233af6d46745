"""A skill as announced: a named callable with closed schemas, an effect and what it needs per device."""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal

import msgspec

from .resource import Resources
from .task import Effect

Place = Literal["any", "local", "engine"]
Level = Literal["none", "process", "cgroup", "bubblewrap"]
LEVELS: Final[tuple[Level, ...]] = ("none", "process", "cgroup", "bubblewrap")
"""What can hold a skill in, from nothing to a namespace of its own; each level includes those before it."""

LONGEST_S: Final = 1e6
"""No run is reckoned to take longer."""


def holds(level: str, wanted: str) -> bool:
    """Whether a machine that reaches `level` can hold a skill that wants at least `wanted` ("" wants nothing)."""
    if not wanted:
        return True
    return level in LEVELS and wanted in LEVELS and LEVELS.index(level) >= LEVELS.index(wanted)


def _no_params() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


class Variant(msgspec.Struct, frozen=True, omit_defaults=True):
    """One implementation: the device kind it drives (`cpu`, `gpu`, `edge`) and what it reserves there."""

    device: str = "cpu"
    needs: Resources = Resources()


class SkillSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What planner, orchestrator and worker agree on about a skill.

    `params` and `result` are JSON Schema objects of the closed subset (protocol/schema.py); `{"type": "file"}` is
    the scalar file type. `place`: "local" acts on one machine's own files (default `here`), "engine" is served by the
    orchestrator itself. `spawns`: it starts children, of the plan's skills and of those that it names here
    (`@skills`: of those in its literal argument `skills`). `sinks` names arguments that leave the system (url, path,
    command), `tainted` says that its result may be anybody's text, `spends` that it uses tokens or money. `inline`
    runs on the worker's own loop: only for built-ins that never block. `asks`: needs an approval unless the worker
    allows it. `sandbox`: the lowest level that may hold it, "" for whatever the worker has; at bubblewrap it has no
    network unless it declares `network`. `checkpoints`: it keeps what it has done (`ctx.checkpoint`) and goes on from
    there (`ctx.restored`), so an attempt may be stopped behind a checkpoint and go on elsewhere. `batch`: one call has
    up to so many elements, gathered for `batch_wait_s` at most. `takes`: the parameter that says how many seconds a run
    takes (a reference core's, if it works). `run_s`: what its author reckons that a run takes there; 0: nobody says.
    `warm_s`: for so long what one has loaded or cached on a worker serves the next of the same run there.
    """

    name: str
    doc: str = ""
    params: dict[str, Any] = msgspec.field(default_factory=_no_params)
    result: dict[str, Any] = {}
    effect: Effect = "once"
    place: Place = "any"
    variants: tuple[Variant, ...] = (Variant(),)
    timeout_s: float = 3600.0
    retry_max: int = 2
    cached: bool = True
    inline: bool = False
    asks: bool = False
    hedge: bool = False
    tainted: bool = False
    begin_effect: Literal["runner", "own"] = "runner"
    spawns: bool | tuple[str, ...] = False
    sinks: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sandbox: Literal["", "process", "cgroup", "bubblewrap"] = ""
    network: bool = False
    spends: bool = False
    checkpoints: bool = False
    batch: int = 0
    batch_wait_s: float = 0.0
    takes: str = ""
    run_s: float = 0.0
    warm_s: float = 0.0

    def digest(self) -> str:
        """Identity of the contract: equal digests may serve the same run."""
        contract = msgspec.structs.replace(
            self, doc="", examples=(), tags=(), takes="", run_s=0.0, warm_s=0.0, batch=0, batch_wait_s=0.0
        )
        return hashlib.sha256(msgspec.json.encode(contract, order="deterministic")).hexdigest()[:32]
