"""The JSON of a chat completion: whole or as the deltas of a stream, in each server's manner.

Invariant: the deltas of a reply, joined, are the whole reply. It must not know sockets, time or faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec

from .constraint import MALFORMED, instance, obeys, stray
from .dialogue import Call, Turn, Usage, tokens
from .emulation import Emulation
from .written import written

_CREATED = 1_780_000_000


class Completion(msgspec.Struct, frozen=True, dict=True):
    """One reply: what the turn says, to a request (its JSON), on a server with these manners."""

    id: str
    model: str
    body: Mapping[str, Any]
    turn: Turn
    manner: Emulation

    @cached_property
    def text(self) -> str:
        """What the model writes: the turn's text, or what obeys where the server enforces and the turn lets it."""
        text, schema = self.turn.text or "".join(self.turn.parts), self.schema
        if not self.turn.constrained or not self.manner.enforces or schema is None:
            return text
        try:
            if obeys(text, schema):
                return text
            meant = written(msgspec.json.decode(text), schema)
            least = instance(schema) if stray(meant, schema) else meant
        except msgspec.DecodeError:
            least = instance(schema)
        except MALFORMED:  # nothing can obey it
            return text
        return msgspec.json.encode(least).decode()

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The schema that the reply shall obey."""
        wanted = self.body.get("response_format") or {}
        inner = wanted.get("json_schema") if isinstance(wanted, dict) else None
        schema = inner.get("schema") if isinstance(inner, dict) else None
        return schema if isinstance(schema, dict) else None

    @property
    def most(self) -> int | None:
        """How many tokens the request allows."""
        most = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        return most if isinstance(most, int) else None

    def deltas(self) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
        """(the characters in it, the delta) for each token of the reply; whether the request allows no more of it."""
        found = list(self._deltas())
        cut = self.most is not None and len(found) > self.most
        return found[: self.most] if cut else found, cut

    def _deltas(self) -> Iterator[tuple[str, dict[str, Any]]]:
        turn, size = self.turn, self.turn.token_chars
        if turn.reasoning and self.manner.reasoning == "<think>":
            for part in tokens(f"<think>{turn.reasoning}</think>\n", size):
                yield part, {"content": part}
        elif turn.reasoning and self.manner.reasoning:
            for part in tokens(turn.reasoning, size):
                yield part, {self.manner.reasoning: part}
        for part in tokens(turn.refusal, size):
            yield part, {"refusal": part}
        marks = tuple(one.at for one in turn.faults if isinstance(one.at, str))
        for part in turn.parts if self.text == "".join(turn.parts) else tokens(self.text, size, marks):
            yield part, {"content": part}
        yield from self._calls()

    def _calls(self) -> Iterator[tuple[str, dict[str, Any]]]:
        calls, manner = self.turn.calls, self.manner.tool_calls
        whole = [_call(self.id, number, call, call.arguments) for number, call in enumerate(calls)]
        if manner == "held" and calls:
            yield "".join(call.arguments for call in calls), {"tool_calls": whole}
        for number, call in enumerate(calls):
            if manner == "whole":
                yield call.arguments, {"tool_calls": [whole[number]]}
            elif manner == "streamed":
                yield "", {"tool_calls": [_call(self.id, number, call, "")]}
                for part in tokens(call.arguments, self.turn.token_chars):
                    yield part, {"tool_calls": [{"index": number, "function": {"arguments": part}}]}

    def finish(self, cut: bool) -> str | None:
        """Why it ended; `cut` if the request allowed no more tokens. None where the turn leaves it out."""
        turn = self.turn
        fits = "length" if cut else turn.finish or ("tool_calls" if turn.calls else "stop")
        return None if fits == "none" else fits

    @property
    def reports_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        options = self.body.get("stream_options")
        asked = isinstance(options, dict) and bool(options.get("include_usage"))
        return self.manner.usage == "always" or (self.manner.usage == "asked" and asked)

    def usage(self, written: int) -> dict[str, Any]:
        asked = msgspec.json.encode([self.body.get("messages"), self.body.get("tools")])
        count = self.turn.usage or Usage(len(asked) // self.turn.token_chars, written)
        return {
            "prompt_tokens": count.tokens_in,
            "completion_tokens": count.tokens_out,
            "total_tokens": count.tokens_in + count.tokens_out,
        }

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._frame("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, written: int) -> dict[str, Any]:
        return {**self._frame("chat.completion.chunk"), "choices": [], "usage": self.usage(written)}

    def whole(self) -> dict[str, Any]:
        """The reply as one document."""
        turn, manner = self.turn, self.manner
        kept, cut = self.deltas()
        content = "".join(delta.get("content", "") for _, delta in kept)
        message: dict[str, Any] = {"role": "assistant", "content": content or None}
        message["refusal"] = turn.refusal or None
        if turn.reasoning and manner.reasoning not in ("", "<think>"):
            message[manner.reasoning] = turn.reasoning
        if turn.calls:
            rows = [_call(self.id, number, call, call.arguments) for number, call in enumerate(turn.calls)]
            message["tool_calls"] = [{key: row[key] for key in row if key != "index"} for row in rows]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish(cut)}
        usage = {} if manner.usage == "never" else {"usage": self.usage(len(kept))}
        return {**self._frame("chat.completion"), "choices": [choice], **usage}

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": _CREATED, "model": self.model, "system_fingerprint": None}


def _call(reply: str, number: int, call: Call, arguments: str) -> dict[str, Any]:
    return {
        "index": number,
        "id": f"call_{reply.removeprefix('chatcmpl-')}_{number}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
