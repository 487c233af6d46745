"""The `frail.*` skills: real work with a simulated weakness, for the cases in which something has to be done otherwise.

`asterism run --skills bench.cross_device.frail ...` loads them. What each computes is right whenever it ends; how it
dies is simulated, and its description says so. They must not know who mends what.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Annotated, Any, Final, TypedDict

from protocol.errors import SkillFailed
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

MOST_BYTES: Final = 64 * 1024
DIED: Final = 86
"""The exit status of a process that a simulated weakness ends."""


class Hashed(TypedDict):
    file: File
    sha256: str
    bytes: int


class Tallied(TypedDict):
    file: File
    total: int
    lines: int
    resumed_at: int


class Asked(TypedDict):
    known: list[str]
    unknown: list[str]
    tasks: list[str]


@skill(name="frail.hash", effect="pure", timeout="10s", retry=0, tags=("simulated", "memory", "crash"))
def hash_in_memory(file: Annotated[File, "the file"]) -> Hashed:
    """Hashes a file held in memory as a whole; above 64 KiB its process dies, as of too little memory (simulated)."""
    data = file.read_bytes()
    if len(data) > MOST_BYTES:
        os._exit(DIED)
    return Hashed(file=file, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


@skill(
    name="frail.tally",
    effect="pure",
    timeout="1m",
    retry=3,
    checkpoints=True,
    examples=("add up the numbers in {file}", "tally {file}"),
    tags=("simulated", "sum", "numbers", "checkpoint"),
)
def tally(
    ctx: SkillContext,
    file: Annotated[File, "a text file, a whole number on each line"],
    parts: Annotated[int, "in how many parts it is read, with a checkpoint behind each"] = 4,
    part_s: Annotated[float, "how long each part takes (simulated)"] = 0.0,
) -> Tallied:
    """Adds up numbers in parts; half way through its first start its process dies (simulated), behind a checkpoint."""
    lines = file.read_text().split()
    state: Any = ctx.restored()
    began, at, total = (0, 0, 0) if state is None else (state["at"], state["at"], state["total"])
    size = max(1, -(-len(lines) // max(1, parts)))
    while at < len(lines):
        time.sleep(part_s)
        total += sum(int(line) for line in lines[at : at + size])
        at = min(at + size, len(lines))
        ctx.checkpoint({"at": at, "total": total})
        if began == 0 and at * 2 >= len(lines):
            os._exit(DIED)
    return Tallied(file=file, total=total, lines=len(lines), resumed_at=began)


@skill(
    name="frail.audit",
    effect="pure",
    timeout="1m",
    cached=False,
    examples=("audit {files}",),
    tags=("settings", "configuration", "check", "more"),
)
def audit(ctx: SkillContext, files: Annotated[list[File], "files of settings"]) -> Asked:
    """Reads settings that are JSON; for those in another form it asks the run's planner for work that can read them."""
    known = [file.name for file in files if file.name.endswith(".json")]
    unknown = [file.name for file in files if file.name not in known]
    if not known:
        raise SkillFailed("none of them is JSON")
    answer = ctx.propose(f"read {', '.join(unknown)} as lines") if unknown else {"tasks": []}
    return Asked(known=known, unknown=unknown, tasks=[str(one) for one in answer["tasks"]])
