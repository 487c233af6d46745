"""Every way in which a call to a model goes wrong, by name: the matrix that clients are tested and measured against.

Each is the same reply with one thing broken. Invariant: those in `ENDLESS` never end by themselves, all others do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .dialogue import HEAD, Fault, Turn

_HTML: Final = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
_WHOLE: Final = 1 << 30
_STILL: Final = ("stall", "heartbeat", "hollow")
_FAULTS: Final[Mapping[str, tuple[Fault, ...]]] = {
    "no byte of a reply": (Fault("stall", HEAD),),
    "hangs up before the reply": (Fault("cut", HEAD),),
    "resets before the reply": (Fault("reset", HEAD),),
    "headers byte by byte": (Fault("drip", seconds=0.5),),
    "stall before the first token": (Fault("stall"),),
    "stall within": (Fault("stall", 5),),
    "stall after the last token": (Fault("stall", _WHOLE),),
    "only comments": (Fault("heartbeat"),),
    "only comments, within": (Fault("heartbeat", 5),),
    "only empty deltas": (Fault("hollow"),),
    "only empty deltas, within": (Fault("hollow", 5),),
    "cut before the first token": (Fault("cut"),),
    "cut within": (Fault("cut", 5),),
    "cut after the last token": (Fault("cut", _WHOLE),),
    "reset within": (Fault("reset", 5),),
    "error in the stream": (Fault("error", 5),),
    "event that is no JSON": (Fault("garbage", 5),),
    "event of another shape": (Fault("garbage", 5, text='{"choices":[{"delta":7}]}'),),
    "event that is a list": (Fault("garbage", 5, text="[1,2]"),),
    "broken chunks": (Fault("broken", 5),),
}
_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "no [DONE]": {"done": False},
    "no finish reason": {"finish": "none"},
    "no finish reason and no [DONE]": {"finish": "none", "done": False},
    "truncated": {"finish": "length"},
    "filtered": {"finish": "content_filter"},
    "refusal": {"text": "", "refusal": "I can't help with that."},
    "empty": {"text": ""},
    "blank": {"text": " \n\n"},
    "empty plan": {"text": '{"tasks":[],"outputs":[]}'},
    "prose": {"text": "I would start by looking at the files and then count what is in them."},
    "endless": {"endless": True, "rate": 2000.0},
    "endless blanks": {"text": "\n", "endless": True, "rate": 2000.0},
    "one document though a stream was asked for": {"unstreamed": True},
    "CRLF": {"newline": "\r\n"},
    "bytes cut anywhere": {"split": 3},
    "400": {"status": 400, "error": "context length exceeded"},
    "401": {"status": 401},
    "403": {"status": 403},
    "404": {"status": 404},
    "429": {"status": 429, "headers": (("retry-after", "1"),)},
    "429 for an hour": {"status": 429, "headers": (("retry-after", "3600"),)},
    "429 without a time": {"status": 429},
    "500": {"status": 500},
    "502 in HTML": {"status": 502, "body": _HTML, "headers": (("content-type", "text/html"),)},
    "503": {"status": 503, "headers": (("retry-after", "1"),)},
    "200 in HTML": {"body": _HTML, "headers": (("content-type", "text/html"),)},
    "redirect": {"status": 307, "headers": (("location", "http://127.0.0.1:9/v1/chat/completions"),)},
}
ENDLESS: Final = frozenset(
    {name for name, row in _FAULTS.items() if any(not one.seconds and one.kind in _STILL for one in row)}
    | {name for name, row in _FIELDS.items() if row.get("endless")}
)


def mishaps(turn: Turn) -> dict[str, Turn]:
    """This turn with each mishap."""
    fields = {**{name: {"faults": row} for name, row in _FAULTS.items()}, **_FIELDS}
    return {name: msgspec.structs.replace(turn, **row) for name, row in fields.items()}
