"""What an emulated server refuses before any token: a wrong key, model, parameter, tool name or schema.

Invariant: pure; whatever JSON the request is, there is an answer. Statuses, codes and words are those of the servers.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from .constraint import strict_refusal
from .emulation import Emulation

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Refusal(msgspec.Struct, frozen=True):
    """An error reply. `param` is the parameter that is wrong."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None

    def document(self) -> dict[str, Any]:
        kinds = {429: "rate_limit_error", 401: "authentication_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def wrong_key(header: str, key: str) -> Refusal | None:
    """Refuses a request whose `authorization` is not this key; like the real one it repeats some of what it got."""
    given = header.removeprefix("Bearer ")
    if not key or given == key:
        return None
    if not given:
        return Refusal(401, "You didn't provide an API key.")
    return Refusal(401, f"Incorrect API key provided: {given[:8]}***{given[-4:]}.", "invalid_api_key")


def refused(body: Any, manner: Emulation, models: tuple[str, ...]) -> Refusal | None:
    """The first thing in a chat request that this server doesn't take."""
    if not isinstance(body, dict):
        return Refusal(400, "We could not parse the JSON body of your request.")
    model, messages = body.get("model"), body.get("messages")
    if manner.names and model not in models:
        return Refusal(404, f"The model `{model}` does not exist or you do not have access to it.", "model_not_found")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        return Refusal(400, "Missing required parameter: 'messages'.", "missing_required_parameter", "messages")
    for name in manner.refuses:
        if body.get(name) is not None:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            return Refusal(400, message, "unsupported_parameter", name)
    return _form(body.get("response_format"), manner) or _tools(body.get("tools"), manner)


def _form(form: Any, manner: Emulation) -> Refusal | None:
    if form is None or (isinstance(form, dict) and form.get("type") in ("text", "json_object")):
        return None
    inner = form.get("json_schema") if isinstance(form, dict) and form.get("type") == "json_schema" else None
    if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
        return Refusal(400, "Missing required parameter: 'response_format.json_schema'.", None, "response_format")
    if not manner.strict:
        return None
    name = inner.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return Refusal(400, "Invalid 'response_format.json_schema.name'.", "invalid_value", "response_format")
    why = strict_refusal(inner["schema"]) if inner.get("strict") else ""
    message = f"Invalid schema for response_format '{name}': {why}"
    return Refusal(400, message, "invalid_json_schema", "response_format") if why else None


def _tools(tools: Any, manner: Emulation) -> Refusal | None:
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        where = f"tools[{number}].function"
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not isinstance(function, dict):
            return Refusal(400, f"Missing required parameter: '{where}.name'.", "missing_required_parameter", where)
        if not manner.dots and not _NAME.fullmatch(name):
            message = f"Invalid '{where}.name': string does not match pattern '^[a-zA-Z0-9_-]+$'."
            return Refusal(400, message, "invalid_value", f"{where}.name")
        why = strict_refusal(function.get("parameters")) if manner.strict and function.get("strict") else ""
        if why:
            message = f"Invalid schema for function '{name}': {why}"
            return Refusal(400, message, "invalid_function_parameters", f"{where}.parameters")
    return None
