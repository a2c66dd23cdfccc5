"""A promised port can be listened on by a server, and promised to nobody else."""

from __future__ import annotations

import socket

import pytest

from tests.support.gangs import promised_ports
from tests.support.gangs.promised_ports import Promised


def test_a_promised_port_is_promised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Promised(2)
    monkeypatch.setattr(promised_ports, "CHOICES", range(first.first, first.first + 2))
    with pytest.raises(AssertionError, match="no 2 neighbouring"):
        Promised(2)
    first.close()


def test_a_server_can_listen_again_and_again_on_a_promised_port() -> None:
    promised = Promised(1)
    for _ in range(2):
        with (
            socket.create_server(("127.0.0.1", promised.first)) as server,
            socket.create_connection(server.getsockname()) as connection,
        ):
            server.accept()[0].close()
            assert connection.recv(1) == b""
    promised.close()
