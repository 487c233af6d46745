"""One item of a frame to its protobuf message and back: the table ITEMS and what it needs.

Invariant: `take` of a message raises only WireError or what the codec turns into one, so decoding stays total. It must
not know the generated code (the messages are handed in), streams or phases.

Assign and Report are hot where they travel here (2 to 4 us an item each way), so they are written out by hand: setting
fields of a message in place is half the price of building messages and copying them in. Where both ends can, they
travel packed instead. Every other item is a list of its fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, get_args

import msgspec

from .admission import admitted, bad_report, believed, checked
from .artifact import INLINE_LIMIT, ArtifactRef, Value
from .errors import WireError
from .frame import (
    Ack,
    Assign,
    Bye,
    Call,
    CallKind,
    Cancel,
    Drain,
    Drained,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Held,
    HeldVerdict,
    Hello,
    Input,
    Progress,
    Rejected,
    Report,
    Return,
    Stage,
    Staged,
    StagedFile,
    Verdict,
    Welcome,
)
from .ids import AttemptId, Fence
from .json_bytes import check_json
from .message_form import LIST_LIMIT, Form, Part, finite, form, json_part, listed, texts, word
from .outcome import Failure, FailureClass, Outcome, Stopped, Success, Usage
from .profile import WorkerProfile

EPOCH_LIMIT: Final = 2**48

_PROFILE: Final = msgspec.json.Decoder(WorkerProfile)
_KLASS: Final[dict[str, int]] = {word: k for k, word in enumerate(get_args(FailureClass), 1)}
_KLASS_OF: Final[dict[int, Any]] = {k: word for word, k in _KLASS.items()}
_OK, _FAILED, _STOPPED = 1, 2, 3


# Fields that are more than one field of the message, or are checked


def _put_attempt(message: Any, attempt: AttemptId) -> None:
    message.run = attempt.run
    message.task = attempt.task
    message.number = attempt.number


def _attempt(message: Any) -> AttemptId:
    return AttemptId(message.run, message.task, message.number)


def _put_fence(message: Any, fence: Fence) -> None:
    message.epoch = fence.epoch
    message.counter = fence.counter


def _fence(message: Any) -> Fence:
    return Fence(message.epoch, message.counter)


def _attempts(triples: Sequence[int]) -> tuple[AttemptId, ...]:
    if len(triples) % 3 or len(triples) > 3 * LIST_LIMIT:
        raise WireError(f"a list of {len(triples)} numbers is no list of attempts")
    numbers = iter(triples)
    return tuple(map(AttemptId, numbers, numbers, numbers))


def _attempt_list(name: str) -> Part:
    def put(message: Any, attempts: Iterable[AttemptId]) -> None:
        getattr(message, name).extend([n for one in attempts for n in (one.run, one.task, one.number)])

    return Part(name, put, lambda message: _attempts(getattr(message, name)))


def _put_ref(message: Any, ref: ArtifactRef) -> None:
    message.digest = ref.digest
    message.media = ref.media
    message.size = ref.size


def _ref(message: Any) -> ArtifactRef:
    return checked(ArtifactRef(message.digest, message.media, message.size))


def _put_value(message: Any, value: Value) -> None:
    if isinstance(value, bytes):
        message.json = value
    else:
        _put_ref(message, value)


def _value(message: Any) -> Value:
    return _ref(message) if message.digest else message.json


# The hot items


def _put_inputs(out: Any, inputs: Iterable[Input]) -> None:
    for one in inputs:
        message, value = out.add(), one.value
        message.key = one.key
        if type(value) is bytes:
            message.json = value
        else:
            _put_value(message, value)
        if one.pointer:
            message.pointer.extend(one.pointer)
        if one.parts is not None:
            message.listed = True
            message.flat = one.flat
            for part in one.parts:
                _put_value(message.parts.add(), part)


def _inputs(messages: Any) -> tuple[Input, ...]:
    return tuple([_input(one) for one in messages])


def _input(one: Any) -> Input:
    value = _ref(one) if one.digest else one.json
    pointer = tuple(found) if (found := one.pointer) else ()
    if one.listed:
        return Input(one.key, value, pointer, tuple([_value(part) for part in one.parts]), one.flat)
    return Input(one.key, value, pointer)


def _put_assign(message: Any, item: Assign) -> None:
    attempt, fence = item.attempt, item.fence
    message.run, message.task, message.number = attempt.run, attempt.task, attempt.number
    message.epoch, message.counter = fence.epoch, fence.counter
    message.pin = item.pin
    message.spec = item.spec
    message.name = item.name
    if item.idempotency_key:
        message.idempotency_key = item.idempotency_key
    if item.inputs:
        _put_inputs(message.inputs, item.inputs)
    for inputs in item.items:
        _put_inputs(message.items.add().inputs, inputs)
    for file in item.files:
        staged = message.files.add()
        staged.uri = file.uri
        _put_ref(staged, file.ref)
    if item.approval:
        message.approval, message.approved = item.approval, item.approved
    if item.deadline_s:
        message.deadline_s = item.deadline_s


def _assign(message: Any) -> Assign:
    deadline_s = message.deadline_s
    if deadline_s:
        finite(deadline_s)
    inputs, items, files = message.inputs, message.items, message.files
    return Assign(
        AttemptId(message.run, message.task, message.number),
        Fence(message.epoch, message.counter),
        message.pin,
        message.spec,
        message.name,
        _inputs(inputs) if inputs else (),
        tuple([_inputs(one.inputs) for one in items]) if items else (),
        tuple([StagedFile(one.uri, _ref(one)) for one in files]) if files else (),
        message.idempotency_key,
        message.approval or (message.pin if message.approved else b""),  # the first release said only that
        deadline_s,
    )


def _put_report(message: Any, item: Report) -> None:
    attempt, fence = item.attempt, item.fence
    message.run, message.task, message.number = attempt.run, attempt.task, attempt.number
    message.epoch, message.counter = fence.epoch, fence.counter
    message.pin = item.pin
    outcome = item.outcome
    if isinstance(outcome, Success):
        message.ending = _OK
        _put_value(message, outcome.value)
    elif isinstance(outcome, Failure):
        message.ending = _FAILED
        message.code = outcome.code
        message.message = outcome.message
        message.klass = _KLASS[outcome.klass]
        message.detail = outcome.detail
        message.hint = outcome.hint
    else:
        message.ending = _STOPPED
        message.message = outcome.why
    usage = item.usage
    message.run_s = usage.run_s
    message.device = usage.device
    if usage.cpu_s:
        message.cpu_s = usage.cpu_s
    if usage.peak_bytes:
        message.peak_bytes = usage.peak_bytes
    if usage.bytes_in:
        message.bytes_in = usage.bytes_in
    if usage.bring_s:
        message.bring_s = usage.bring_s
    if usage.tokens_in or usage.tokens_out or usage.price:
        message.tokens_in = usage.tokens_in
        message.tokens_out = usage.tokens_out
        message.price = usage.price


def _report(message: Any) -> Report:
    return Report(
        AttemptId(message.run, message.task, message.number),
        Fence(message.epoch, message.counter),
        message.pin,
        _outcome(message),
        believed(
            Usage(
                message.run_s, message.device, message.cpu_s, message.peak_bytes, message.tokens_in,
                message.tokens_out, message.price, message.bytes_in, message.bring_s,
            )
        ),
    )  # fmt: skip


def _outcome(message: Any) -> Outcome:
    ending = message.ending
    if ending == _OK:
        digest = message.digest
        return admitted(Success(ArtifactRef(digest, message.media, message.size) if digest else message.json))
    if ending == _STOPPED:
        return admitted(Stopped(message.message))
    klass = _KLASS_OF.get(message.klass)
    if ending != _FAILED or klass is None:
        return bad_report(f"it ends in no known way ({ending}, {message.klass})")
    return admitted(Failure(message.code, message.message, klass, message.detail, message.hint))


# The rest: lists of their fields

_ATTEMPT: Final = Part("attempt", _put_attempt, _attempt)
_FENCE: Final = Part("fence", _put_fence, _fence)
_HELD: Final = form(Held, _ATTEMPT, _FENCE, "pin", "digest")
_VERDICTS: Final = listed("verdicts", form(HeldVerdict, _ATTEMPT, word("verdict", Verdict)))


def _put_profile(message: Any, profile: WorkerProfile) -> None:
    message.profile = msgspec.json.encode(profile)


def _profile(message: Any) -> WorkerProfile:
    check_json(message.profile)
    return _PROFILE.decode(message.profile)


def _put_versions(message: Any, versions: tuple[int, int]) -> None:
    message.version_min, message.version_max = versions


def _last_epoch(message: Any) -> int:
    epoch: int = message.last_epoch
    if epoch > EPOCH_LIMIT:
        raise WireError(f"epoch {epoch} is beyond any that was ever issued")
    return epoch


def _put_staged_ref(message: Any, ref: ArtifactRef | None) -> None:
    if ref is not None:
        _put_ref(message, ref)


def _progress(message: Any) -> Progress:
    found: Progress = _PROGRESS.take(message)
    if len(found.body) > INLINE_LIMIT:
        raise WireError(f"progress of {len(found.body)} bytes, {INLINE_LIMIT} are allowed")
    if found.kind == "progress":
        check_json(found.body)
    return found


def _return(message: Any) -> Return:
    check_json(message.error or message.value)
    found: Return = _RETURN.take(message)
    return found


_PROGRESS: Final = form(Progress, _ATTEMPT, "seq", word("kind", Literal["progress", "log"]), "body", "stream", "at")
_RETURN: Final = form(Return, _ATTEMPT, "k", "value", "error")

ITEMS: Final[tuple[tuple[type, str, Form], ...]] = (
    (
        Hello,
        "hello",
        form(
            Hello,
            "worker",
            "boot_id",
            Part("profile", _put_profile, _profile),
            "journal",
            Part("last_epoch", lambda message, epoch: setattr(message, "last_epoch", epoch), _last_epoch),
            listed("running", _HELD),
            listed("spooled", _HELD),
            Part("versions", _put_versions, lambda message: (message.version_min, message.version_max)),
            "features",
        ),
    ),
    (
        Heartbeat,
        "heartbeat",
        form(
            Heartbeat,
            "at",
            _attempt_list("inventory"),
            "loop_lag_s",
            "free",
            "load",
            texts("cached"),
            texts("uncached"),
            "short",
            texts("moved"),
        ),
    ),
    (Rejected, "rejected", form(Rejected, _ATTEMPT, "code", "message")),
    (Progress, "progress", Form(_PROGRESS.put, _progress)),
    (Report, "report", Form(_put_report, _report)),
    (Call, "call", form(Call, _ATTEMPT, _FENCE, "k", word("what", CallKind), json_part("body"))),
    (
        Staged,
        "staged",
        form(
            Staged,
            "run",
            "uri",
            Part("ref", _put_staged_ref, lambda message: _ref(message) if message.digest else None),
            "code",
            "message",
        ),
    ),
    (Drained, "drained", form(Drained)),
    (Goodbye, "goodbye", form(Goodbye, "reason")),
    (
        Welcome,
        "welcome",
        form(Welcome, "journal", "epoch", "session", "version", "lease_s", "heartbeat_s", _VERDICTS, "features"),
    ),
    (HeartbeatAck, "heartbeat_ack", form(HeartbeatAck, "at", _VERDICTS)),
    (Assign, "assign", Form(_put_assign, _assign)),
    (Cancel, "cancel", form(Cancel, _ATTEMPT, "grace_s", "if_not_started")),
    (Ack, "ack", form(Ack, _attempt_list("attempts"))),
    (Return, "return_", Form(_RETURN.put, _return)),
    (Stage, "stage", form(Stage, "run", "uri", "named")),
    (Drain, "drain", form(Drain, "deadline_s")),
    (Bye, "bye", form(Bye, "retry_after_s", "reason", "code")),
)
