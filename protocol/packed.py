"""Assigns and Reports as they travel where both ends know PACKED: a list of either, in MessagePack, as the nouns are.

Protobuf takes five to ten times as long for the same items, and with tasks that do little that is most of what a
message costs. Invariant: what comes out is as sound as what item_codec takes from protobuf, by the same checks, so a
Report that makes no sense is a Failure of its attempt here too. A field that is unknown is skipped, one that is missing
has its default: fields are appended with defaults and never change their kind. It must not know frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

import msgspec

from .admission import admitted, bad_report, believed, checked
from .frame import Assign, Input, Item, Report
from .ids import AttemptId, Fence
from .message_form import finite
from .outcome import Outcome, Usage


class _Loose(msgspec.Struct, frozen=True, gc=False):
    """A Report whose ending or usage may be of no kind that we know."""

    attempt: AttemptId
    fence: Fence
    pin: bytes
    outcome: msgspec.Raw
    usage: msgspec.Raw = msgspec.Raw(b"\x90")


_ASSIGNS: Final = msgspec.msgpack.Decoder(tuple[Assign, ...])
_REPORTS: Final = msgspec.msgpack.Decoder(tuple[Report, ...])
_LOOSE: Final = msgspec.msgpack.Decoder(tuple[_Loose, ...])
_OUTCOME: Final = msgspec.msgpack.Decoder(Outcome)
_USAGE: Final = msgspec.msgpack.Decoder(Usage)

pack: Final = msgspec.msgpack.Encoder().encode


def _assigns(body: bytes) -> Iterable[Assign]:
    found = _ASSIGNS.decode(body)
    for item in found:
        finite(item.deadline_s)
        for inputs in (item.inputs, *item.items):
            for one in inputs:
                if type(one.value) is not bytes or one.parts:
                    _check(one)
        for file in item.files:
            checked(file.ref)
    return found


def _check(one: Input) -> None:
    for value in (one.value, *(one.parts or ())):
        if not isinstance(value, bytes):
            checked(value)


def _reports(body: bytes) -> Iterable[Report]:
    try:
        found = _REPORTS.decode(body)
    except msgspec.ValidationError:
        found = tuple([_read(one) for one in _LOOSE.decode(body)])
    for report in found:
        outcome, usage = admitted(report.outcome), believed(report.usage)
        if outcome is not report.outcome or usage is not report.usage:
            report = Report(report.attempt, report.fence, report.pin, outcome, usage)
        yield report


def _read(loose: _Loose) -> Report:
    outcome: Outcome
    try:
        outcome = _OUTCOME.decode(loose.outcome)
    except msgspec.ValidationError as error:
        outcome = bad_report(f"it ends in no known way: {error}")
    usage = Usage()
    with suppress(msgspec.ValidationError):
        usage = _USAGE.decode(loose.usage)
    return Report(loose.attempt, loose.fence, loose.pin, outcome, usage)


PACKED_AS: Final[Mapping[type, str]] = MappingProxyType({Assign: "assigns", Report: "reports"})
UNPACK: Final[Mapping[str, Callable[[bytes], Iterable[Item]]]] = MappingProxyType(
    {"assigns": _assigns, "reports": _reports}
)
