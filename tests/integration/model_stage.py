"""A fleet whose worker has a model: a real server and worker, and a scripted model server over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.scenario import Machine, Scenario
from orchestrator.client.client import AsyncClient
from planner.scripted.asked import Asked
from planner.scripted.dialogue import Call, Dialogue, Turn
from planner.scripted.server import ScriptedServer

KEY = "sk-canary-of-the-model"
MACHINE = "pi"


class Stage:
    """What a test uses: `play` says what the model will say, `run` runs one task of the worker with a model."""

    def __init__(self, fleet: Scenario, client: AsyncClient, model: ScriptedServer, root: Path) -> None:
        self.fleet, self.client, self.model, self.root = fleet, client, model, root
        self.dialogue = Dialogue()

    def play(self, *turns: Turn | str) -> None:
        self.dialogue = Dialogue(*turns)
        self.model.asked.clear()

    async def submit(self, skill: str, budget: dict[str, Any] | None = None, **args: Any) -> Any:
        plan = {"tasks": [task(skill, **args)], "outputs": [{"name": "a", "ref": "a"}]}
        return await self.client.submit(plan, budget=budget)

    async def run(self, skill: str, **args: Any) -> Any:
        """The value. Raises: RunFailed."""
        return (await (await self.submit(skill, **args)).result(60))["a"]

    async def ended(self, skill: str, **args: Any) -> dict[str, Any]:
        """The row of its task in the report, however it ended."""
        live = await self.submit(skill, **args)
        await live.wait(60)
        return dict((await self.client.result_of(live.run)).report["tasks"]["a"])

    def told(self, number: int) -> list[str]:
        """What the tools answered that the n-th request shows to the model."""
        return [row["content"] for row in self.model.asked[number].body["messages"] if row["role"] == "tool"]


def task(skill: str, **args: Any) -> dict[str, Any]:
    return {"id": "a", "skill": skill, "on": [MACHINE], "args": args, "retry": {"max": 1, "backoff": "10ms"}}


def calls(*made: tuple[str, dict[str, Any]], **turn: Any) -> Turn:
    return Turn(calls=tuple(Call(name, msgspec.json.encode(args).decode()) for name, args in made), **turn)


@asynccontextmanager
async def stage(
    parent: Path, *, profile: str = "openai", skills: str = "", slots: int = 2, **environ: str
) -> AsyncIterator[Stage]:
    holder: list[Stage] = []

    def say(asked: Asked) -> Turn:
        return holder[0].dialogue(asked.said)

    async with ScriptedServer(say, profile, key=KEY) as model:
        fleet = Scenario(parent)
        for name in [one for one in fleet.environ if one.startswith("OPENAI_")]:
            del fleet.environ[name]
        with_model = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": model.base_url, "XDG_CONFIG_HOME": str(parent)}
        fleet.environ.update({**with_model, **environ})
        async with fleet, fleet.client() as client:
            root = Path(fleet.new_folder("root"))
            (root / "notes.txt").write_text("alpha\nbeta ERROR\n")
            machine = Machine(MACHINE, slots=slots, root=str(root))
            if skills:
                (root / "agent_tools.py").write_text(skills)
                machine = msgspec.structs.replace(machine, skills=(str(root / "agent_tools.py"),))
            await fleet.start_worker(client, machine)
            await fleet.joined(client, MACHINE)
            holder.append(Stage(fleet, client, model, root))
            yield holder[0]
