"""Every example does what its page says: run as a person would, on one private server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from bench.scenario import Machine, Scenario
from planner.scripted.asked import Asked
from planner.scripted.dialogue import Call, Dialogue, Turn
from planner.scripted.server import ScriptedServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ASTERISM = (sys.executable, "-P", "-m", "asterism")


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One home for all of them; its private server is ended afterwards."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ASTERISM_")}
    found = {**clean, "ASTERISM_HOME": str(tmp_path_factory.mktemp("home"))}
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found.get('PATH', '')}"
    yield found
    subprocess.run([*ASTERISM, "server", "stop"], env=found, capture_output=True, timeout=30, check=False)


def asterism(environ: dict[str, str], *words: str, folder: Path = ROOT) -> Any:
    """The JSON answer of a command that succeeded."""
    done = subprocess.run(
        [*ASTERISM, *words, "-o", "json"], env=environ, cwd=folder, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def script(environ: dict[str, str], *words: str) -> str:
    done = subprocess.run(words, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_plan_file_counts_errors_and_raises_the_alarm(environ: dict[str, str]) -> None:
    report = asterism(environ, "run", "-f", "examples/errors.json", "--input", "dir=examples/logs")
    assert report["outputs"]["table"] == [
        {"name": "billing.log", "lines": 5, "matches": 3},
        {"name": "api.log", "lines": 5, "matches": 2},
        {"name": "web.log", "lines": 3, "matches": 0},
    ]
    assert report["tasks"]["alarm"]["state"] == "succeeded"
    assert report["tasks"]["count"]["children"] == {"succeeded": 3}


def test_toml_plan_reduces_csv_files_with_its_inputs(environ: dict[str, str], tmp_path: Path) -> None:
    words = ("--input", "dir=examples/sales", "--input", "least=300", "--out", str(tmp_path / "out"))
    report = asterism(environ, "run", "-f", "examples/sales.toml", *words)
    assert report["outputs"]["items"] == [{"item": "chair", "pieces": 9, "money": 711.0}]
    saved = [path.read_text() for path in (tmp_path / "out").rglob("items.csv")]
    assert saved == ["item,pieces,money\nchair,9,711.0\n"]


@pytest.mark.parametrize(
    ("flaky", "limit", "rule", "verdict"),
    [(0, 0, "fresh", "Too many errors"), (9, 1, "stored", "Too many errors"), (9, 5, "stored", "All is well")],
)
def test_fallback_and_condition_take_each_way(
    environ: dict[str, str], flaky: int, limit: int, rule: str, verdict: str
) -> None:
    inputs = (f"flaky={flaky}", f"limit={limit}", "file=examples/logs/api.log")
    words = [word for pair in inputs for word in ("--input", pair)]
    report = asterism(environ, "run", "-f", "examples/fallback.json", *words)
    assert report["outputs"]["verdict"].startswith(f"# {verdict}")
    states = {name: row["state"] for name, row in report["tasks"].items()}
    assert (states["fresh"], states["stored"]) == (("succeeded", "skipped") if flaky == 0 else ("failed", "succeeded"))
    assert states[rule] == "succeeded"
    assert sorted((states["bad"], states["good"])) == ["skipped", "succeeded"]


def test_skill_of_the_user_runs_in_a_graph_written_in_python(environ: dict[str, str]) -> None:
    said = script(environ, sys.executable, "examples/words.py", "examples/logs")
    assert [line.split()[0] for line in said.splitlines()] == ["api.log", "billing.log", "web.log"]
    assert "'error': 3" in said


def test_spawned_halves_are_joined(environ: dict[str, str]) -> None:
    said = script(environ, sys.executable, "examples/tree.py", *map(str, range(1, 9)))
    assert said.strip() == "{'total': 36.0, 'parts': 4}"


def test_command_becomes_a_typed_skill(environ: dict[str, str]) -> None:
    words = ("--skills", "examples/tools.toml", "--input", "dir=examples/logs")
    report = asterism(environ, "run", "-f", "examples/tools.json", *words)
    assert [row["stdout"].split()[1:] for row in report["outputs"]["lines"]] == [
        ["INFO", "started,", "4", "workers"],
        ["INFO", "started", "on", "port", "8080"],
        ["INFO", "started"],
    ]


@contextmanager
def with_model(environ: dict[str, str], say: Dialogue | Callable[[Asked], Turn]) -> Iterator[dict[str, str]]:
    """The environment of a person whose model says this."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(ScriptedServer(say)) as server:
        yield {**environ, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-example"}


def test_model_sorts_letters_and_answers_one(environ: dict[str, str]) -> None:
    def say(asked: Asked) -> Turn:
        angry = "bird feeder" in asked.said
        if "Draft" in asked.said:
            return Turn(text="The birds have our sympathy.")
        if "fields" in asked.said:
            return Turn(text='{"sender": "Runner", "amount": null}' if angry else '{"sender": "Acme", "amount": 1188}')
        return Turn(text='{"choice": "money back"}' if angry else '{"choice": "to be paid"}')

    with with_model(environ, say) as given:
        report = asterism(given, "run", "-f", "examples/letters.json", "--input", "dir=examples/letters")
    assert report["outputs"] == {
        "sorted": [{"choice": "money back"}, {"choice": "to be paid"}],
        "read": [{"sender": "Runner", "amount": None}, {"sender": "Acme", "amount": 1188}],
        "reply": "The birds have our sympathy.",
    }


def test_agent_searches_the_logs_with_the_skills_it_was_given(environ: dict[str, str]) -> None:
    def call(name: str, **args: str) -> Turn:
        return Turn(calls=(Call(name, json.dumps(args)),))

    dialogue = Dialogue(
        call("fs.find", path="examples/logs"),
        call("text.match", file=str(EXAMPLES / "logs" / "billing.log"), pattern="ERROR (?P<what>.*)"),
        "Billing: 3 errors.",
    )
    with with_model(environ, dialogue) as given:
        report = asterism(given, "run", "-f", "examples/agent.json", "--input", "dir=examples/logs")
    assert report["outputs"] == {"answer": "Billing: 3 errors."}
    assert report["tasks"]["look"]["children"] == {"succeeded": 2}


def test_three_machines_search_their_own_folders_and_run_one_command(tmp_path: Path) -> None:
    """Three roots, three folders: each log is found where it lies; then `fleet.sh` on all of them."""

    async def main() -> None:
        async with Scenario(tmp_path) as fleet:
            roots = {name: Path(fleet.new_folder(name)) for name in ("web", "db", "mine")}
            for name, log in (("web", "web.log"), ("db", "billing.log"), ("mine", "api.log")):
                (roots[name] / log).write_bytes((EXAMPLES / "logs" / log).read_bytes())
            async with fleet.client() as client:
                for name in ("web", "db"):
                    await fleet.start_worker(client, Machine(name, slots=1, root=str(roots[name])))
                await fleet.joined(client, "web", "db")
                environ = {**fleet.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
                plan = str(EXAMPLES / "everywhere.json")
                report = await anyio.to_thread.run_sync(
                    lambda: asterism(environ, "run", "-f", plan, folder=roots["mine"])
                )
                rows = {row["file"].partition("//")[2].partition("/")[0].partition("-")[0]: row["matches"]
                        for row in report["outputs"]["table"]}  # fmt: skip
                assert rows == {"db": 3, "here": 2, "web": 0}
                said = await anyio.to_thread.run_sync(lambda: script(environ, "sh", str(EXAMPLES / "fleet.sh")))
                assert len(said.splitlines()) == 3

    anyio.run(main)
