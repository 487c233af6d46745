"""A request planned by a model, on real processes: the command, its server and workers, and a scripted model server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from anyio.streams.text import TextReceiveStream

from orchestrator.cli.planning import difference
from planner.scripted.dialogue import Dialogue, Fault, Turn
from planner.scripted.server import ScriptedServer

PLAN: dict[str, Any] = {
    "tasks": [
        {"id": "scan", "on": [], "when": [], "skill": "fs.find", "args": {"path": "logs", "glob": "*.log"}},
        {"id": "count", "skill": "text.count", "args": {"file": {"ref": "scan/files[]/file"}, "pattern": "ERROR"}},
        {"id": "sum", "skill": "data.sql", "args": {
            "tables": [{"name": "c", "rows": {"ref": "count"}, "field": None}], "sql": "select sum(matches) n from c"}},
    ],
    "outputs": [{"name": "errors", "ref": "sum/rows/0/n"}],
}  # fmt: skip
TEXT = json.dumps(PLAN)
REQUEST = "how many errors are in the logs?"
NOTATION = "find(logs, *.log) -> count(ERROR) each"


class Scene:
    """A folder with logs and an ASTERISM_HOME of its own."""

    def __init__(self, folder: Path, model: ScriptedServer) -> None:
        self.folder = folder
        self.model = model
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("ASTERISM_", "OPENAI_"))},
            "ASTERISM_HOME": str(folder / "home"),
            "OPENAI_BASE_URL": model.base_url,
            "NO_COLOR": "1",
        }

    async def start(self, *args: str) -> anyio.abc.Process:
        command = [sys.executable, "-m", "asterism", *args]
        return await anyio.open_process(command, cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL)

    async def run(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "asterism", *args]
        with anyio.fail_after(60):
            return await anyio.run_process(command, cwd=self.folder, env=self.environ, check=False)


@asynccontextmanager
async def scene(folder: Path, dialogue: Dialogue, **more: Any) -> AsyncIterator[Scene]:
    (folder / "logs").mkdir()
    (folder / "logs" / "a.log").write_text("ERROR one\nfine\nERROR two\n")
    (folder / "logs" / "b.log").write_text("ERROR three\n")
    async with ScriptedServer(dialogue, **more) as model:
        place = Scene(folder, model)
        try:
            yield place
        finally:
            with anyio.CancelScope(shield=True):
                await place.run("server", "stop")


async def until(stream: anyio.abc.ByteReceiveStream, words: str) -> str:
    """What the stream says up to these words."""
    said = ""
    with anyio.fail_after(40):
        async for text in TextReceiveStream(stream):
            said += text
            if words in said:
                return said
    raise AssertionError(f"it never said {words!r}: {said}")


def test_tasks_run_while_the_model_still_writes(tmp_path: Path) -> None:
    async def main() -> None:
        turn = Turn(text=TEXT, faults=(Fault("hold", '"text.count"'),))
        async with scene(tmp_path, Dialogue(turn, TEXT)) as place:
            process = await place.start("run", REQUEST)
            asked = await place.model.request(0)
            assert process.stderr is not None
            said = await until(process.stderr, "scan succeeded")
            assert "planning with llm" in said
            assert not asked.over.is_set()
            asked.release()
            said = await until(process.stderr, "succeeded in")
            assert "planned by llm:scripted: 3 tasks" in said
            assert await process.wait() == 0
            report = json.loads((await place.run("result", "-o", "json")).stdout)
            document = json.loads((await place.run("plan", REQUEST, "-o", "json")).stdout)
        assert [task["id"] for task in document["tasks"]] == ["scan", "count", "sum"]
        assert document["planner"]["kind"] == "llm:scripted"
        assert report["outputs"] == {"errors": 3}
        planner = report["planner"]
        assert (planner["kind"], planner["calls"]) == ("llm:scripted", 1)
        assert planner["tokens_in"] > 0 < planner["tokens_out"]
        assert planner["first_task_s"] < report["makespan_s"]

    anyio.run(main)


def test_ctrl_c_cancels_the_run_and_closes_the_socket_of_the_model(tmp_path: Path) -> None:
    async def main() -> None:
        turn = Turn(text=TEXT, faults=(Fault("hold", '"text.count"'),))
        async with scene(tmp_path, Dialogue(turn)) as place:
            process = await place.start("run", REQUEST)
            asked = await place.model.request(0)
            assert process.stderr is not None
            await until(process.stderr, "scan succeeded")
            process.send_signal(signal.SIGINT)
            with anyio.fail_after(20):
                await asked.closed.wait()
                assert await process.wait() == 130

    anyio.run(main)


def test_what_stays_wrong_fails_the_run_with_its_reasons_and_keeps_what_was_done(tmp_path: Path) -> None:
    async def main() -> None:
        wrong = TEXT.replace("data.sql", "data.squeal")
        async with scene(tmp_path, Dialogue(Turn(text=wrong, times=0))) as place:
            done = await place.run("run", REQUEST, "-o", "json")
            report = json.loads(done.stdout)
            assert (done.returncode, report["error"]["code"]) == (2, "PlanRefused")
            assert "there is no skill data.squeal" in report["error"]["message"]
            assert "did you mean data.sql?" in report["error"]["message"]
            assert report["tasks"]["count"]["state"] == "succeeded"
            assert len(place.model.asked) == 2

    anyio.run(main)


def test_a_failure_is_planned_around_by_the_model_that_hears_no_word_of_the_worker(tmp_path: Path) -> None:
    async def main() -> None:
        bad = {"id": "bad", "skill": "flow.fail", "args": {"times": 99, "how": "error", "value": None}}
        good = {"id": "good", "skill": "flow.list", "args": {"items": [{"ref": "bad/value"}, 1]}}
        other = {**bad, "skill": "flow.list", "args": {"items": [7]}}
        first = {"tasks": [bad, good, {**other, "id": "beside"}], "outputs": [{"name": "n", "ref": "good/items"}]}
        again = {"base": 1, "why": "it always fails", "edits": [], "outputs": []}
        again["tasks"] = [other, {**good, "args": {"items": [{"ref": "bad/items"}, 1]}}]
        turns = (Turn(text=json.dumps(again), match="# State of the graph"), Turn(text=json.dumps(first)))
        async with scene(tmp_path, Dialogue(*turns)) as place:
            report = json.loads((await place.run("run", REQUEST, "-o", "json")).stdout)
            assert (report["state"], report["outputs"]) == ("succeeded", {"n": [[7], 1]}), report
            assert (report["planner"]["calls"], report["recovered"]["replans"]) == (2, 1)
            told = place.model.asked[1].said
            assert '"failed":["bad"]' in told
            assert '"code":"TryAgain"' in told
            assert "fails as asked" not in told, "what the skill said of its failure"

    anyio.run(main)


def test_nobody_stands_in_for_a_model_that_is_down_if_that_is_not_wanted(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, Dialogue(Turn(status=500, times=0))) as place:
            place.environ["ASTERISM_PLANNER__FALLBACK"] = "none"
            done = await place.run("run", NOTATION, "-o", "json")
            report = json.loads(done.stdout)
            assert (done.returncode, report["error"]["code"]) == (1, "PlannerFailed")
            assert "HTTP 500" in report["error"]["message"]
            assert report["error"]["hint"].startswith("try again")
            shown = await place.run("plan", NOTATION, "-o", "json")
            assert (shown.returncode, json.loads(shown.stdout)["error"]["code"]) == (1, "PlannerFailed")

    anyio.run(main)


def test_who_plans_is_told_where_it_is_not_what_the_caller_has_set(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, Dialogue(TEXT)) as place:
            url = place.environ.pop("OPENAI_BASE_URL")
            assert b"planned by catalog" in (await place.run("run", NOTATION)).stderr
            place.environ["OPENAI_BASE_URL"] = url
            done = await place.run("run", NOTATION)
            assert done.returncode == 0
            assert b"the server plans without a model" in done.stderr
            assert b"asterism server stop" in done.stderr
            done = await place.run("run", REQUEST, "--planner", "llm")
            assert done.returncode == 2
            assert b"no model is set" in done.stderr

    anyio.run(main)


URL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("server", "environ", "said"),
    [
        ("catalog", {}, ""),
        ("catalog", {"OPENAI_API_KEY": "k"}, "plans without a model"),
        (f"llm at {URL}", {"OPENAI_BASE_URL": URL}, ""),
        (f"llm:m at {URL}", {"OPENAI_BASE_URL": URL, "ASTERISM_MODEL": "m"}, ""),
        (f"llm:m at {URL}", {"OPENAI_BASE_URL": URL, "ASTERISM_MODEL": "n"}, "not with n at"),
        (f"llm:m at {URL}", {"OPENAI_BASE_URL": URL.replace(":9", ":8")}, "not with the model at http://127.0.0.1:8"),
        (f"llm:m at {URL}", {}, "--planner catalog"),
        ("none: llm.base_url is wrong", {"OPENAI_BASE_URL": URL}, ""),
        ("catalog", {"OPENAI_API_KEY": "k", "ASTERISM_PLANNER__DEFAULT": "catalog"}, ""),
        ("catalog", {"OPENAI_BASE_URL": "no url"}, ""),
    ],
)
def test_the_difference_between_a_server_and_its_caller_is_put_in_words(
    tmp_path: Path, server: str, environ: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = difference(server, {"ASTERISM_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), **environ})
    assert said in found
    assert bool(found) == bool(said)


def test_what_served_before_is_shown_to_the_model_and_what_was_saved_needs_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene(tmp_path, Dialogue(Turn(text=TEXT, times=0))) as place:

            async def said(*args: str) -> Any:
                done = await place.run(*args, "-o", "json")
                assert done.returncode == 0, done.stderr.decode()
                return json.loads(done.stdout)

            await said("run", REQUEST)
            like = "how many errors are in the logs of the cellar?"
            assert (await said("plan", like))["planner"]["examples"] == [{"run": "r1", "request": REQUEST}]
            prompt = json.dumps(place.model.asked[-1].body["messages"])
            assert REQUEST in prompt
            assert "select sum(matches) n from c" in prompt
            await said("rm", "r1")
            assert (await said("plan", like))["planner"]["examples"] == []
            await said("plan", like, "--save", "errors-of", "--param", "word=ERROR")
            before = len(place.model.asked)
            report = await said("run", like)
            assert (report["planner"]["kind"], report["outputs"]) == ("template:errors-of", {"errors": 3})
            assert len(place.model.asked) == before

    anyio.run(main)
