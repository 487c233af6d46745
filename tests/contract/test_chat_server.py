"""What a call to a model may rely on, whoever answers: every emulated server, and the real one of OPENAI_BASE_URL.

With a real one it takes some thousand tokens of it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from planner.scripted.asked import Asked
from planner.scripted.dialogue import Call, Turn
from planner.scripted.emulation import EMULATIONS
from planner.scripted.server import ScriptedServer
from protocol.chat import ChatMessage, ChatRequest, ChatTool, ToolCall
from protocol.chat_client import OpenAIChat, open_chat
from protocol.config import load
from protocol.setting import LlmDefaults

SERVERS = [*EMULATIONS, *(["live"] if os.environ.get("OPENAI_BASE_URL") else [])]
COUNT = ChatRequest((ChatMessage("user", "Count from 1 to 30 in digits, separated by commas."),), max_tokens=2000)
ECHO = ChatTool("test.echo", "Gives a text back.", {
    "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False,
})  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}


def obliging(asked: Asked) -> Turn:
    """A model that does what these tests ask for."""
    if asked.body["messages"][-1]["role"] == "tool":
        return Turn(text="It said hello.")
    if asked.body.get("tools"):
        return Turn(calls=(Call(asked.body["tools"][0]["function"]["name"], '{"text": "hello"}'),))
    if "colour" in asked.said:
        return Turn(text='{"colour": "blue"}', reasoning="the sky")
    return Turn(text=", ".join(map(str, range(1, 31))), reasoning="easy")


@asynccontextmanager
async def opened(server: str) -> AsyncIterator[OpenAIChat]:
    if server == "live":
        yield open_chat(load().settings.llm, os.environ)
        return
    async with ScriptedServer(obliging, profile=server) as scripted:
        yield open_chat(LlmDefaults(base_url=scripted.base_url), {"OPENAI_API_KEY": "k"})


def on(server: str, play: Callable[[OpenAIChat], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(server) as chat:
            await play(chat)

    anyio.run(run)


every_server = pytest.mark.parametrize("server", SERVERS)


@every_server
def test_text_is_heard_in_pieces_and_counted(server: str) -> None:
    async def play(chat: OpenAIChat) -> None:
        heard: list[str] = []

        async def hear(text: str) -> None:
            heard.append(text)

        reply = await chat.complete(COUNT, hear)
        assert reply.kind == "complete", reply
        assert "".join(heard) == reply.text
        assert "29, 30" in reply.text.replace(",30", ", 30")
        assert reply.tokens_in > 5
        assert reply.tokens_out > 10
        assert chat.name
        assert chat.profile is not None

    on(server, play)


@every_server
def test_a_limit_of_tokens_cuts_and_says_so(server: str) -> None:
    async def play(chat: OpenAIChat) -> None:
        reply = await chat.complete(msgspec.structs.replace(COUNT, max_tokens=16))
        assert reply.kind == "length", reply
        assert reply.tokens_out <= 20

    on(server, play)


@every_server
def test_a_schema_is_asked_for_in_a_form_that_the_server_takes(server: str) -> None:
    async def play(chat: OpenAIChat) -> None:
        asked = ChatRequest((ChatMessage("user", "Which colour has the sky?"),), SCHEMA, "sky", max_tokens=2000)
        reply = await chat.complete(asked)
        assert reply.kind == "complete", reply
        assert msgspec.json.decode(reply.text) == {"colour": "blue"}

    on(server, play)


@every_server
def test_a_tool_is_called_by_its_own_name_and_answered(server: str) -> None:
    async def play(chat: OpenAIChat) -> None:
        asked = ChatRequest(
            (ChatMessage("user", "Call the tool with the text hello, then say what it said."),),
            tools=(ECHO,),
            tool_choice="required",
            max_tokens=2000,
        )
        reply = await chat.complete(asked)
        assert reply.kind == "tool_calls", reply
        call = reply.tool_calls[0]
        assert call.name == "test.echo"
        assert msgspec.json.decode(call.arguments) == {"text": "hello"}
        answers = tuple(ChatMessage("tool", "hello", answers=one.id) for one in reply.tool_calls)
        messages = (*asked.messages, ChatMessage("assistant", reply.text, reply.tool_calls), *answers)
        last = await chat.complete(msgspec.structs.replace(asked, messages=messages, tool_choice="auto"))
        assert last.kind == "complete", last
        assert "hello" in last.text

    on(server, play)


@every_server
def test_a_call_that_is_dropped_leaves_the_next_one_alone(server: str) -> None:
    async def play(chat: OpenAIChat) -> None:
        async with anyio.create_task_group() as group:

            async def hear(text: str) -> None:
                group.cancel_scope.cancel()

            group.start_soon(chat.complete, COUNT, hear)
        assert (await chat.complete(COUNT)).kind == "complete"

    on(server, play)


@every_server
def test_a_deadline_holds(server: str) -> None:
    async def play(chat: OpenAIChat) -> None:
        assert (await chat.complete(msgspec.structs.replace(COUNT, deadline_s=0.001))).kind == "timeout"

    on(server, play)


def test_an_argument_that_nobody_wrote_is_an_empty_object() -> None:
    async def play() -> None:
        def silent(asked: Asked) -> Turn:
            return Turn(calls=(Call("test_echo", ""),))

        async with ScriptedServer(silent, profile="vllm") as server:
            chat = open_chat(LlmDefaults(base_url=server.base_url), {})
            reply = await chat.complete(ChatRequest(COUNT.messages, tools=(ECHO,)))
            assert [(one.name, one.arguments) for one in reply.tool_calls] == [("test.echo", "{}")]
            assert isinstance(reply.tool_calls[0], ToolCall)

    anyio.run(play)
