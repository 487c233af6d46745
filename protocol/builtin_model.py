"""The built-in skills that ask a language model, as data; and what to say where no worker has one.

Only a worker whose own settings name a model announces them: a plan says what to ask, never whom. Their answers are
anybody's text, so they are tainted. `agent.run` acts through children of its task alone, each with the effect, the
policy and the approval of its own skill; what it does itself may be done twice.
"""

from __future__ import annotations

from typing import Final

from .resource import Resources
from .schema_form import FILE, INTEGER, LIST, RECORD, TEXT, either, many, record, says
from .skill import SkillSpec, Variant

_WAITS: Final = (Variant("cpu", Resources(cpu=0.25)),)
_DATA: Final = either(FILE, TEXT, LIST, RECORD)
_CALL_S: Final = 600.0

_WARM_S: Final = 300.0
"""What a model server has cached of a prompt is gone after about so long."""

MODEL_BUILTINS: Final[tuple[SkillSpec, ...]] = (
    SkillSpec(
        name="llm.ask",
        doc="Asks the worker's language model, about data if some is given, and gives its answer as text.",
        params=record(
            prompt=says(TEXT, "what to ask or to write"),
            data=says({**_DATA, "nullable": True}, "text, rows, an object or a text file it is about", None),
        ),
        result=record(text=TEXT),
        effect="pure",
        variants=_WAITS,
        timeout_s=_CALL_S,
        tainted=True,
        spends=True,
        warm_s=_WARM_S,
        examples=("ask the model {prompt}", "ask the model {prompt} about {data}", "summarize {data}"),
        tags=("llm", "model", "prompt", "summarize", "translate", "explain", "draft"),
        network=True,
    ),
    SkillSpec(
        name="llm.classify",
        doc="Lets the worker's language model choose one of the given answers to a question about data.",
        params=record(
            question=says(TEXT, "what to decide"),
            data=says(_DATA, "what to decide it on"),
            choices=says(many(TEXT), "the answers, at least two"),
        ),
        result=record(choice=TEXT),
        effect="pure",
        variants=_WAITS,
        timeout_s=_CALL_S,
        tainted=True,
        spends=True,
        warm_s=_WARM_S,
        examples=("classify {data} as {choices}", "decide {question} for {data} among {choices}"),
        tags=("llm", "model", "classify", "label", "sentiment", "triage", "route"),
        network=True,
    ),
    SkillSpec(
        name="llm.extract",
        doc="Lets the worker's language model read the named fields out of data.",
        params=record(
            data=says(_DATA, "what to read"),
            fields=says(
                RECORD,
                "by name: string, integer, number or boolean, as TYPE[] for several, TYPE? if it may be missing; "
                "or a list of allowed texts",
            ),
        ),
        result=RECORD,
        effect="pure",
        variants=_WAITS,
        timeout_s=_CALL_S,
        tainted=True,
        spends=True,
        warm_s=_WARM_S,
        examples=("extract the fields {fields} from {data}", "read {fields} out of {data} with the model"),
        tags=("llm", "model", "extract", "parse", "fields", "structure"),
        network=True,
    ),
    SkillSpec(
        name="agent.run",
        doc="Lets the worker's language model work towards a goal with some of that worker's skills as its tools.",
        params=record(
            goal=says(TEXT, "what is to be reached"),
            skills=says(many(TEXT), "full names of the skills it may use"),
            data=says({**_DATA, "nullable": True}, "what it works on", None),
            steps=says(INTEGER, "most calls of the model", 12),
            tokens=says(INTEGER, "most tokens of all calls", 200_000),
        ),
        result=record(text=TEXT, steps=INTEGER, calls=INTEGER, tokens=INTEGER),
        effect="idempotent",
        variants=_WAITS,
        tainted=True,
        spends=True,
        warm_s=_WARM_S,
        cached=False,
        spawns=("@skills",),
        sinks=("skills",),
        examples=("let an agent {goal} with {skills}", "work towards {goal} using {skills}"),
        tags=("llm", "model", "agent", "tools", "loop", "autonomous"),
        network=True,
    ),
)

MODEL_SKILLS: Final = frozenset(spec.name for spec in MODEL_BUILTINS)
"""Who may not be offered by a worker without a model, and whose host alone is given its key."""
NO_MODEL: Final = "has no model"
NO_MODEL_FIX: Final = "set OPENAI_API_KEY, or llm.base_url for a server of your own, where the worker starts"
