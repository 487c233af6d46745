"""From an Assign to the arguments of its calls: values resolved, references replaced, the schema checked.

A value travels inline, as an artifact that lies in a local file by now (`paths`), or as a manifest of parts.
Invariant: what comes out is plain JSON that fits the skill's params. It knows no registry, no pipe and no cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.artifact import ArtifactRef, Value
from protocol.errors import NotFound, SchemaMismatch
from protocol.frame import Assign, Input, WorkSpec
from protocol.pointer import MISSING, descend
from protocol.schema import check
from protocol.skill import SkillSpec
from protocol.task import substitute

_JSON: Final = msgspec.json.Decoder()

Locate = Callable[[str], str]
"""Where the artifact of a digest lies on this machine. Raises: NotFound."""


def digests(assign: Assign) -> list[str]:
    """Every artifact that has to be here before the attempt can start."""
    plain = not (assign.items or assign.files)
    if plain and all(type(one.value) is bytes and not one.parts for one in assign.inputs):
        return []
    found: dict[str, None] = {}
    for one in (*assign.inputs, *(one for item in assign.items for one in item)):
        for value in (one.value,) if one.parts is None else one.parts:
            if isinstance(value, ArtifactRef):
                found[value.digest] = None
    found.update((staged.ref.digest, None) for staged in assign.files)
    return list(found)


def calls(
    assign: Assign, work: WorkSpec, skill: SkillSpec, locate: Locate, secrets: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The arguments of each call: one, or one per item. All are checked before any is returned.

    Without `secrets` the name of each stands for it: for those who only look at the rest.

    Raises: SchemaMismatch with every problem; NotFound for a pointer that leads nowhere.
    """
    if not assign.inputs and not assign.items:
        written = [substitute(_JSON.decode(work.args), {}, secrets)]
    else:
        template = _JSON.decode(work.args)
        shared = values(assign.inputs, locate)
        written = (
            [substitute(template, shared | values(item, locate), secrets) for item in assign.items]
            if assign.items
            else [substitute(template, shared, secrets)]
        )
    for number, args in enumerate(written):
        where = f"items/{number}" if assign.items else ""
        if problems := check(skill.params, args, where):
            raise SchemaMismatch(f"the arguments don't fit {skill.name}", ref=assign.name, problems=problems)
    return written


def values(inputs: Iterable[Input], locate: Locate) -> dict[str, Any]:
    """The value of each reference, by its text."""
    found: dict[str, Any] = {}
    for one in inputs:
        if one.parts is None:
            value = _read(one.value, locate)
        else:
            parts = [_read(part, locate) for part in one.parts]
            value = [inner for part in parts for inner in part] if one.flat else parts
        found[one.key] = pointed(value, one.pointer, one.key) if one.pointer else value
    return found


def pointed(value: Any, pointer: tuple[str, ...], key: str) -> Any:
    """The part of a JSON value that a pointer names. Raises: NotFound."""
    found = descend(value, pointer)
    if found is MISSING:
        raise NotFound(f"{key}: there is no /{'/'.join(pointer)} in that value", hint="look at it with asterism get")
    return found


def staged_files(assign: Assign, locate: Locate) -> Mapping[str, str]:
    """Local paths of the files that were moved for this attempt, by URI."""
    return {staged.uri: locate(staged.ref.digest) for staged in assign.files}


def _read(value: Value, locate: Locate) -> Any:
    return _JSON.decode(Path(locate(value.digest)).read_bytes() if isinstance(value, ArtifactRef) else value)
