"""What a model server's refusal means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.chat_fault import Refusal, refused, retry_after_s, said_in_stream


def answer(status: int, body: Any = None, **headers: str) -> Refusal:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refusal(status, named, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "no"}}, "bad_request"),
        (401, None, "unauthorized"),
        (402, {"error": {"message": "Insufficient Balance"}}, "rate_limited"),
        (403, b"<html>", "unauthorized"),
        (404, {"error": {"code": "model_not_found", "message": "The model `x` does not exist"}}, "no_model"),
        (404, {"error": 'model "x" not found, try pulling it first'}, "no_model"),
        (404, {"detail": "Not Found"}, "bad_request"),
        (408, None, "server_error"),
        (422, {"detail": [{"loc": ["body"]}]}, "bad_request"),
        (429, {"error": {"message": "slow down"}}, "rate_limited"),
        (500, b"", "server_error"),
        (529, b"\xff\xfe", "server_error"),
        (302, b"", "unreachable"),
    ],
)
def test_each_status_has_its_kind_and_a_hint(status: int, body: Any, kind: str) -> None:
    reply = refused(answer(status, body))
    assert reply.kind == kind
    assert reply.hint
    assert str(status) in reply.message or kind == "unreachable"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([{"error": {"message": "in a list"}}], "in a list"),
        ({"detail": [{"msg": "not permitted", "loc": ["body", "stream_options"]}]}, "stream_options"),
        ({"object": "error", "message": "flat"}, "flat"),
        ({"error": "bare"}, "bare"),
        (b"plain text", "plain text"),
    ],
)
def test_what_a_server_says_is_found_in_every_form(body: Any, said: str) -> None:
    assert said in refused(answer(400, body)).message


def test_another_s_text_is_shortened() -> None:
    assert len(refused(answer(500, {"error": {"message": "x" * 5000}})).message) < 400
    assert len(said_in_stream({"message": "x" * 5000}).message) < 400


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_in_every_form(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after_s(headers, 40.0) == wait


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "a"}, "rate_limited"),
        ({"type": "rate_limit_error"}, "rate_limited"),
        ({"code": "overloaded"}, "rate_limited"),
        ({"code": 400, "message": "context"}, "bad_request"),
        ({"message": "gone"}, "server_error"),
        ("gone", "server_error"),
        (7, "server_error"),
    ],
)
def test_an_error_within_a_stream_has_its_kind(error: Any, kind: str) -> None:
    assert said_in_stream(error).kind == kind
