"""What is sent to each server, and what remains of it when the server refuses a part by name."""

from __future__ import annotations

import msgspec
import pytest

from protocol.chat import ChatMessage, ChatRequest, ChatTool, tokens_in, tokens_of
from protocol.chat_body import body, wire_names
from protocol.chat_profile import PROFILES, ServerProfile, concede, listed, recognise
from protocol.setting import LlmDefaults

LLM = LlmDefaults(max_tokens=100)
ASKED = ChatRequest((ChatMessage("system", "be brief"), ChatMessage("user", "hi")), schema={"type": "object"})


def tool(name: str) -> ChatTool:
    return ChatTool(name, "", {"type": "object"})


def test_names_of_tools_lose_what_servers_refuse_and_stay_different() -> None:
    names = ("fs.find", "fs_find", "fs-find", "fs find", "é" * 70, "x" * 90, "x" * 91)
    wire = wire_names([tool(name) for name in names])
    assert list(wire.values()) == list(names)
    assert all(len(name) <= 64 and name.replace("-", "_").isidentifier() and name.isascii() for name in wire)
    assert list(wire)[:4] == ["fs_find", "fs_find_2", "fs-find", "fs_find_3"]


@pytest.mark.parametrize(
    ("profile", "form", "shown"),
    [
        ("openai", {"type": "json_schema", "strict": True}, False),
        ("vllm", {"type": "json_schema"}, True),
        ("llama.cpp", {"type": "json_schema"}, True),
        ("ollama", {"type": "json_schema"}, True),
        ("generic", {"type": "json_schema"}, True),
    ],
)
def test_a_schema_is_asked_for_as_each_server_wants_it(profile: str, form: dict[str, object], shown: bool) -> None:
    made = body(ASKED, PROFILES[profile], "m", LLM)
    assert made["response_format"]["type"] == form["type"]
    assert made["response_format"]["json_schema"].get("strict") == form.get("strict")
    assert ("JSON Schema" in made["messages"][0]["content"]) == shown
    assert made["messages"][0]["content"].startswith("be brief")
    explained = body(msgspec.structs.replace(ASKED, explained=True), PROFILES[profile], "m", LLM)
    assert explained["messages"][0]["content"] == "be brief"


def test_without_a_system_message_the_schema_gets_one() -> None:
    made = body(ChatRequest((ChatMessage("user", "hi"),), schema={"type": "object"}), PROFILES["vllm"], "m", LLM)
    assert [one["role"] for one in made["messages"]] == ["system", "user"]


def test_a_setting_adds_what_only_the_server_knows_and_changes_nothing_else() -> None:
    llm = LlmDefaults(max_tokens=100, extra={"reasoning_effort": "low", "stream": False, "model": "other"})
    made = body(ASKED, PROFILES["vllm"], "m", llm)
    assert made == {**body(ASKED, PROFILES["vllm"], "m", LLM), "reasoning_effort": "low"}


def test_the_limit_has_the_name_that_the_server_knows() -> None:
    assert body(ASKED, PROFILES["openai"], "m", LLM)["max_completion_tokens"] == 100
    assert body(msgspec.structs.replace(ASKED, max_tokens=7), PROFILES["vllm"], "m", LLM)["max_tokens"] == 7


@pytest.mark.parametrize(
    ("said", "parameter", "change"),
    [
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", "", {"limit": "max_completion_tokens"}),
        ("'max_tokens' or 'max_completion_tokens' must be there", "max_tokens", {"limit": "max_completion_tokens"}),
        ("Unsupported value: 'temperature' does not support 0", "temperature", {"temperature": False}),
        ("Unrecognized request argument supplied: stream_options", "", {"usage": False}),
        ("tool_choice is not supported", "", {"choice": False}),
        ("This model does not support response_format", "", {"schema": "object"}),
        ("Invalid schema for response_format 'a'", "response_format.json_schema", {"schema": "object"}),
        ("grammar is too large", "", {"schema": "object"}),
    ],
)
def test_what_a_server_refuses_by_name_is_left_out(said: str, parameter: str, change: dict[str, object]) -> None:
    assert concede(PROFILES["generic"], said, parameter) == msgspec.structs.replace(PROFILES["generic"], **change)


def test_concessions_come_to_an_end() -> None:
    profile: ServerProfile | None = PROFILES["openai"]
    steps = 0
    while profile is not None and steps < 20:
        profile, steps = concede(profile, "stream_options temperature tool_choice response_format"), steps + 1
    assert steps == 7
    assert concede(PROFILES["generic"], "context length exceeded") is None


def test_a_server_is_known_by_what_it_says_of_itself() -> None:
    def owned(owner: object) -> object:
        return {"data": [7, {"id": "m", "owned_by": owner}]}

    known = {"vllm": "vllm", "llamacpp": "llama.cpp", "library": "ollama", "system": "openai"}
    for owner, name in known.items():
        assert recognise({}, owned(owner)) == PROFILES[name]
    assert recognise({"server": "llama.cpp"}, None) == PROFILES["llama.cpp"]
    for strange in (None, [], {}, {"data": 7}, owned(None), owned(["vllm"]), owned("me")):
        assert recognise({"server": "uvicorn"}, strange) is None
    assert listed(owned("me")) == ("m",)
    assert listed({"data": {"id": "m"}}) == ()


def test_estimates_are_rather_too_high() -> None:
    assert tokens_of("") == 0
    assert tokens_of("a") == 1
    assert tokens_of("漢字かな") == 3
    assert tokens_in(ASKED) > tokens_of("be briefhi")
