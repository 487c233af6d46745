"""What a word of a request may be: the slot of an argument accepts only what looks like its kind.

A file has a slash or a suffix, a glob a star, a URL its scheme, free text its quotes. Strict on purpose: a slot that
takes any word would turn small talk into commands. Invariant: pure; `read` gives a value, or REJECTED.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from .phrase import Phrase
from .value import Quoted

Schema = Mapping[str, Any]
Kind = Literal[
    "file",
    "files",
    "path",
    "glob",
    "url",
    "number",
    "flag",
    "choice",
    "word",
    "pattern",
    "prose",
    "argv",
    "json",
    "any",
    "content",
]

REJECTED: Final = object()

_URL: Final = re.compile(r"https?://[^\s/$.?#][^\s]*", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)")
_SPAN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|sec|secs|seconds?)?", re.IGNORECASE)
_SUFFIXED: Final = re.compile(r"[\w-][\w.+-]*\.[A-Za-z][A-Za-z0-9]{0,7}")
_ROOTED: Final = re.compile(r"(?:/|\./|\.\./|~/|file://|sha256:)\S+")
_SLASHED: Final = re.compile(r"[\w.@+-]+(?:/[\w.@+*?\[\]-]*)+")
_FOLDER: Final = re.compile(r"[\w.~/+-]+")
_WILD: Final = re.compile(r"[*?]|\[[^\]]+\]")
_WORD: Final = re.compile(r"[^\s,;]+")
_FOLDER_FIRST: Final = re.compile(r"(?:the |a )?(?:folder|directory)\b")
_SAID_TO_BE_TEXT: Final = re.compile(r"the\s+(?:word|pattern|text|string)\s+(\S+)", re.IGNORECASE)
_LIST: Final = re.compile(r"\s*(?:,\s*and\b|,|\band\b|\s)\s*")
_SITES: Final = frozenset("com org net edu gov io dev app co uk de fr ru cn jp info biz tv me".split())  # noqa: SIM905
_EITHER_OR: Final = frozenset(("and/or", "he/she", "she/he", "him/her", "his/her", "either/or", "yes/no", "n/a", "w/o"))
_NOT_TEXT: Final = frozenset(
    "jpg jpeg png gif bmp webp svg mp3 wav ogg flac mp4 mov avi mkv webm pdf docx xlsx pptx"  # noqa: SIM905
    " zip gz tgz tar exe bin".split()
)
_PATHS: Final = frozenset(("path", "dir", "folder", "directory", "cwd", "root", "target", "destination"))
_PATTERNS: Final = frozenset(("pattern", "regex", "regexp"))
_PROSE: Final = frozenset(("question", "prompt", "goal", "text", "message", "sql", "query", "body", "stdin"))


class FileName(str):
    """A file by its path, where content is taken and a text would be itself."""


class Spread(msgspec.Struct, frozen=True):
    """Files meant by a folder and a pattern, where a file was asked for."""

    folder: str
    glob: str


class Slot(msgspec.Struct, frozen=True):
    """One argument's place in a sentence."""

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()
    text_file: bool = False
    folder: bool = False
    """A path of a folder only."""

    @property
    def pattern(self) -> str:
        """What may stand here, as a regular expression over folded text; `read` has the last word."""
        if self.kind == "pattern":
            return r"(?:the\s+(?:word|pattern|text|string)\s+)?[^\s]+"
        return r".+" if self.kind in ("files", "prose") else r"[^\s]+"

    @property
    def wired(self) -> bool:
        """Whether an earlier task's result may stand here, as `them` or left out."""
        return self.kind in ("file", "files", "json", "any", "content")

    @property
    def pointed(self) -> bool:
        """Whether `it` or `each` may stand here: a number, too, is what came before if the sentence says so; a span of
        time (`wait for it`) is not."""
        return self.wired or (self.kind == "number" and self.name != "seconds" and not self.name.endswith("_s"))

    @property
    def listed(self) -> bool:
        """Whether `each` may stand here: a word, too, is one of a list if the sentence says so."""
        return self.pointed or self.kind == "word"

    def read(self, text: str, phrase: Phrase) -> Any:
        """The value that this text is for the argument: JSON, a Spread, or REJECTED."""
        named = _SAID_TO_BE_TEXT.fullmatch(text) if self.kind == "pattern" else None
        value = phrase.unfold(named[1] if named is not None else text)
        if named is not None and isinstance(value, str):
            return str(value)
        if isinstance(value, list | dict):
            return self._decoded(value)
        if isinstance(value, Quoted):
            return self._quoted(str(value))
        return self._bare(text)

    def _decoded(self, value: Any) -> Any:
        if self.kind in ("json", "any", "content"):
            return value
        if self.kind in ("files", "argv") and isinstance(value, list) and all(isinstance(one, str) for one in value):
            return value
        return REJECTED

    def _quoted(self, text: str) -> Any:
        if self.kind in ("number", "flag"):
            return REJECTED
        if self.kind == "choice":
            return text if text in self.choices else REJECTED
        if self.kind == "argv":
            try:
                return shlex.split(text) or REJECTED
            except ValueError:
                return REJECTED
        if self.kind == "url":
            return text if _URL.fullmatch(text) else REJECTED
        if self.kind in ("file", "files"):
            spread = _spread(text)
            return spread or ([text] if self.kind == "files" else text)
        return text

    def _bare(self, text: str) -> Any:
        kind = self.kind
        if kind == "choice":
            lower = {choice.lower(): choice for choice in self.choices}
            return lower.get(text.lower(), REJECTED)
        if kind == "number":
            return self._number(text)
        if kind == "flag":
            return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), REJECTED)
        if kind == "url":
            return text if _URL.fullmatch(text) else REJECTED
        if kind == "glob":
            return text if _WILD.search(text) and "/" not in text else "*" + text if text[:1] == "." else REJECTED
        if kind == "path":
            return text if (is_folder(text) if self.folder else is_path(text)) else REJECTED
        if kind == "file":
            return self._file(text)
        if kind == "files":
            return self._files(text)
        if kind == "word":
            return text if _WORD.fullmatch(text) else REJECTED
        if kind == "pattern":  # a plain word alone may mean the thing and not the text: count people in a.txt
            return REJECTED if text.isalpha() and not any(char.isupper() for char in text) else text
        if kind == "any":
            number = _NUMBER.fullmatch(text)
            return (
                msgspec.json.decode(text) if number and _is_json(text) else text if _WORD.fullmatch(text) else REJECTED
            )
        if kind == "content":
            file = self._file(text)
            return REJECTED if isinstance(file, Spread) or file is REJECTED else FileName(file)
        return REJECTED  # prose, argv and json are only taken in quotes or brackets

    def _number(self, text: str) -> Any:
        match = _SPAN.fullmatch(text) if self.name == "seconds" or self.name.endswith("_s") else _NUMBER.fullmatch(text)
        return msgspec.json.decode(match[1]) if match is not None and _is_json(match[1]) else REJECTED

    def _file(self, text: str) -> Any:
        if not looks_like_file(text):
            return REJECTED
        if self.text_file and text.rpartition(".")[2].lower() in _NOT_TEXT:
            return REJECTED
        return _spread(text) or text

    def _files(self, text: str) -> Any:
        found = [self._file(one) for one in _LIST.split(text)]
        if len(found) == 1:
            return found[0] if isinstance(found[0], Spread) or found[0] is REJECTED else found
        return found if all(isinstance(one, str) for one in found) else REJECTED


def slot_of(name: str, schema: Schema) -> Slot:
    """The slot of an argument, from its schema and (for texts) its name."""
    branches = schema.get("anyOf", (schema,))
    kinds = {branch.get("type") for branch in branches}
    about = str(schema.get("description", "")).lower()
    about_text = "text" in about
    if "enum" in schema:
        return Slot(name, "choice", tuple(str(one) for one in schema["enum"]))
    if "file" in kinds:
        return Slot(name, "file", text_file=about_text) if kinds == {"file"} else Slot(name, "content")
    if kinds & {"integer", "number"}:
        return Slot(name, "number")
    if kinds == {"boolean"}:
        return Slot(name, "flag")
    if kinds == {"array"}:
        return Slot(name, _list_kind(schema.get("items", {})))
    if kinds == {"object"}:
        return Slot(name, "json")
    if "string" in kinds:
        return Slot(name, _text_kind(name), folder=_FOLDER_FIRST.match(about) is not None)
    return Slot(name, "json" if name == "json" else "any")


def is_path(text: str) -> bool:
    """One word that can name a folder or file; a mail address or a web site is none."""
    return (
        _FOLDER.fullmatch(text) is not None
        and text.lower() not in _EITHER_OR
        and ("/" in text or text.rpartition(".")[2].lower() not in _SITES or "." not in text)
    )


def is_folder(text: str) -> bool:
    """A path that doesn't look like one file: `logs`, `src/a`, `v1.2/`, but not `a.zip`."""
    last = text.rpartition("/")[2]
    return is_path(text) and (last in (".", "..") or _SUFFIXED.fullmatch(last) is None)


def looks_like_file(text: str) -> bool:
    """A path, a name with a suffix, a pattern or a URI; not a web site, a number or `and/or`."""
    if _URL.fullmatch(text) or text.lower() in _EITHER_OR:
        return False
    if _ROOTED.fullmatch(text):
        return True
    if _SLASHED.fullmatch(text):
        return not re.fullmatch(r"[0-9/]+", text)
    if _WILD.search(text) and "." in text:
        return True
    return _SUFFIXED.fullmatch(text) is not None and text.rpartition(".")[2].lower() not in _SITES


def _spread(text: str) -> Spread | None:
    """`logs/*.log` -> (logs, *.log), `logs/` -> (logs, *); None for a single file."""
    if text.startswith(("file://", "sha256:")):
        return None
    if text.endswith("/"):
        return Spread(text.rstrip("/") or "/", "*")
    wild = _WILD.search(text)
    if wild is None:
        return None
    cut = text.rfind("/", 0, wild.start())
    return Spread(text[:cut] or "/" if cut >= 0 else ".", text[cut + 1 :])


def _list_kind(items: Schema) -> Kind:
    kinds = {branch.get("type") for branch in items.get("anyOf", (items,))}
    if kinds == {"file"}:
        return "files"
    return "argv" if kinds & {"string"} else "json"


def _text_kind(name: str) -> Kind:
    if name in _PATHS:
        return "path"
    if name in ("url", "uri", "endpoint"):
        return "url"
    if name == "glob":
        return "glob"
    if name in _PATTERNS:
        return "pattern"
    return "prose" if name in _PROSE else "word"


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except ValueError:
        return False
    return True
