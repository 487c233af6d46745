"""The `gauge.read` skill: simulated gauges, which measure what a file says. Workers load this module by name."""

from __future__ import annotations

import json
import time
from typing import Annotated, TypedDict

from protocol.errors import SkillFailed
from workers.file import File
from workers.skill import skill


class Reading(TypedDict):
    gauge: str
    degrees: int
    by: str


@skill(
    name="gauge.read",
    effect="pure",
    timeout="1m",
    cached=False,
    examples=("read {gauge} on the simulated bus {bus}",),
    tags=("gauge", "temperature", "simulated"),
)
def read(
    bus: Annotated[File, "what the gauges measure: a JSON object by name"],
    gauge: Annotated[str, "the gauge's name"],
    wait: Annotated[float, "seconds until it answers"] = 0.02,
) -> Reading:
    """Reads one simulated gauge: waits as a slow one would, then gives what the file says."""
    time.sleep(wait)
    found = json.loads(bus.read_text()).get(gauge)
    if found is None:
        raise SkillFailed(f"no gauge {gauge} answers on {bus.name}")
    return Reading(gauge=gauge, degrees=int(found), by="simulated gauge")
