"""What a skill host states is examined before the daemon acts on it: a hostile skill ends itself, not its worker."""

from __future__ import annotations

import msgspec
import pytest

from protocol.artifact import INLINE_LIMIT, ArtifactRef, digest_of
from protocol.errors import WireError
from protocol.ids import AttemptId
from protocol.outcome import Failure, Stopped, Success, Usage
from workers.pipe import FROM_HOST, MOST_BYTES, Asking, Fetch, Finished, Line, Loaded, Noted, Unpacker, pack
from workers.statement import TEXT_CHARACTERS, examine

A = AttemptId(1, 2, 1)
SOUND = (
    Loaded(()), Loaded((), b'{"code":"NotFound"}'), Line(A, "stdout", "x"), Noted(A, b'{"done":1}'),
    Fetch(A, "sha256:x"),
    Asking(A, 1, "spawn", b'{"skill":"x"}'), Finished(A, Success(b"1"), Usage(0.5)), Finished(A, Stopped("x"), Usage()),
    Finished(A, Failure("Bad", "x"), Usage()),
    Finished(A, Success(ArtifactRef(digest_of(b""), "x", 0)), Usage(), "spill"),
)  # fmt: skip
UNSOUND = {
    "an error that is no JSON": Loaded((), b"{"),
    "an error that is no object": Loaded((), b"[1]"),
    "progress that is no JSON": Noted(A, b"\xff"),
    "a call of no known kind": Asking(A, 1, "format_disk", b"{}"),
    "a call before the first": Asking(A, 0, "spawn", b"{}"),
    "a call that is no JSON": Asking(A, 1, "spawn", b"{"),
    "a call nested without end": Asking(A, 1, "spawn", b"[" * 5000 + b"]" * 5000),
    "a result that is no JSON": Finished(A, Success(b"nan"), Usage()),
    "a number out of range": Finished(A, Success(b"1e999"), Usage()),
    "an integer out of range": Finished(A, Success(b"9" * 5000), Usage()),
    "a result that is too large": Finished(A, Success(b'"' + b"x" * INLINE_LIMIT + b'"'), Usage()),
    "a result that is nowhere": Finished(A, Success(ArtifactRef(digest_of(b""), "x", 0)), Usage()),
    "a result of no digest": Finished(A, Success(ArtifactRef("../../x", "x", 0)), Usage(), "spill"),
    "seconds that are no number": Finished(A, Success(b"1"), Usage(run_s=float("nan"))),
    "memory below nothing": Finished(A, Success(b"1"), Usage(peak_bytes=-1)),
    "a failure without end": Finished(A, Failure("Bad", "x" * (TEXT_CHARACTERS + 1)), Usage()),
}


@pytest.mark.parametrize("message", SOUND, ids=lambda one: type(one).__name__)
def test_what_a_sound_host_states_passes(message):
    examine(message)
    assert [*Unpacker(FROM_HOST).feed(pack(message))] == [message]


@pytest.mark.parametrize("name", UNSOUND)
def test_what_could_not_travel_the_link_is_refused(name):
    with pytest.raises(WireError):
        examine(UNSOUND[name])


def test_a_length_that_would_fill_the_memory_is_refused_before_it_does():
    with pytest.raises(WireError, match="are allowed"):
        [*Unpacker(FROM_HOST).feed((MOST_BYTES + 1).to_bytes(4, "little"))]


def test_garbage_is_refused_after_what_was_sound():
    said = Unpacker(FROM_HOST).feed(pack(SOUND[2]) + (2).to_bytes(4, "little") + b"\xa1\xff")
    assert next(said) == SOUND[2]
    with pytest.raises(WireError):
        next(said)


def test_a_message_in_pieces_is_one_message():
    unpacker, data = Unpacker(FROM_HOST), pack(SOUND[3])
    assert [one for k in range(len(data)) for one in unpacker.feed(data[k : k + 1])] == [SOUND[3]]
    assert msgspec.msgpack.decode(data[4:])[0] == "Noted"
