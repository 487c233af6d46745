"""What fits where: from the result schemas of earlier tasks to the arguments of a later one.

A result makes offers (`files[]/file` is a file, `rows` a list of rows); an argument takes the offer that fits it best.
Invariant: pure and by types alone; the names of fields only break ties. Nothing is invented: no fit, no wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from protocol.skill import SkillSpec
from protocol.task import Ref

Schema = Mapping[str, Any]

EXACT: Final = 10
SAME_NAME: Final = 4
"""Also what tells apart two fields of the same type."""
NAMED_PARTS: Final = 12
ANYTHING: Final = 1


class Source(msgspec.Struct, frozen=True):
    """An earlier task. `mapped`: its value is the list of its children's results; `absent`: fields it won't have.

    `columns` of its rows, where its query says so, and whether that gives a `single` one; `stem` of the one file whose
    rows they are. `other`: the task that was done instead if this one was not.
    """

    id: str
    skill: SkillSpec
    mapped: bool = False
    absent: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()
    single: bool = False
    stem: str = ""
    called: str = ""
    """What a query calls it."""
    other: str = ""

    @property
    def name(self) -> str:
        return self.called or self.id.replace("-", "_")

    def fields(self) -> dict[str, Schema]:
        return {
            name: schema for name, schema in self.skill.result.get("properties", {}).items() if name not in self.absent
        }


class Offer(msgspec.Struct, frozen=True):
    """One value that a source can give, its schema and the last name on the way to it."""

    ref: Ref
    schema: Schema
    name: str


class Wire(msgspec.Struct, frozen=True):
    """A value for an argument, with references inside; `each` makes the task a map."""

    argument: str
    value: Any
    score: int
    each: bool = False


def absent_fields(skill: SkillSpec, args: Mapping[str, Any]) -> frozenset[str]:
    """Optional fields of a result that these arguments rule out: one that a choice names is there iff it is chosen."""
    fields = skill.result.get("properties", {}).keys()
    optional = fields - set(skill.result.get("required", ()))
    absent: set[str] = set()
    for name, schema in skill.params.get("properties", {}).items():
        choices = optional.intersection(one for one in schema.get("enum", ()) if isinstance(one, str))
        chosen = args.get(name, schema.get("default"))
        if choices and isinstance(chosen, str):
            absent |= optional - {chosen} if chosen in choices else choices
    return frozenset(absent)


def offers(source: Source, each: bool) -> Iterator[Offer]:
    """What the source gives: whole values, or with `each` one value per element of one list."""
    result = source.skill.result
    if source.mapped:
        if not each:
            yield Offer(Ref(source.id), {"type": "array", "items": result}, "")
            return
        yield Offer(Ref(source.id, (), True), result, "")
        for name, schema in source.fields().items():
            yield Offer(Ref(source.id, (), True, (name,)), schema, name)
        return
    if not each:
        yield Offer(Ref(source.id), result, "")
    for name, schema in source.fields().items():
        if not each:
            yield Offer(Ref(source.id, (name,)), schema, name)
        elif schema.get("type") == "array":
            items = schema.get("items", {})
            yield Offer(Ref(source.id, (name,), True), items, name)
            for part, inner in items.get("properties", {}).items():
                yield Offer(Ref(source.id, (name,), True, (part,)), inner, part)


def fit(param: Schema, offered: Schema) -> int:
    """How well a value of `offered` serves as `param`: 0 not at all, EXACT the same kind."""
    if param.get("nullable") or offered.get("nullable"):
        param = {key: value for key, value in param.items() if key != "nullable"}
        offered = {key: value for key, value in offered.items() if key != "nullable"}
    if "anyOf" in param:
        return max((fit(branch, offered) for branch in param["anyOf"]), default=0)
    kind, given = param.get("type"), offered.get("type")
    if kind is None:
        return ANYTHING if "enum" not in param and "const" not in param else 0
    if "enum" in param:
        return 0
    if given is None:
        return 0 if offered else ANYTHING  # a value of unknown type may be it: only where nothing better fits
    if kind == "number" and given == "integer":
        return EXACT // 2
    if kind != given:
        return 0
    if kind == "array":
        inner, items = param.get("items", {}), offered.get("items", {})
        return EXACT if not inner else min(EXACT, fit(inner, items) + (1 if inner.get("type") == "object" else 0))
    if kind == "object":
        return _objects(param, offered)
    return EXACT if kind == "file" else EXACT // 2


def _objects(param: Schema, offered: Schema) -> int:
    wanted: Mapping[str, Schema] = param.get("properties", {})
    given: Mapping[str, Schema] = offered.get("properties", {})
    if any(name not in given or not fit(wanted[name], given[name]) for name in param.get("required", ())):
        return 0
    if param.get("additionalProperties", True) is False and any(name not in wanted for name in given):
        return 0
    return EXACT // 2


def part_slots(param: Schema) -> dict[str, Schema] | None:
    """The fields that hold the value of a list of named parts (`[{name, rows}]`), or None if it is no such list."""
    items = param.get("items", {})
    fields: Mapping[str, Schema] = items.get("properties", {})
    if param.get("type") != "array" or fields.get("name", {}).get("type") != "string":
        return None
    needed = set(items.get("required", ()))
    slots = {name: fields[name] for name in ("rows", "text", "value", "data", "file") if name in fields}
    return slots if "name" in needed and needed <= {"name", *slots} and slots else None


def makes_file(skill: SkillSpec) -> bool:
    """Whether its `file` is one that it made, and not the one that it was given."""
    made, given = (schema.get("properties", {}).get("file", {}).get("type") for schema in (skill.result, skill.params))
    return bool(made == "file" and given != "file")


def is_content(param: Schema) -> bool:
    """It takes a file, rows and records alike: a result as such."""
    return {"file", "array", "object"} <= {branch.get("type") for branch in param.get("anyOf", ())}


def content(source: Source) -> dict[str, Any] | None:
    """What a result is when it is saved: the file it made, else its rows, else its text, else all of it as a record.

    A file that was only read is not the result, nor are files that something left behind. None where nothing is.
    """
    fields = source.fields()
    if source.mapped or source.skill.result.get("type") != "object":
        return {"ref": source.id} if source.mapped or source.skill.result else None
    if "file" in fields and makes_file(source.skill):
        return {"ref": f"{source.id}/file"}
    lists = {name: schema.get("items", {}) for name, schema in fields.items() if schema.get("type") == "array"}
    if "rows" in lists:
        return {"ref": f"{source.id}/rows"}
    if any(items.get("type") == "file" for items in lists.values()):
        return None
    if lists:
        return {"ref": f"{source.id}/{next(iter(lists))}"} if len(lists) == 1 else None
    texts = [name for name, schema in fields.items() if schema.get("type") == "string"]
    return {"ref": f"{source.id}/text" if texts == ["text"] else source.id}


def wires(argument: str, param: Schema, sources: tuple[Source, ...], each: bool) -> Iterator[Wire]:
    """Every way in which the sources together can fill one argument."""
    if is_content(param) and not each:
        found = content(sources[0]) if len(sources) == 1 else None
        if found is not None:
            yield Wire(argument, found, EXACT)
        return
    slots = part_slots(param)
    if slots is not None and each:
        source, fields = sources[0], param["items"]["properties"]
        if len(sources) == 1 and source.mapped and _has_rows(source, fields):
            yield Wire(argument, [{"name": source.name, "rows": {"ref": f"{source.id}[]/rows"}}], NAMED_PARTS, True)
        return
    if slots is not None:
        parts = [_part(source, slots, param.get("items", {}).get("properties", {})) for source in sources]
        if parts and all(part is not None for part in parts):
            yield Wire(argument, parts, NAMED_PARTS)
        return
    if len(sources) == 1:
        for offer in offers(sources[0], each):
            score = _score(argument, param, offer)
            if score and not (each and score == EXACT // 2 and param.get("type") == "string"):
                yield Wire(argument, {"ref": str(offer.ref)}, score, each)
        if each and argument in sources[0].columns and not sources[0].mapped:
            yield Wire(argument, {"ref": f"{sources[0].id}/rows[]/{argument}"}, ANYTHING + SAME_NAME, True)
        return
    if param.get("type") == "array" and not each:
        items = param.get("items", {})
        chosen = [best_offer(argument, items, source) for source in sources]
        if chosen and all(offer is not None for offer in chosen):
            yield Wire(argument, [{"ref": str(offer.ref)} for offer in chosen if offer is not None], EXACT - 1)


def best_offer(argument: str, param: Schema, source: Source) -> Offer | None:
    """The whole value of one source that fits best, or None when nothing does or two fit alike."""
    scored = sorted(
        ((_score(argument, param, offer), i, offer) for i, offer in enumerate(offers(source, False))),
        key=lambda one: (-one[0], one[1]),
    )
    if not scored or not scored[0][0]:
        return None
    return scored[0][2]


def _score(argument: str, param: Schema, offer: Offer) -> int:
    score = fit(param, offer.schema)
    if not score:
        return 0
    if offer.name == argument or offer.name == argument.rstrip("s") or offer.name + "s" == argument:
        return score + SAME_NAME
    if score == ANYTHING and (offer.ref.rest or (offer.ref.path and not offer.ref.each)):
        return 0 if offer.schema else score  # what takes anything takes the whole, not some field of it
    return score


def _has_rows(source: Source, fields: Mapping[str, Schema]) -> bool:
    """Whether each element of a map is a table of its own, for a part that takes tables out of elements."""
    return "field" in fields and source.fields().get("rows", {}).get("type") == "array"


def _part(source: Source, slots: Mapping[str, Schema], fields: Mapping[str, Schema]) -> dict[str, Any] | None:
    """One named part: rows if the source has any, else its text, else its one record as a row. The rows of every
    element of a map are one table where the part has a `field` to say so."""
    if "rows" in slots:
        if source.mapped:
            part = {"name": source.name, "rows": {"ref": source.id}}
            return {**part, "field": "rows"} if _has_rows(source, fields) else part
        lists = [
            field
            for field, schema in source.fields().items()
            if schema.get("type") == "array" and schema.get("items", {}).get("type", "object") == "object"
        ]
        if lists:
            field = "rows" if "rows" in lists else lists[0]
            return {"name": source.name, "rows": {"ref": f"{source.id}/{field}"}}
    for slot in ("text", "value", "data", "file"):
        if slot in slots:
            offer = best_offer(slot, slots[slot], source)
            if offer is not None and offer.ref.path:
                text = {"name": source.name, slot: {"ref": str(offer.ref)}}
                if slot != "text" or offer.name == "text":
                    return text
    if "rows" in slots and source.skill.result.get("type") == "object":
        return {"name": source.name, "rows": [{"ref": source.id}]}
    return None
