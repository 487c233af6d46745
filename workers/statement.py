"""What a host states, checked before the daemon acts on it: user code shares the host's process and can write its pipe.

Invariant: what passes can travel the link, so that no skill can end its worker's session or fill its memory; a host
that states anything else is killed like one that writes garbage. It must not know pipes, hosts or the machine.
"""

from __future__ import annotations

from typing import Final, get_args

from protocol.admission import USAGE_LIMIT
from protocol.artifact import INLINE_LIMIT, ArtifactRef, is_digest
from protocol.errors import WireError
from protocol.frame import CallKind
from protocol.json_bytes import check_json, read_json
from protocol.outcome import Failure, Stopped, Success

from .pipe import Asking, Finished, FromHost, Loaded, Noted

TEXT_CHARACTERS: Final = 256 * 1024
"""Of all that a failure says."""
_CALLS: Final = frozenset(get_args(CallKind))
_MOST_CALLS: Final = 2**20


def examine(message: FromHost) -> None:
    """Raises: WireError saying why the message can't have come from a sound host."""
    match message:
        case Noted(_, body):
            check_json(body)
        case Asking(_, k, what, body):
            if what not in _CALLS or not 0 < k < _MOST_CALLS:
                raise WireError(f"there is no call {k} of kind {what!r:.40}")
            check_json(body)
        case Finished():
            _examine_end(message)
        case Loaded(_, error) if error:
            read_json(error, dict[str, object])
        case _:
            pass


def _examine_end(message: Finished) -> None:
    usage, outcome = message.usage, message.outcome
    numbers = (usage.run_s, usage.cpu_s, usage.price, usage.bring_s)
    counts = (usage.peak_bytes, usage.tokens_in, usage.tokens_out, usage.bytes_in)
    if not all(abs(number) <= USAGE_LIMIT for number in numbers) or not all(
        0 <= count <= USAGE_LIMIT for count in counts
    ):
        raise WireError("it used more than there is")
    texts: tuple[str, ...] = ()
    if isinstance(outcome, Failure):
        texts = (outcome.code, outcome.message, outcome.detail, outcome.hint)
    elif isinstance(outcome, Stopped):
        texts = (outcome.why,)
    if sum(map(len, texts)) > TEXT_CHARACTERS:
        raise WireError(f"a failure of {sum(map(len, texts))} characters, {TEXT_CHARACTERS} are allowed")
    value = outcome.value if isinstance(outcome, Success) else b"null"
    if isinstance(value, ArtifactRef):
        if not is_digest(value.digest) or not 0 <= value.size <= USAGE_LIMIT or not message.spill:
            raise WireError("its result names no content")
    elif len(value) > INLINE_LIMIT:
        raise WireError(f"a result of {len(value)} bytes, {INLINE_LIMIT} are allowed")
    else:
        check_json(value)
