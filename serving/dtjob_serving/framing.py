"""How much of what a stranger sends is parsed: one request at a time, of lengths known before.

aiohttp parses all that a read has brought, up to 256 KiB, before a handler can refuse any of it. A
chunk of a body costs it Python's time, and a chunk may be of one byte; so do a trailer, and each
request that is sent before the last is answered.
"""

from __future__ import annotations

import re
from http import HTTPStatus

HEAD_BYTES = 16 * 1024
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n")


class Unwanted(Exception):
    """The connection is closed, with this answer if one can be given."""

    def __init__(self, status: HTTPStatus | None = None) -> None:
        super().__init__(status)
        self.status = status


class Framing:
    """What of a connection's bytes is passed on to the parser. Pure.

    It looks into a head only for the length of the body, and passes on no more than that. So a head
    that the parser reads differently gets it no byte more.
    """

    def __init__(self, body_bytes: int) -> None:
        self._most = body_bytes
        self._head = bytearray()
        self._to_come = 0
        self._asked = False

    def answered(self) -> None:
        """The answer is about to be sent, after which the next request may come."""
        self._asked = False

    def passed(self, data: bytes) -> bytes:
        """What can be parsed now that `data` has come: more of a body, or a head with its own.

        Raises
        ------
        Unwanted
            Nothing of this connection is parsed any more.
        """
        body, rest = self._of_body(data)
        if not rest:
            return body
        if self._asked:
            raise Unwanted  # an answer would be taken for that of the request before
        searched = max(0, len(self._head) - len(_END))
        self._head += rest
        end = self._head.find(_END, searched, HEAD_BYTES)
        if end < 0:
            if len(self._head) >= HEAD_BYTES:
                raise Unwanted(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return body
        end += len(_END)
        head, rest = bytes(self._head[:end]), bytes(self._head[end:])
        self._head.clear()
        self._to_come = self._length(head)
        self._asked = True
        body, rest = self._of_body(rest)
        if rest:
            raise Unwanted
        return head + body

    def _of_body(self, data: bytes) -> tuple[bytes, bytes]:
        body, rest = data[: self._to_come], data[self._to_come :]
        self._to_come -= len(body)
        return body, rest

    def _length(self, head: bytes) -> int:
        head = head.lower()
        if b"transfer-encoding" in head:
            raise Unwanted(HTTPStatus.LENGTH_REQUIRED)
        if head.lstrip().startswith(b"connect"):
            # The parser takes what follows for no body, whatever its length, and parses it later.
            raise Unwanted(HTTPStatus.METHOD_NOT_ALLOWED)
        length = int(declared[1]) if (declared := _LENGTH.search(head)) else 0
        if length > self._most:
            raise Unwanted(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return length
