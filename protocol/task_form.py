"""One task as a plan writes it <-> `TaskSpec`: the keys of the notation, each with its own reader, all defects kept.

Invariant: `read(write(spec)) == spec`; a key that is not in the table is a problem, null means left out. It must not
know other tasks: who names whom is collected in `TaskReader.uses` and judged by the document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from .document import Problems, canonical, kind_of, nearest
from .field import FAR, FieldReader, Path, short
from .ids import TASK_ID
from .resource import Resources
from .task import INPUT, Condition, FirstOf, MapSpec, Ref, Retry, TaskSpec, parse_reference, reference_in, secret_in

SKILL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,127}")
_PLAIN: Final = re.compile(r"([a-z][a-z0-9_-]{0,63})(?:/[^\[\]]*)?(?:\[\](?:/[^\[\]]*)?)?")
SOURCE: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}(?:\.[a-z0-9_-]+)*")
WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:=[^\s=]+)?")
STATES: Final = ("succeeded", "failed", "skipped", "finished")
OPS: Final = ("==", "!=", "<", "<=", ">", ">=", "in", "exists")
_LEGAL: Final = "a letter a-z, then up to 63 of a-z 0-9 _ -"


Use = tuple[str, Path, str]
"""A task named by another: its id, where it is named, and how (ref, when, on, after)."""


class TaskReader(FieldReader):
    """Reads task objects one after the other; `uses` and `input_uses` hold the tasks and inputs the last one named."""

    def __init__(self, problems: Problems, max_string: int) -> None:
        super().__init__(problems, max_string)
        self.uses: list[Use] = []
        self.input_uses: list[tuple[str, Path]] = []

    def read(self, raw: object, where: str) -> TaskSpec | None:
        """The task, or None with its problems added."""
        self.where, self.uses, self.input_uses = where, [], []
        before = len(self.problems.found) + self.problems.more
        if not isinstance(raw, dict):
            self.add("WrongType", "", f"a task is an object, not {kind_of(raw)}")
            return None
        fields: dict[str, Any] = {}
        for key, value in raw.items():
            reader = TASK_KEYS.get(key)
            if reader is None:
                self.add("UnknownKey", f"/{short(key)}", "no such key of a task", nearest(key, TASK_KEYS))
            elif value is not None:
                reader(self, value, fields)
        for key in ("id", "skill"):
            if raw.get(key) is None:
                self.add("MissingKey", f"/{key}", f"a task needs {key}")
        if len(self.problems.found) + self.problems.more > before:
            return None
        return TaskSpec(**fields)

    # identity

    def id(self, value: object, fields: dict[str, Any]) -> None:
        if not isinstance(value, str):
            self.add("WrongType", "/id", f"an id is a string, not {kind_of(value)}")
        elif value == INPUT:
            self.add("ReservedId", "/id", "`input` names the inputs of the run", "choose another id")
        elif TASK_ID.fullmatch(value) is None:
            self.add("BadId", "/id", f"{short(value)!r} is not an id", f"write {_LEGAL}")
        else:
            fields["id"] = value

    def skill(self, value: object, fields: dict[str, Any]) -> None:
        if not isinstance(value, str) or SKILL_NAME.fullmatch(value) is None:
            self.add("BadSkill", "/skill", f"{short(value)} is not the name of a skill", "write one like fs.find")
        else:
            fields["skill"] = value

    def alt(self, value: object, fields: dict[str, Any]) -> None:
        names = self.items(value, "/alt")
        for i, name in enumerate(names):
            if not isinstance(name, str) or SKILL_NAME.fullmatch(name) is None:
                self.add("BadSkill", f"/alt/{i}", f"{short(name)} is not the name of a skill")
        fields["alt"] = tuple(names)

    # arguments and references

    def args(self, value: object, fields: dict[str, Any]) -> None:
        if not isinstance(value, dict):
            self.add("WrongType", "/args", f"args is an object, not {kind_of(value)}")
            return
        self.scan(value, "/args")
        fields["args"] = canonical(value)

    def scan(self, root: object, suffix: str) -> None:
        """Every reference and string inside a value, without recursion; paths are only built for a problem."""
        stack: list[tuple[object, Path]] = [(root, suffix)]
        while stack:
            node, path = stack.pop()
            if isinstance(node, dict):
                if "ref" in node and len(node) == 1:
                    self._reference(node, path)
                elif len(node) == 1 and "literal" in node:
                    self._literal(node["literal"], path)
                elif len(node) == 1 and "secret" in node:
                    self._secret(node, path)
                else:
                    for key, item in node.items():
                        if isinstance(item, dict | list):
                            stack.append((item, (path, key)))
                        elif isinstance(item, str) and len(item) > self.max_string:
                            self.long(item, (path, key))
                        if len(key) > self.max_string:
                            self.long(key, path)
            elif isinstance(node, list):
                for i, item in enumerate(node):
                    if isinstance(item, dict | list):
                        stack.append((item, (path, i)))
                    elif isinstance(item, str) and len(item) > self.max_string:
                        self.long(item, (path, i))
            elif isinstance(node, str) and len(node) > self.max_string:
                self.long(node, path)

    def _reference(self, node: dict[str, Any], path: Path) -> None:
        text = node["ref"]
        plain = _PLAIN.fullmatch(text) if isinstance(text, str) else None
        if plain is not None and plain[1] != INPUT:
            self.uses.append((plain[1], path, "ref"))
            return
        try:
            found = reference_in(node)
        except ValueError as error:
            self.add("BadReference", path, str(error), 'write {"ref": "task/path"}')
            return
        for ref in found.refs if isinstance(found, FirstOf) else (found,):
            if ref is not None:
                self.use(ref, path, "ref")

    def _secret(self, node: dict[str, Any], path: Path) -> None:
        try:
            secret_in(node)
        except ValueError as error:
            self.add("BadSecret", path, str(error), '{"literal": {"secret": ...}} if it is just an object')

    def _literal(self, root: object, path: Path) -> None:
        stack = [root]
        while stack:
            node = stack.pop()
            if isinstance(node, dict):
                stack.extend(node)
                stack.extend(node.values())
            elif isinstance(node, list):
                stack.extend(node)
            elif isinstance(node, str) and len(node) > self.max_string:
                self.long(node, path)

    def use(self, ref: Ref, path: Path, kind: str) -> None:
        if ref.source == INPUT:
            self.input_uses.append((ref.path[0], path))
        elif SOURCE.fullmatch(ref.source) is None:
            self.add("BadReference", path, f"{short(ref.source)!r} is not the id of a task", f"an id is {_LEGAL}")
        else:
            self.uses.append((ref.source, path, kind))

    # where and when

    def on(self, value: object, fields: dict[str, Any]) -> None:
        words: list[str | Ref] = []
        for i, item in enumerate(self.items(value, "/on")):
            at = f"/on/{i}"
            if isinstance(item, str) and WORD.fullmatch(item) is not None:
                words.append(item)
                continue
            try:
                ref = reference_in(item)
            except ValueError as error:
                self.add("BadOn", at, str(error))
                continue
            if isinstance(ref, Ref) and ref.source != INPUT and not ref.path and not ref.each:
                self.use(ref, at, "on")
                words.append(ref)
            else:
                self.add(
                    "BadOn", at, f"{short(item)} is no place", 'any here all cpu gpu edge NAME label=value {"ref": id}'
                )
        if "all" in words and len(words) > 1:
            self.add("BadOn", "/on", "`all` stands alone", 'write ["all"], or leave it out')
        fields["on"] = tuple(words)

    def when(self, value: object, fields: dict[str, Any]) -> None:
        lines = [self._condition(item, f"/when/{i}") for i, item in enumerate(self.items(value, "/when"))]
        fields["when"] = tuple(line for line in lines if line is not None)

    def _condition(self, raw: object, at: str) -> Condition | None:
        if not isinstance(raw, dict):
            self.add(
                "BadWhen",
                at,
                f"a condition is an object, not {kind_of(raw)}",
                '{"ref", "op", "value"} or {"ref", "is"}',
            )
            return None
        given = {key: value for key, value in raw.items() if value is not None or key == "value"}
        for key in given:
            if key not in ("ref", "op", "value", "is"):
                self.add("UnknownKey", f"{at}/{short(key)}", "no such key of a condition", "ref, op, value or is")
        try:
            ref = parse_reference(given["ref"]) if isinstance(given.get("ref"), str) else None
        except ValueError as error:
            self.add("BadReference", f"{at}/ref", str(error))
            return None
        if ref is None or ref.each:
            self.add("BadWhen", f"{at}/ref", "a condition reads one value", 'write "ref": "task/path", without []')
            return None
        if ("is" in given) == ("op" in given):
            self.add("BadWhen", at, "a condition has either op or is", '{"ref", "op", "value"} or {"ref", "is"}')
            return None
        self.use(ref, f"{at}/ref", "when")
        if "is" in given:
            return self._state(ref, given, at)
        return self._comparison(ref, given, at)

    def _state(self, ref: Ref, given: Mapping[str, Any], at: str) -> Condition | None:
        if given["is"] not in STATES:
            self.add("BadWhen", f"{at}/is", f"{short(given['is'])} is no final state", ", ".join(STATES))
        elif ref.path or ref.source == INPUT or given.get("value") is not None:
            self.add(
                "BadWhen",
                at,
                "`is` asks for the state of a task",
                'write {"ref": "task", "is": ...}, no path, no value',
            )
        else:
            return Condition(ref, "is", canonical(given["is"]))
        return None

    def _comparison(self, ref: Ref, given: Mapping[str, Any], at: str) -> Condition | None:
        op, value = given["op"], given.get("value")
        if op not in OPS:
            self.add("BadWhen", f"{at}/op", f"{short(op)} is no operator", " ".join(OPS))
        elif op == "exists":
            if value is None or value is True:
                return Condition(ref, "exists")
            self.add("BadWhen", f"{at}/value", "`exists` takes no value", "leave value out")
        elif "value" not in given:
            self.add("BadWhen", f"{at}/value", f"{op} needs a value", '"value": ...')
        elif op == "in" and not isinstance(value, list | str):
            self.add("BadWhen", f"{at}/value", "`in` needs a list or a text", '"value": [...]')
        elif op[0] in "<>" and (isinstance(value, bool) or not isinstance(value, int | float | str)):
            self.add("BadWhen", f"{at}/value", f"{op} compares numbers or texts, not {kind_of(value)}")
        else:
            self._literal(value, f"{at}/value")
            return Condition(ref, op, canonical(value))
        return None

    def after(self, value: object, fields: dict[str, Any]) -> None:
        names = self.items(value, "/after")
        for i, name in enumerate(names):
            if isinstance(name, str) and SOURCE.fullmatch(name) is not None and name != INPUT:
                self.uses.append((name, f"/after/{i}", "after"))
            else:
                self.add("BadReference", f"/after/{i}", f"{short(name)} is not the id of a task")
        fields["after"] = tuple(names)

    # limits and manners

    def map(self, value: object, fields: dict[str, Any]) -> None:
        given = self.members(value, "/map", ("limit", "chunk", "on_error", "max"))
        if given.get("chunk") == "auto":
            given["chunk"] = 0
        elif "chunk" in given:
            given["chunk"] = self.integer(given["chunk"], "/map/chunk", 1, 1)
        for key, least, default in (("limit", 0, 0), ("max", 1, 10_000)):
            if key in given:
                given[key] = self.integer(given[key], f"/map/{key}", least, default)
        if given.get("on_error", "fail") not in ("fail", "collect"):
            self.add("BadValue", "/map/on_error", f"{short(given['on_error'])} is not one of fail, collect")
        else:
            fields["map"] = MapSpec(**given)

    def retry(self, value: object, fields: dict[str, Any]) -> None:
        given = self.members(value, "/retry", ("max", "backoff"))
        most = self.integer(given.get("max", 2), "/retry/max", 0, 2)
        fields["retry"] = Retry(most, self.span(given.get("backoff", 0.2), "/retry/backoff"))

    def needs(self, value: object, fields: dict[str, Any]) -> None:
        given = self.members(value, "/needs", ("cpu", "memory", "gpu", "vram", "disk", "counters", "labels"))
        for key in ("cpu", "gpu"):
            if key in given:
                given[key] = self.number(given[key], f"/needs/{key}")
        for key in ("memory", "vram", "disk"):
            if key in given:
                given[key] = self.size(given[key], f"/needs/{key}")
        if "counters" in given:
            counters = self.members(given["counters"], "/needs/counters", None)
            given["counters"] = {
                key: self.number(item, f"/needs/counters/{short(key)}") for key, item in counters.items()
            }
        if "labels" in given:
            given["labels"] = self.texts(given["labels"], "/needs/labels")
        fields["needs"] = Resources(**given)

    def timeout(self, value: object, fields: dict[str, Any]) -> None:
        fields["timeout_s"] = self.span(value, "/timeout", positive=True)

    def deadline(self, value: object, fields: dict[str, Any]) -> None:
        fields["deadline_s"] = self.span(value, "/deadline", positive=True)

    def priority(self, value: object, fields: dict[str, Any]) -> None:
        fields["priority"] = self.integer(value, "/priority", -FAR, 0)

    def effect(self, value: object, fields: dict[str, Any]) -> None:
        if value not in ("pure", "idempotent", "once"):
            self.add("BadValue", "/effect", f"{short(value)} is not one of pure, idempotent, once")
        fields["effect"] = value

    def cache(self, value: object, fields: dict[str, Any]) -> None:
        fields["cache"] = self.flag(value, "/cache")

    def approve(self, value: object, fields: dict[str, Any]) -> None:
        fields["approve"] = self.flag(value, "/approve")

    def label(self, value: object, fields: dict[str, Any]) -> None:
        fields["label"] = self.text(value, "/label")


TASK_KEYS: Final[Mapping[str, Callable[[TaskReader, object, dict[str, Any]], None]]] = {
    "id": TaskReader.id,
    "on": TaskReader.on,
    "when": TaskReader.when,
    "skill": TaskReader.skill,
    "args": TaskReader.args,
    "approve": TaskReader.approve,
    "after": TaskReader.after,
    "map": TaskReader.map,
    "alt": TaskReader.alt,
    "needs": TaskReader.needs,
    "retry": TaskReader.retry,
    "timeout": TaskReader.timeout,
    "deadline": TaskReader.deadline,
    "priority": TaskReader.priority,
    "effect": TaskReader.effect,
    "cache": TaskReader.cache,
    "label": TaskReader.label,
}


def task_document(spec: TaskSpec) -> dict[str, Any]:
    """The task as a plan document writes it: the six keys of a model first, only what differs from the default."""
    found: dict[str, Any] = {"id": spec.id}
    if spec.on:
        found["on"] = [{"ref": str(word)} if isinstance(word, Ref) else word for word in spec.on]
    if spec.when:
        found["when"] = [_condition_document(line) for line in spec.when]
    found["skill"] = spec.skill
    found["args"] = msgspec.json.decode(spec.args)
    if spec.approve:
        found["approve"] = True
    if spec.after:
        found["after"] = list(spec.after)
    if spec.map != MapSpec():
        found["map"] = {
            "limit": spec.map.limit,
            "chunk": spec.map.chunk or "auto",
            "on_error": spec.map.on_error,
            "max": spec.map.max,
        }
    if spec.alt:
        found["alt"] = list(spec.alt)
    if spec.needs is not None:
        found["needs"] = changed(spec.needs)
    if spec.retry is not None:
        found["retry"] = {"max": spec.retry.max, "backoff": spec.retry.backoff_s}
    for key, value in (
        ("timeout", spec.timeout_s),
        ("deadline", spec.deadline_s),
        ("effect", spec.effect),
        ("cache", spec.cache),
    ):
        if value is not None:
            found[key] = value
    if spec.priority:
        found["priority"] = spec.priority
    if spec.label:
        found["label"] = spec.label
    return found


def changed(value: msgspec.Struct) -> dict[str, Any]:
    """The fields that differ from their defaults (msgspec's own omit_defaults tells floats apart by identity)."""
    return {
        field.name: item
        for field in msgspec.structs.fields(value)
        if (item := getattr(value, field.name))
        != (field.default_factory() if field.default is msgspec.NODEFAULT else field.default)
    }


def _condition_document(line: Condition) -> dict[str, Any]:
    if line.op == "is":
        return {"ref": str(line.ref), "is": msgspec.json.decode(line.value)}
    if line.op == "exists":
        return {"ref": str(line.ref), "op": "exists"}
    return {"ref": str(line.ref), "op": line.op, "value": msgspec.json.decode(line.value)}
