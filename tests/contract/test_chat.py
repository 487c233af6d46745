"""A model's port over real HTTP: every mishap of a server becomes its value, in time, with the text before it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import msgspec
import pytest

from planner.scripted.dialogue import Call, Dialogue, Fault, Turn, Usage
from planner.scripted.mishap import ENDLESS, mishaps
from planner.scripted.server import ScriptedServer
from protocol.chat import ChatMessage, ChatReply, ChatRequest, ChatTool, ToolCall
from protocol.chat_client import OpenAIChat, open_chat
from protocol.setting import LlmDefaults

CANARY: Final = "sk-canary-of-the-model"
ASKED: Final = ChatRequest((ChatMessage("user", "hi"),), deadline_s=60.0)
TEXT: Final = "A text of quite a few tokens, Grüße und 🚀, that ends here."
KINDS: Final = {
    "no byte of a reply": "stalled",
    "hangs up before the reply": "cut",
    "resets before the reply": "cut",
    "headers byte by byte": "stalled",
    "stall before the first token": "stalled",
    "stall within": "stalled",
    "stall after the last token": "stalled",
    "only comments": "stalled",
    "only comments, within": "stalled",
    "only empty deltas": "stalled",
    "only empty deltas, within": "stalled",
    "cut before the first token": "cut",
    "cut within": "cut",
    "cut after the last token": "cut",
    "reset within": "cut",
    "error in the stream": "server_error",
    "event that is no JSON": "garbage",
    "event of another shape": "garbage",
    "event that is a list": "garbage",
    "broken chunks": "garbage",
    "no finish reason and no [DONE]": "cut",
    "truncated": "length",
    "filtered": "filtered",
    "refusal": "refused",
    "endless": "timeout",
    "endless blanks": "stalled",
    "400": "bad_request",
    "401": "unauthorized",
    "403": "unauthorized",
    "404": "bad_request",
    "429": "rate_limited",
    "429 for an hour": "rate_limited",
    "429 without a time": "rate_limited",
    "500": "server_error",
    "502 in HTML": "server_error",
    "503": "server_error",
    "200 in HTML": "garbage",
    "redirect": "unreachable",
}
"""The kind of each mishap; of all others: complete."""
SILENT: Final = {name for name, kind in KINDS.items() if kind == "stalled"} - {"endless blanks"}
SOON: Final = (("retry-after-ms", "50"),)
MATRIX: Final = mishaps(Turn(text=TEXT))


def chat_at(server: ScriptedServer, profile: str = "vllm", model: str = "scripted") -> OpenAIChat:
    llm = LlmDefaults.model_validate({"base_url": server.base_url, "profile": profile, "model": model})
    return open_chat(llm, {"OPENAI_API_KEY": CANARY})


async def ask(turn: Turn, request: ChatRequest = ASKED, manners: str = "vllm", profile: str = "auto") -> ChatReply:
    """One call; that what was heard is what was kept, and that the key stays where it belongs."""
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    async with ScriptedServer(Dialogue(turn), profile=manners) as server:
        chat = chat_at(server, profile)
        reply = await chat.complete(request, hear)
        assert "".join(heard) == reply.text
        assert CANARY not in f"{reply}{chat}{chat.endpoint}"
        assert all(one.headers["authorization"] == f"Bearer {CANARY}" for one in server.requests)
        return reply


def run(play: Callable[[], Awaitable[object]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(60):
            await play()

    anyio.run(bounded)


def test_every_mishap_of_the_matrix_has_its_kind_and_its_time() -> None:
    replies: dict[str, ChatReply] = {}

    async def one(name: str, turn: Turn) -> None:
        # each gets all the time there is, but for the one limit that has to end it
        request = ASKED
        if name in SILENT:
            request = msgspec.structs.replace(ASKED, first_token_s=2.0, stall_s=2.0)
        if name == "endless":
            request = msgspec.structs.replace(ASKED, deadline_s=2.5)
        turn = msgspec.structs.replace(turn, times=0, headers=SOON if name in ("429", "503") else turn.headers)
        with anyio.fail_after(request.deadline_s + 10):
            replies[name] = await ask(turn, request)

    async def play() -> None:
        assert SILENT | {"endless", "endless blanks"} >= ENDLESS
        async with anyio.create_task_group() as group:
            for name, turn in MATRIX.items():
                group.start_soon(one, name, turn)

    run(play)
    assert {name: reply.kind for name, reply in replies.items()} == {
        name: KINDS.get(name, "complete") for name in MATRIX
    }
    for name, reply in replies.items():
        assert reply.whole == (reply.kind == "complete")
        assert reply.whole or (reply.message and reply.hint), name
        if "within" in name:
            assert reply.text == TEXT[:20], name
        if name in ("CRLF", "bytes cut anywhere", "no [DONE]", "no finish reason", "stall after the last token"):
            assert reply.text == TEXT, name
    assert replies["429 for an hour"].retry_after_s == 3600
    assert replies["400"].message == "HTTP 400: context length exceeded"
    assert replies["refusal"].message == "I can't help with that."
    assert replies["one document though a stream was asked for"].text == TEXT


TOOL: Final = ChatTool("fs.find", "find files", {"type": "object", "properties": {"path": {"type": "string"}}})
SCHEMA: Final = {
    "type": "object",
    "properties": {"word": {"type": "string", "enum": ["yes"]}},
    "required": ["word"],
    "additionalProperties": False,
}
MANNERS: Final = {
    "openai": "openai",
    "openai-reasoning": "openai",
    "vllm": "vllm",
    "llama.cpp": "llama.cpp",
    "ollama": "ollama",
    "holding": "vllm",
    "generic": "generic",
}
"""Whose manners, and as which profile such a server is recognised."""


@pytest.mark.parametrize(("manners", "profile"), MANNERS.items())
def test_each_server_is_recognised_and_served_as_it_wants(manners: str, profile: str) -> None:
    turn = Turn(text="well", calls=(Call("fs_find", '{"path":"a b"}'), Call("fs_find", "{}")), reasoning="hm hm")
    request = msgspec.structs.replace(ASKED, tools=(TOOL,), tool_choice="required", temperature=0.0, max_tokens=50)
    asked_for = msgspec.structs.replace(ASKED, schema=SCHEMA, schema_name="word", temperature=0.0)

    async def play() -> None:
        said = Turn(text='{"word":"no"}', constrained=True, reasoning="say yes")
        async with ScriptedServer(Dialogue(turn, said), profile=manners) as server:
            chat = chat_at(server, "auto", model="")
            reply = await chat.complete(request)
            assert (chat.name, chat.profile and chat.profile.name) == ("scripted", profile)
            assert [(call.name, call.arguments) for call in reply.tool_calls] == [
                ("fs.find", '{"path":"a b"}'),
                ("fs.find", "{}"),
            ]
            assert len({call.id for call in reply.tool_calls}) == 2
            assert (reply.kind, reply.text) == ("tool_calls", "well")
            reply = await chat.complete(asked_for)
            assert reply.kind == "complete"
            assert reply.text == ('{"word":"no"}' if manners in ("llama.cpp", "generic") else '{"word":"yes"}')
            assert reply.estimated == (manners == "generic")
            assert reply.tokens_in > 0
            shown = "JSON Schema" in server.asked[-1].said
            assert shown == (profile != "openai"), "the schema is in the prompt where the server hides it"

    run(play)


def test_what_a_server_refuses_is_left_out_and_not_asked_for_again() -> None:
    async def play() -> None:
        async with ScriptedServer(Dialogue(Turn(text="a", times=0)), profile="openai-reasoning") as server:
            chat = chat_at(server, "generic")  # says max_tokens, which this server refuses
            request = msgspec.structs.replace(ASKED, temperature=0.5)
            assert [(await chat.complete(request)).kind for _ in range(2)] == ["complete", "complete"]
            assert len(server.asked) == 4
            assert server.asked[-1].body.keys() == {
                "model",
                "messages",
                "stream",
                "stream_options",
                "max_completion_tokens",
            }

    run(play)


def test_a_schema_that_one_mode_refuses_is_asked_for_in_the_next_and_only_this_once() -> None:
    loose = {"type": "object", "properties": {"word": {"type": "string"}}}

    async def play() -> None:
        async with ScriptedServer(Dialogue(Turn(text='{"word":"a"}', times=0)), profile="openai") as server:
            chat = chat_at(server, "openai")
            for schema in (loose, SCHEMA):
                assert (await chat.complete(msgspec.structs.replace(ASKED, schema=schema))).kind == "complete"
            forms = [one.body["response_format"]["json_schema"].get("strict", False) for one in server.asked]
            assert forms == [True, False, True]

    run(play)


@pytest.mark.parametrize(
    ("models", "kind", "said"),
    [(("one",), "complete", ""), (("b", "a"), "no_model", "lists b, a"), ((), "no_model", "lists none")],
)
def test_without_a_model_the_only_one_is_taken_else_they_are_listed(
    models: tuple[str, ...], kind: str, said: str
) -> None:
    async def play() -> None:
        async with ScriptedServer(Dialogue("hello"), profile="vllm", models=models) as server:
            reply = await chat_at(server, "auto", model="").complete(ASKED)
            assert (reply.kind, said in reply.message) == (kind, True)
            if kind == "no_model":
                assert "ASTERISM_MODEL" in reply.hint
                assert not server.asked

    run(play)


def test_a_wrong_model_and_a_wrong_key_are_told_apart() -> None:
    async def play() -> None:
        async with ScriptedServer(Dialogue(), profile="vllm", key="another") as server:
            reply = await chat_at(server).complete(ASKED)
            assert reply.kind == "unauthorized"
            assert "OPENAI_API_KEY" in reply.hint
        async with ScriptedServer(Dialogue(), profile="vllm") as server:
            assert (await chat_at(server, model="absent").complete(ASKED)).kind == "no_model"

    run(play)


def test_a_rate_limit_is_waited_for_as_long_as_the_server_says() -> None:
    limited = Turn(status=429, headers=(("retry-after-ms", "20"),))

    async def play() -> None:
        async with ScriptedServer(Dialogue(limited, limited, "hello"), profile="vllm") as server:
            assert (await chat_at(server).complete(ASKED)).text == "hello"
            assert len(server.asked) == 3

    run(play)


def test_a_wait_that_the_deadline_does_not_hold_is_not_begun() -> None:
    limited = Turn(status=429, headers=(("retry-after", "90"),), times=0)

    async def play() -> None:
        async with ScriptedServer(Dialogue(limited), profile="vllm") as server:
            reply = await chat_at(server).complete(ASKED)
            assert (reply.kind, reply.retry_after_s, len(server.asked)) == ("rate_limited", 90, 1)

    run(play)


def test_an_account_without_credit_is_not_waited_for() -> None:
    spent = Turn(status=429, error="You exceeded your current quota, please check your plan and billing details.")

    async def play() -> None:
        async with ScriptedServer(Dialogue(spent), profile="openai") as server:
            reply = await chat_at(server, "openai").complete(ASKED)
            assert (reply.kind, len(server.asked)) == ("rate_limited", 1)
            assert "credit" in reply.hint

    run(play)


def test_cancelling_closes_the_socket() -> None:
    async def play() -> None:
        async with ScriptedServer(Dialogue(Turn(text=TEXT, faults=(Fault("hold", "quite"),)))) as server:
            async with anyio.create_task_group() as group:
                group.start_soon(chat_at(server).complete, ASKED)
                asked = await server.request(0)
                await asked.holding.wait()
                group.cancel_scope.cancel()
            await asked.closed.wait()

    run(play)


def test_a_listener_that_takes_its_time_is_no_stall_of_the_server() -> None:
    async def play() -> None:
        async def hear(text: str) -> None:
            await anyio.sleep(0.7)

        async with ScriptedServer(Dialogue(Turn(parts=("ab", "cd")))) as server:  # at once: it is never silent
            request = msgspec.structs.replace(ASKED, stall_s=0.5)
            assert (await chat_at(server).complete(request, hear)).text == "abcd"

    run(play)


def test_what_a_listener_raises_ends_the_call_and_its_connection() -> None:
    async def hear(text: str) -> None:
        raise ConnectionResetError(text)  # no fault of the server, though it looks like one

    async def play() -> None:
        async with ScriptedServer(Dialogue(Turn(text=TEXT, faults=(Fault("stall", 3),)))) as server:
            with pytest.raises(ConnectionResetError):
                await chat_at(server).complete(ASKED, hear)
            await server.asked[0].closed.wait()

    run(play)


def test_what_the_server_counts_is_paid_and_what_it_does_not_is_estimated() -> None:
    async def play() -> None:
        turn = Turn(text="abcdefgh", usage=Usage(1000, 200))
        async with ScriptedServer(Dialogue(turn, turn), profile="vllm") as server:
            llm = LlmDefaults(base_url=server.base_url, price_in=2.0, price_out=10.0, model="scripted")
            reply = await open_chat(llm, {}).complete(ASKED)
            assert (reply.tokens_in, reply.tokens_out, reply.price) == (1000, 200, pytest.approx(0.004))
            cut = await ask(Turn(text=TEXT, faults=(Fault("cut", 5),)))
            assert cut.estimated
            assert cut.tokens_out >= 5
            assert cut.tokens_in > 0
            assert (await ask(Turn(status=500))).tokens_in == 0

    run(play)


def test_conversations_carry_calls_and_their_answers() -> None:
    call = ToolCall("call_1", "fs.find", "{}")
    messages = (
        ChatMessage("user", "find"),
        ChatMessage("assistant", "", (call,)),
        ChatMessage("tool", "[]", answers="call_1"),
    )

    async def play() -> None:
        async with ScriptedServer(Dialogue("none"), profile="openai") as server:
            await chat_at(server, "openai").complete(ChatRequest(messages, tools=(TOOL,)))
            _, said, answer = server.asked[0].body["messages"]
            assert said["tool_calls"][0]["function"]["name"] == "fs_find"
            assert answer == {"role": "tool", "content": "[]", "tool_call_id": "call_1"}

    run(play)
