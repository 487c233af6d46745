"""Server-sent events, sans-I/O: bytes in, the data of whole events out.

After the HTML standard, section 9.2.6: lines end in LF, CRLF or CR, wherever the bytes were split. An event that no
blank line ended is no event there; here it counts when the stream ends, because servers forget the last one. A line
has a limit. It must not know what the data means.
"""

from __future__ import annotations

from typing import Final

from .errors import WireError

MAX_EVENT_BYTES: Final = 4 * 1024**2


_FIELDS: Final = frozenset((b"", b"data", b"event", b"id", b"retry", b"error"))


class EventStream:
    """Feed it what arrives. Cost is linear in the bytes. `strange`: a line was none of an event stream."""

    def __init__(self) -> None:
        self.strange = False
        self._rest = bytearray()
        self._after_cr = False
        self._data: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that is whole now. Raises: WireError for one that is too large."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if not chunk:
            return []
        found: list[bytes] = []
        self._after_cr = chunk.endswith(b"\r")
        *lines, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if self._rest:
                line = bytes(self._rest) + line
                self._rest.clear()
            self._take(line, found)
        self._rest += rest
        self._bound()
        return found

    def end(self) -> list[bytes]:
        """What the stream had not ended with a blank line."""
        found: list[bytes] = []
        strange, rest = self.strange, bytes(self._rest)
        self._rest.clear()
        self._take(rest, found)
        self.strange = strange  # a field's name may be cut
        self._take(b"", found)
        return found

    def _take(self, line: bytes, found: list[bytes]) -> None:
        if line:
            field, _, value = line.partition(b":")
            if field in (b"data", b"error"):  # old builds of llama.cpp write their errors as a field of that name
                self._data.append(value.removeprefix(b" "))
                self._held += len(value)
                self._bound()
            self.strange = self.strange or field not in _FIELDS
        elif self._data:
            found.append(b"\n".join(self._data))
            self._data, self._held = [], 0

    def _bound(self) -> None:
        if self._held + len(self._rest) > MAX_EVENT_BYTES:
            raise WireError(f"one event is larger than {MAX_EVENT_BYTES // 1024**2} MiB")
