"""What a receiver makes of an outcome, a usage and a reference to content that came over the wire, however encoded.

Invariant: an outcome that makes no sense becomes a Failure of its attempt: as a session error it would be offered again
for ever. A usage that can't be true is none: sums of these are journaled. It must not know encodings.
"""

from __future__ import annotations

from typing import Final

from .artifact import INLINE_LIMIT, ArtifactRef, is_digest
from .errors import WireError
from .json_bytes import check_json
from .outcome import Failure, Outcome, Stopped, Success, Usage

USAGE_LIMIT: Final = 2**53
CODE_LIMIT: Final = 100
TEXT_LIMIT: Final = 4096
DETAIL_LIMIT: Final = 64 * 1024
"""What a failure may say, in characters; the rest is cut off."""
_UNUSED: Final = Usage()


def bad_report(why: str) -> Failure:
    return Failure("BadReport", why, hint="the worker is of another version, or broken: asterism workers")


def admitted(outcome: Outcome) -> Outcome:
    """The same where it is sound."""
    if isinstance(outcome, Success):
        value = outcome.value
        if isinstance(value, bytes):
            return _unsound(value) or outcome
        return outcome if _names(value) else bad_report(f"{value.digest[:80]!r} of {value.size} bytes is no content")
    if isinstance(outcome, Stopped):
        return Stopped(outcome.why[:TEXT_LIMIT])
    return Failure(
        outcome.code[:CODE_LIMIT], outcome.message[:TEXT_LIMIT], outcome.klass, outcome.detail[:DETAIL_LIMIT],
        outcome.hint[:TEXT_LIMIT],
    )  # fmt: skip


def _unsound(value: bytes) -> Failure | None:
    if len(value) > INLINE_LIMIT:
        text = f"a value of {len(value)} bytes travelled inline, {INLINE_LIMIT} are allowed"
        return Failure("ValueTooLarge", text, hint="the worker must put it in the artifact store")
    try:
        check_json(value)
    except WireError as error:
        return Failure("BadValue", error.message, hint=error.hint)
    return None


def believed(usage: Usage) -> Usage:
    """The same where it can be true."""
    times = 0.0 <= usage.run_s <= USAGE_LIMIT and 0.0 <= usage.cpu_s <= USAGE_LIMIT
    if not times or not (0.0 <= usage.price <= USAGE_LIMIT and 0.0 <= usage.bring_s <= USAGE_LIMIT):
        return _UNUSED
    counts = usage.tokens_in, usage.tokens_out, usage.peak_bytes, usage.bytes_in
    return usage if min(counts) >= 0 and max(counts) <= USAGE_LIMIT else _UNUSED


def _names(ref: ArtifactRef) -> bool:
    return is_digest(ref.digest) and 0 <= ref.size < 2**64


def checked(ref: ArtifactRef) -> ArtifactRef:
    """Raises: WireError where it can name nothing."""
    if not _names(ref):
        raise WireError(f"{ref.digest[:80]!r} of {ref.size} bytes is no content")
    return ref
