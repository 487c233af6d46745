"""A recorded workflow (protocol.workload) and the fleets it is placed on (`fleets/1`), as placement sees them.

JSON, plain or gzipped. Work is in seconds on a site of speed 1; bandwidths come in bit/s and leave in bytes/s. It must
not know how anything is scheduled.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from orchestrator.placement.problem import Problem, Site
from protocol.errors import PlanRefused
from protocol.workload import read_workload

T = TypeVar("T")


class Workflow(msgspec.Struct, frozen=True):
    """Tasks by index: seconds of work, bytes of memory (0 if not recorded), edges with bytes. `synthetic`: it was
    generated, nobody ran it."""

    name: str
    work_s: list[float]
    memory: list[float]
    parents: list[list[tuple[int, float]]]
    children: list[list[tuple[int, float]]]
    synthetic: bool = False
    kinds: list[str] = []
    reads: list[float] = []
    """Bytes of everything each task reads."""

    def on(self, sites: Sequence[Site]) -> Problem:
        """The problem of these sites, each of its own kind: a task takes its work over the site's speed everywhere."""
        kinded = tuple(msgspec.structs.replace(site, kind=kind) for kind, site in enumerate(sites))
        run_s = [[work / site.speed for site in sites] for work in self.work_s]
        return Problem(kinded, run_s, self.parents, self.children)


def read_workflow(path: Path) -> Workflow:
    """Reads taskdag/1 and WfFormat 1.5. Raises: PlanRefused if the file holds neither."""
    try:
        form = read_workload(_text(path))
    except PlanRefused as refused:
        raise PlanRefused(f"{path.name}: {refused.message}", hint=refused.hint) from None
    if not any(step.work_s for step in form.steps):
        raise PlanRefused(f"{path.name} has no task that takes time")
    parents: list[list[tuple[int, float]]] = [[] for _ in form.steps]
    children: list[list[tuple[int, float]]] = [[] for _ in form.steps]
    for source, target, size in form.edges:
        parents[target].append((source, size))
        children[source].append((target, size))
    work = [step.work_s for step in form.steps]
    reads = [sum(form.files.get(name, 0.0) for name in step.reads) for step in form.steps]
    kinds = [step.kind for step in form.steps]
    memory = [step.memory for step in form.steps]
    return Workflow(form.name, work, memory, parents, children, form.synthetic, kinds, reads)


_Amount = Annotated[float, msgspec.Meta(ge=0)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Device(msgspec.Struct):
    id: str
    kind: str
    speed: _Positive
    bps: _Positive
    lat_s: _Amount
    slots: Annotated[int, msgspec.Meta(ge=1)] = 1
    price_per_s: _Amount = 0.0
    watt: _Amount = 0.0


class _Fleet(msgspec.Struct):
    id: str
    devices: list[_Device]


class _Fleets(msgspec.Struct):
    fleets: list[_Fleet]


def read_fleets(path: Path) -> dict[str, list[Site]]:
    """The sites of each fleet by its name, every one a worker of its own. Raises: PlanRefused."""
    return {
        fleet.id: [
            Site(
                name=one.id,
                worker=n,
                device=one.kind,
                speed=one.speed,
                slots=one.slots,
                bandwidth=one.bps / 8,
                latency_s=one.lat_s,
                price_per_s=one.price_per_s,
                watts=one.watt,
            )
            for n, one in enumerate(fleet.devices)
        ]
        for fleet in _read(path, _Fleets).fleets
    }


def _read(path: Path, form: type[T]) -> T:
    try:
        return msgspec.json.decode(_text(path), type=form)
    except msgspec.DecodeError as error:
        raise PlanRefused(f"{path.name} can't be read: {error}") from error


def _text(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError) as error:
        raise PlanRefused(f"{path.name} can't be read: {error}") from error
