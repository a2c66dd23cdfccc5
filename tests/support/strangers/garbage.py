"""What a stranger throws at the ports of a worker."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import End, EndKind, Hello


def a_lie() -> Hello:
    """Ends any job for good, wherever it is accepted."""
    end = End(kind=EndKind.FAILED, rank=1, reason=Reason.TASK_FAILED, message="a stranger's")
    return Hello(position=1, incarnation="a stranger's", ready=True, attempt=1, ends=(end,))


def garbage() -> list[bytes]:
    """Bytes that the listeners of a worker half understand, or not at all."""
    chance = random.Random(7)
    hello = a_lie().model_dump_json().encode()
    head = f"POST /gang/hello HTTP/1.1\r\nHost: x\r\nContent-Length: {len(hello)}\r\n\r\n"
    return [
        b"",
        b"\x00" * 4096,
        b"\xff" * 4096,
        chance.randbytes(100_000),
        b"GET / HTTP/1.1\r\n\r\n",
        head.encode() + hello,
        # A TCPStore's own words: set a key of the rendezvous, and wait for one.
        b"\x00\x01\x00\x00\x00\x00\x00\x00\x00k" + b"\xff" * 8,
        # gloo's: a length and a sequence number that can't be.
        b"\xff\xff\xff\x7f" + b"\x00" * 60,
    ]


def throw(address: str, port: int, payload: bytes) -> None:
    """Send it, and read what comes."""
    try:
        with socket.create_connection((address, port), timeout=5) as link:
            link.sendall(payload)
            link.shutdown(socket.SHUT_WR)
            link.settimeout(0.2)
            while link.recv(65536):
                pass
    except OSError:
        pass


def listeners(table: Path) -> Iterator[tuple[str, int, str]]:
    """Address in hexadecimal, port and inode of each socket that listens, of a table in /proc."""
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            address, _, port = fields[1].partition(":")
            yield address, int(port, 16), fields[9]
