"""Where a clause says that it runs or that its files lie: `on log-server`, `from the gpu-box`, `on all machines`.

A machine's name counts where it stands: at either end or inside (`pack logs/*.log on log-server into logs.zip`), alone
or in a list, for which the clause is done once on each. Invariant: pure; only names of machines that are there are
places, and the words that say so are the only ones taken away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

_ALL: Final = re.compile(
    r"\s+on (?:all|every|each)(?: of)?(?: the| my)? (?:workers?|machines?|devices?|computers?|hosts?|nodes?)\Z",
    re.IGNORECASE,
)
_KIND: Final = re.compile(
    r"\s+(?:on|using) (?:the |a |any )?(gpu|cpu|edge)(?: device| worker| machine)?\Z", re.IGNORECASE
)
_TARGET: Final = re.compile(r"\s+(?:to|into|as)\s")
_HERE: Final = re.compile(r"\s+(?:locally|right here|on this machine|on my machine)\Z", re.IGNORECASE)


class Placed(msgspec.Struct, frozen=True):
    """A clause without its place. `machines`: by name, the clause once for each; else `on`: a kind, `all`, `here`.
    `lies`: only the files are said to be there (`from`). `source`: where the files are if that is yet another machine.
    """

    text: str
    on: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    lies: bool = False
    source: tuple[str, ...] = ()


class Places:
    """The names of one fleet."""

    def __init__(self, workers: Iterable[str]) -> None:
        names = "|".join(re.escape(name) for name in sorted(workers, key=len, reverse=True))
        one = rf"(?:the )?(?:{names})(?![\w.-]*\w)"
        several = rf"{one}(?:(?:, and|,| and) (?:(?:on|from|of) )?{one})*"
        both = rf"(?:both (?={one} and ))?"
        self._name = re.compile(names or r"(?!)")
        self._inside = re.compile(rf"\s+(?P<how>on|from|of) {both}(?P<names>{several})") if names else None
        self._front = re.compile(rf"(?P<how>[Oo]n|[Ff]rom) {both}(?P<names>{several}),? ") if names else None

    def read(self, text: str) -> list[Placed]:
        """The ways of reading a clause's place; the text alone where it says none."""
        for pattern, place in ((_ALL, "all"), (_HERE, "here")):
            match = pattern.search(text)
            if match is not None:
                return [Placed(text[: match.start()], (place,))]
        match = _KIND.search(text)
        if match is not None:
            return [Placed(text), Placed(text[: match.start()], (match[1].lower(),))]
        front, rest = self.scope(text)
        if front is not None:
            return [msgspec.structs.replace(front, text=rest)]
        found = list(self._inside.finditer(text)) if self._inside is not None else []
        if len(found) == 1:
            return [self._placed(found[0], text[: found[0].start()] + text[found[0].end() :])]
        if len(found) == 2 and (placed := self._both(found[0], found[1], text)) is not None:
            return [placed]
        return [Placed(text)]

    def _both(self, first: re.Match[str], second: re.Match[str], text: str) -> Placed | None:
        """`unpack a.zip from pi-1 on pi-2`, `copy a on pi-1 to b on pi-2`: where files are, and where it is done."""
        between = text[first.end() : second.start()]
        said = (first["how"].lower(), second["how"].lower())
        if said[1] != "on" or (said[0] == "on" and (second.end() < len(text) or not _TARGET.match(between))):
            return None
        rest = self._placed(second, text[: first.start()] + between + text[second.end() :])
        source = self._placed(first, "").machines
        if len(rest.machines) != 1 or len(source) != 1:
            return None
        return msgspec.structs.replace(rest, source=source)

    def scope(self, text: str) -> tuple[Placed | None, str]:
        """(the place in front of everything, the rest)."""
        match = self._front.match(text) if self._front is not None else None
        return (None, text) if match is None else (self._placed(match, ""), text[match.end() :])

    def _placed(self, match: re.Match[str], text: str) -> Placed:
        machines = tuple(dict.fromkeys(self._name.findall(match["names"])))
        return Placed(text, (), machines, match["how"].lower() != "on")
