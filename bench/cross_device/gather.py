"""What a run came to: the values of its tasks, its outputs, and what lies on the machines' disks.

Of another graph than the gold one nobody knows which task makes an output, so the files that any task made are taken
as well. Invariant: files are read where they are, by no skill and through no cache. It must not know what is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio.to_thread

from orchestrator.client.live import AsyncLive
from planner.wiring import makes_file
from protocol.errors import AsterismError
from protocol.skill import SkillSpec

from .case import Case
from .check import OUTPUT, Outcome, place
from .content import Content, content_of
from .site import FiveMachines


async def gather(
    stage: FiveMachines, case: Case, live: AsyncLive, report: Mapping[str, Any], *, loose: bool
) -> Outcome:
    """`loose`: all values and output files, since nobody knows which will be looked at."""
    succeeded = [name for name, row in report["tasks"].items() if row["state"] == "succeeded"]
    values: dict[str, Any] = {}
    for name in succeeded if loose else {one.id for one in case.subtasks}:
        try:
            values[name] = await stage.client.value(live.run, name)
        except AsterismError:
            continue  # it has none: the claim about it will say so
    files: dict[str, Content | None] = {}
    for one in case.checks:
        if one.file:
            machine, _, path = one.file.partition(":")
            files[place(one)] = await anyio.to_thread.run_sync(content_of, stage.root(machine) / path)
    named = {one.output for one in case.checks if one.output and one.form}
    outputs: Mapping[str, Any] = report["outputs"]
    wanted = {name: outputs.get(name) for name in (outputs if loose else named)}
    if loose and named:
        wanted |= await _made(stage, report, values)
    for name, value in wanted.items():
        content = await _fetched(stage, live, value)
        if content is not None:
            files[OUTPUT + name] = content
    state = "partial" if report["state"] == "failed" and succeeded else report["state"]
    return Outcome(state, values, dict(report["outputs"]), files)


async def _made(stage: FiveMachines, report: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The results with a file that their task made, and was not given; of a map each of its elements."""
    rows = (await stage.client.connection.call("skills"))["skills"]
    skills = (SkillSpec(row["name"], params=row["params"], result=row["result"]) for row in rows)
    makers = {skill.name for skill in skills if makes_file(skill)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if report["tasks"][name]["skill"] in makers:
            found |= {f"{name}.{n}": one for n, one in enumerate(value)} if isinstance(value, list) else {name: value}
    return found


async def _fetched(stage: FiveMachines, live: AsyncLive, value: Any) -> bytes | None:
    """The content of the file that an output is, or names as its `file`."""
    uri = value.get("file") if isinstance(value, dict) else value
    if not isinstance(uri, str):
        return None
    target = stage.fleet.folder / "fetched"
    try:
        await stage.client.fetch(live.run, uri, target)
    except AsterismError:
        return None
    return await anyio.to_thread.run_sync(target.read_bytes)
