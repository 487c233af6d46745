"""One attempt made ready to run: its skill, the arguments of each call, its context; and the way back to an outcome.

Runners differ only in how they make the calls (`python` in a host, `inline` on the daemon's loop). Invariant: nothing
of a skill has run before all arguments fit, and a `once` skill acts only after `begin_effect` was granted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from protocol.artifact import INLINE_LIMIT, ArtifactRef
from protocol.errors import NotFound, SchemaMismatch
from protocol.frame import Assign, WorkSpec
from protocol.outcome import Success
from protocol.schema import check
from protocol.skill import SkillSpec
from workers.argument import Locate, calls, staged_files
from workers.context import SkillContext
from workers.file import File
from workers.root import Roots

SPEC: Final = msgspec.json.Decoder(WorkSpec)


class Callee(Protocol):
    """What a runner needs of a registry entry."""

    @property
    def spec(self) -> SkillSpec: ...
    @property
    def is_async(self) -> bool: ...
    def pick(self, device: str) -> Callable[..., Any]: ...
    def bind(self, args: Any, context: object, local: Callable[[str], File]) -> dict[str, Any]: ...
    def dump(self, value: Any, uri: Callable[[str], str]) -> Any: ...


class Desk:
    """The files of one attempt: turns what arguments name into local files, and local files into URIs.

    `issued` collects the paths that were named to the fleet.
    """

    def __init__(self, assign: Assign, roots: Roots, folder: str, locate: Locate) -> None:
        self._roots = roots
        self._folder = folder
        self._locate = locate
        self._staged = staged_files(assign, locate)
        self._origin = {os.path.realpath(path): uri for uri, path in self._staged.items()}
        self.issued: list[str] = []

    def local(self, text: str) -> File:
        """Raises: NotAllowed outside the roots, NotFound."""
        staged = self._staged.get(text)
        if staged is not None:
            return File(staged, text)
        if text.startswith("sha256:"):
            path = self._locate(text)
            self._origin[os.path.realpath(path)] = text
            return File(path, text)
        if text.startswith("file://"):
            return File(self._roots.local(text), text)
        path = self._roots.allow(text)
        if not os.path.exists(path):
            raise NotFound(f"{text} does not exist on {self._roots.worker}")
        self.issued.append(path)  # the skill may give it back by the URI that it gets here
        return File(path, self._roots.uri(path))

    def uri(self, path: str) -> str:
        """Raises: NotAllowed outside the roots, NotFound."""
        real = os.path.realpath(os.path.join(self._folder, path))
        known = self._origin.get(real)
        if known is not None:
            return known
        if not os.path.exists(real):
            raise NotFound(f"the result names {path}, which does not exist", hint="write the file before returning it")
        uri = self._roots.uri(real)
        self.issued.append(real)
        return uri


class Job:
    """What a runner runs. Make it with `prepare`."""

    def __init__(self, entry: Callee, work: WorkSpec, assign: Assign, arguments: list[dict[str, Any]]) -> None:
        self.entry = entry
        self.work = work
        self.assign = assign
        self.arguments = arguments
        self.call = entry.pick(work.device)

    @property
    def asks_first(self) -> bool:
        """Whether the runner has to call begin_effect just before the first call."""
        return self.work.effect == "once" and self.entry.spec.begin_effect == "runner"

    def bind(self, args: dict[str, Any], context: SkillContext | None, desk: Desk | None) -> dict[str, Any]:
        return self.entry.bind(args, context, desk.local if desk is not None else File)

    def value(self, results: list[Any], uri: Callable[[str], str]) -> bytes:
        """The value of the attempt as JSON: of the one call, or the list of all of them.

        Raises: SchemaMismatch when it does not fit what the skill announced; UsageError for what is no JSON.
        """
        schema = self.entry.spec.result
        values = []
        for number, result in enumerate(results):
            value = self.entry.dump(result, uri)
            if schema and (problems := check(schema, value, f"items/{number}" if self.assign.items else "")):
                name = self.entry.spec.name
                raise SchemaMismatch(f"the result of {name} does not fit its schema", problems=problems)
            values.append(value)
        return msgspec.json.encode(values if self.assign.items else values[0])


def prepare(
    entry: Callee, assign: Assign, work: WorkSpec, locate: Locate, secrets: Mapping[str, str] | None = None
) -> Job:
    """Raises: SchemaMismatch, NotFound: before any of the skill's code runs."""
    return Job(entry, work, assign, calls(assign, work, entry.spec, locate, secrets))


def outcome_of(value: bytes, folder: str) -> tuple[Success, str]:
    """Success with the value inline, or with an ArtifactRef whose content lies in the second item, a file."""
    if len(value) <= INLINE_LIMIT:
        return Success(value), ""
    spill = Path(folder) / ".value.json"
    try:
        spill.parent.mkdir(exist_ok=True, mode=0o700)
        spill.write_bytes(value)
    except OSError:
        spill.unlink(missing_ok=True)
        raise
    digest = "sha256:" + hashlib.sha256(value).hexdigest()
    return Success(ArtifactRef(digest, "application/json", len(value))), str(spill)
