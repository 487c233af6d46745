"""The scripted model server, over real HTTP: what it says, when, in whose manner, and how it goes wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec
import openai
import pytest

from planner.scripted.dialogue import HEAD, Call, Dialogue, Fault, Turn, read_dialogue
from planner.scripted.emulation import EMULATIONS
from planner.scripted.mishap import ENDLESS, mishaps
from planner.scripted.server import MODEL, ScriptedServer
from protocol.errors import Unavailable, UsageError

pytestmark = pytest.mark.anyio
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
CHOICE: dict[str, Any] = {
    "type": "object",
    "properties": {"choice": {"type": "string", "enum": ["a", "b"]}},
    "required": ["choice"],
    "additionalProperties": False,
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def wanted(schema: Mapping[str, Any], name: str = "plan") -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


async def post(server: ScriptedServer, **fields: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{server.base_url}/chat/completions", json={**HELLO, **fields}, timeout=30)


async def chunks(server: ScriptedServer, **fields: Any) -> list[Any]:
    """What the real client of OpenAI reads."""
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(**{**HELLO, "stream": True, **fields})
        return [chunk async for chunk in stream]


def said(found: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)


async def test_the_real_client_reads_a_stream_token_by_token_with_its_usage() -> None:
    async with ScriptedServer(Dialogue('{"tasks": [], "note": "ähm"}')) as server:
        found = await chunks(server, stream_options={"include_usage": True})
        assert said(found) == '{"tasks": [], "note": "ähm"}'
        assert [chunk.choices[0].finish_reason for chunk in found if chunk.choices][-1] == "stop"
        assert found[-1].usage.completion_tokens == len(server.asked[0].written) == 7
        assert server.asked[0].ended == "complete"
        assert server.asked[0].said == "hello"


async def test_tokens_leave_at_their_times_on_a_clock_that_is_given() -> None:
    """Nothing waits for real: the clock jumps to whatever is waited for next."""

    class Jumping:
        def __init__(self) -> None:
            self.at = 1000.0
            self.stops: list[float] = []

        def now(self) -> float:
            return self.at

        async def sleep_until(self, at: float) -> None:
            self.at = max(self.at, at)
            self.stops.append(self.at - 1000.0)
            await anyio.lowlevel.checkpoint()

    clock = Jumping()
    async with ScriptedServer(Dialogue(Turn(text="abcdefgh", token_chars=2, rate=0.5, first_s=100)), clock=clock) as it:
        assert said(await chunks(it)) == "abcdefgh"
    assert clock.stops == [100, 102, 104, 106]


async def test_one_connection_serves_many_requests_and_lists_the_models() -> None:
    async with ScriptedServer(Dialogue("one", "two"), models=("small", "large")) as server, httpx.AsyncClient() as http:
        listed = (await http.get(f"{server.base_url}/models")).json()
        for text in ("one", "two"):
            body = {**HELLO, "model": "small"}
            reply = (await http.post(f"{server.base_url}/chat/completions", json=body)).json()
            assert reply["choices"][0]["message"]["content"] == text
        assert [row["id"] for row in listed["data"]] == ["small", "large"]
        assert (await http.get(f"{server.base_url}/models/large")).json()["id"] == "large"
        assert (await http.get(f"{server.base_url}/embeddings")).status_code == 404
        assert server.connections == 1


async def test_a_dialogue_answers_by_what_was_asked_and_says_when_it_is_over() -> None:
    async with ScriptedServer(Dialogue(Turn(text="never", match="goodbye"), Turn(text="hi", match="hello"))) as server:
        assert said(await chunks(server)) == "hi"
        with pytest.raises(openai.BadRequestError, match="no turn left"):
            await chunks(server)


async def test_a_client_that_closes_is_noticed_while_the_model_writes() -> None:
    async with ScriptedServer(Dialogue(Turn(text="first second", faults=(Fault("hold", "first"),)))) as server:
        async with anyio.create_task_group() as group:
            group.start_soon(chunks, server)
            asked = await server.request(0)
            await asked.holding.wait()
            assert asked.text == "first"
            group.cancel_scope.cancel()
        await asked.closed.wait()
        assert asked.ended == "closed"
        assert asked.text == "first"


async def test_a_turn_that_holds_goes_on_when_it_is_released() -> None:
    async with ScriptedServer(Dialogue(Turn(text="first second", faults=(Fault("hold", "first"),)))) as server:
        async with anyio.create_task_group() as group:

            async def read() -> None:
                assert said(await chunks(server)) == "first second"

            group.start_soon(read)
            asked = await server.request(0)
            await asked.holding.wait()
            asked.release()
        assert asked.ended == "complete"


@pytest.mark.parametrize("profile", EMULATIONS)
async def test_tool_calls_arrive_in_each_server_s_manner(profile: str) -> None:
    calls = (Call("fs_find", '{"path":"logs"}'), Call("text_count"))
    async with ScriptedServer(Dialogue(Turn(calls=calls)), profile) as server:
        found = await chunks(server)
    rows = [row for chunk in found if chunk.choices for row in chunk.choices[0].delta.tool_calls or ()]
    joined = {n: "".join(row.function.arguments for row in rows if row.index == n) for n in (0, 1)}
    assert joined == {0: '{"path":"logs"}', 1: "{}"}
    assert [row.function.name for row in rows if row.function.name] == ["fs_find", "text_count"]
    assert (len(rows) == 2) == (EMULATIONS[profile].tool_calls != "streamed")
    assert [chunk.choices[0].finish_reason for chunk in found if chunk.choices][-1] == "tool_calls"


@pytest.mark.parametrize(("profile", "where"), [("vllm", "reasoning_content"), ("ollama", "reasoning"), ("openai", "")])
async def test_reasoning_stands_where_each_server_puts_it(profile: str, where: str) -> None:
    async with ScriptedServer(Dialogue(Turn(text="yes", reasoning="hm")), profile) as server:
        found = await chunks(server)
    deltas = [chunk.choices[0].delta.model_dump() for chunk in found if chunk.choices]
    assert said(found) == "yes"
    assert [delta[where] for delta in deltas if delta.get(where)] == (["hm"] if where else [])


async def test_a_plain_server_thinks_aloud_and_reports_no_usage() -> None:
    async with ScriptedServer(Dialogue(Turn(text="yes", reasoning="hm")), "generic") as server:
        found = await chunks(server)
        assert said(found) == "<think>hm</think>\nyes"
        assert not any(chunk.usage for chunk in found)
        assert (await post(server, stream_options={"include_usage": True})).status_code == 400


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "array", "items": {"type": "string"}}, 'type: \\"object\\"'),
        ({**CHOICE, "anyOf": [{"type": "object"}]}, "not have 'anyOf' at the top level"),
        ({**CHOICE, "required": []}, "Missing 'choice'"),
        ({key: CHOICE[key] for key in CHOICE if key != "additionalProperties"}, "additionalProperties"),
        ({**CHOICE, "allOf": []}, "'allOf' is not permitted"),
        ({**CHOICE, "properties": {"choice": {"not": {"type": "null"}}}}, "'not' is not permitted"),
        ({**CHOICE, "properties": {"choice": {"type": "array"}}}, "array schema missing items"),
        ({**CHOICE, "properties": {"choice": {}}}, "must have a 'type' key"),
        ({**CHOICE, "properties": {"choice": {"enum": [f"v{n}" for n in range(1001)]}}}, "over the limit"),
    ],
)
async def test_the_strict_subset_is_enforced_as_openai_does_it(schema: dict[str, Any], why: str) -> None:
    async with ScriptedServer(Dialogue(Turn(text="{}", times=0))) as server:
        assert (await post(server, response_format=wanted(CHOICE))).status_code == 200
        refused = await post(server, response_format=wanted(schema))
        assert refused.status_code == 400
        assert why in refused.text
        assert server.asked[1].ended == "refused"
    async with ScriptedServer(Dialogue("{}"), "llama.cpp") as server:
        assert (await post(server, response_format=wanted(schema))).status_code == 200


async def test_nesting_over_ten_levels_is_refused() -> None:
    schema: dict[str, Any] = CHOICE
    for _ in range(10):
        schema = {**CHOICE, "properties": {"choice": schema}}
    async with ScriptedServer(Dialogue("{}")) as server:
        assert "levels of nesting" in (await post(server, response_format=wanted(schema))).text


async def test_a_server_that_enforces_writes_what_obeys_and_one_that_fails_open_does_not() -> None:
    turn = Turn(text="Sure! Here you are.", constrained=True)
    for profile, text in (("openai", '{"choice":"a"}'), ("llama.cpp", turn.text)):
        async with ScriptedServer(Dialogue(turn), profile) as server:
            assert said(await chunks(server, response_format=wanted(CHOICE))) == text


async def test_a_dialogue_in_a_file_is_served_by_a_process_of_its_own() -> None:
    """As people start it; the process ends with its interruption."""
    script = Path(__file__).parents[2] / "examples" / "model.json"
    argv = [sys.executable, "-P", "-m", "asterism", "bench", "model", str(script), "--profile", "vllm"]
    async with await anyio.open_process(argv, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            line = (await process.stdout.receive()).decode()
            found = dict(one.split("=", 1) for one in line.split())
            assert found.keys() == {"OPENAI_BASE_URL", "OPENAI_API_KEY", "ASTERISM_MODEL"}
            async with openai.AsyncOpenAI(base_url=found["OPENAI_BASE_URL"], api_key="any", max_retries=0) as client:
                ask: Any = {"model": found["ASTERISM_MODEL"], "messages": [{"role": "user", "content": "anything"}]}
                reply = await client.chat.completions.create(**ask)
            assert reply.choices[0].message.content == "This model plays a script, and has no line for that."
        finally:
            process.terminate()


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    async with ScriptedServer(Dialogue()) as server:
        with pytest.raises(Unavailable, match="can't be had"):
            async with ScriptedServer(Dialogue(), port=int(server.base_url.split(":")[2].removesuffix("/v1"))):
                pass


@pytest.mark.parametrize("text", ["[]", "{}", '{"turns": 1}', '{"turns": [{"txt": "x"}]}', "{"])
def test_a_file_that_is_no_dialogue_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "dialogue.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="is no dialogue"):
        read_dialogue(path)


async def test_a_plan_in_a_file_is_written_in_the_form_that_the_server_enforces(tmp_path: Path) -> None:
    """What was left out is there, in the schema's order; a server that enforces nothing writes it as it stands."""
    schema = {
        "type": "object",
        "properties": {"when": {"type": "array", "items": {"type": "string"}}, **CHOICE["properties"]},
        "required": ["when", "choice"],
        "additionalProperties": False,
    }
    (tmp_path / "plan.json").write_text('{"turns": [{"plan": {"choice": "b"}}]}')
    for profile, text in (("vllm", '{"when":[],"choice":"b"}'), ("llama.cpp", '{"choice":"b"}')):
        async with ScriptedServer(read_dialogue(tmp_path / "plan.json"), profile) as server:
            assert said(await chunks(server, response_format=wanted(schema))) == text


async def test_a_schema_that_leads_to_itself_breaks_nothing() -> None:
    schema = {
        **CHOICE,
        "properties": {"choice": {"$ref": "#/$defs/x"}},
        "$defs": {"x": {"anyOf": [{"$ref": "#/$defs/x"}]}},
    }
    async with ScriptedServer(Dialogue(Turn(text='{"choice":1}', constrained=True)), "vllm") as server:
        assert said(await chunks(server, response_format=wanted(schema))) == '{"choice":1}'


async def test_tokens_may_be_given_one_by_one_and_each_has_its_time() -> None:
    async with ScriptedServer(Dialogue(Turn(parts=("a", "bc", "d")))) as server:
        assert said(await chunks(server)) == "abcd"
        asked = server.asked[0]
        assert [part for _, part in asked.written] == ["a", "bc", "d"]
        times = [asked.at, *(at for at, _ in asked.written), asked.ended_at]
        assert times == sorted(times)


async def test_a_request_may_allow_fewer_tokens_than_there_are() -> None:
    async with ScriptedServer(Dialogue("0123456789")) as server:
        found = await chunks(server, max_completion_tokens=2)
        assert said(found) == "01234567"
        assert found[-1].choices[0].finish_reason == "length"


async def test_keys_models_parameters_and_tool_names_are_refused_in_openai_s_words() -> None:
    tool = {"type": "function", "function": {"name": "fs.find", "parameters": {"type": "object", "properties": {}}}}
    async with ScriptedServer(Dialogue(Turn(text="x", times=0)), "openai-reasoning", key="sk-right") as server:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-wrong-key", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
                await client.models.list()
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-right", max_retries=0) as client:
            create: Any = client.chat.completions.create
            with pytest.raises(openai.NotFoundError, match="does not exist"):
                await create(**{**HELLO, "model": "other"})
            with pytest.raises(openai.BadRequestError, match="'max_tokens' is not supported"):
                await create(**HELLO, max_tokens=5)
            with pytest.raises(openai.BadRequestError, match="does not match pattern"):
                await create(**HELLO, tools=[tool])
            assert (await create(**HELLO)).choices[0].message.content == "x"


@pytest.mark.parametrize("name", mishaps(Turn()))
async def test_every_mishap_ends_unless_it_is_an_endless_one(name: str) -> None:
    """On the wire as named: none but the endless ones keeps a client waiting, and all end when the client leaves."""
    turn = mishaps(Turn(text='{"tasks": [1, 2, 3], "word": "größer"}'))[name]
    if turn.faults and turn.faults[0].kind == "drip":
        turn = msgspec.structs.replace(turn, faults=(Fault("drip", seconds=0.0001),))
    async with ScriptedServer(Dialogue(turn)) as server, anyio.create_task_group() as group:

        async def read() -> None:
            try:
                await chunks(server)
            except (openai.OpenAIError, ValueError, AttributeError):
                pass

        group.start_soon(read)
        asked = await server.request(0)
        if name in ENDLESS:
            assert not asked.over.is_set()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await asked.closed.wait()
        else:
            await asked.over.wait()
            assert asked.ended


async def test_bytes_cut_anywhere_are_the_same_reply() -> None:
    turn = Turn(text="größer als 🦀", token_chars=1)
    dialogue = Dialogue(turn, msgspec.structs.replace(turn, split=1), msgspec.structs.replace(turn, newline="\r\n"))
    async with ScriptedServer(dialogue) as server:
        assert [said(await chunks(server)) for _ in range(3)] == [turn.text] * 3


async def test_a_fault_before_the_reply_needs_no_reply() -> None:
    async with ScriptedServer(Dialogue(Turn(text="x", faults=(Fault("cut", HEAD),)))) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(server)


@pytest.mark.parametrize(
    "head",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\n folded: x\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_request_are_answered_and_then_cut(head: bytes) -> None:
    async with ScriptedServer(Dialogue()) as server:
        port = int(server.base_url.split(":")[2].split("/")[0])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(head)
            got = b"".join([part async for part in stream])
    assert got.startswith(b"HTTP/1.1 400 ")


async def test_a_request_in_chunks_and_pieces_is_read() -> None:
    body = msgspec.json.encode(HELLO)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    data = head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:7], body[7:])) + b"0\r\n\r\n"
    async with ScriptedServer(Dialogue("fine")) as server:
        port = int(server.base_url.split(":")[2].split("/")[0])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            for number in range(len(data)):
                await stream.send(data[number : number + 1])
            got = b"".join([part async for part in stream])
    assert b'"content":"fine"' in got
