"""What a model server's refusal means: status, headers and body in, a reply that says what to do out.

Total: any status and any body become a reply. It must not know sockets or keys; the body is another's text, shortened.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .chat import ChatReply, Kind
from .errors import WireError
from .json_bytes import read_json

SHOWN: Final = 300
_KINDS: Final[Mapping[int, Kind]] = {401: "unauthorized", 403: "unauthorized", 402: "rate_limited", 429: "rate_limited"}
_SPENT: Final = ("insufficient_quota", "billing", "credit", "balance")
_HINTS: Final[Mapping[Kind, str]] = {
    "unauthorized": "check OPENAI_API_KEY, and that it belongs to llm.base_url",
    "rate_limited": "wait, or use another model or account",
    "server_error": "try again; see the model server's log",
    "no_model": "set ASTERISM_MODEL to one that asterism doctor llm lists",
    "bad_request": "check llm.base_url (it usually ends in /v1), llm.profile and llm.max_tokens",
    "unreachable": "set llm.base_url to where it leads, if you trust that",
}


class Refusal(msgspec.Struct, frozen=True):
    """An HTTP answer that is no success. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        """What the body says under `error`, or all of it."""
        try:
            said = read_json(self.body)
        except WireError:
            return self.body.decode(errors="replace")
        said = said[0] if isinstance(said, list) and said else said
        return said.get("error") or said if isinstance(said, dict) else said


def refused(answer: Refusal) -> ChatReply:
    """The reply for an HTTP status that is no success."""
    text, code, _ = words(answer.error)
    if 300 <= answer.status < 400:
        where = answer.headers.get("location", "")[:SHOWN]
        return _reply("unreachable", f"the server redirects to {where!r}, which is not followed with a key")
    kind = _KINDS.get(answer.status)
    if kind is None:
        kind = "server_error" if answer.status >= 500 or answer.status == 408 else "bad_request"
        if answer.status == 404 and "model" in f"{text} {code}".lower():
            kind = "no_model"
    spent = kind == "rate_limited" and any(word in f"{text} {code}".lower() for word in _SPENT)
    said = f"HTTP {answer.status}: {text}" if text else f"HTTP {answer.status}"
    if answer.status == 402 or spent:
        return _reply(kind, said, "the account has no credit left: top it up, or use another one")
    return _reply(kind, said, retry_after_s=retry_after_s(answer.headers, time.time()))


def said_in_stream(error: Any) -> ChatReply:
    """The reply for an error that arrived as an event of the stream."""
    text, code, status = words(error)
    kind: Kind = _KINDS.get(status) or ("bad_request" if 400 <= status < 500 else "server_error")
    if "rate_limit" in code or "overloaded" in code:
        kind = "rate_limited"
    return _reply(kind, f"the server ended the answer: {text or code or 'an error'}")


def words(error: Any) -> tuple[str, str, int]:
    """(what a server's error says, its code or type, its HTTP status or 0)"""
    if not isinstance(error, dict):
        return (error if isinstance(error, str) else "")[:SHOWN], "", 0
    if isinstance(detail := error.get("detail"), list) and detail and isinstance(detail[0], dict):
        return f"{detail[0].get('msg')} at {detail[0].get('loc')}"[:SHOWN], "", 0
    said = next((error[key] for key in ("message", "detail", "error") if isinstance(error.get(key), str)), "")
    code, status = error.get("code"), error.get("status")
    number = next((one for one in (code, status) if isinstance(one, int) and 100 <= one < 600), 0)
    names = " ".join(one for one in (code, error.get("type")) if isinstance(one, str))
    return said[:SHOWN], names[:SHOWN], number


def parameter(error: Any) -> str:
    """Which part of the request a server's error names."""
    named = error.get("param") if isinstance(error, dict) else None
    return named if isinstance(named, str) else ""


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    try:
        if "retry-after-ms" in headers:
            wait = float(headers["retry-after-ms"]) / 1000
        else:
            wait = float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(0.0, wait) if wait < float("inf") else None


def _reply(kind: Kind, message: str, hint: str = "", retry_after_s: float | None = None) -> ChatReply:
    return ChatReply(kind, message=message, hint=hint or _HINTS[kind], retry_after_s=retry_after_s)
