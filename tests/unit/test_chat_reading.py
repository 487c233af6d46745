"""A model's stream read: whatever arrives, however it is split, becomes a reply that keeps the text before it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.chat import ChatReply, ToolCall
from protocol.chat_reading import MAX_CALLS, MAX_TEXT, Reading
from protocol.event_stream import MAX_EVENT_BYTES

REASONING = ("reasoning_content", "reasoning")
DONE = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def delta(finish: str | None = None, **said: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": said, "finish_reason": finish}]})


def read(*chunks: bytes, names: dict[str, str] | None = None) -> ChatReply:
    """The reply to these chunks, and that the heard text is the kept one."""
    reading = Reading(names, REASONING)
    heard = "".join(reading.feed(chunk) for chunk in chunks) + reading.end()
    reply = reading.reply()
    assert heard == reply.text
    return reply


WHOLE = (
    delta(role="assistant", content="")
    + delta(content="Gr\u00fc\u00dfe \U0001f680 ")
    + delta(content="</think>")
    + delta("stop")
    + event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}})
    + DONE
)


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_a_stream_may_be_split_anywhere(size: int, ends: bytes) -> None:
    data = WHOLE.replace(b"\n", ends)
    reply = read(*(data[at : at + size] for at in range(0, len(data), size)))
    assert reply == ChatReply("complete", text="Grüße 🚀 </think>", tokens_in=7, tokens_out=5)


def test_every_prefix_of_a_stream_is_cut_or_whole_and_keeps_its_text() -> None:
    for end in range(len(WHOLE)):
        reply = read(WHOLE[:end])
        assert reply.kind in ("cut", "complete")
        assert "Grüße 🚀 </think>".startswith(reply.text)
        if reply.kind == "complete":
            assert reply.text == "Grüße 🚀 </think>"


def calls(*pieces: dict[str, Any], names: dict[str, str] | None = None) -> list[ToolCall]:
    chunks = [delta(tool_calls=[piece]) for piece in pieces]
    reply = read(*chunks, delta("tool_calls"), DONE, names=names)
    assert reply.kind == "tool_calls"
    return list(reply.tool_calls)


def part(
    index: int | None = None, ident: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    """A piece of a tool call; what is empty is left out."""
    made = {key: value for key, value in (("name", name), ("arguments", arguments)) if value not in (None, "")}
    rest = {key: value for key, value in (("index", index), ("id", ident)) if value not in (None, "")}
    return {**rest, "function": made}


def test_a_tool_call_may_be_split_anywhere() -> None:
    made = calls(part(0, "c1", "fs_", ""), part(0, name="find"), part(0, arguments='{"a"'), part(0, arguments=":1}"))
    assert made == [ToolCall("c1", "fs_find", '{"a":1}')]


def test_calls_may_be_interleaved() -> None:
    made = calls(part(0, "c1", "a", "{"), part(1, "c2", "b", "["), part(0, arguments="}"), part(1, arguments="]"))
    assert made == [ToolCall("c1", "a", "{}"), ToolCall("c2", "b", "[]")]


def test_calls_that_all_stand_at_index_0_are_told_apart_by_their_ids() -> None:
    made = calls(part(0, "c1", "a", "{}"), part(0, "c2", "a", '{"b":1}'))
    assert made == [ToolCall("c1", "a", "{}"), ToolCall("c2", "a", '{"b":1}')]


def test_a_server_that_repeats_id_and_name_with_each_piece_makes_one_call() -> None:
    made = calls(part(0, "c1", "a", "{"), part(0, "c1", "a", '"b":'), part(0, "c1", "a", "2}"))
    assert made == [ToolCall("c1", "a", '{"b":2}')]


def test_arguments_as_an_object_without_index_or_id_become_a_call_with_its_own_id() -> None:
    made = calls(part(name="fs_find", arguments={"path": "a"}), names={"fs_find": "fs.find"})
    assert made == [ToolCall("call_0", "fs.find", '{"path":"a"}')]


def test_a_call_counts_as_one_even_where_the_server_says_stop() -> None:
    assert read(delta(tool_calls=[part(0, "c", "a")]), delta("stop"), DONE).kind == "tool_calls"


def test_a_call_cut_off_is_kept_as_far_as_it_came() -> None:
    reply = read(delta(tool_calls=[part(0, "c1", "a", '{"b":')]))
    assert (reply.kind, reply.tool_calls) == ("cut", (ToolCall("c1", "a", '{"b":'),))


def test_more_calls_than_anybody_wants_are_cut_off() -> None:
    reply = read(*(delta(tool_calls=[part(n, f"c{n}", "a", "{}")]) for n in range(MAX_CALLS + 5)))
    assert (reply.kind, len(reply.tool_calls)) == ("length", MAX_CALLS)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (["<think>a < b</think>", "c"], "c"),
        (["\n<th", "ink>a</thi", "nk>\n", "\n c"], "c"),
        (["<", "b>"], "<b>"),
        (["<think>"], ""),
        (["a<think>b</think>"], "a<think>b</think>"),
        (["<thi"], "<thi"),
        (["  ", "x"], "  x"),
    ],
)
def test_what_a_model_thinks_at_the_beginning_is_not_its_answer(said: list[str], text: str) -> None:
    assert read(*(delta(content=one) for one in said), delta("stop"), DONE).text == text


def test_thinking_is_progress_and_is_paid_but_is_no_text() -> None:
    reading = Reading({}, REASONING)
    for field in REASONING:
        assert reading.feed(delta(**{field: "hm hm hm hm "})) == ""
    assert reading.progress == 2
    reading.feed(delta("length"))
    reply = reading.reply()
    assert (reply.kind, reply.text, reply.tokens_out, reply.estimated) == ("length", "", 6, True)
    assert "thinking" in reply.hint


def test_only_the_first_of_several_answers_is_read() -> None:
    chunk = {"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]}
    assert read(event(chunk), delta("stop"), DONE).text == "a"


def test_content_in_parts_is_text() -> None:
    assert read(delta(content=[{"type": "text", "text": "a"}, {"text": "b"}, 7]), delta("stop"), DONE).text == "ab"


def test_what_comes_after_the_end_is_not_read() -> None:
    assert read(delta("stop", content="a"), DONE, delta(content="b")).text == "a"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("stop", "complete"), ("eos", "complete"), ("length", "length"), ("content_filter", "filtered"), ("abort", "cut")],
)
def test_each_reason_to_end_has_its_kind(reason: str, kind: str) -> None:
    assert read(delta(reason, content="a"), DONE).kind == kind


@pytest.mark.parametrize("usage", [None, 7, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "3"}])
def test_usage_that_makes_no_sense_is_estimated(usage: Any) -> None:
    assert read(delta("stop", content="abcd" * 3), event({"choices": [], "usage": usage}), DONE).estimated


def test_thinking_that_is_only_counted_is_known() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 90, "completion_tokens_details": {"reasoning_tokens": 80}}
    assert read(delta("stop", content="a"), event({"choices": [], "usage": usage}), DONE).thought == 80


def test_blanks_without_end_are_a_stall() -> None:
    reply = read(delta(content="{"), *(delta(content="\n  ") for _ in range(500)))
    assert reply.kind == "stalled"
    assert "blanks" in reply.message


def test_text_and_events_are_bounded() -> None:
    assert len(read(*(delta(content="x" * 100_000) for _ in range(MAX_TEXT // 100_000 + 2))).text) <= MAX_TEXT
    reading = Reading()
    reading.feed(b"data: ")
    for _ in range(MAX_EVENT_BYTES // 100_000 + 1):
        reading.feed(b"x" * 100_000)
    assert reading.reply().kind == "garbage"
