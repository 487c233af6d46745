"""What a hostile or broken web server can do to http.get and http.send, with real sockets and a scripted resolver."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from protocol.errors import NotAllowed, UsageError
from protocol.frame import Assign
from protocol.ids import AttemptId, Fence
from workers.builtin import http
from workers.context import Situation, SkillContext
from workers.root import Root, Roots


class Wire:
    """Nobody is asked for anything here."""

    def ask(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        raise AssertionError(what)

    ask_async = ask

    def note(self, attempt: AttemptId, body: bytes) -> None: ...
    def log(self, attempt: AttemptId, text: str) -> None: ...


@pytest.fixture
def ctx(tmp_path: Path) -> SkillContext:
    assign = Assign(AttemptId(1, 1, 1), Fence(1, 1), b"", b"{}", "r1/t#1", idempotency_key="key-1")
    roots = Roots("here", [Root(os.path.realpath(tmp_path))])
    return SkillContext(Wire(), Situation(assign, "cpu", str(tmp_path), str(tmp_path), roots, 1e12, str))


class Site:
    """Answers every connection with `answer(connection, head)` and remembers the heads of the requests."""

    def __init__(self, answer: Callable[[socket.socket, str], None]) -> None:
        self.heads: list[str] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65536)
                    self.heads.append(head.decode("latin-1"))
                    self._answer(connection, self.heads[-1])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Site]]:
    monkeypatch.setenv("ASTERISM_HTTP__ALLOW", "127.0.0.1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    sites: list[Site] = []

    def make(answer: Callable[[socket.socket, str], None]) -> Site:
        sites.append(Site(answer))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def reply(status: str, body: bytes = b"", **headers: str) -> Callable[[socket.socket, str], None]:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "connection: close", "", ""]).encode()
    return lambda connection, _: connection.sendall(head + body)


def test_bomb_grows_no_further_than_its_limit(ctx: SkillContext, serve: Callable[..., Site]) -> None:
    bomb = gzip.compress(bytes(256 * 1024 * 1024), 1)
    site = serve(reply("200 OK", bomb, content_encoding="gzip", content_type="text/plain"))
    tracemalloc.start()
    try:
        page = http.get(ctx, f"http://127.0.0.1:{site.port}/", max_bytes=100_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (page["bytes"], page["error"]) == (100_000, "cut at 100000 bytes")
    assert peak < 16 * 1024 * 1024 + len(bomb)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "deflate"])
def test_coding_that_was_not_asked_for_is_refused(ctx: SkillContext, serve: Callable[..., Site], coding: str) -> None:
    site = serve(reply("200 OK", b"abc", content_encoding=coding))
    page = http.get(ctx, f"http://127.0.0.1:{site.port}/")
    assert not page["ok"]
    assert "not asked for" in page["error"]


def test_broken_compression_is_a_dead_host(ctx: SkillContext, serve: Callable[..., Site]) -> None:
    site = serve(reply("200 OK", b"\x1f\x8b\x08nonsense and more", content_encoding="gzip"))
    assert not http.get(ctx, f"http://127.0.0.1:{site.port}/")["ok"]


@pytest.mark.parametrize("where", ["head", "body"])
def test_host_that_drips_is_cut_at_the_deadline(
    ctx: SkillContext, serve: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(http, "LONGEST_S", 0.4)
    gone = threading.Event()

    def drip(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if where == "body" else b""))
        try:
            while not gone.wait(0.02):
                connection.sendall(b"x-a: b\r\n" if where == "head" else b"x")
        except OSError:
            gone.set()

    site = serve(drip)
    page = http.get(ctx, f"http://127.0.0.1:{site.port}/", max_bytes=10**9)
    assert page["error"] == "it took too long"
    assert gone.wait(5), "the connection is closed, not left behind"


def test_headers_go_to_the_host_they_were_given_for_and_to_no_other(
    ctx: SkillContext, serve: Callable[..., Site]
) -> None:
    last = serve(reply("200 OK", b"here"))
    site = serve(lambda connection, head: (
        reply("302 Found", location="/again") if "GET / " in head
        else reply("302 Found", location=f"http://127.0.0.1:{last.port}/")
    )(connection, head))  # fmt: skip
    page = http.get(ctx, f"http://127.0.0.1:{site.port}/", headers={"Authorization": "Bearer canary"})
    assert page["text"] == "here"
    assert ["bearer canary" in head.lower() for head in site.heads] == [True, True]
    assert "canary" not in last.heads[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nevil: 1"}, {"x": "a\nb"}, {"x\r\ny": "a"}, {"": "a"}, {"x y": "a"}, {"host": "other"},
        {"Content-Length": "9"}, {"transfer-encoding": "chunked"}, {"x": "é"}, {"x": "\0"},
    ],
)  # fmt: skip
def test_headers_that_would_change_the_message_are_refused(ctx: SkillContext, headers: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        http.get(ctx, "http://127.0.0.1/", headers=headers)
    with pytest.raises(UsageError):
        http.send(ctx, "POST", "http://127.0.0.1/", headers=headers)


def test_name_is_resolved_once_and_its_address_is_used(
    ctx: SkillContext, serve: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers with a public address first and a private one then gets no second question."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    monkeypatch.setattr(http, "resolve", resolve)
    site = serve(reply("200 OK", b"once", content_type="text/plain"))
    assert http.get(ctx, f"http://rebinding.example:{site.port}/")["text"] == "once"
    assert asked == ["rebinding.example"]
    assert f"host: rebinding.example:{site.port}" in site.heads[0].lower()
    with pytest.raises(NotAllowed, match=r"10\.0\.0\.1"):
        http.get(ctx, f"http://rebinding.example:{site.port}/")


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost.", "[::ffff:127.0.0.1]"]
)
def test_other_spellings_of_this_machine_are_refused(
    ctx: SkillContext, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASTERISM_HTTP__ALLOW", raising=False)
    try:
        page = http.get(ctx, f"http://{host}:8080/")
    except (NotAllowed, UsageError):
        return
    assert "can't be resolved" in page["error"]


def test_redirect_to_another_scheme_or_port_is_refused(ctx: SkillContext, serve: Callable[..., Site]) -> None:
    for location, error in (("file:///etc/passwd", UsageError), ("gopher://127.0.0.1/", UsageError),
                            ("http://127.0.0.1:22/", NotAllowed), ("http://me:pw@127.0.0.1/", UsageError)):  # fmt: skip
        site = serve(reply("302 Found", location=location))
        with pytest.raises(error):
            http.get(ctx, f"http://127.0.0.1:{site.port}/")


def test_file_is_named_for_no_folder_but_its_own(ctx: SkillContext, serve: Callable[..., Site]) -> None:
    site = serve(reply("200 OK", b"x"))
    for path in ("/..", "/a/%2e%2e", "/a%2Fb", "/.hidden", "/a\u202eb", "/" + "n" * 500):
        page = http.get(ctx, f"http://127.0.0.1:{site.port}{path}")
        assert page["file"] is not None
        assert page["file"].path.parent == ctx.folder
        assert page["file"].path.is_file()
        assert len(page["file"].path.name) <= 100
        assert msgspec.json.encode(str(page["file"].path))
