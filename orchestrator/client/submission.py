"""What is handed in: a request, a plan file, a plan document or a Graph, made ready to travel.

A submission is a small header and the plan's text, cut into chunks; a request has no text. The key makes a repeated
submission the same run. It must not know connections.
"""

from __future__ import annotations

import gzip
import secrets
import tomllib
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.errors import NotFound, PlanRefused, UsageError
from protocol.graph import Graph
from protocol.resource import span_s
from protocol.workload import is_workload, plan_of, read_workload

CHUNK_BYTES: Final = 256 * 1024

Work = str | Path | Graph | Mapping[str, Any]
"""A request in words, the path of a plan file, a Graph, or a plan document."""


class Submission:
    """One piece of work on its way. `text` is the plan's JSON, empty for a request in words."""

    def __init__(self, header: dict[str, Any], text: bytes) -> None:
        self.header = header
        self.text = text

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.text), CHUNK_BYTES):
            yield self.text[start : start + CHUNK_BYTES]


def submission(
    work: Work,
    *,
    inputs: Mapping[str, Any] | None = None,
    id: str = "",
    on_failure: str = "",
    deadline: float | str = 0,
    budget: Mapping[str, Any] | None = None,
    replan: Mapping[str, int] | None = None,
    review: int = 0,
    priority: int | None = None,
    sla: str = "",
    prefer: str = "",
    best_effort: bool = False,
    schedule_grace: float | str | None = None,
    labels: Mapping[str, str] | None = None,
    planner: str = "",
    detach: bool = False,
    home: str = "",
    dry: bool = False,
    request: str = "",
) -> Submission:
    """Build the header and the text; `request` says in words what a plan is for.

    Raises: NotFound, UsageError, PlanRefused for a file that can't be read.
    """
    settings: dict[str, Any] = {}
    if on_failure:
        settings["on_failure"] = on_failure
    if deadline and (limit := span_s(deadline)):
        settings["deadline"] = limit
    if schedule_grace is not None:
        settings["schedule_grace"] = span_s(schedule_grace)
    if budget:
        settings["budget"] = dict(budget)
    if replan:
        settings["replan"] = dict(replan)
    if review:
        settings["review"] = review
    if priority is not None:
        settings["priority"] = priority
    if sla:
        settings["sla"] = sla
    if prefer:
        settings["prefer"] = prefer
    if best_effort:
        settings["best_effort"] = True
    words, text = _read(work, inputs or {})
    header = {
        "request": words or request,
        "key": id or secrets.token_hex(8),
        "settings": settings,
        "inputs": dict(inputs or {}),
        "home": home,
        "planner": planner,
        "labels": dict(labels or {}),
        "plan": not text,
        "detach": detach,
        **({"dry": True} if dry else {}),
    }
    return Submission(header, text)


def plan_text(path: Path, inputs: Mapping[str, Any] | None = None) -> bytes:
    """The JSON text of a plan or patch file; TOML is turned into it, and so is a recorded workflow (protocol.workload),
    by these inputs. Raises: NotFound, PlanRefused."""
    data = file_text(path)
    return msgspec.json.encode(plan_of(read_workload(data), inputs or {})) if is_workload(data) else data


def file_text(path: Path) -> bytes:
    """The JSON text of a file as it is, TOML and gzip undone. Raises: NotFound, PlanRefused."""
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", hint="give the path of a .json or .toml plan") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"{path} can't be read: {getattr(error, 'strerror', None) or error}", hint="check its name and permissions"
        ) from None
    if path.suffix.lower() != ".toml":
        return data
    try:
        return msgspec.json.encode(tomllib.loads(data.decode("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise PlanRefused(f"{path} is not TOML: {error}", hint="mend that line", where=str(path)) from None


def declared_text(text: bytes) -> frozenset[str]:
    """The inputs that a plan declares as text or files: what `--input` gives for them is not read as JSON."""
    try:
        rows = msgspec.json.decode(text, type=_Inputs).inputs
    except msgspec.MsgspecError:
        return frozenset()
    return frozenset(row.name for row in rows if row.type in ("string", "file"))


class _Input(msgspec.Struct):
    name: str
    type: str = "any"


class _Inputs(msgspec.Struct):
    inputs: list[_Input] = []


def read_inputs(pairs: Iterable[str], text: frozenset[str] = frozenset()) -> dict[str, Any]:
    """`name=value` as values: JSON where it is JSON, else text; always text for the names in `text`."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"{pair!r} is no input", hint="write name=value")
        found[name] = value if name in text else _json_or_text(value)
    return found


def _json_or_text(value: str) -> Any:
    try:
        return msgspec.json.decode(value.encode("utf-8", "surrogatepass"))
    except (msgspec.MsgspecError, UnicodeError):
        return value


def _read(work: Work, inputs: Mapping[str, Any]) -> tuple[str, bytes]:
    if isinstance(work, Graph):
        return "", msgspec.json.encode(work.document())
    if isinstance(work, Path):
        return "", plan_text(work, inputs)
    if isinstance(work, Mapping):
        return "", msgspec.json.encode(dict(work))
    if not work.strip():
        raise UsageError("the request is empty", hint='say what to do: "count the errors in logs/"')
    return work, b""
