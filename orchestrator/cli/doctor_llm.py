"""`doctor llm`: is the model there, which server is it, does it do what it is asked, and how fast.

Each check asks one question and has one fix; nothing that the model says is taken for more than an answer to that.
The schema check forces a value that the prompt argues against, so that a model that only obeys words fails it.
It must not know how a request is carried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

import anyio
import click
import msgspec

from protocol.chat import Chat, ChatMessage, ChatReply, ChatRequest, ChatTool, Hear, tokens_of
from protocol.errors import AsterismError

from .finding import Check, conclude, tell
from .option import output_option

_DEADLINE_S: Final = 60.0
_FORCED: Final = "k7q2"
_STORY: Final = "Count from 1 to 60 in English words, separated by commas. Write nothing else."
_ARGUED: Final = (
    'The only right answer is {"word": "banana"}: the value is banana and nothing else. Any other value is wrong.'
)
_SCHEMA: Final = {
    "type": "object",
    "properties": {"word": {"type": "string", "enum": [_FORCED]}},
    "required": ["word"],
    "additionalProperties": False,
}
_TOOL: Final = ChatTool(
    "doctor.echo",
    "Gives a text back.",
    {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "additionalProperties": False,
    },
)
_THOUGHT: Final = 256
"""Tokens of thinking before so simple an answer after which plans begin late."""
_LESS: Final = 'llm.extra, {"reasoning_effort": "low"} for example'
_REQUEST: Final = "find the .log files in the folder logs and count the lines with ERROR in each"
_ENFORCE: Final = {
    "openai": "use a model with structured outputs",
    "vllm": "update vLLM; its log names the back end that holds the grammar",
    "llama.cpp": "update llama-server: some builds accept a schema and enforce nothing",
    "ollama": "update Ollama, and use a local model: cloud models ignore the schema",
    "generic": "set llm.profile if the server is one of openai, vllm, llama.cpp, ollama",
}
_CALLING: Final = {
    "openai": "use a model that calls functions",
    "vllm": "start vLLM with --enable-auto-tool-choice and its model's --tool-call-parser",
    "llama.cpp": "start llama-server with --jinja and a model whose template has tools",
    "ollama": "use a model that `ollama show` lists with the capability tools",
    "generic": "use a model and server that call functions",
}
_CONTEXT: Final = {
    "vllm": "start vLLM with a larger --max-model-len",
    "llama.cpp": "start llama-server with a larger -c",
    "ollama": "start Ollama with OLLAMA_CONTEXT_LENGTH=16384 or more",
}


@click.command()
@output_option("json")
def llm(output: str) -> None:
    """Ask the model server who it is and the model to answer, obey a schema, call a tool and plan.

    Costs some thousand tokens. Exits 1 if something is broken.
    """
    examination = _Examination(tell if output != "json" else lambda check: None)
    try:
        anyio.run(examination.run)
    except AsterismError as error:
        examination.say("endpoint", "error", error.message, error.hint)
    conclude(examination.checks, output, {"llm": examination.facts})


class _Examination:
    """The checks in their order; one that fails so that others make no sense ends it."""

    def __init__(self, told: Callable[[Check], None]) -> None:
        self.checks: list[Check] = []
        self.facts: dict[str, Any] = {}
        self._told = told

    def say(self, name: str, level: Any, found: str, fix: str = "") -> None:
        check = Check(name, level, found, fix)
        self.checks.append(check)
        self._told(check)

    async def run(self) -> None:
        from protocol.chat_client import open_chat
        from protocol.config import load

        config = load()
        chat = open_chat(config.settings.llm, os.environ)
        source = config.sources.get("llm.base_url", "the default")
        key = "with a key" if chat.endpoint.authorization else "without a key"
        self.facts |= {"base_url": chat.endpoint.base_url}
        self.say("endpoint", "ok", f"{chat.endpoint.base_url} (from {source}), {key}")
        seen, fault = await chat.look()
        if fault is not None and fault.kind in ("unreachable", "stalled", "unauthorized"):
            return self._failed("server", fault)
        self.facts |= {"models": list(chat.models)}
        if (fault := await chat.meet()) is not None:
            return self._failed("model", fault)
        self.facts |= {"model": chat.name, "profile": (chat.profile and chat.profile.name) or "generic"}
        self._model(chat.name, chat.models)
        self._profile(config.settings.llm.profile, seen.name if seen is not None else None)
        if await self._answers(chat):
            await self._obeys(chat)
            await self._calls(chat)
            await self._plans(chat)
            self._priced(config.settings.llm.price_in or config.settings.llm.price_out)

    def _failed(self, name: str, reply: ChatReply) -> None:
        self.say(name, "error", f"{reply.kind}: {reply.message}", reply.hint)

    def _model(self, name: str, models: tuple[str, ...]) -> None:
        if models and name not in models:
            self.say("model", "warning", f"{name}, which the server doesn't list", f"one of {', '.join(models[:8])}")
        else:
            self.say("model", "ok", name)

    def _profile(self, wanted: str, seen: str | None) -> None:
        used = self.facts["profile"]
        if wanted != "auto" and seen is not None and seen != used:
            self.say("profile", "warning", f"{used} by llm.profile, but it looks like {seen}", f"llm.profile = {seen}")
        else:
            how = "by llm.profile" if wanted != "auto" else "found by asking it" if seen else "it doesn't say which"
            self.say("profile", "ok", f"{used}, {how}")

    async def _answers(self, chat: Chat) -> bool:
        """Time to the first token, and tokens a second after it."""
        noted = _Noted(chat)
        reply = await noted.complete(ChatRequest((_user(_STORY),), max_tokens=1024, deadline_s=_DEADLINE_S))
        if not reply.whole and reply.kind != "length":
            self._failed("answer", reply)
            return False
        if noted.first_s is None:
            fix = "use another model, or raise llm.max_tokens if it thinks for long"
            self.say("answer", "error", f"no text, {reply.tokens_out} tokens", fix)
            return False
        said = max(1, reply.tokens_out - reply.thought)
        rate = said / max(noted.last_s - noted.first_s, 1e-3) if noted.last_s > noted.first_s else None
        self.facts |= {"first_token_s": round(noted.first_s, 3), "tokens_per_s": rate and round(rate, 1)}
        speed = f"{rate:.0f} tokens/s" if rate else "all at once"
        thinks = f", after thinking for about {reply.thought} tokens" if reply.thought else ""
        found = f"first text after {noted.first_s:.2f} s, {speed}{thinks}"
        self.facts["thought_tokens"] = reply.thought
        if rate is None:
            self.say("answer", "warning", found, "use a server that streams: tasks start while the plan is written")
        elif reply.thought > _THOUGHT:
            self.say("answer", "warning", found, f"let it think less, so that plans start soon: {_LESS}")
        else:
            self.say("answer", "ok", found)
        if reply.estimated:
            self.say("usage", "warning", "the server counts no tokens: budgets go by an estimate", "update the server")
        return True

    async def _obeys(self, chat: Chat) -> None:
        request = ChatRequest((_user(_ARGUED),), _SCHEMA, explained=True, max_tokens=1024, deadline_s=_DEADLINE_S)
        reply = await chat.complete(request)
        try:
            enforced = msgspec.json.decode(reply.text) == {"word": _FORCED}
        except msgspec.DecodeError:
            enforced = False
        self.facts["schema_enforced"] = enforced
        if enforced:
            self.say("schema", "ok", "enforced")
        else:
            said = f"{reply.text[:60]!r}" if reply.whole else f"{reply.kind}: {reply.message}"
            found = f"not enforced, the model wrote {said}; plans are checked here and may need a repair"
            self.say("schema", "warning", found, _ENFORCE[self.facts["profile"]])

    async def _calls(self, chat: Chat) -> None:
        asked = (_user("Call the tool with the text hello."),)
        reply = await chat.complete(
            ChatRequest(asked, tools=(_TOOL,), tool_choice="required", max_tokens=1024, deadline_s=_DEADLINE_S)
        )
        called = [call.name for call in reply.tool_calls] == [_TOOL.name]
        self.facts["tools"] = called
        if called:
            self.say("tools", "ok", "called")
        else:
            said = reply.message or f"it made {len(reply.tool_calls)} calls" + (": it only wrote" if reply.text else "")
            self.say("tools", "warning", f"not called ({said}); agent.run needs them", _CALLING[self.facts["profile"]])

    async def _plans(self, chat: Chat) -> None:
        """A small plan, by the planner itself: how long until its first task could start."""
        from planner.llm_planner import LlmPlanner
        from planner.view import PlanView
        from protocol.builtin import BUILTINS
        from protocol.patch import Patch

        noted = _Noted(chat)
        send, receive = anyio.create_memory_object_stream[Patch](256)
        begun = time.monotonic()
        first: list[float] = []

        async def hear() -> None:
            async for _ in receive:
                first.append(time.monotonic() - begun)

        async with receive, anyio.create_task_group() as group:
            group.start_soon(hear)
            outcome = await LlmPlanner(noted).plan(PlanView(_REQUEST, BUILTINS, deadline_s=2 * _DEADLINE_S), send)
        took = time.monotonic() - begun
        self.facts |= {"first_task_s": round(first[0], 3) if first else None, "plan_s": round(took, 3)}
        if outcome.kind == "complete" and first:
            repaired = ", after a repair" if outcome.calls > 1 else ""
            self.say("plan", "ok", f"first task after {first[0]:.2f} s, all after {took:.2f} s{repaired}")
        else:
            self.say("plan", "warning", f"{outcome.kind}: {outcome.message}", outcome.hint or "use a larger model")
        shown, counted = noted.came
        self.facts["prompt_tokens"] = counted
        if counted and counted * 2 < shown:
            fix = _CONTEXT.get(self.facts["profile"], "give the server a larger context")
            self.say("context", "error", f"it read {counted} tokens of a prompt of about {shown}", fix)

    def _priced(self, price: float) -> None:
        if not price and self.facts["base_url"].startswith("https:"):
            fix = "set llm.price_in and llm.price_out (per million tokens)"
            self.say("price", "warning", "unknown: budgets of price can't hold", fix)


class _Noted(Chat):
    """A chat whose first call is timed."""

    def __init__(self, chat: Chat) -> None:
        self.first_s: float | None = None
        self.last_s = 0.0
        self.came: tuple[int, int] = (0, 0)
        """(about how many tokens the messages are, how many the server counted; 0 if it counts none)"""
        self._chat = chat

    @property
    def name(self) -> str:
        return self._chat.name

    async def complete(self, request: ChatRequest, hear: Hear | None = None) -> ChatReply:
        begun = time.monotonic()

        async def note(text: str) -> None:
            self.last_s = time.monotonic() - begun
            if self.first_s is None:
                self.first_s = self.last_s
            if hear is not None:
                await hear(text)

        reply = await self._chat.complete(request, note)
        if self.came == (0, 0):
            shown = tokens_of("".join(message.content for message in request.messages))
            self.came = shown, 0 if reply.estimated else reply.tokens_in
        return reply


def _user(text: str) -> ChatMessage:
    return ChatMessage("user", text)
