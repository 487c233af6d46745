"""The registry: every decoder of the program as a target. A decoder that is not here is not fuzzed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.service.ask import pointer_parts
from orchestrator.service.service import _METHODS as ASKS
from orchestrator.service.service import _body
from orchestrator.service.submission import Header
from orchestrator.service.submission import _decode as read_header
from orchestrator.service.submission import _parse as parse_submission
from planner.catalog import Catalog
from planner.catalog_planner import CatalogPlanner
from planner.notation import parse_notation
from planner.reply import Reply
from planner.scripted.asked import Asked
from planner.scripted.dialogue import read_dialogue
from planner.scripted.emulation import EMULATIONS
from planner.scripted.refusal import refused
from planner.scripted.request import RequestReader
from planner.template import read_template
from planner.view import PlanView
from protocol import certificate, chat_fault
from protocol.artifact import is_digest, parse_file
from protocol.builtin import BUILTINS
from protocol.bundle import refused_of
from protocol.chat_profile import PROFILES, concede, listed, recognise
from protocol.chat_reading import Reading
from protocol.codec import METHODS, Codec, decode_frame, encode_frame
from protocol.config import load as load_config
from protocol.document import FILE_LIMITS, PLANNER_LIMITS, canonical
from protocol.errors import AsterismError, UsageError, from_wire
from protocol.ids import parse_ref
from protocol.json_bytes import check_json, read_json
from protocol.plan import parse_patch, parse_plan, parse_task, patch_document, plan_document
from protocol.resource import parse_amounts, size_bytes, span_s
from protocol.schema import check, check_schema, files_in, has_files
from protocol.security import load_client, load_identity, load_server, parse_join
from protocol.task import parse_reference, reference_in, references
from protocol.task_form import task_document
from protocol.workload import plan_of, read_workload
from workers.identity import check_name, parse_join_line
from workers.outbox import Outbox
from workers.pipe import FROM_HOST, TO_HOST, Loaded, Unpacker, pack
from workers.statement import examine
from workers.tool import read_tools

from .hostile import mutate_frame, orchestrator_hears, worker_hears
from .journal_file import recover_file, recover_record, recover_snapshot, shared_memory
from .target import CORPUS, Target

_KEPT: Final = tempfile.TemporaryDirectory(prefix="asterism-fuzz-", dir=shared_memory())
_FOLDER: Final = Path(_KEPT.name)
"""Files of targets that read files; removed with the process."""


_BUILTIN: Final = Catalog(BUILTINS)
_AUTHORITY: Final = (CORPUS / "certificate" / "authority").read_text()


def _text(data: bytes) -> str:
    """Text as a program gets it from outside: whatever is no UTF-8 comes as lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


_WORDS: Final = CatalogPlanner()


def _template(data: bytes) -> Any:
    """A saved template, asked for by its own sentences and by others, and filled."""
    found = read_template(data)
    for said in (*found.requests, "greet ada 3 times", "count the errors in logs"):
        asked = found.matches(said)
        if asked is not None:
            found.fill(asked[1], {})


def _http(data: bytes) -> Any:
    """Requests to the scripted model server, however the bytes are cut."""
    reader = RequestReader()
    pieces = [one for at in range(0, len(data), 7) for one in reader.feed(data[at : at + 7])]
    assert pieces == RequestReader().feed(data)
    for request in pieces:
        refused(Asked(0, request, 0.0).body, EMULATIONS["openai"], ("m",))
    return pieces


def _file(name: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    """The bytes as a private file of that name in a folder of its own."""

    def decode(data: bytes) -> Any:
        path = _FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(data)
        return read(path)

    return decode


def _rpc(codec: Codec, inner: Callable[[Any], Any] | None = None) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        found = codec.decode(data)
        if inner is not None:
            inner(found)
        return found

    return decode


def _task(data: bytes) -> Any:
    check_json(data)
    return parse_task(msgspec.json.decode(data))


def _plan_stream(data: bytes) -> Any:
    """A model's text, in chunks of a size that its first byte says, and once more as the answer that mends it."""
    text, size = _text(data), data[0] % 16 + 1 if data else 1
    reply = Reply(PlanView("", skills=BUILTINS), _BUILTIN)
    found = [reply.feed(text[at : at + size]) for at in range(0, len(text), size)]
    reply.end()
    reply.mend()
    return found, reply.feed(text), reply.close()


def _model_stream(data: bytes) -> Any:
    """A model server's answer: cut into pieces of a size that its first byte says it is the same."""
    size, data = data[0] % 16 + 1 if data else 1, data[1:]
    found = []
    for chunks in ([data], [data[at : at + size] for at in range(0, len(data), size)]):
        reading = Reading({"fs_find": "fs.find"}, PROFILES["generic"].reasoning)
        heard = "".join([*map(reading.feed, chunks), reading.end()])
        assert heard == reading.reply().text
        found.append(reading.reply())
    assert found[0] == found[1], found
    return found


def _model_page(data: bytes) -> Any:
    """What a model server says beside its answers: `STATUS`, a header's value and a body, a line each."""
    status, value, body = (*data.split(b"\n", 2), b"", b"")[:3]
    number = int(status) if status.isdigit() and len(status) == 3 else 400
    answer = chat_fault.Refusal(number, {"retry-after": _text(value), "server": _text(value)}, body)
    said, _, _ = chat_fault.words(answer.error)
    page = read_json(body)
    rest = recognise(answer.headers, page), concede(PROFILES["openai"], said, chat_fault.parameter(answer.error))
    return chat_fault.refused(answer), chat_fault.said_in_stream(answer.error), listed(page), rest


def _reference(data: bytes) -> Any:
    ref = parse_reference(_text(data))
    reference_in({"ref": str(ref)})
    return ref


def _references(data: bytes) -> Any:
    check_json(data)
    return list(references(msgspec.json.decode(data)))


def _places(data: bytes) -> Any:
    text = _text(data)
    found = parse_file(text)
    return found, is_digest(text), parse_ref(text), pointer_parts(text)


def _amounts(data: bytes) -> Any:
    found = []
    for text in _text(data).split("\n"):
        for read in (span_s, size_bytes, lambda one: parse_amounts({"cpu": one, "disk": one, "x": one}), check_name):
            try:
                found.append(read(text))
            except UsageError:
                continue
    return found


def _schema(data: bytes) -> Any:
    """A schema that a worker announces, and a value for it."""
    check_json(data)
    pair = msgspec.json.decode(data)
    schema, value = pair if isinstance(pair, list) and len(pair) == 2 else (pair, pair)
    if check_schema(schema):
        raise UsageError("refused")
    check(schema, value)
    check(schema, value, refs=True)
    return has_files(schema), files_in(schema, value)


def _ask(data: bytes) -> Any:
    """`METHOD` and a line feed, then the body."""
    method, _, body = data.partition(b"\n")
    name = method.decode("ascii", "replace")
    kind = ASKS[name][0] if name in ASKS else msgspec.Struct
    return name, _body(name, body, kind) if name in ASKS else None


def _submission(data: bytes) -> Any:
    """The header and a line feed, then the plan."""
    header, _, text = data.partition(b"\n")
    given = read_header(header, Header)
    return parse_submission(text, given, FILE_LIMITS)


def _environment(data: bytes) -> Any:
    environ = dict(line.partition("=")[::2] for line in _text(data).split("\n"))
    return load_config(environ={"XDG_CONFIG_HOME": str(_FOLDER), **environ}, folder=_FOLDER / "none")


def _said(data: bytes) -> Any:
    """What a host said, as the daemon takes it."""
    found = [*Unpacker(FROM_HOST).feed(data)]
    for message in found:
        examine(message)
        if isinstance(message, Loaded) and message.error:
            from_wire(read_json(message.error))
    return found


def _join(data: bytes) -> Any:
    """A join string, and the look for the authority that it names."""
    found = parse_join(_text(data))
    certificate.authority_in([data], found.ca)
    return found


def _outbox(path: Path) -> Any:
    (path.parent / "journal").write_text(path.stem)
    box = Outbox(path.parent)
    try:
        return box.spools()
    finally:
        box.close()


def _config(path: Path) -> Any:
    return load_config(environ={"XDG_CONFIG_HOME": str(path.parent)}, folder=path.parent)


_R = {name: (method.request, method.response) for name, method in METHODS.items() if name != "Link"}
_ROUND: Final = (
    ("rpc_invoke", _R["Invoke"][0], None), ("rpc_answer", _R["Invoke"][1], None), ("rpc_submit", _R["Submit"][0], None),
    ("rpc_put", _R["Put"][0], None), ("rpc_holding", _R["Put"][1], None), ("rpc_has", _R["Has"][0], None),
    ("rpc_chunk", _R["Get"][1], None), ("rpc_put_many", _R["PutMany"][0], None),
    ("rpc_refusals", _R["PutMany"][1], refused_of), ("rpc_has_many", _R["HasMany"][0], None),
    ("rpc_holdings", _R["HasMany"][1], None),
)  # fmt: skip

TARGETS: Final[tuple[Target, ...]] = (
    Target("link_frame", decode_frame, encode_frame),
    Target("link_packed", decode_frame, lambda frame: encode_frame(msgspec.structs.replace(frame, packed=True))),
    *(Target(name, _rpc(codec, inner), codec.encode) for name, codec, inner in _ROUND),
    Target("plan_json", parse_plan, lambda plan: canonical(plan_document(plan)), share=40),
    Target("plan_planner", lambda data: parse_plan(data, limits=PLANNER_LIMITS, lenient_ids=True), share=40),
    Target("plan_stream", _plan_stream, share=40),
    Target("model_stream", _model_stream, share=20),
    Target("model_page", _model_page),
    Target("plan_toml", lambda data: parse_plan(data, "toml"), share=20),
    Target("workload", lambda data: plan_of(read_workload(data), {}), share=30),
    Target("patch_json", lambda data: parse_patch(data, author="a"),
           lambda patch: canonical(patch_document(patch)), share=40),
    Target("patch_toml", lambda data: parse_patch(data, "toml", author="a", lenient_ids=True), share=20),
    Target("task", _task, lambda spec: canonical(task_document(spec))),
    Target("reference", _reference, lambda ref: str(ref).encode("utf-8", "surrogateescape"), (ValueError,)),
    Target("references", _references, errors=(AsterismError, ValueError)),
    Target("places", _places),
    Target("amounts", _amounts),
    Target("schema", _schema, share=50),
    Target("notation", lambda data: parse_notation(_text(data)), share=50),
    Target("request_words", lambda data: _WORDS.decide(PlanView(_text(data), skills=BUILTINS)), share=10),
    Target("template_file", _template, share=20),
    Target("event_body", decode_events, encode_events, (msgspec.DecodeError,)),
    Target("journal_record", recover_record, share=10),
    Target("journal_snapshot", recover_snapshot, share=4),
    Target("journal_file", recover_file, share=2),
    Target("request_body", _ask),
    Target("submission", _submission, share=30),
    Target("join", _join, lambda join: str(join).encode("utf-8", "surrogateescape")),
    Target("join_line", lambda data: parse_join_line(_text(data))),
    Target("certificate", lambda data: certificate.read(data, _AUTHORITY), share=30),
    Target("certificate_request", lambda data: certificate.requested_key(_text(data)), share=30),
    Target("server_file", _file("server/server.json", lambda path: load_server(path.parent)), share=30),
    Target("identity_file", _file("w/identity.json", lambda path: load_identity(path.parent)), share=30),
    Target("client_file", _file("c/servers/host.json", lambda path: load_client(path.parents[1], "host")), share=30),
    Target("config_toml", _file("config/asterism.toml", _config), share=8),
    Target("config_environment", _environment, share=8),
    Target("http_request", _http),
    Target("dialogue_file", _file("d/dialogue.json", read_dialogue)),
    Target("tool_toml", _file("tools.toml", read_tools), share=20),
    Target("host_pipe", _said, lambda found: b"".join(map(pack, found))),
    Target("worker_pipe", lambda data: [*Unpacker(TO_HOST).feed(data)], lambda found: b"".join(map(pack, found))),
    Target("outbox_file", _file("outbox/5eed.log", _outbox), share=20),
    Target("orchestrator", orchestrator_hears, share=10, mutate=mutate_frame),
    Target("worker", worker_hears, share=40, mutate=mutate_frame),
)  # fmt: skip
