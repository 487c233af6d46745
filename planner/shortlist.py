"""Which skills a text is about: BM25 over name, tags, examples and description.

Invariant: deterministic (equal scores keep the order of names), linear in the text of the catalog. It only ranks: a
score never says that a skill serves a request. After Robertson and Zaragoza, "The Probabilistic Relevance Framework".
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from protocol.skill import SkillSpec

_WORD: Final = re.compile(r"[a-z0-9]+")
_SLOT: Final = re.compile(r"\{[^}]*\}")
_SATURATION: Final = 1.2
_LENGTH: Final = 0.6
_NAME_WEIGHT: Final = 3
_TAG_WEIGHT: Final = 2
STOP: Final = frozenset(
    "a an the of in on at to for from into with by as and or it its them their this that these those all any each every"  # noqa: SIM905
    " me my our your you we i is are be please can could would will do does file files now just some".split()
)


def stem(word: str) -> str:
    """A light stem: plural, -ing and -ed. Good enough to match `counts`, `counting` and `counted`."""
    for suffix, least in (("ies", 5), ("ing", 6), ("sses", 6), ("xes", 4), ("ches", 6), ("shes", 6), ("ed", 5)):
        if word.endswith(suffix) and len(word) >= least:
            bare = word[: -len(suffix)]
            if suffix == "ies":
                return bare + "y"
            if suffix in ("sses", "xes", "ches", "shes"):
                return word[:-2]
            return bare[:-1] if len(bare) > 3 and bare[-1] == bare[-2] and bare[-1] not in "sl" else bare.rstrip("e")
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    return word.rstrip("e") if len(word) > 3 else word


def words(text: str) -> list[str]:
    """Stems of the words of a text, stop words left out."""
    return [stem(word) for word in _WORD.findall(text.lower()) if word not in STOP]


class Shortlist:
    """An index of skills. Build it once per catalog."""

    def __init__(self, skills: Iterable[SkillSpec]) -> None:
        self.skills = sorted(skills, key=lambda spec: spec.name)
        self._counts = [Counter(_document(spec)) for spec in self.skills]
        self._lengths = [sum(count.values()) for count in self._counts]
        self._mean = sum(self._lengths) / max(1, len(self._lengths)) or 1.0
        seen = Counter(word for count in self._counts for word in count)
        total = len(self.skills)
        self._weight = {word: math.log(1 + (total - n + 0.5) / (n + 0.5)) for word, n in seen.items()}
        self.vocabulary = {spec.name: frozenset(count) for spec, count in zip(self.skills, self._counts, strict=True)}

    def rank(self, text: str, limit: int = 10) -> list[tuple[float, SkillSpec]]:
        """The best skills with a score above zero, best first."""
        query = set(words(text))
        scored = [
            (self._score(query, i), spec) for i, spec in enumerate(self.skills) if not query.isdisjoint(self._counts[i])
        ]
        return sorted(scored, key=lambda pair: (-pair[0], pair[1].name))[:limit]

    def _score(self, query: set[str], i: int) -> float:
        count, norm = self._counts[i], 1 - _LENGTH + _LENGTH * self._lengths[i] / self._mean
        return sum(
            self._weight[word] * count[word] * (_SATURATION + 1) / (count[word] + _SATURATION * norm)
            for word in sorted(query)
            if word in count
        )


def _document(spec: SkillSpec) -> list[str]:
    name = words(spec.name.replace("_", " ")) * _NAME_WEIGHT
    tags = words(" ".join(spec.tags)) * _TAG_WEIGHT
    return name + tags + words(_SLOT.sub(" ", " ".join(spec.examples))) + words(spec.doc)
