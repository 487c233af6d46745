"""Keeps secrets out of what leaves this worker: known values, in every form that they usually take, become names.

Forms: as they are, line by line, escaped for JSON (once and twice), URLs and Python, in hex, and in base64 in each of
the three ways in which a value can fall there. Invariant: what `clean` returns holds none of them. It stops no code
that has a secret and wants to get it out: such code has to be held.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote, quote_plus

import msgspec

from protocol.errors import AsterismError
from protocol.outcome import Failure, Outcome, Success
from protocol.security import read_private

SHORTEST: Final = 6
_SHORTEST_LINE: Final = 16
_BLOCK: Final = 1 << 20
_LARGEST_FILE: Final = 64 * 1024
_VARIABLE: Final = re.compile(
    r"(^|_)(TOKENS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|API_?KEYS?|ACCESS_KEY|CREDENTIALS?|PRIVATE_KEY|JOIN)$"
)
_FIELDS: Final = ("secret", "token", "join", "password")


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable of that name holds a credential, to judge by its name."""
    return _VARIABLE.search(name.upper()) is not None


class Redactor:
    """All values that this process knows to be secret. Adding one twice changes nothing."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._forms: list[tuple[bytes, bytes]] = []
        self._texts: list[tuple[str, str]] = []

    def add(self, name: str, value: str) -> None:
        if len(value) < SHORTEST or value in self._names:
            return
        self._names[value] = name
        mark = f"[secret {name}]"
        known = dict(self._texts)
        for form in _forms(value):
            if len(form) >= SHORTEST:
                known.setdefault(form, mark)
        self._texts = sorted(known.items(), key=lambda pair: -len(pair[0]))
        self._forms = [(form.encode("utf-8", "surrogatepass"), shown.encode()) for form, shown in self._texts]

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """The credentials among these variables."""
        for name, value in environ.items():
            if is_secret_variable(name):
                self.add(name, value)

    def add_home(self, home: Path) -> None:
        """What lies in the private files of this program: tokens, identities, keys, secrets."""
        for pattern in ("*", "*/*", "*/*/*.json", "*/*/*.key", "*/*/*.pem"):
            for path in home.glob(pattern):
                try:
                    if path.stat().st_size > _LARGEST_FILE:
                        continue
                    data = read_private(path)
                except (AsterismError, OSError):
                    continue  # others may read it, or it is no file: no secret of ours
                for value in _values(data, path.parent.name == "secrets"):
                    self.add(path.stem, value)

    def clean(self, data: bytes) -> bytes:
        """For JSON too: a mark needs no escaping."""
        for form, mark in self._forms:
            if form in data:
                data = data.replace(form, mark)
        return data

    def text(self, text: str) -> str:
        for form, mark in self._texts:
            if form in text:
                text = text.replace(form, mark)
        return text

    def outcome(self, outcome: Outcome) -> Outcome:
        """The same, redacted. The content of an artifact is not looked at here."""
        if isinstance(outcome, Success):
            value = outcome.value
            return Success(self.clean(value)) if isinstance(value, bytes) else outcome
        if isinstance(outcome, Failure):
            texts = {name: self.text(getattr(outcome, name)) for name in ("code", "message", "detail", "hint")}
            return msgspec.structs.replace(outcome, **texts)
        return outcome

    def found_in(self, file: BinaryIO) -> str:
        """The mark of a secret that the rest of the file holds, "" if it holds none."""
        longest = max((len(form) for form, _ in self._forms), default=1)
        tail = b""
        while block := file.read(_BLOCK):
            data = tail + block
            for form, mark in self._forms:
                if form in data:
                    return mark.decode()
            tail = data[-longest:]
        return ""


def _forms(value: str) -> Iterator[str]:
    yield value
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----"))
    raw = value.encode("utf-8", "surrogatepass")
    for ascii_only in (False, True):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield from (once, once.replace("/", "\\/"), json.dumps(once, ensure_ascii=ascii_only)[1:-1])
    yield from (repr(value)[1:-1], repr(raw)[2:-1])
    for safe in ("", "/"):
        yield quote(raw, safe=safe)
        yield quote_plus(raw, safe=safe)
    yield from (raw.hex(), raw.hex().upper())
    for shift in range(3):
        # What stands before it moves it by 0, 1 or 2 bytes; the characters that others share in are left off.
        coded = base64.b64encode(b"\0" * shift + raw).decode()
        inner = coded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]
        if len(inner) >= 8:
            yield from (inner, inner.translate(str.maketrans("+/", "-_")), inner.replace("/", "\\/"))


def _values(data: bytes, plain: bool) -> Iterator[str]:
    """What is secret in a private file: all of it, a key in it, or the values of such fields of its JSON."""
    text = data.decode("utf-8", "replace")
    if plain:
        yield text.strip()
    elif "PRIVATE KEY-----" in text and not text.startswith("{"):
        yield text
    elif text.startswith("{"):
        try:
            waiting: list[object] = [json.loads(text)]
        except ValueError:
            return
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict):
                yield from (value for name in _FIELDS if isinstance(value := node.get(name), str))
                waiting.extend(node.values())
            elif isinstance(node, list):
                waiting.extend(node)
            elif isinstance(node, str) and "PRIVATE KEY-----" in node:
                yield node
