"""`asterism doctor llm` against servers of every kind: what it finds, the one fix, the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest
from click.testing import CliRunner

from orchestrator.cli.doctor import doctor
from planner.scripted.asked import Asked
from planner.scripted.dialogue import Call, Dialogue, Turn, Usage
from planner.scripted.server import ScriptedServer

CANARY = "sk-canary-of-the-model"
PLAN = {
    "tasks": [
        {"id": "scan", "on": [], "when": [], "skill": "fs.find", "args": {"path": "logs"}, "approve": False},
        {
            "id": "count",
            "on": [],
            "when": [],
            "skill": "text.count",
            "args": {"file": {"ref": "scan/files[]/file"}, "pattern": "ERROR"},
            "approve": False,
        },
    ],
    "outputs": [{"name": "counts", "ref": "count"}],
}


def helpful(asked: Asked) -> Turn:
    """A model that does what doctor asks for, as far as its server makes it."""
    if asked.body.get("tools"):
        return Turn(calls=(Call(asked.body["tools"][0]["function"]["name"], '{"text":"hello"}'),))
    if "banana" in asked.said:
        return Turn(text='{"word": "banana"}', constrained=True)
    if "Count from" in asked.said:
        return Turn(text="one, two, three, four, five", rate=400.0, reasoning="hm")
    return Turn(text=json.dumps(PLAN), rate=4000.0)


def idle(asked: Asked) -> Turn:
    """A small model with a small context that does nothing of it."""
    return Turn(text="one, two", usage=Usage(60, 2))


def examine(home: Path, server: ScriptedServer, *flags: str, **variables: str) -> tuple[int, str]:
    """The command's exit code and output, with the server running."""

    async def run() -> tuple[int, str]:
        async with server:
            told = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": CANARY, **variables}
            return await anyio.to_thread.run_sync(lambda: invoke(home, *flags, **told))

    return anyio.run(run)


def invoke(home: Path, *flags: str, **variables: str) -> tuple[int, str]:
    unset = {name: None for name in os.environ if name.startswith(("ASTERISM_", "OPENAI_"))}
    environ = {**unset, "ASTERISM_HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), **variables}
    done = CliRunner(env=environ).invoke(doctor, ["llm", *flags])
    assert CANARY not in done.output
    return done.exit_code, done.output


def found(home: Path, server: ScriptedServer, **variables: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    code, text = examine(home, server, "-o", "json", **variables)
    shown = json.loads(text)
    assert all(check["fix"] for check in shown["checks"] if check["level"] != "ok")
    return code, {check["name"]: check for check in shown["checks"]}, shown["llm"]


@pytest.mark.parametrize(
    ("manners", "profile", "enforced"),
    [("openai", "openai", True), ("llama.cpp", "llama.cpp", False), ("generic", "generic", False)],
)
def test_a_server_is_found_measured_and_tried(tmp_path: Path, manners: str, profile: str, enforced: bool) -> None:
    code, checks, facts = found(tmp_path, ScriptedServer(helpful, profile=manners))
    assert code == 0, checks
    assert (facts["model"], facts["profile"], facts["schema_enforced"]) == ("scripted", profile, enforced)
    assert facts["tools"]
    assert facts["first_token_s"] >= 0
    assert 0 < facts["first_task_s"] <= facts["plan_s"]
    assert facts["tokens_per_s"] > 0
    assert checks["schema"]["level"] == ("ok" if enforced else "warning")
    assert ("usage" in checks) == (manners == "generic")
    assert checks["plan"]["level"] == "ok"


def test_what_a_weak_model_fails_at_is_named_with_its_fix(tmp_path: Path) -> None:
    code, checks, facts = found(tmp_path, ScriptedServer(idle, profile="ollama"))
    assert code == 1
    assert {name: check["level"] for name, check in checks.items()} == {
        "endpoint": "ok",
        "model": "ok",
        "profile": "ok",
        "answer": "ok" if facts["tokens_per_s"] else "warning",
        "schema": "warning",
        "tools": "warning",
        "plan": "warning",
        "context": "error",
    }
    assert "OLLAMA_CONTEXT_LENGTH" in checks["context"]["fix"]


def test_a_model_that_thinks_for_long_is_told_how_to_think_less(tmp_path: Path) -> None:
    def thinks(asked: Asked) -> Turn:
        turn = helpful(asked)
        return turn if turn.calls else msgspec.structs.replace(turn, reasoning="well, " * 300)

    extra = {"ASTERISM_LLM__EXTRA": '{"reasoning_effort": "low"}'}
    server = ScriptedServer(thinks, profile="vllm")
    _, checks, facts = found(tmp_path, server, **extra)
    assert facts["thought_tokens"] > 256
    assert "reasoning_effort" in checks["answer"]["fix"]
    assert {one.body["reasoning_effort"] for one in server.asked} == {"low"}


def test_a_wrong_profile_in_the_settings_is_noticed(tmp_path: Path) -> None:
    _, checks, facts = found(tmp_path, ScriptedServer(helpful, profile="vllm"), ASTERISM_LLM__PROFILE="ollama")
    assert facts["profile"] == "ollama"
    assert checks["profile"]["fix"] == "llm.profile = vllm"


def test_several_models_are_listed(tmp_path: Path) -> None:
    code, checks, _ = found(tmp_path, ScriptedServer(helpful, profile="vllm", models=("a", "b")))
    assert code == 1
    assert "lists a, b" in checks["model"]["found"]
    code, checks, _ = found(tmp_path, ScriptedServer(helpful, profile="vllm", models=("a", "b")), ASTERISM_MODEL="c")
    assert checks["model"]["level"] == "warning"
    assert checks["answer"]["found"].startswith("no_model")


def test_a_wrong_key_is_one_line_with_its_fix(tmp_path: Path) -> None:
    code, text = examine(tmp_path, ScriptedServer(Dialogue(), key="another"))
    assert code == 1
    assert "FAIL  server: unauthorized" in text
    assert "fix: check OPENAI_API_KEY" in text


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "no model is set"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "unreachable"),
        ({"OPENAI_BASE_URL": "http://gpu.lan/v1", "OPENAI_API_KEY": CANARY}, "plain HTTP"),
    ],
)
def test_without_a_server_it_says_so_and_ends(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    code, text = invoke(tmp_path, **variables)
    assert code == 1
    assert said in text
    assert "fix:" in text


def test_the_command_prints_one_json_value_and_exits_1(tmp_path: Path) -> None:
    environ = {**os.environ, "ASTERISM_HOME": str(tmp_path), "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    argv = [sys.executable, "-P", "-m", "asterism", "doctor", "llm", "-o", "json"]
    done = subprocess.run(argv, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["ok"], shown["checks"][-1]["name"]) == (False, "server")
