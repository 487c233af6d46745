"""Examples: requests of earlier runs with the plans that served them, and which of them a new request needs.

Likeness is the cosine of the words two requests share, rare words weighing more. How many are shown depends on the
request, as in row S44 (DynaICL, "Efficient prompting via dynamic in-context learning"): a simple one needs one or
none, a hard one more, and each further one only if it covers words that none before it covers. Invariant: pure and
deterministic, within its budget of tokens. It must not know where examples are kept.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from protocol.document import PLANNER_LIMITS
from protocol.errors import AsterismError
from protocol.plan import parse_plan, plan_document
from protocol.task import INPUT, FirstOf, Plan, references, secrets_in

from .shortlist import STOP, stem

MOST: Final = 6
TOKENS: Final = 1500
LEAST: Final = 0.1
"""Below this likeness an example is about something else."""
SAME: Final = 0.97
"""Above this one example says it all."""
_GAIN: Final = 0.08
_BYTES_A_TOKEN: Final = 3
_KEYS: Final = ("id", "on", "when", "skill", "args", "approve")
_MORE: Final = ("after", "map", "alt", "effect")
"""Without these it would be another plan; how often and how urgently to try is not what an example teaches."""
_SECRET: Final = re.compile(
    r"-----BEGIN|\b(?:sk|pk|rk|ghp|gho|ghs|glpat|xox[abp]|hf|npm)[-_][A-Za-z0-9_-]{12}|\bAKIA[0-9A-Z]{12}"
    r"|\beyJ[A-Za-z0-9_-]{10}|://[^\s/@:]{1,64}:[^\s/@]{1,256}@|\bbearer\s+[A-Za-z0-9._~+/-]{8}"
    r"|\b(?:password|passwd|passphrase|pwd|token|secret|api[ _-]?key|access[ _-]?key|credential)s?\b"
    r"\W{0,3}(?:is|:|=|to|as)?\W{0,3}(?=[^\s]*[0-9!$%^*])[^\s]{6}"
    r"|(?<![\w/.-])(?=[A-Za-z0-9+_-]*[0-9])(?=[A-Za-z0-9+_-]*[A-Za-z])[A-Za-z0-9+_-]{32,}(?![\w/.])",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"\w+")
_STEP: Final = re.compile(
    r"\b(?:then|and|after|afterwards|before|finally|next|each|every|parallel|if|unless|otherwise|when|until|which"
    r"|compare|combine|merge|und|dann|jede[nrs]?|puis|ensuite|et|chaque|si|luego|después|cada|y)\b|[;,]|->",
    re.IGNORECASE,
)


class Example(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request and the plan that served it, as JSON in the notation of graph.md, tasks and outputs only.

    `inputs` are the names of the run inputs that the plan reads; their values are never kept. `run` is where the pair
    is from, for people.
    """

    request: str
    plan: str
    inputs: tuple[str, ...] = ()
    run: int = 0


def example_of(request: str, plan: Plan, run: int = 0) -> Example | None:
    """The pair as it may be shown; None where the plan needs more than a planner may write: other keys, a secret.

    Read back by the parser before it is given, so an example can't be malformed.
    """
    document = plan_document(plan)
    if any(key in task for task in document["tasks"] for key in _MORE):
        return None
    if any(secret for task in document["tasks"] for secret in secrets_in(task.get("args"))):
        return None
    shown = {"tasks": [{key: task[key] for key in _KEYS if key in task} for task in document["tasks"]]}
    if plan.outputs:
        shown["outputs"] = document["outputs"]
    text = msgspec.json.encode(shown).decode()
    named = tuple(sorted(_inputs(plan)))
    try:
        parse_plan(text, limits=PLANNER_LIMITS, inputs=named)
    except AsterismError:
        return None
    return Example(" ".join(request.split()), text, named, run)


def tells_secret(text: str) -> bool:
    """Whether it looks as if a credential stands in it. Usual forms only: it guards against carelessness."""
    return _SECRET.search(text) is not None


def usable(example: Example, skills: Collection[str]) -> bool:
    """Whether the plan still reads, and every skill of it is there."""
    try:
        plan = parse_plan(example.plan, limits=PLANNER_LIMITS, inputs=example.inputs)
    except AsterismError:
        return False
    return all(task.skill in skills for task in plan.tasks)


def difficulty(request: str) -> int:
    """How many examples a request may need, 1 to MOST: one, and one more for every second sign of a further step."""
    return min(MOST, 1 + (len(_STEP.findall(request[:4000])) + 1) // 2)


def tokens(example: Example) -> int:
    """What showing it costs, estimated on the high side."""
    return (len(example.request.encode()) + len(example.plan.encode())) // _BYTES_A_TOKEN + 8


def rank(request: str, examples: Iterable[Example]) -> list[tuple[float, Example]]:
    """Each with its likeness to the request, 0 to 1, the likest first; equals in the order given."""
    pool = list(examples)
    bags = [_terms(one.request) for one in pool]
    wanted = _terms(request)
    weight = _weights([*bags, wanted])
    scored = [(_cosine(wanted, bag, weight), one) for bag, one in zip(bags, pool, strict=True)]
    return sorted(scored, key=lambda pair: -pair[0])


def choose(
    request: str,
    examples: Sequence[Example],
    *,
    skills: Collection[str] | None = None,
    most: int = MOST,
    budget: int = TOKENS,
) -> tuple[Example, ...]:
    """As many as the request needs, the likest first, within `budget` tokens; with `skills`, usable ones only.

    The second and later ones have to cover words of the request that those before leave open.
    """
    ranked = [(score, one) for score, one in rank(request, examples) if score >= LEAST]
    wanted = _terms(request)
    weight = _weights([_terms(one.request) for _, one in ranked] + [wanted])
    total = sum(weight[term] for term in wanted) or 1.0
    open_terms, left = set(wanted), budget
    found: list[Example] = []
    limit = min(most, difficulty(request))
    for score, one in ranked:
        if len(found) >= limit:
            break
        covered = open_terms & _terms(one.request).keys()
        if tokens(one) > left or (found and sum(weight[term] for term in covered) / total < _GAIN):
            continue
        if skills is not None and not usable(one, skills):
            continue
        found.append(one)
        left -= tokens(one)
        open_terms -= covered
        if score >= SAME:
            break
    return tuple(found)


def key_of(request: str) -> str:
    """Equal for requests that differ only in case, blanks and the mark at their end: they are one example."""
    return " ".join(request.casefold().split()).rstrip(".!? ")


def _inputs(plan: Plan) -> set[str]:
    found = {line.ref for task in plan.tasks for line in task.when}
    for task in plan.tasks:
        for one in references(msgspec.json.decode(task.args)):
            found |= set(one.refs) if isinstance(one, FirstOf) else {one}
    return {ref.path[0] for ref in found if ref.source == INPUT and ref.path}


def _terms(text: str) -> Counter[str]:
    """Stems of the words; of a script without spaces, pairs of letters."""
    found: Counter[str] = Counter()
    for word in _WORD.findall(text[:4000].casefold()):
        if word.isascii():
            if word not in STOP:
                found[stem(word)] += 1
        else:
            found.update(word[i : i + 2] for i in range(max(1, len(word) - 1)))
    return found


def _weights(bags: Sequence[Counter[str]]) -> dict[str, float]:
    seen = Counter(term for bag in bags for term in bag)
    return {term: math.log(1 + len(bags) / n) for term, n in seen.items()}


def _cosine(one: Counter[str], other: Counter[str], weight: dict[str, float]) -> float:
    both = sum(weight[term] ** 2 for term in one.keys() & other.keys())
    norm = _square(one, weight) * _square(other, weight)
    return both / math.sqrt(norm) if norm else 0.0


def _square(bag: Counter[str], weight: dict[str, float]) -> float:
    return sum(weight[term] ** 2 for term in bag)
