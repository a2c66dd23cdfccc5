"""An interface that does not exist is named before the ranks meet."""

from __future__ import annotations

import socket

import pytest

from dtjob_api.reasons import TRAINING_HELD, Reason
from dtjob_trainer.ledger.recovery import TrainingHeld
from dtjob_trainer.rank import interfaces

EXISTING = ["lo", "eth0", "eth1", "docker0"]


@pytest.mark.parametrize("value", ["lo", "eth0", "eth0,eth1"])
def test_gloo_takes_names_that_exist(value: str) -> None:
    assert interfaces.of_gloo(value, EXISTING) is None


@pytest.mark.parametrize(
    ("value", "message"), [("ib0", "'ib0'"), ("eth", "'eth'"), ("eth0,ib0,ib1", "'ib0', 'ib1'")]
)
def test_gloo_takes_no_prefixes_and_needs_all(value: str, message: str) -> None:
    assert interfaces.of_gloo(value, EXISTING) == f"there is no interface {message}"


@pytest.mark.parametrize(
    "value", ["eth", "eth0", "ib,eth", "=eth1", "=eth1:7000", "^docker,lo", "^=docker0", "^eth"]
)
def test_nccl_takes_prefixes_names_and_exclusions(value: str) -> None:
    assert interfaces.of_nccl(value, EXISTING) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ib", "no interface matches it"),
        ("=eth", "no interface matches it"),
        ("^lo,eth,docker", "it leaves out every interface"),
        ("^=lo,eth0,eth1,docker0", "it leaves out every interface"),
    ],
)
def test_nccl_needs_one(value: str, message: str) -> None:
    assert interfaces.of_nccl(value, EXISTING) == message


@pytest.mark.parametrize(
    ("variable", "on_gpus"), [("GLOO_SOCKET_IFNAME", False), ("NCCL_SOCKET_IFNAME", True)]
)
def test_the_job_is_held_and_names_variable_value_and_interfaces(
    monkeypatch: pytest.MonkeyPatch, variable: str, on_gpus: bool
) -> None:
    monkeypatch.setenv(variable, "wrong0")
    with pytest.raises(TrainingHeld) as caught:
        interfaces.require(2, on_gpus=on_gpus)
    assert caught.value.reason is Reason.INTERFACE_MISSING
    assert caught.value.reason in TRAINING_HELD
    for word in (variable, "'wrong0'", *(name for _, name in socket.if_nameindex())):
        assert word in caught.value.message
    interfaces.require(1, on_gpus=on_gpus)
    interfaces.require(2, on_gpus=not on_gpus)
