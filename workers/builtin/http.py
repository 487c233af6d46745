"""Built-in skills on the web: http.get, http.send.

A host name is resolved once and the connection goes to an address that was judged (workers/address.py), so the answer
can't change between the check and the use. Redirects are followed by hand, each judged anew, without the caller's
headers once they lead to another place. Invariant: a body grows neither beyond `max_bytes` nor past the deadline,
however it was compressed or dripped. Must not know: credentials; it sends only what it is given.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, TypedDict

import httpx
import msgspec

from protocol.builtin import BY_NAME
from protocol.errors import SkillFailed, TryAgain, UsageError
from workers.address import allowed_by, reach, system_resolve
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

MAX_REDIRECTS: Final = 5
MAX_SENT_TEXT: Final = 1024 * 1024
LONGEST_S: Final = 110.0
"""From the first connection to the last byte, redirects included: less than the skill's own timeout."""
_TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
_HEADERS: Final = {"user-agent": "asterism", "accept": "*/*", "accept-encoding": "gzip"}
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS: Final = frozenset(
    (
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "accept-encoding",
        "expect",
    )
)
_BLOCK: Final = 65536
_GZIP: Final = zlib.MAX_WBITS | 16

resolve = system_resolve


class Page(TypedDict):
    ok: bool
    status: int
    url: str
    text: str
    file: File | None
    bytes: int
    seconds: float
    error: str


class Sent(TypedDict):
    status: int
    text: str


class _Dead(Exception):
    """The host doesn't answer, or not in time: a result of http.get, a failure of http.send."""


@skill(spec=BY_NAME["http.get"])
def get(ctx: SkillContext, url: str, max_bytes: int = 8 * 1024 * 1024, headers: dict[str, str] | None = None) -> Page:
    """`text` is empty for what is no text; `file` holds the body as it came; `error` says why it is not ok."""
    start = time.monotonic()
    until = start + min(LONGEST_S, ctx.deadline_s)
    target, at, sent = parsed(url), url, checked(headers)
    try:
        for _ in range(MAX_REDIRECTS + 1):
            with _request("GET", target, until, headers=sent) as response:
                at = str(target)
                if response.status_code in _REDIRECTS and (location := response.headers.get("location")):
                    before, target = target, parsed(str(target.join(location)))
                    if (before.scheme, before.netloc) != (target.scheme, target.netloc):
                        sent = {}
                    continue
                body, whole = _read(response, max_bytes)
                text = _text(response, body)
                status = response.status_code
            file = ctx.file(_name(target))
            file.path.parent.mkdir(parents=True, exist_ok=True)
            file.path.write_bytes(body)
            error = "" if whole else f"cut at {max_bytes} bytes"
            if status >= 400:
                error = f"status {status}"
            return Page(
                ok=status < 400 and whole,
                status=status,
                url=at,
                text=text,
                file=file,
                bytes=len(body),
                seconds=round(time.monotonic() - start, 4),
                error=error,
            )
        why = f"more than {MAX_REDIRECTS} redirects"
    except _Dead as error:
        why = str(error)
    seconds = round(time.monotonic() - start, 4)
    return Page(ok=False, status=0, url=at, text="", file=None, bytes=0, seconds=seconds, error=why)


@skill(spec=BY_NAME["http.send"])
def send(
    ctx: SkillContext,
    method: Literal["POST", "PUT", "PATCH", "DELETE"],
    url: str,
    json: Any = None,
    headers: dict[str, str] | None = None,
) -> Sent:
    """Sends once, the task's idempotency key in a header; follows no redirect, fails for a status of 400 or more."""
    body = msgspec.json.encode(json) if json is not None else b""
    sent = checked(headers)
    if ctx.idempotency_key:
        sent.setdefault("idempotency-key", ctx.idempotency_key)
    if json is not None:
        sent.setdefault("content-type", "application/json")
    try:
        until = time.monotonic() + min(LONGEST_S, ctx.deadline_s)
        with _request(method, parsed(url), until, body, sent) as response:
            data, _ = _read(response, MAX_SENT_TEXT)
            answer = Sent(status=response.status_code, text=_text(response, data))
    except _Dead as error:
        raise TryAgain(f"{url} does not answer: {error}") from error
    if answer["status"] in (408, 425, 429) or answer["status"] >= 500:
        raise TryAgain(f"{url} answered {answer['status']}: {answer['text'][:500]}")
    if answer["status"] >= 400:
        raise SkillFailed(f"{url} answered {answer['status']}: {answer['text'][:500]}")
    return answer


def parsed(url: str) -> httpx.URL:
    """Raises: UsageError for what is no http(s) URL, or one that carries a password."""
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise UsageError(f"{url[:200]!r} is no URL: {error}") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise UsageError(f"{url[:200]!r} is no http or https URL", hint="write https://host/path")
    if found.userinfo:
        raise UsageError(
            "the URL carries a user name or password", hint='use headers: {"authorization": {"secret": "NAME"}}'
        )
    return found


def checked(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Headers as they may be sent. Raises: UsageError for what could change where the message ends or goes."""
    found = {}
    for name, value in (headers or {}).items():
        if _HEADER_NAME.fullmatch(name) is None or name.lower() in _OURS:
            raise UsageError(f"{name[:100]!r} is no header to send", hint="leave it out")
        if any(ord(char) < 32 or ord(char) > 126 for char in value):
            raise UsageError(f"the header {name} holds a character that no header may", hint="use printable ASCII")
        found[name.lower()] = value
    return found


def _name(url: httpx.URL) -> str:
    """A file name for the body, whatever the path was."""
    last = re.sub(r"[^\w .+@=-]", "_", url.path.rpartition("/")[2])[:100].lstrip(".")
    return last or "body"


@contextmanager
def _request(
    method: str, url: httpx.URL, until: float, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Iterator[httpx.Response]:
    """Raises: NotAllowed; _Dead."""
    host = url.raw_host.decode("ascii")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        addresses = reach(host, port, allowed_by(os.environ), resolve)
    except (OSError, UnicodeError) as error:
        raise _Dead(f"{host} can't be resolved: {error}") from error
    line = _Line(until)
    # trust_env off: a proxy would resolve names on its own, past the check.
    with line, httpx.Client(timeout=_TIMEOUT, follow_redirects=False, trust_env=False) as client:
        sent = {**_HEADERS, **(headers or {}), "host": url.netloc.decode("ascii")}
        extensions = {"sni_hostname": host, "trace": line.trace}
        try:
            response = None
            for number, address in enumerate(addresses, 1):
                there = url.copy_with(host=f"[{address}]" if ":" in address else address)
                request = client.build_request(method, there, content=body or None, headers=sent, extensions=extensions)
                try:
                    response = client.send(request, stream=True)
                    break
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if number == len(addresses) or line.cut:
                        raise
            assert response is not None
            try:
                yield response
                if line.cut:  # an end of the stream that we have made ourselves is no end of the body
                    raise _Dead("it took too long")
            finally:
                response.close()
        except (httpx.HTTPError, zlib.error) as error:
            why = "it took too long" if line.cut else f"{type(error).__name__}: {error}"
            raise _Dead(why) from error


class _Line:
    """The connection of one request, cut at the deadline whatever the far side does: it owns a timer of its own."""

    def __init__(self, until: float) -> None:
        self.cut = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(max(0.0, until - time.monotonic()), self._cut)
        self._timer.daemon = True

    def __enter__(self) -> _Line:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            found = info["return_value"].get_extra_info("socket")
            if found is not None:
                self._sockets.append(found)
                if self.cut:
                    self._cut()

    def _cut(self) -> None:
        self.cut = True
        for one in self._sockets[-1:]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _read(response: httpx.Response, max_bytes: int) -> tuple[bytes, bool]:
    """The body, decompressed, up to a limit; whether that was all of it. Never more than a block ahead of it."""
    body = bytearray()
    for block in _plain(response):
        body += block
        if len(body) > max_bytes:
            return bytes(body[:max_bytes]), False
    return bytes(body), True


def _plain(response: httpx.Response) -> Iterator[bytes]:
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding in ("identity", ""):
        yield from response.iter_raw(_BLOCK)
        return
    if coding not in ("gzip", "x-gzip"):
        raise _Dead(f"it answered in the coding {coding[:40]!r}, which was not asked for")
    unpacker = zlib.decompressobj(_GZIP)
    for block in response.iter_raw(_BLOCK):
        while block:
            yield unpacker.decompress(block, _BLOCK)
            block = unpacker.unconsumed_tail
            if unpacker.eof:
                block = unpacker.unused_data
                unpacker = zlib.decompressobj(_GZIP)
    yield unpacker.flush(_BLOCK)


def _text(response: httpx.Response, body: bytes) -> str:
    kind = response.headers.get("content-type", "").lower()
    if kind and not any(word in kind for word in ("text", "json", "xml", "javascript", "yaml", "csv", "form")):
        return ""
    if b"\0" in body[:1024]:
        return ""
    try:
        return body.decode(response.charset_encoding or "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")  # it names a charset that nobody knows
