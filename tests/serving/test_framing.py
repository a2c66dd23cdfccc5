"""What of a connection's bytes is parsed, whatever they are and however they come."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from dtjob_serving.framing import HEAD_BYTES, Framing, Unwanted

REQUESTS = [
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\ncontent-length:  6 \r\n\r\nwords\n",
    b"POST / HTTP/1.1\r\nContent-Length: 4\r\nHost: x\r\n\r\n\r\n\r\n",
]


def status(sent: bytes) -> HTTPStatus | None:
    with pytest.raises(Unwanted) as refusal:
        Framing(10).passed(sent)
    return refusal.value.status


@pytest.mark.parametrize("step", [1, 2, 3, 5, 17, 1000])
def test_requests_are_passed_on_as_they_are(step: int) -> None:
    framing = Framing(10)
    for request in REQUESTS:
        pieces = [request[start : start + step] for start in range(0, len(request), step)]
        assert b"".join(map(framing.passed, pieces)) == request
        framing.answered()


def test_a_head_comes_as_a_whole() -> None:
    framing = Framing(10)
    head, body = REQUESTS[1][:-6], REQUESTS[1][-6:]
    assert framing.passed(head[:-1]) == b""
    assert framing.passed(head[-1:] + body[:2]) == head + body[:2]
    assert framing.passed(body[2:]) == body[2:]


@pytest.mark.parametrize("first", REQUESTS)
def test_the_next_request_waits_for_the_answer(first: bytes) -> None:
    assert status(first + b"G") is None
    framing = Framing(10)
    framing.passed(first)
    with pytest.raises(Unwanted):
        framing.passed(b"G")


@pytest.mark.parametrize("too_many", [0, 1])
def test_a_head_has_so_many_bytes(too_many: int) -> None:
    start, end = b"GET / HTTP/1.1\r\nA: ", b"\r\n\r\n"
    head = start + b"x" * (HEAD_BYTES - len(start) - len(end) + too_many) + end
    if too_many:
        assert status(head) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    else:
        assert Framing(10).passed(head) == head


def test_a_head_that_does_not_end_is_kept_up_to_its_bound() -> None:
    framing = Framing(10)
    assert framing.passed(b"x" * (HEAD_BYTES - 1)) == b""
    with pytest.raises(Unwanted):
        framing.passed(b"x")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"Content-Length: 10", None),
        (b"Content-Length: 11", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b"Content-Length: 11\r\nContent-Length: 1", HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b"TRANSFER-encoding : chunked", HTTPStatus.LENGTH_REQUIRED),
        (b"A: b\nTransfer-Encoding: chunked", HTTPStatus.LENGTH_REQUIRED),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked", HTTPStatus.LENGTH_REQUIRED),
    ],
)
def test_a_body_has_a_length_that_is_known_before(
    lines: bytes, expected: HTTPStatus | None
) -> None:
    head = b"POST / HTTP/1.1\r\n" + lines + b"\r\n\r\n"
    if expected is None:
        assert Framing(10).passed(head) == head
    else:
        assert status(head) == expected


@pytest.mark.parametrize("length", [b"-1", b"+5", b"5,5", b"0x5", b"9" * 30, b"", b"\xb2", b"5\n"])
def test_after_a_length_that_is_none_nothing_is_passed_on(length: bytes) -> None:
    framing = Framing(10)
    framing.passed(b"POST / HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n")
    with pytest.raises(Unwanted):
        framing.passed(b"x")


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\n"])
def test_a_tunnel_is_no_body(before: bytes) -> None:
    head = before + b"CONNECT x:1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
    assert status(head) == HTTPStatus.METHOD_NOT_ALLOWED
