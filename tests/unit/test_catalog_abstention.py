"""The catalog planner rather abstains than guesses: requests that no skill serves, and served ones with a word more."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bench.planner.outside import OUTSIDE
from bench.planner.pattern import FLEET, PATTERNS
from planner.catalog_planner import CatalogPlanner
from planner.template import load_templates, shipped_folder
from planner.view import PlanView, WorkerView
from protocol.builtin import BUILTINS
from protocol.plan import parse_plan
from protocol.task import TaskSpec

PLANNER = CatalogPlanner(load_templates([shipped_folder()])[0])

SERVED = (
    "find *.log in logs",
    "count the lines in notes.txt",
    "count ERROR in logs/*.log",
    "find *.log in logs and count ERROR in each",
    "find *.log in logs, then count ERROR in each and hash each, then write a report called Errors",
    "pack a.txt, b.txt and c.txt into out.tar.gz",
    "fetch https://example.com and save it as page.html",
    "compute the sha256 of a.bin",
    'search server.log for "timeout"',
    "count the errors in logs",
    "read data.csv as csv",
    "hash every file in src",
    "find *.log in logs then pack them into logs.zip",
    "copy a.log on pi-1 to b.log on pi-2, then hash it",
    "hash a.bin. If bytes is 9 or more, unpack b.zip",
)
BEHIND = (
    """
but only on Mondays;and tell Bob;unless it is raining;if it exists;every hour;tomorrow;at 5pm;twice;three times
without reading it;and delete it afterwards;except the first;in reverse;sorted by name;as JSON;in German;for my boss
until it works;instead of b.txt;or something like that;with md5;as root;and then email it;since yesterday
with a password;recursively;and plot it;, which is large;on my phone;larger than 1 MB;in the background;per hour
only if it changed;then do it again;and so on;then summarise it;, then sort it;with all subfolders;as a table
and notify me;then stop;ignoring case;older than 2 days;or not;again;into my b.zip;each other;some more
""".replace("\n", ";")
    .strip(";")
    .split(";")
)
BEFORE = (
    """
don't;never;if it is Monday;tomorrow;why;how do I;who can;pretend to;after lunch;do not;explain how to
write a script to;teach me to;remind me to;I already;what happens when I;every day at 9;ask Bob to;tell me how to
is it safe to;let somebody;no need to;either;two times;unless I say so,;you must not;or;would you rather;some;my
""".replace("\n", ";")
    .strip(";")
    .split(";")
)
BETWEEN = """
not no never only except without or than if unless my our two last another other same new old some few most random empty
half both neither again quickly sheep any even almost about over under before during until since because instead against
me you who which what when where why how do does did will would could should can may must
""".split()  # noqa: SIM905


def tasks(request: str) -> tuple[TaskSpec, ...] | None:
    """What is planned; None if the planner abstains."""
    decided = PLANNER.decide(PlanView(request, skills=BUILTINS, fleet=tuple(map(WorkerView, FLEET))))
    return (
        None
        if decided.outcome.kind == "abstained"
        else tuple(task for patch in decided.patches for task in patch.tasks)
    )


def test_what_no_skill_serves_is_left_alone() -> None:
    wrong = [request for request in OUTSIDE if tasks(request) is not None]
    assert len(set(OUTSIDE)) == len(OUTSIDE) >= 500
    assert len(wrong) <= 0.01 * len(OUTSIDE), wrong


@pytest.mark.parametrize("request_text", PATTERNS)
def test_every_documented_pattern_is_its_exact_graph(request_text: str) -> None:
    assert tasks(request_text) == parse_plan(PATTERNS[request_text]).tasks


@pytest.mark.parametrize("request_text", SERVED)
def test_what_is_added_before_or_behind_is_never_dropped(request_text: str) -> None:
    assert tasks(request_text)
    more = [f"{request_text} {one}" for one in BEHIND] + [f"{one} {request_text}" for one in BEFORE]
    assert [one for one in more if tasks(one) is not None] == []


@pytest.mark.parametrize("request_text", SERVED)
def test_a_word_between_is_never_dropped(request_text: str) -> None:
    words = request_text.split()
    said = [
        " ".join([*words[:at], word, *words[at:]])
        for at, word in itertools.product(range(1, len(words)), BETWEEN)
        if '"' not in request_text or not words[at - 1].startswith('"')
    ]
    assert [one for one in said if tasks(one) is not None] == []


@pytest.mark.parametrize(
    "request_text",
    """
    count ERROR in logs/*.log on all machines
    find *.log in logs and count ERROR in each on pi-1
    hash a.txt on pi-1 and hash b.txt
    count ERROR in logs/*.log on pi-1, then hash b.txt
    hash a.txt on pi-3
    hash a.txt on pi-1 and pi-3
    find *.log in logs, then hash each from pi-1
    unzip a.zip and save it as b
    run the command "date" and save it as date.txt
    count ERROR in a.log, then save the report as a.md
    hash a.txt and count the lines in b.txt and save it as c.json
    fetch https://example.com/a.csv, then read it as csv and query it with "select 1"
    find *.txt in docs and find *.log in logs and hash each
    save a.txt as pdf
    copy logs/*.log to all.log
    copy a.log on pi-1 to b.log on pi-1 and pi-2
    hash a.txt on pi-1 and b.txt on pi-2
    show the system information of pi-1 on pi-2
    find *.log in logs from pi-1 on pi-2
    find *.log in logs on pi-1 and pi-2, then pack each into logs.zip
    hash a.txt, then unpack the archive
    hash a.txt and hash b.txt, then save the hash as c.json
    hash a.txt and call it x, hash b.txt and call it x
    hash a.txt and hash b.txt, then call them x
    read a.csv as csv, then query it with "select x from b"
    read a.csv as csv and read b/a.csv as csv, then query them with "select x from a"
    read a.csv as csv, then hash b.txt, then query it with "select x from a"
    find *.log in logs, then count ERROR in each, then query them with "select matches from count", then hash each
    if n is more than 20, hash a.txt
    hash a.txt. If n is more than 20, hash b.txt
    hash a.txt. If sha256 is more than 20, hash b.txt
    hash a.txt and hash b.txt. If bytes is more than 20, hash c.txt
    read a.csv as csv, then query it with "select x from a". If x is 3, hash b.txt
    hash a.txt. If bytes is more than 20, hash b.txt. Then hash c.txt
    hash a.txt. If bytes is more than 20 or so, hash b.txt
    hash a.txt. If bytes is more than 20, hash b.txt, otherwise hash c.txt, otherwise hash d.txt
    hash a.txt. Otherwise hash b.txt
    count ERROR in a.log. If matches is more than 3, ask me "Page?". Then save it as x.json
    count ERROR in a.log. If matches is more than 3, ask me "Page?". Then write a report called Errors
    hash a.txt and call it x. If bytes of y is 3, hash b.txt
    hash a.txt and unpack b.zip once I have approved it
    hash a.txt once Bob has approved it
    hash a.txt or, if that fails, hash b.txt
    hash a.txt or, if that fails, unpack a.txt
    hash a.txt unless bytes is more than 20
    """.strip().splitlines(),
)  # fmt: skip
def test_what_could_mean_two_things_is_left_alone(request_text: str) -> None:
    assert tasks(request_text.strip()) is None


def test_the_page_shows_only_patterns_that_are_held() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "catalog-planner.md"
    shown = [line for block in page.read_text().split("```text\n")[1:] for line in block.split("\n```")[0].splitlines()]
    assert len(shown) > 25
    assert set(shown) <= set(PATTERNS)
