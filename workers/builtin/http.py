"""Built-in skills on the web: http.get, http.send.

A host name is resolved once and the connection goes to that very address, so the answer can't change between the
check and the use; loopback, private and link-local addresses are refused unless ASTERISM_HTTP_ALLOW_PRIVATE=1.
Redirects are followed by hand, each checked anew. Must not know: credentials; none are ever sent.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple, TypedDict

import httpx
import msgspec

from protocol.builtin import BY_NAME
from protocol.errors import NotAllowed, SkillFailed, TryAgain, UsageError
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

MAX_REDIRECTS: Final = 5
MAX_SENT_TEXT: Final = 1024 * 1024
_TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
_ALLOW: Final = "ASTERISM_HTTP_ALLOW_PRIVATE"
_HEADERS: Final = {"user-agent": "asterism", "accept": "*/*", "accept-encoding": "gzip, deflate"}
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


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
    """The host doesn't answer: a result of http.get, a failure of http.send."""


class _Target(NamedTuple):
    url: httpx.URL
    headers: dict[str, str]
    extensions: dict[str, Any]


@skill(spec=BY_NAME["http.get"])
def get(ctx: SkillContext, url: str, max_bytes: int = 8 * 1024 * 1024) -> Page:
    """`text` is empty for what is no text; `file` holds the body as it came; `error` says why it is not ok."""
    start = time.monotonic()
    target, at = parsed(url), url
    try:
        for _ in range(MAX_REDIRECTS + 1):
            with _request("GET", target) as response:
                at = str(target)
                if response.status_code in _REDIRECTS and (location := response.headers.get("location")):
                    target = parsed(str(target.join(location)))
                    continue
                body, whole = _read(response, max_bytes)
                text = _text(response, body)
                status = response.status_code
            file = ctx.file(target.path.rpartition("/")[2][:100] or "body")
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
def send(ctx: SkillContext, method: Literal["POST", "PUT", "PATCH", "DELETE"], url: str, json: Any = None) -> Sent:
    """Sends once, the task's idempotency key in a header; follows no redirect, fails for a status of 400 or more."""
    body = msgspec.json.encode(json) if json is not None else b""
    headers = {"idempotency-key": ctx.idempotency_key} if ctx.idempotency_key else {}
    if json is not None:
        headers["content-type"] = "application/json"
    try:
        with _request(method, parsed(url), body, headers) as response:
            data, _ = _read(response, MAX_SENT_TEXT)
            sent = Sent(status=response.status_code, text=_text(response, data))
    except _Dead as error:
        raise TryAgain(f"{url} does not answer: {error}") from error
    if sent["status"] in (408, 425, 429) or sent["status"] >= 500:
        raise TryAgain(f"{url} answered {sent['status']}: {sent['text'][:500]}")
    if sent["status"] >= 400:
        raise SkillFailed(f"{url} answered {sent['status']}: {sent['text'][:500]}")
    return sent


def parsed(url: str) -> httpx.URL:
    """Raises: UsageError for what is no http(s) URL, or one that carries a password."""
    try:
        found = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise UsageError(f"{url[:200]!r} is no URL: {error}") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise UsageError(f"{url[:200]!r} is no http or https URL", hint="write https://host/path")
    if found.userinfo:
        raise UsageError("the URL carries a user name or password", hint="leave it out: it would be journaled")
    return found


def _resolve(url: httpx.URL) -> _Target:
    """The URL with the address in place of the name; the name goes into the Host header and into TLS.

    Raises: NotAllowed for an address that is not public; _Dead when the name resolves to nothing.
    """
    host = url.raw_host.decode("ascii")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _Dead(f"{host} can't be resolved: {error}") from error
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if os.environ.get(_ALLOW) != "1":
        # One private address among them is enough: a name that mixes both is how the check is got round.
        for address in addresses:
            if not is_public(address):
                raise NotAllowed(
                    f"{host} is {address}, which is not a public address",
                    hint=f"set {_ALLOW}=1 on the worker to allow its own network",
                )
    address = addresses[0]
    name = url.netloc.decode("ascii")
    literal = f"[{address}]" if ":" in address else address
    return _Target(url.copy_with(host=literal), {**_HEADERS, "host": name}, {"sni_hostname": host})


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet; mapped and translated IPv4 addresses are looked into."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in ipaddress.ip_network("64:ff9b::/96"):
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        elif found.sixtofour is not None:
            found = found.sixtofour
    return found.is_global and not found.is_multicast


@contextmanager
def _request(
    method: str, url: httpx.URL, body: bytes = b"", headers: dict[str, str] | None = None
) -> Iterator[httpx.Response]:
    target = _resolve(url)
    # trust_env off: a proxy would resolve names on its own, past the check.
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=False, trust_env=False) as client:
        request = client.build_request(
            method,
            target.url,
            content=body or None,
            headers={**target.headers, **(headers or {})},
            extensions=target.extensions,
        )
        try:
            response = client.send(request, stream=True)
            try:
                yield response
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise _Dead(f"{type(error).__name__}: {error}") from error


def _read(response: httpx.Response, max_bytes: int) -> tuple[bytes, bool]:
    """The body, decompressed, up to a limit; whether that was all of it."""
    body = bytearray()
    for block in response.iter_bytes(65536):
        body += block
        if len(body) > max_bytes:
            return bytes(body[:max_bytes]), False
    return bytes(body), True


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
