"""Frames and requests to protobuf bytes and back: the one importer of the generated code.

Decoding is total: any bytes become a noun or a WireError, never another exception, and what comes out is within the
limits below. Bytes that are JSON go in as they are and are checked on the way out. It must not know streams, sessions
or who is allowed to say what. METHODS names every RPC, so that transport needs no generated services.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from itertools import groupby
from typing import Any, Final, Literal

import msgspec
from google.protobuf.message import DecodeError

from protocol._pb import asterism_v1_pb2

from .artifact import CHUNK_BYTES, Content
from .errors import WireError
from .frame import Frame, Item
from .item_codec import ITEMS
from .link import ITEMS_LIMIT, MESSAGE_LIMIT
from .message_form import Part, form, listed, texts
from .packed import PACKED_AS, UNPACK, pack

pb: Any = asterism_v1_pb2

_FAULTS: Final = (DecodeError, msgspec.MsgspecError, ValueError, TypeError, KeyError, OverflowError, RecursionError)
_PUT: Final = {kind: (name, item.put) for kind, name, item in ITEMS}
_TAKE: Final = {name: item.take for _, name, item in ITEMS}


def encode_frame(frame: Frame) -> bytes:
    """Raises: WireError for what can't travel (a number out of range, text with surrogates, over MESSAGE_LIMIT)."""
    try:
        message = pb.Frame(n=frame.n, seen=frame.seen)
        add = message.items.add
        for kind, group in groupby(frame.items, type):
            if frame.packed and kind in PACKED_AS:
                setattr(add(), PACKED_AS[kind], pack(tuple(group)))
                continue
            name, put = _PUT[kind]
            for item in group:
                body = getattr(add(), name)
                body.SetInParent()
                put(body, item)
        data: bytes = message.SerializeToString()
    except _FAULTS as error:
        raise WireError(f"a frame can't be encoded: {_told(error)}") from error
    if len(data) > MESSAGE_LIMIT:
        raise WireError(f"a frame of {len(data)} bytes is over the limit of {MESSAGE_LIMIT}")
    return data


def decode_frame(data: bytes) -> Frame:
    """Raises: WireError, and nothing else, whatever the bytes are."""
    if len(data) > MESSAGE_LIMIT:
        raise WireError(f"a frame of {len(data)} bytes is over the limit of {MESSAGE_LIMIT}")
    try:
        message = pb.Frame.FromString(data)
        items: list[Item] = []
        for item in message.items:
            name = item.WhichOneof("body")
            if name is None:
                raise WireError("an item of a kind that this version doesn't know")
            if name in UNPACK:
                items += UNPACK[name](getattr(item, name))
            else:
                items.append(_TAKE[name](getattr(item, name)))
            if len(items) > ITEMS_LIMIT:
                raise WireError(f"a frame of {len(items)} items or more, {ITEMS_LIMIT} are allowed")
        return Frame(message.n, message.seen, tuple(items))
    except WireError:
        raise
    except _FAULTS as error:
        raise WireError(f"a frame can't be decoded: {_told(error)}") from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


# The other messages: structs of their own, since only transport and loopback see them


class Invocation(msgspec.Struct, frozen=True):
    method: str
    body: bytes


class Answer(msgspec.Struct, frozen=True):
    body: bytes


class SubmitPart(msgspec.Struct, frozen=True):
    """The first has the header; without a `last` one the submission was cut off."""

    header: bytes = b""
    data: bytes = b""
    last: bool = False


class PutPart(msgspec.Struct, frozen=True):
    """The first names the content and where the data starts; without a `last` one the rest comes later."""

    digest: str = ""
    media: str = ""
    offset: int = 0
    data: bytes = b""
    last: bool = False


class ArtifactAsk(msgspec.Struct, frozen=True):
    digest: str
    offset: int = 0


class Holding(msgspec.Struct, frozen=True):
    """Bytes already held; -1: all of them."""

    size: int


class Chunk(msgspec.Struct, frozen=True):
    data: bytes


class Bundle(msgspec.Struct, frozen=True):
    """Small contents. On its way up, without a `last` one the rest was cut off."""

    contents: tuple[Content, ...] = ()
    last: bool = False


class ArtifactsAsk(msgspec.Struct, frozen=True):
    digests: tuple[str, ...]


class Holdings(msgspec.Struct, frozen=True):
    """As Holding, for each digest asked for, in that order."""

    sizes: tuple[int, ...]


class Refusal(msgspec.Struct, frozen=True):
    """Why one content was not taken: `error` is its wire JSON."""

    digest: str
    error: bytes


class Refusals(msgspec.Struct, frozen=True):
    refused: tuple[Refusal, ...] = ()


class Codec(msgspec.Struct, frozen=True):
    """Both ways of one kind of message; either raises WireError and nothing else."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class Method(msgspec.Struct, frozen=True):
    """One RPC: how its messages stream, and their codecs."""

    kind: Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
    request: Codec
    response: Codec


def _codec(kind: type[Any], *fields: str | Part) -> Codec:
    message_form = form(kind, *(fields or kind.__struct_fields__))
    message_kind = getattr(pb, kind.__name__)

    def encode(value: Any) -> bytes:
        message = message_kind()
        try:
            message_form.put(message, value)
            data: bytes = message.SerializeToString()
        except _FAULTS as error:
            raise WireError(f"{kind.__name__} can't be encoded: {_told(error)}") from error
        return data

    def decode(data: bytes) -> Any:
        try:
            return message_form.take(message_kind.FromString(data))
        except _FAULTS as error:
            raise WireError(f"{kind.__name__} can't be decoded: {_told(error)}") from error

    return Codec(encode, decode)


_FRAME: Final = Codec(encode_frame, decode_frame)
_ANSWER: Final = _codec(Answer)
_BUNDLE: Final = _codec(Bundle, listed("contents", form(Content, "digest", "media", "data")), "last")
_ASKS: Final = _codec(ArtifactsAsk, texts("digests"))

SERVICE: Final = "asterism.v1.Asterism"
METHODS: Final[dict[str, Method]] = {
    "Link": Method("stream_stream", _FRAME, _FRAME),
    "Invoke": Method("unary_unary", _codec(Invocation), _ANSWER),
    "Watch": Method("unary_stream", _codec(Invocation), _ANSWER),
    "Submit": Method("stream_unary", _codec(SubmitPart), _ANSWER),
    "Put": Method("stream_unary", _codec(PutPart), _codec(Holding)),
    "Has": Method("unary_unary", _codec(ArtifactAsk), _codec(Holding)),
    "Get": Method("unary_stream", _codec(ArtifactAsk), _codec(Chunk)),
    "PutMany": Method("stream_unary", _BUNDLE, _codec(Refusals, listed("refused", form(Refusal, "digest", "error")))),
    "HasMany": Method("unary_unary", _ASKS, _codec(Holdings, texts("sizes"))),
    "GetMany": Method("unary_stream", _ASKS, _BUNDLE),
}


async def cut(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in chunks of at most CHUNK_BYTES."""
    async for chunk in chunks:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]
