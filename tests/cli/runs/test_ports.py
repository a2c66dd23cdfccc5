from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dtjob_cli.errors import BadInput
from dtjob_cli.runs import ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports.free()))
        listener.listen()
        yield listener.getsockname()[1]


def test_free_ports_can_be_listened_on() -> None:
    first = ports.free(3)

    for port in range(first, first + 3):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_ports_that_are_promised_already_are_not_given_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ports, "CHOICES", range(20_000, 20_003))
    monkeypatch.setattr(ports, "is_free", lambda port: port < 20_003)

    assert ports.free(apart_from=range(20_001, 20_003)) == 20_000
    with pytest.raises(BadInput) as caught:
        ports.free(2, apart_from=range(20_001, 20_002))

    assert caught.value.reason == "NoFreePort"


def test_a_taken_port_is_refused_with_its_number_and_the_remedy(taken: int) -> None:
    with pytest.raises(BadInput) as caught:
        ports.check(taken, 1)

    assert caught.value.reason == "PortInUse"
    assert str(taken) in caught.value.message
    assert "--port" in caught.value.remedy


def test_the_port_of_a_later_worker_is_checked_too(taken: int) -> None:
    with pytest.raises(BadInput, match=rf"port {taken} \(worker 1\)"):
        ports.check(taken - 1, 2)


def test_ports_end_at_65535() -> None:
    with pytest.raises(BadInput) as caught:
        ports.check(65_535, 2)

    assert caught.value.reason == "PortOutOfRange"
