"""A model's client against servers that break HTTP, TLS or the stream itself, and what leaves with its requests."""

from __future__ import annotations

import gzip
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from protocol.authority import Authority
from protocol.chat import ChatMessage, ChatReply, ChatRequest
from protocol.chat_client import OpenAIChat, open_chat
from protocol.setting import LlmDefaults
from tests.integration.wire_server import Play, Wire, WireServer, wire_server

CANARY = "sk-canary-of-the-model"
ASKED = ChatRequest((ChatMessage("user", "hi"),), deadline_s=30.0)
END = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def says(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"


def chat_at(base_url: str, **more: Any) -> OpenAIChat:
    llm = {"base_url": base_url, "model": "m", "profile": "vllm", **more}
    return open_chat(LlmDefaults.model_validate(llm), {"OPENAI_API_KEY": CANARY})


def ask(play: Play, tls: ssl.SSLContext | None = None, left: bool = False) -> tuple[ChatReply, WireServer]:
    """One call, to its end; with `left` until the server has noticed that its client is gone."""

    async def run() -> tuple[ChatReply, WireServer]:
        async with wire_server(play, tls) as server:
            with anyio.fail_after(60):
                reply = await chat_at(server.base_url).complete(ASKED)
                if left:
                    await server.left.wait()
        assert CANARY not in repr(reply)
        return reply, server

    return anyio.run(run)


def sends(*parts: str | bytes) -> Callable[[Wire], Awaitable[None]]:
    async def play(wire: Wire) -> None:
        for part in parts:
            await wire.send(part)

    return play


def streams(*parts: str | bytes) -> Callable[[Wire], Awaitable[None]]:
    async def play(wire: Wire) -> None:
        await wire.begin()
        await sends(*parts)(wire)

    return play


HEAD = "HTTP/1.1 200 OK\r\n"
WIRE = {
    "not HTTP": (sends("220 mail ready\r\n\r\n"), "garbage"),
    "nothing at all": (sends(), "cut"),
    "half a head": (sends(HEAD + "content-type: te"), "cut"),
    "a stream of another type": (sends(HEAD + "content-type: text/plain\r\n\r\n", says("a"), END), "complete"),
    "a stream without a type": (sends(HEAD + "\r\n", says("a"), END), "complete"),
    "HTTP/1.0": (sends("HTTP/1.0 200 OK\r\n\r\n", says("a"), END), "complete"),
    "a byte order mark": (streams(b"\xef\xbb\xbf", says("a"), END), "complete"),
    "no content": (sends("HTTP/1.1 204 No Content\r\n\r\n"), "cut"),
    "an empty stream": (streams(), "cut"),
    "prose": (streams("I am sorry,\nI can't do that.\n"), "garbage"),
    "a web page": (streams("<!doctype html><html>"), "garbage"),
    "JSON of another kind": (streams('{"hello": "world"}'), "garbage"),
    "JSON that is cut": (streams('{"choices": [{"mess'), "garbage"),
    "JSON of an error": (streams('{"error": {"message": "no GPU", "code": 503}}'), "server_error"),
    "an error field": (streams('error: {"code":500,"message":"slot is gone"}\n\n'), "server_error"),
    "no UTF-8": (streams(b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n', END), "garbage"),
    "nested too deep": (streams("data: " + "[" * 100_000 + "\n\n", END), "garbage"),
    "only [DONE]": (streams("data: [DONE]\n\n"), "complete"),
    "a limit in the stream": (streams('data: {"error":{"code":429,"message":"slow down"}}\n\n'), "rate_limited"),
    "a switch of protocols": (sends("HTTP/1.1 101 Switching Protocols\r\n\r\n"), "garbage"),
    "a header without end": (sends(HEAD + "x: " + "y" * 500_000), "garbage"),
}


@pytest.mark.parametrize("name", WIRE)
def test_whatever_comes_over_the_wire_is_a_value(name: str) -> None:
    play, kind = WIRE[name]
    reply, _ = ask(play)
    assert reply.kind == kind, reply
    assert reply.text == ("a" if kind == "complete" and "DONE" not in name else "")


@pytest.mark.parametrize("piece", ["data: " + "x" * 60_000, "x" * 60_000, 'data: {"a":1}\n' * 4000])
def test_an_event_without_end_is_cut_off(piece: str) -> None:
    async def play(wire: Wire) -> None:
        await wire.begin()
        await wire.send(says("a") + piece)
        while True:
            await wire.send(piece.removeprefix("data: "))

    reply, _ = ask(play, left=True)
    assert (reply.kind, reply.text) == ("garbage", "a")


def test_text_without_end_is_bounded() -> None:
    async def play(wire: Wire) -> None:
        await wire.begin()
        while True:
            await wire.send(says("y" * 50_000))

    reply, _ = ask(play, left=True)
    assert reply.kind == "length"
    assert len(reply.text) <= 2 * 1024**2


def test_an_error_without_end_is_read_only_so_far() -> None:
    async def play(wire: Wire) -> None:
        await wire.send("HTTP/1.1 500 Oops\r\n\r\n")
        while True:
            await wire.send(b"z" * 60_000)

    reply, _ = ask(play, left=True)
    assert reply.kind == "server_error"
    assert len(reply.message) < 400


def test_a_redirect_is_not_followed_with_the_key() -> None:
    async def run() -> None:
        async def elsewhere(wire: Wire) -> None:
            await wire.answer("{}")

        async with wire_server(elsewhere) as other:

            async def play(wire: Wire) -> None:
                await wire.answer("", "307 Temporary Redirect", f"location: {other.base_url}/chat/completions")

            async with wire_server(play) as server:
                reply = await chat_at(server.base_url).complete(ASKED)
                assert reply.kind == "unreachable"
                assert other.base_url in reply.message
                found = chat_at(server.base_url, model="", profile="auto")
                assert (await found.complete(ASKED)).kind == "unreachable"
            assert other.requests == []

    anyio.run(run)


def test_nobody_listening_is_told_apart_from_a_silent_server() -> None:
    async def run() -> None:
        async with wire_server(sends()) as server:
            pass
        reply = await chat_at(server.base_url).complete(ASKED)
        assert reply.kind == "unreachable"
        assert "refused" in reply.message
        reply = await chat_at("http://nobody.invalid/v1", plain_key=True).complete(ASKED)
        assert reply.kind == "unreachable"

    anyio.run(run)


def test_a_certificate_of_nobody_known_is_refused(tmp_path: Path) -> None:
    reply, server = ask(streams(says("a"), END), tls=server_context(tmp_path))
    assert reply.kind == "unreachable"
    assert "TLS" in reply.message
    assert server.requests == []


def test_a_certificate_of_an_authority_that_the_environment_names_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert ask(streams(says("a"), END), tls=context)[0].text == "a"


def test_a_plain_server_behind_https_is_a_tls_error() -> None:
    async def run() -> None:
        async with wire_server(sends("HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
            reply = await chat_at(server.base_url.replace("http:", "https:")).complete(ASKED)
            assert reply.kind == "unreachable", reply

    anyio.run(run)


def test_a_compressed_stream_is_read_too() -> None:
    body = gzip.compress((says("a") + END).encode())
    head = f"{HEAD}content-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n"
    reply, server = ask(sends(head, body))
    assert reply.text == "a"
    assert b"accept-encoding: identity" in server.requests[0].lower()


def test_a_server_that_repeats_the_key_does_not_get_it_into_a_message() -> None:
    async def play(wire: Wire) -> None:
        await wire.answer(json.dumps({"error": {"message": f"Incorrect key {CANARY}"}}), "401 Unauthorized")

    reply, _ = ask(play)
    assert reply.message == "HTTP 401: Incorrect key [key]"
    reply, _ = ask(streams('{"no": "' + "x" * 54 + CANARY))  # what is shown of it ends within the key
    assert reply.message.endswith("x[key]'")

    async def inside(wire: Wire) -> None:
        await wire.begin()
        await wire.send(f'data: {{"error": {{"message": "bad {CANARY}"}}}}\n\n')

    assert "[key]" in ask(inside)[0].message


def test_the_key_reaches_no_log_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def run() -> None:
        async with wire_server(streams(says("a"), says("b"), END)) as server:

            async def hear(text: str) -> None:
                raise RuntimeError(text)

            chat = chat_at(server.base_url)
            with pytest.raises(RuntimeError) as caught:
                await chat.complete(ASKED, hear)
            shown = "".join(repr(value) for frame in caught.traceback for value in frame.locals.values())
            assert CANARY not in shown
            with pytest.raises(TypeError):
                __import__("pickle").dumps(chat.endpoint)

    anyio.run(run)
    assert CANARY not in caplog.text


def test_nothing_about_this_machine_leaves_and_no_proxy_stands_before_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    reply, server = ask(streams(says("a"), END))
    assert reply.text == "a"
    request = server.requests[0].decode()
    assert "another-environment" not in request
    assert "x-stainless-os" not in request.lower()


def test_another_machine_is_reached_through_the_proxy_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with wire_server(streams(says("a"), END)) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
            monkeypatch.delenv("NO_PROXY", raising=False)
            llm = LlmDefaults(base_url="http://model.invalid/v1", model="m", profile="generic")
            reply = await open_chat(llm, {"ASTERISM_HOME": str(tmp_path)}).complete(ASKED)
            assert reply.text == "a"
            assert proxy.requests[0].startswith(b"POST http://model.invalid/v1/chat/completions ")

    anyio.run(run)


def test_without_a_key_no_authorization_is_sent(tmp_path: Path) -> None:
    async def run() -> None:
        async with wire_server(streams(says("a"), END)) as server:
            llm = LlmDefaults(base_url=server.base_url, model="m", profile="generic")
            await open_chat(llm, {"ASTERISM_HOME": str(tmp_path)}).complete(ASKED)
            assert b"authorization" not in server.requests[0].lower()

    anyio.run(run)


def test_a_server_that_lists_nothing_useful_is_generic() -> None:
    async def play(wire: Wire) -> None:
        if wire.path == "/v1/models":
            await wire.answer('{"data": [7, {"id": null}, {"id": "m"}]}')
        elif wire.path == "/api/version":
            await wire.answer("no JSON")
        elif wire.path == "/props":
            await wire.answer("[]")
        else:
            await streams(says("a"), END)(wire)

    async def run() -> None:
        async with wire_server(play) as server:
            chat = chat_at(server.base_url, model="", profile="auto")
            assert (await chat.complete(ASKED)).text == "a"
            assert (chat.name, chat.profile and chat.profile.name) == ("m", "generic")
            await chat.complete(ASKED)
            assert len(server.requests) == 5  # it was asked once

    anyio.run(run)


def server_context(folder: Path) -> ssl.SSLContext:
    """The TLS of a server that is its own authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key, chain = Authority.open(folder, ("127.0.0.1",)).pair
    (folder / "pair.pem").write_text(key + chain)
    context.load_cert_chain(folder / "pair.pem")
    return context


def test_a_base_url_without_its_end_is_told_with_the_right_one() -> None:
    async def play(wire: Wire) -> None:
        if wire.path == "/v1/models":
            await wire.answer('{"data": [{"id": "m"}]}')
        else:
            await wire.answer("404 page not found", "404 Not Found")

    async def run() -> None:
        async with wire_server(play) as server:
            root = server.base_url.removesuffix("/v1")
            reply = await chat_at(root, model="", profile="auto").complete(ASKED)
            assert reply.kind == "bad_request"
            assert reply.hint == f"set OPENAI_BASE_URL to {root}/v1"

    anyio.run(run)
