"""Every noun of the link survives the wire, and any bytes at all are a frame or a WireError."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol._pb import asterism_v1_pb2
from protocol.artifact import INLINE_LIMIT, ArtifactRef, Content, digest_of
from protocol.codec import (
    METHODS,
    Answer,
    ArtifactAsk,
    ArtifactsAsk,
    Bundle,
    Chunk,
    Holding,
    Holdings,
    Invocation,
    PutPart,
    Refusal,
    Refusals,
    SubmitPart,
)
from protocol.codec import decode_frame as decode
from protocol.codec import encode_frame as encode
from protocol.errors import WireError
from protocol.frame import (
    FEATURES,
    Ack,
    Assign,
    Bye,
    Call,
    CallKind,
    Cancel,
    Drain,
    Drained,
    Frame,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Held,
    HeldVerdict,
    Hello,
    Input,
    Item,
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
from protocol.ids import AttemptId, Fence
from protocol.item_codec import EPOCH_LIMIT, ITEMS
from protocol.json_bytes import DEPTH_LIMIT, check_json
from protocol.link import ITEMS_LIMIT, MESSAGE_LIMIT
from protocol.outcome import Failure, FailureClass, Stopped, Success, Usage
from protocol.packed import PACKED_AS
from protocol.profile import DeviceProfile, LinkProfile, WorkerProfile
from protocol.resource import Resources
from protocol.skill import SkillSpec, Variant

pb: Any = asterism_v1_pb2
ROOT = Path(__file__).resolve().parents[2]
A, B = AttemptId(7, 0, 1), AttemptId(4_000_000_000, 99_999, 12)
F = Fence(2**40, 2**63)
PIN = hashlib.sha256(b"pin").digest()
REF = ArtifactRef(digest_of(b"content"), "text/csv; charset=utf-8", 2**41)
PROFILE = WorkerProfile(
    slots=4,
    capacity=Resources(cpu=4.0, memory=2**34, counters={"licence": 2.0}, labels={"site": "ø"}),
    devices=(DeviceProfile("gpu", "A100", 2.0, 2**36, 20.0, True),),
    labels={"zone": "a"},
    skills=(SkillSpec("text.count", "Counts.", effect="pure", variants=(Variant("gpu", Resources(gpu=1.0)),)),),
    policies=(("process.*", "ask"),),
    serves="ann",
    edge=True,
    roots=("/data",),
    platform="linux",
    link=LinkProfile(1e6, 0.05),
)
SAMPLES: dict[str, Item] = {
    "hello": Hello("pi-1", "b" * 32, PROFILE, "j" * 32, 9, (Held(A, F, PIN),), (Held(B, F, PIN, b"d" * 16),), (1, 3)),
    "hello_features": Hello("pi-1", "b" * 32, WorkerProfile(), features=FEATURES),
    "heartbeat_moved": Heartbeat(1.5, moved=(1e6, 0.25, 7.0, 0.5)),
    "heartbeat_short": Heartbeat(1.5, short="DiskFull"),
    "welcome_features": Welcome("j" * 32, 9, 4, features=1),
    "heartbeat": Heartbeat(1.5, (A, B), 0.01, 2.5, 0.75, (REF.digest,), ("gone",)),
    "rejected": Rejected(A, "NoSuchSkill", "no text.count here"),
    "progress": Progress(A, 3, "progress", b'{"done":0.5}', "", 2.5),
    "log": Progress(A, 2**40, "log", b"\xff not text\n", "stderr", 2.5),
    "report": Report(A, F, PIN, Success(b'{"lines":3}'), Usage(0.5, "gpu", 0.4, 2**33, 10, 20, 0.01, 9)),
    "report_of_what_was_brought": Report(A, F, PIN, Success(b"1"), Usage(0.5, bytes_in=9, bring_s=0.25)),
    "report_artifact": Report(B, F, PIN, Success(REF)),
    "report_failed": Report(A, F, PIN, Failure("Timeout", "too slow", "transient", "Traceback é", "give it more time")),
    "report_stopped": Report(A, F, PIN, Stopped("cancelled")),
    "call": Call(A, F, 2, "checkpoint", b'{"at":3}'),
    "staged": Staged(7, "file://pi-1/data/a.csv", REF),
    "staged_not": Staged(7, "file://pi-1/data/a.csv", None, "NotFound", "no such file"),
    "drained": Drained(),
    "goodbye": Goodbye("done"),
    "welcome": Welcome("j" * 32, 9, 4, 2, 30.0, 5.0, tuple(HeldVerdict(A, word) for word in get_args(Verdict))),
    "heartbeat_ack": HeartbeatAck(1.5, (HeldVerdict(B, "drop"),)),
    "assign": Assign(
        A,
        F,
        PIN,
        b'{"skill":"text.count"}',
        "r7/scan#1",
        (
            Input("scan/files", b"[1]", ("a", "b~c/d")),
            Input("big", REF),
            Input("many", b"null", (), (b"1", REF, b"3"), True),
            Input("none", b"null", (), ()),
        ),
        ((Input("x[]", b"1"),), (), (Input("x[]", b"2"),)),
        (StagedFile("file://pc/a", REF),),
        "k" * 64,
        PIN,
        60.5,
    ),
    "assign_plain": Assign(A, Fence(1, 1), PIN, b"{}", "r7/t#1"),
    "cancel": Cancel(A, 0.0, True),
    "ack": Ack((A, B)),
    "return": Return(A, 2, b'{"id":"scan.1"}'),
    "return_error": Return(A, 3, b"null", b'{"code":"NotFound"}'),
    "stage": Stage(7, "file://pc/a", True),
    "drain": Drain(12.5),
    "bye": Bye(-1.0, "no", "NotAllowed"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_an_item_survives_the_wire(name: str) -> None:
    frame = Frame(2**60, 2**60 - 1, (SAMPLES[name],))
    assert decode(encode(frame)) == frame


PACKED_SAMPLES = [name for name, item in SAMPLES.items() if type(item) in PACKED_AS]


@pytest.mark.parametrize("name", PACKED_SAMPLES)
def test_work_and_results_survive_packed_in_their_order(name: str) -> None:
    items = (Ack((A,)), SAMPLES[name], SAMPLES[name], Cancel(A, 0.0), SAMPLES[name])
    data = encode(Frame(7, 6, items, packed=True))
    assert decode(data) == Frame(7, 6, items)
    assert [item.WhichOneof("body") for item in pb.Frame.FromString(data).items][1::2] == 2 * [
        PACKED_AS[type(items[1])]
    ]


def test_packed_frames_of_the_first_release_that_had_them_decode_for_ever() -> None:
    golden = json.loads((ROOT / "tests/golden/frames_packed.json").read_text())
    assert set(golden) == set(PACKED_SAMPLES)
    for name, text in golden.items():
        assert decode(bytes.fromhex(text)) == Frame(5, 4, (SAMPLES[name],)), name


def packed(field: str, *items: Any) -> Frame:
    """A frame of a peer that packs what it likes."""
    message = pb.Frame(n=1)
    setattr(message.items.add(), field, msgspec.msgpack.encode(items))
    return decode(message.SerializeToString())


def fields_of(item: Item) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__struct_fields__}


def test_a_packed_item_may_have_fields_of_a_later_release() -> None:
    for name, field in (("assign", "assigns"), ("report", "reports")):
        later = {**fields_of(SAMPLES[name]), "later": {"deep": [1, {}]}}
        assert packed(field, later).items == (SAMPLES[name],)


@pytest.mark.parametrize(
    ("outcome", "usage", "believed"),
    [
        ({"type": "vanished"}, Usage(0.5), Usage(0.5)),
        ({"type": "failed", "code": "X", "message": "y", "klass": "odd"}, ["long"], Usage()),
        ({"type": "ok", "value": 7}, [0.5, "cpu", 0.1, -1], Usage()),
        (Success(ArtifactRef(REF.digest, "", -1)), Usage(), Usage()),
        (None, None, Usage()),
    ],
)
def test_a_packed_report_that_makes_no_sense_fails_its_attempt_alone(outcome: Any, usage: Any, believed: Usage) -> None:
    sound = SAMPLES["report"]
    first, second = packed("reports", {**fields_of(sound), "outcome": outcome, "usage": usage}, sound).items
    assert second == sound
    assert isinstance(first, Report)
    assert isinstance(first.outcome, Failure)
    assert (first.attempt, first.outcome.code, first.usage) == (A, "BadReport", believed)


@pytest.mark.parametrize("key", ["attempt", "fence", "pin"])
@pytest.mark.parametrize("value", [None, [-1, 0, 1], [1], [1, "2", 3], 7])
def test_a_packed_item_of_no_attempt_is_a_wire_error(key: str, value: Any) -> None:
    for name, field in (("assign", "assigns"), ("report", "reports")):
        with pytest.raises(WireError):
            packed(field, {**fields_of(SAMPLES[name]), key: value})


def test_packed_items_count_each_for_itself() -> None:
    report = SAMPLES["report"]
    assert len(packed("reports", *([report] * ITEMS_LIMIT)).items) == ITEMS_LIMIT
    with pytest.raises(WireError, match="items"):
        packed("reports", *([report] * (ITEMS_LIMIT + 1)))


def test_every_kind_of_item_has_a_form_and_a_sample() -> None:
    kinds = set(get_args(Item))
    assert {kind for kind, _, _ in ITEMS} == kinds
    assert {type(item) for item in SAMPLES.values()} == kinds


def test_no_field_of_a_noun_is_lost_on_the_wire() -> None:
    """Each field has, in some sample, a value that is not its default, so a forgotten field fails the round trip."""
    for kind in get_args(Item):
        samples = [item for item in SAMPLES.values() if type(item) is kind]
        for field in msgspec.structs.fields(kind):
            values = [getattr(item, field.name) for item in samples]
            assert any(value != field.default for value in values), f"{kind.__name__}.{field.name}"


@pytest.mark.parametrize("word", get_args(CallKind))
def test_every_kind_of_call_survives(word: CallKind) -> None:
    frame = Frame(1, 0, (Call(A, F, 1, word, b"{}"),))
    assert decode(encode(frame)) == frame


@pytest.mark.parametrize("klass", get_args(FailureClass))
def test_every_class_of_failure_survives(klass: FailureClass) -> None:
    frame = Frame(1, 0, (Report(A, F, PIN, Failure("X", "y", klass)),))
    assert decode(encode(frame)) == frame


def test_frames_of_the_first_release_decode_for_ever() -> None:
    golden = json.loads((ROOT / "tests/golden/frames_v1.json").read_text())
    assert set(golden) <= set(SAMPLES)
    for name, text in golden.items():
        assert decode(bytes.fromhex(text)) == Frame(5, 4, (SAMPLES[name],)), name


def test_the_generated_code_is_of_the_proto_file_as_it_is() -> None:
    stamp = (ROOT / "protocol/_pb/stamp.txt").read_text().split()
    files = ("proto/asterism_v1.proto", "protocol/_pb/asterism_v1_pb2.py")
    assert stamp == [hashlib.sha256((ROOT / file).read_bytes()).hexdigest() for file in files], "run `make proto`"


@given(st.binary(max_size=400))
def test_any_bytes_are_a_frame_or_a_wire_error(data: bytes) -> None:
    try:
        assert isinstance(decode(data), Frame)
    except WireError:
        pass


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_a_damaged_frame_is_a_frame_or_a_wire_error(name: str, draw: st.DataObject) -> None:
    data = bytearray(encode(Frame(5, 4, (SAMPLES[name],), draw.draw(st.booleans()))))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        assert isinstance(decode(bytes(data)), Frame)
    except WireError:
        pass


@given(st.sampled_from(sorted(METHODS)), st.binary(max_size=200))
def test_any_bytes_are_a_request_and_a_response_or_a_wire_error(name: str, data: bytes) -> None:
    for codec in (METHODS[name].request, METHODS[name].response):
        try:
            codec.decode(data)
        except WireError:
            pass


def test_requests_and_responses_survive_the_wire() -> None:
    for name, request, response in (
        ("Invoke", Invocation("ps", b"{}"), Answer(b"[]")),
        ("Submit", SubmitPart(b"{}", b"data", True), Answer(b"")),
        ("Put", PutPart(REF.digest, "text/plain", 2**40, b"data", True), Holding(-1)),
        ("Has", ArtifactAsk(REF.digest, 0), Holding(2**40)),
        ("Get", ArtifactAsk(REF.digest, 7), Chunk(b"\x00\xff")),
        (
            "PutMany",
            Bundle((Content(REF.digest, "text/plain", b"\x00"),), True),
            Refusals((Refusal(REF.digest, b"{}"),)),
        ),
        ("HasMany", ArtifactsAsk((REF.digest, REF.digest)), Holdings((-1, 0, 2**40))),
        ("GetMany", ArtifactsAsk(()), Bundle((Content(REF.digest, "", b"a"), Content(REF.digest, "", b"")))),
    ):
        method = METHODS[name]
        assert method.request.decode(method.request.encode(request)) == request
        assert method.response.decode(method.response.encode(response)) == response


@pytest.mark.parametrize(
    "item",
    [
        Heartbeat(float("nan")),
        Heartbeat(1.0, load=float("inf")),
        Call(A, F, 1, "ask", b"{"),
        Call(A, F, 1, "ask", b""),
        Return(A, 1, b"nothing"),
        Progress(A, 1, "progress", b"{"),
        Progress(A, 1, "log", b"x" * (INLINE_LIMIT + 1)),
        Hello("w", "b", WorkerProfile(), last_epoch=EPOCH_LIMIT + 1),
        Staged(1, "u", ArtifactRef("sha256:../../etc", "", 1)),
        Assign(A, F, PIN, b"{}", "n", (Input("k", ArtifactRef("sha256:" + "G" * 64, "", 1)),)),
        Assign(A, F, PIN, b"{}", "n", items=((Input("k", b"", (), (ArtifactRef("sha256:", "", 1),)),),)),
        Assign(A, F, PIN, b"{}", "n", files=(StagedFile("file://pc/a", ArtifactRef("x", "", 1)),)),
        Assign(A, F, PIN, b"{}", "n", deadline_s=float("nan")),
    ],
    ids=lambda item: type(item).__name__,
)
def test_what_makes_no_sense_is_refused_where_it_arrives(item: Item) -> None:
    for way in (False, True):
        with pytest.raises(WireError):
            decode(encode(Frame(1, 0, (item,), way)))


@pytest.mark.parametrize(
    "item",
    [
        Rejected(AttemptId(-1, 0, 1), "x"),
        Rejected(AttemptId(2**32, 0, 1), "x"),
        Rejected(A, "\ud800"),
        Call(A, F, 1, "nonsense"),  # type: ignore[arg-type]
        Goodbye(None),  # type: ignore[arg-type]
        "not an item",
        Assign(A, F, PIN, b"x" * MESSAGE_LIMIT, "n"),
    ],
    ids=repr,
)
def test_what_cannot_travel_is_a_wire_error_of_the_sender(item: Item) -> None:
    with pytest.raises(WireError):
        encode(Frame(1, 0, (item,)))


def test_limits_of_a_frame_hold() -> None:
    full = Frame(1, 0, tuple(Drained() for _ in range(ITEMS_LIMIT)))
    assert decode(encode(full)) == full
    with pytest.raises(WireError, match="items"):
        decode(encode(Frame(1, 0, (*full.items, Drained()))))
    with pytest.raises(WireError, match="over the limit"):
        decode(b"\x00" * (MESSAGE_LIMIT + 1))


def test_an_item_of_a_later_version_is_refused_by_name() -> None:
    with pytest.raises(WireError, match="doesn't know"):
        decode(bytes.fromhex("0801 1a03 fa0f00".replace(" ", "")))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"{", "BadValue"),
        (b"", "BadValue"),
        (b'"\xff"', "BadValue"),
        (b'"\\ud800"', "BadValue"),
        (b"[" * 200 + b"]" * 200, "BadValue"),
        (b"[" * 5000 + b"]" * 5000, "BadValue"),
        (b"NaN", "BadValue"),
        (b'"' + b"x" * INLINE_LIMIT + b'"', "ValueTooLarge"),
    ],
)
@pytest.mark.parametrize("way", [False, True])
def test_a_bad_value_fails_its_attempt_and_not_the_session(value: bytes, code: str, way: bool) -> None:
    frame = decode(encode(Frame(1, 0, (Report(A, F, PIN, Success(value)), Drained()), way)))
    report = frame.items[0]
    assert isinstance(report, Report)
    assert isinstance(report.outcome, Failure)
    assert (report.outcome.code, report.outcome.klass) == (code, "permanent")
    assert frame.items[1] == Drained()


def test_a_report_that_makes_no_sense_fails_its_attempt_and_not_the_session() -> None:
    frame = decode(encode(Frame(1, 0, (Report(A, F, PIN, Success(ArtifactRef("nonsense", "", 1))), Drained()))))
    report = frame.items[0]
    assert isinstance(report, Report)
    assert isinstance(report.outcome, Failure)
    assert (report.outcome.code, report.outcome.klass, frame.items[1]) == ("BadReport", "permanent", Drained())
    for ending, klass in ((0, 0), (99, 0), (2, 0), (2, 99)):
        message = pb.Frame.FromString(encode(Frame(1, 0, (Report(A, F, PIN, Stopped("x")),))))
        message.items[0].report.ending, message.items[0].report.klass = ending, klass
        report = decode(message.SerializeToString()).items[0]
        assert isinstance(report, Report)
        assert isinstance(report.outcome, Failure)
        assert report.outcome.code == "BadReport"


@pytest.mark.parametrize(
    "usage",
    [
        Usage(run_s=float("nan")),
        Usage(run_s=-1.0),
        Usage(cpu_s=float("inf")),
        Usage(price=-5.0),
        Usage(bring_s=-0.5),
        Usage(tokens_in=2**60),
    ],
)
def test_a_usage_that_cannot_be_true_is_not_believed_and_the_result_counts(usage: Usage) -> None:
    for way in (False, True):
        report = decode(encode(Frame(1, 0, (Report(A, F, PIN, Success(b"1"), usage),), way))).items[0]
        assert isinstance(report, Report)
        assert (report.outcome, report.usage) == (Success(b"1"), Usage())


def test_a_failure_says_no_more_than_fits() -> None:
    failure = Failure("C" * 9999, "m" * 99_999, "infra", "d" * 999_999, "h" * 99_999)
    report, same = (decode(encode(Frame(1, 0, (Report(A, F, PIN, failure),), way))).items[0] for way in (False, True))
    assert report == same
    assert isinstance(report, Report)
    assert isinstance(report.outcome, Failure)
    found = report.outcome
    assert [len(text) for text in (found.code, found.message, found.detail, found.hint)] == [100, 4096, 65_536, 4096]


def test_wide_values_are_fine_and_only_deep_ones_are_refused() -> None:
    check_json(b"[" + b",".join([b'{"a":[1,2]}'] * 5000) + b"]")
    check_json(b"[" * DEPTH_LIMIT + b"]" * DEPTH_LIMIT)
    check_json('"é\\u00e9\\ud83d\\ude00"'.encode())
    with pytest.raises(WireError, match="deeper"):
        check_json(b"[" * (DEPTH_LIMIT + 1) + b"]" * (DEPTH_LIMIT + 1))


def test_json_goes_through_byte_by_byte() -> None:
    odd = b'{ "b" : 1.0, "a":12345678901234567890 }'
    frame = decode(encode(Frame(1, 0, (Report(A, F, PIN, Success(odd)),))))
    assert isinstance(frame.items[0], Report)
    assert frame.items[0].outcome == Success(odd)
